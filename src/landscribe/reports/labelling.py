"""Labelling page: pictures around the units of a reference sample, each with a list of classes, as one HTML file.

The page shows neither the map nor the strata, and units in the random order of their ids, so that labels are blind.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray

from landscribe import progress
from landscribe.errors import GridError, OutputError, RecipeError
from landscribe.estimation.reference_sample import ReferenceSample
from landscribe.geo.grid import ASSIGN_CRS, LONLAT, Grid, Window, is_local_crs, transformer
from landscribe.geo.rasters.raster import Raster
from landscribe.outputs import write_text
from landscribe.reports.figures import Limits, limits_of, photo, shown_bands, stretched, thinned
from landscribe.texts import length_text

MOST_UNITS = 2000
"""Pictures on one page: more make browsers slow."""

_CHIP_SIDE = 128
"""Pixels of the image around a unit."""
_SURROUNDINGS = 4
"""A picture is at least this many times as wide as its unit."""
_PICTURE_SIDE = 256
"""Longest side of a picture in pixels; larger windows are thinned."""
_OVERVIEW_SIDE = 1024
# Of the side of a picture: from the unit to a tick, and the length of a tick.
_GAP, _TICK = 0.03, 0.05
_SMALL = 1 / 32
"""Of the side of a picture: smaller units have no outline in it, which would cover their few pixels of a screen."""


@dataclass(frozen=True)
class _Picture:
    """A unit on the page."""

    id: int
    side: int
    """Of the window in pixels of the image."""
    uri: str
    """PNG as a data URI."""
    outline: str
    """Corners of the unit in the window, as SVG takes them."""
    ticks: str
    """Four ticks that point at the unit, as an SVG path: a single pixel is hard to find."""
    is_small: bool
    """An outline in the whole picture would cover the unit."""
    metres: float | None
    """Width of the window on the ground; None without a CRS."""
    position: str
    """Latitude and longitude of the unit's centre, as web maps take them; empty without a CRS."""
    has_imagery: bool
    """False if no pixel of the unit is valid: it cannot be labelled."""


def require_labelling_page(path: Path, units: int) -> Path:
    """The path, if a page of this many units can be written to it.

    Raises:
        OutputError: it does not end in .html.
        RecipeError: there are too many units.
    """
    if path.suffix.lower() != ".html":
        raise OutputError(f"{path} does not end in .html, but the sheet is a web page. Rename it.")
    if units > MOST_UNITS:
        raise RecipeError(
            f"the sample has {units} units, but a sheet holds at most {MOST_UNITS}. Draw fewer, or label the "
            "GeoPackage in a GIS."
        )
    return path


def write_labelling_page(sample: ReferenceSample, image: Raster, out: Path) -> Path:
    """Write a page on which a person chooses the class of each unit, and which saves them as CSV (id, reference).

    Args:
        sample: the units.
        image: imagery of any grid and CRS.
        out: the HTML file.

    Raises:
        GridError: the map or the image has a CRS and the other has none.
        RecipeError: no unit lies on the image, or there are too many.
        OutputError: the file cannot be written.
    """
    require_labelling_page(out, len(sample.units))
    pictures = list(_pictures(sample, image))
    # StrictUndefined: a typing error in a name of the template raises instead of leaving a gap.
    environment = Environment(undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["metres"] = length_text
    template = environment.from_string((files("landscribe.reports") / "labelling.html").read_text(encoding="utf-8"))
    page = template.render(
        pictures=pictures, image=image.name, classes=sample.design.classes, key=_key(sample)
    )  # fmt: skip
    write_text(out, page)
    return out


def _key(sample: ReferenceSample) -> str:
    """Under which a browser stores the labels of this sample."""
    units = sample.units[["id", "row", "col", "side"]].to_numpy(np.int64)
    return hashlib.sha256(units.tobytes() + sample.design.map.sha256.encode()).hexdigest()[:16]


def _pictures(sample: ReferenceSample, image: Raster) -> Iterator[_Picture]:
    corners = _corners(sample, image)
    on_image = (corners >= 0).all(axis=2) & (corners < image.grid.shape).all(axis=2)
    if not on_image.any():
        raise RecipeError(f"no unit of the sample lies on {image.paths[0]}. Expected an image of the area of the map.")
    bands = image.take_bands(shown_bands(image.bands))
    pixels, valid = bands.overview(_OVERVIEW_SIDE)
    limits = limits_of(pixels, valid)
    positions = _positions(sample)
    with progress.task("pictures of the sheet", len(corners)) as advance:
        for number, own, position in zip(sample.units["id"].tolist(), corners, positions, strict=True):
            yield _picture(number, own, bands, limits, position)
            advance()


def _picture(number: int, corners: NDArray[np.float64], image: Raster, limits: Limits, position: str) -> _Picture:
    """The picture around a unit with these corners, (4, 2) row and col in the image."""
    side = max(_CHIP_SIDE, int(np.ceil(_SURROUNDINGS * np.ptp(corners, axis=0).max())))
    row, col = np.round(corners.mean(axis=0) - side / 2).astype(int).tolist()
    pixels, valid = image.read(Window(row, col, side, side))
    own = corners - (row, col)
    (top, left), (bottom, right) = np.floor(own.min(axis=0)).astype(int), np.ceil(own.max(axis=0)).astype(int)
    has_imagery = bool(valid[top : max(top + 1, bottom), left : max(left + 1, right)].any())
    pixels, valid = thinned(pixels, _PICTURE_SIDE), thinned(valid, _PICTURE_SIDE)
    sides = image.grid.pixel_sides
    outline = " ".join(f"{x - col:.2f},{y - row:.2f}" for y, x in corners.tolist())
    is_small = bool(np.ptp(own, axis=0).max() < _SMALL * side)
    return _Picture(
        number, side, photo(stretched(pixels, limits), valid), outline, _ticks(own, side), is_small,
        None if sides is None else side * sides[1], position, has_imagery,
    )  # fmt: skip


def _positions(sample: ReferenceSample) -> list[str]:
    """Latitude and longitude of the centre of each unit; empty texts without a CRS that has them."""
    crs = sample.design.map.grid.crs
    if crs is None or is_local_crs(crs):
        return [""] * len(sample.units)
    x, y = sample.units["x"].to_numpy(), sample.units["y"].to_numpy()
    longitudes, latitudes = transformer(crs, LONLAT).transform(x, y)
    return [f"{latitude:.6f}, {longitude:.6f}" for latitude, longitude in zip(latitudes, longitudes, strict=True)]


def _ticks(corners: NDArray[np.float64], side: int) -> str:
    y, x = corners.mean(axis=0).tolist()
    near = np.ptp(corners, axis=0).max() / 2 + _GAP * side
    far = near + _TICK * side
    ends = [(0, 1), (0, -1), (1, 0), (-1, 0)]
    return " ".join(f"M{x + near * a:.2f} {y + near * b:.2f}L{x + far * a:.2f} {y + far * b:.2f}" for a, b in ends)


def _corners(sample: ReferenceSample, image: Raster) -> NDArray[np.float64]:
    """Row and col in the image of the corners of each unit: (units, 4, 2)."""
    grid = sample.design.map.grid
    row, col, side = (sample.units[name].to_numpy()[:, None] for name in ("row", "col", "side"))
    rows, cols = row + side * np.array([0, 0, 1, 1]), col + side * np.array([0, 1, 1, 0])
    _require_both_crs(grid, image)
    image_col, image_row = ~image.grid.transform @ grid.xy_in(image.grid.crs, rows, cols)
    return np.stack([image_row, image_col], axis=-1)


def _require_both_crs(grid: Grid, image: Raster) -> None:
    """Raise GridError if only one of the map and the image has a CRS."""
    if (grid.crs is None) != (image.grid.crs is None):
        raise GridError(
            f"{'the map' if grid.crs is None else image.paths[0]} has no CRS, so the units cannot be located on "
            f"the image. {ASSIGN_CRS}."
        )
