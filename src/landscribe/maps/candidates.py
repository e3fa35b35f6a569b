"""Candidates for labelling: the squares of a map of which the network is least certain (active learning)."""

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.windows import Window as RasterioWindow
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon, box

from landscribe.errors import OutputError
from landscribe.geo.access import open_dataset
from landscribe.geo.grid import Grid, Window
from landscribe.geo.vectors.feature_files import fixed_date
from landscribe.maps.layers import UNCERTAINTY
from landscribe.outputs import atomic_file

log = logging.getLogger(__name__)

MOST_CANDIDATES = 20

_SUFFIXES = (".gpkg", ".geojson")


@dataclass(frozen=True)
class Candidate:
    """A square that is worth labelling."""

    window: Window
    uncertainty: float
    """Mean over its valid pixels, 0 to 1."""


def most_uncertain(path: Path, side: int) -> list[Candidate]:
    """The squares of an uncertainty layer with the highest mean; no two are neighbours, which would teach the same.

    Regions are ranked by mean entropy as in Mackowiak et al. 2018, "CEREALS: Cost-effective region-based active
    learning for semantic segmentation", arXiv:1810.09726, without its estimate of costs.

    Args:
        path: the layer's file.
        side: of the squares, in pixels; at least half of one must be valid, or half of a smaller raster.
    """
    chosen: list[Candidate] = []
    for candidate in sorted(_squares(path, side), key=lambda square: -square.uncertainty):
        if len(chosen) == MOST_CANDIDATES:
            break
        if all(candidate.window.distance_to(other.window) > 0 for other in chosen):
            chosen.append(candidate)
    if not chosen:
        log.warning(
            "no area is suggested for labelling: less than half of each square of %d x %d pixels is valid", side, side
        )
    return chosen


def _squares(path: Path, side: int) -> Iterator[Candidate]:
    with open_dataset(path) as source:
        whole = min(side, source.height) * min(side, source.width)
        for row in range(0, source.height, side):
            strip = source.read(1, window=RasterioWindow(0, row, source.width, min(side, source.height - row)))
            for col in range(0, source.width, side):
                part = strip[:, col : col + side]
                valid = part != UNCERTAINTY.nodata
                if valid.sum() * 2 >= whole:
                    yield Candidate(Window(row, col, *part.shape), float(part[valid].mean() * UNCERTAINTY.scale))


def require_readable_suffix(path: Path) -> None:
    """Raise OutputError for a suffix other than GeoPackage's and GeoJSON's."""
    if path.suffix.lower() not in _SUFFIXES:
        raise OutputError(f"{path} has no suffix for polygons. Give it {' or '.join(_SUFFIXES)}.")


def write_candidates(candidates: list[Candidate], grid: Grid, path: Path, run: str) -> None:
    """Write candidates as polygons with `rank` (from 1) and `uncertainty`, in the raster's CRS (GeoJSON: in lon/lat).

    The file holds the hash of its run: see `run_of`.
    """
    frame = gpd.GeoDataFrame(
        {
            "rank": np.arange(1, len(candidates) + 1),
            "uncertainty": [round(candidate.uncertainty, 4) for candidate in candidates],
        },
        geometry=[box(*grid[candidate.window].bounds) for candidate in candidates],
        crs=grid.crs.to_wkt() if grid.crs else None,
    )
    is_json = path.suffix.lower() == ".geojson"
    if is_json and frame.crs:
        is_projected = frame.crs.is_projected
        frame = frame.to_crs("EPSG:4326")  # the one that GeoJSON has (RFC 7946)
        frame.geometry = [_cut_at_180(square, is_projected=is_projected) for square in frame.geometry]
    with atomic_file(path) as temporary, warnings.catch_warnings():
        # An image without a CRS was reported when it was opened.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        with fixed_date():
            frame.to_file(temporary, layer="suggested_labels", driver="GeoJSON" if is_json else "GPKG", DESCRIPTION=run)


def _cut_at_180(square: Polygon, *, is_projected: bool) -> Polygon | MultiPolygon:
    """A square between -180 and 180 degrees, in two parts if it lies across 180 (RFC 7946, section 3.1.9)."""
    west, _, east, _ = square.bounds
    if is_projected and east - west > 180:
        # Its western corners lie east of its eastern ones.
        square = shapely.transform(square, lambda xy: xy + 360 * (xy < [0, -np.inf]))
        west, _, east, _ = square.bounds
    if west >= -180 and east <= 180:
        return square
    turned = [translate(square, shift).intersection(box(-180, -90, 180, 90)) for shift in (0, -360, 360)]
    parts = [part for part in turned if part.area > 0]
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def run_of(path: Path) -> str | None:
    """Hash of the run that wrote the candidates; None if Landscribe did not write the file."""
    try:
        described: str | None = pyogrio.read_info(path)["layer_metadata"]["DESCRIPTION"]
    except (DataSourceError, DataLayerError, KeyError, TypeError):
        return None
    return described
