"""Features: polygons or points of a file, found by place through a spatial index, burned onto grids.

Features always come to the raster's CRS; imagery is never warped to theirs.
"""

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError
from pyproj.exceptions import CRSError, ProjError
from rasterio.crs import CRS
from rasterio.features import rasterize, shapes

from landscribe.errors import LabelError
from landscribe.geo.access import plain_pictures_allowed
from landscribe.geo.classes import IGNORE, Label
from landscribe.geo.grid import Grid, Window, name_of

POLYGONS = ("Polygon", "MultiPolygon")
POINTS = ("Point",)

_STEPS = 2**20
"""Parts of a pixel that corners are rounded to: far finer than any shape, far coarser than the noise of arithmetic."""


class Features:
    """Geometries of one kind with a label each. Immutable.

    Read by `Features.read`; `to_crs` gives them in another CRS.
    """

    def __init__(self, name: str, geometries: NDArray[np.object_], labels: tuple[Label, ...], crs: CRS) -> None:
        self.name = name
        """The file they are from."""
        self.geometries = geometries
        self.labels = labels
        """One per geometry: what the label field holds, or the file's stem where there is no field."""
        self.crs = crs

    def __len__(self) -> int:
        return len(self.geometries)

    def __getstate__(self) -> dict[str, Any]:
        # Written all at once they travel fast to another process, where the index is made anew.
        kept = {key: value for key, value in self.__dict__.items() if key != "_tree"}
        return kept | {"geometries": shapely.to_wkb(self.geometries)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, geometries=shapely.from_wkb(state["geometries"]))

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.geometries)

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        field: str | None = None,
        kinds: Sequence[str] = POLYGONS,
        fix_geometries: bool = False,
    ) -> "Features":
        """Read a file of features.

        Args:
            path: anything that GDAL reads as vectors; the first layer is taken.
            field: the column that holds the labels. None: all features are one class, named like the file.
            kinds: geometry types that are expected.
            fix_geometries: mend self-crossing geometries and leave out null and empty ones, instead of refusing them.

        Raises:
            LabelError: an unreadable or empty file, no CRS, a missing or mixed column, unusable geometries.
        """
        table = _read_table(path)
        if table.crs is None:
            raise LabelError(
                f"{path} has no CRS. A file that names its CRS was expected. "
                'Assign the right one, for example with "ogr2ogr -a_srs EPSG:4326 out.gpkg in".'
            )
        table = _usable(table, str(path), fix_geometries=fix_geometries)
        _require_kinds(table, str(path), kinds)
        labels = _labels(table, field, str(path))
        return cls(str(path), table.geometry.to_numpy(), labels, CRS.from_wkt(table.crs.to_wkt()))

    def to_crs(self, crs: CRS | None, raster_name: str) -> "Features":
        """The same features in `crs`, vertex by vertex.

        Args:
            crs: the raster's.
            raster_name: for the message.

        Raises:
            LabelError: the raster has no CRS, or there is no way from one CRS to the other.
        """
        if crs is None:
            raise LabelError(
                f"{raster_name} has no CRS, so the features of {self.name} ({name_of(self.crs)}) cannot be placed "
                'on it. A raster with a CRS was expected. Assign the right one, for example with "gdal_edit.py -a_srs".'
            )
        if crs == self.crs:
            return self
        try:
            way = pyproj.Transformer.from_crs(self.crs.to_wkt(), crs.to_wkt(), always_xy=True)
            moved = shapely.transform(self.geometries, lambda xy: np.column_stack(way.transform(xy[:, 0], xy[:, 1])))
        except (ProjError, CRSError) as error:
            raise self._no_way(crs, raster_name, str(error)) from error
        if not np.isfinite(shapely.total_bounds(moved)).all() or not np.isfinite(shapely.get_coordinates(moved)).all():
            raise self._no_way(crs, raster_name, "some vertices have no place there")
        return Features(self.name, moved, self.labels, crs)

    def _no_way(self, crs: CRS, raster_name: str, reason: str) -> LabelError:
        return LabelError(
            f"{self.name} is in {name_of(self.crs)}, which cannot be transformed to {name_of(crs)} of {raster_name}: "
            f"{reason.rstrip('.')}. Save the features in a CRS that can, such as EPSG:4326."
        )

    def on(self, grid: Grid, raster_name: str) -> "Features":
        """The same features in the CRS of a raster, on which some of them lie.

        Args:
            grid: the raster's.
            raster_name: for the message.

        Raises:
            LabelError: none of them lies on it, or they cannot be placed there.
        """
        placed = self.to_crs(grid.crs, raster_name)
        if not meets(placed, grid):
            away = window_of(placed, grid)
            raise LabelError(
                f"no polygon of {self.name} lies on {raster_name}: they cover rows {away.row} to {away.row_stop}, "
                f"cols {away.col} to {away.col_stop} of a raster of {grid.height} x {grid.width} pixels. "
                "Overlapping extents were expected. Check the pair and the CRS of each."
            )
        return placed

    def near(self, grid: Grid) -> NDArray[np.intp]:
        """Numbers of the features whose bounding box meets the grid, in file order; logarithmic in their count."""
        return np.sort(self._tree.query(shapely.box(*grid.bounds)))

    def pixel_rows_cols(self, grid: Grid) -> NDArray[np.int64]:
        """(n, 2) row and column of the pixel that each point lies in; may be outside the grid."""
        xy = shapely.get_coordinates(self.geometries)
        cols, rows = ~grid.transform @ (xy[:, 0], xy[:, 1])
        return np.floor(np.column_stack([rows, cols])).astype(np.int64)


def geometry_kind(path: str | Path) -> str:
    """Type of the first geometry of a file, such as "Polygon"; empty if it has none."""
    kinds = _read_table(path).geometry.geom_type.dropna()
    return str(kinds.iloc[0]) if len(kinds) else ""


def covered(features: Features, grid: Grid, window: Window | None = None) -> NDArray[np.bool_]:
    """(rows, cols) True where the centre of a pixel lies in one of the polygons."""
    return burn(features, np.ones(len(features), np.uint8), (1,), grid, 0, window) == 1


def burn(
    features: Features,
    values: NDArray[np.uint8],
    order: Sequence[int],
    grid: Grid,
    fill: int,
    window: Window | None = None,
) -> NDArray[np.uint8]:
    """Features as pixels: a pixel takes the value of the polygon that its centre lies in.

    The cost depends on the features near the window, not on how many there are.

    Args:
        features: polygons in the grid's CRS.
        values: one for each feature.
        order: values from bottom to top: where polygons overlap, the later value wins, whatever the
            features' order in their file.
        grid: where they lie.
        fill: value of pixels outside all polygons.
        window: the part of the grid to burn, which may reach outside; all of it if left out.

    Returns:
        (height, width) uint8. Law: a window holds what all of the grid, burned at once, holds there.
    """
    window = grid.window if window is None else window
    near = features.near(grid[window])
    burned = np.full(window.shape, fill, np.uint8)
    found = values[near]
    pairs = [
        (_in_steps(features.geometries[near[found == value]], grid, window), value)
        for value in order
        if (found == value).any()
    ]
    if pairs:
        # rasterio, too, changes the filters of warnings meanwhile.
        with plain_pictures_allowed():
            rasterize(pairs, out=burned, transform=Affine.scale(_STEPS, -_STEPS))
    return burned


def _in_steps(geometries: NDArray[np.object_], grid: Grid, window: Window) -> dict[str, Any]:
    """Polygons as one of GeoJSON in steps from the first pixel of a window: x to the right, y up, as on a map."""
    # From the arrays of all corners at once: polygon by polygon, this took several times as long as the burning.
    _, corners, (ring_starts, polygon_starts, *_) = shapely.to_ragged_array(geometries, include_z=False)
    cols, rows = ~grid.transform @ (corners[:, 0], corners[:, 1])
    # Rounded on the whole grid, corners are moved to the window without any error: an edge through the very centre of
    # a pixel falls on the same side of it in every window.
    places = np.round(np.column_stack([cols, -rows]) * _STEPS) - (window.col * _STEPS, -window.row * _STEPS)
    polygons = _split_at(_split_at(places.tolist(), ring_starts), polygon_starts)
    return {"type": "MultiPolygon", "coordinates": [rings for rings in polygons if rings]}


def _split_at(things: list[Any], starts: NDArray[np.int64]) -> list[list[Any]]:
    return [things[start:stop] for start, stop in pairwise(starts.tolist())]


def trace(values: NDArray[np.uint8], grid: Grid, ignore: int = IGNORE) -> Iterator[tuple[Any, int]]:
    """Pixels as polygons: (polygon, value) for each 4-connected region; `ignore` is left out.

    Law: the areas of a value's polygons add up to the area of its pixels.
    """
    for geometry, value in shapes(values, mask=values != ignore, connectivity=4, transform=grid.transform):
        yield shapely.geometry.shape(geometry), int(value)


def meets(features: Features, grid: Grid) -> bool:
    """True if any feature's bounding box meets the grid."""
    return bool(features.near(grid).size)


def _read_table(path: str | Path) -> gpd.GeoDataFrame:
    try:
        table = gpd.read_parquet(path) if Path(path).suffix.lower() == ".parquet" else _read_by_gdal(path)
    except (DataSourceError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".;")
        raise LabelError(
            f"{path} cannot be read as vector features: {reason}. A GeoJSON, GeoPackage or Shapefile was expected. "
            "Check the path and that the file is whole."
        ) from error
    if not isinstance(table, gpd.GeoDataFrame):
        raise LabelError(f"{path} is a table without geometries. Polygons were expected.")
    if table.empty:
        raise LabelError(f"{path} holds no features. At least one was expected.")
    return table


def _read_by_gdal(path: str | Path) -> gpd.GeoDataFrame:
    """A GeoJSON column of words and numbers comes as both, not as words that look like numbers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Could not parse column", UserWarning)
        table = pyogrio.read_dataframe(path)
    about = pyogrio.read_info(path)
    for column, subtype in zip(about["fields"], about.get("ogr_subtypes", ()), strict=False):
        if subtype == "OFSTJSON":
            table[column] = [_from_json(value) if isinstance(value, str) else value for value in table[column]]
    return table


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _usable(table: gpd.GeoDataFrame, name: str, *, fix_geometries: bool) -> gpd.GeoDataFrame:
    """Refuse null, empty and self-crossing geometries, or mend what can be mended."""
    geometry = table.geometry
    null = geometry.isna()
    empty = ~null & geometry.is_empty
    crossing = ~null & ~empty & ~geometry.is_valid
    if not (null | empty | crossing).any():
        return table
    if fix_geometries:
        mended = table[~null & ~empty].copy()
        # What has no area, such as a polygon that runs to and fro on a line, becomes empty rather than a line.
        shapes = shapely.make_valid(mended.geometry.to_numpy(), method="structure", keep_collapsed=False)
        mended.geometry = gpd.GeoSeries(shapes, index=mended.index, crs=table.crs)
        mended = mended[~mended.geometry.is_empty]
        if not mended.empty:
            return mended
    kinds = [("null", null), ("empty", empty), ("self-crossing", crossing)]
    found = "; ".join(
        f"{int(which.sum())} {kind} (feature {which.to_numpy().argmax()})" for kind, which in kinds if which.any()
    )
    raise LabelError(
        f"{name}: of {len(table)} features some geometries are unusable: {found}. Valid geometries were expected. "
        "Mend the file, or pass --fix-geometries to fix the crossing ones and drop the others."
    )


def _require_kinds(table: gpd.GeoDataFrame, name: str, kinds: Sequence[str]) -> None:
    counts = table.geometry.geom_type.value_counts(sort=False)
    odd = {kind: count for kind, count in counts.items() if kind not in kinds}
    if odd:
        found = ", ".join(f"{count} {kind}" for kind, count in odd.items())
        raise LabelError(
            f"{name} holds {found}. {' or '.join(kinds)} were expected. Buffer or convert the features first."
        )


def _labels(table: gpd.GeoDataFrame, field: str | None, name: str) -> tuple[Label, ...]:
    if field is None:
        return (Path(name).stem,) * len(table)
    columns = [column for column in table.columns if column != table.geometry.name]
    if field not in columns:
        raise LabelError(f"{name} has no column '{field}'. Its columns are {', '.join(columns)}. Name one of them.")
    raw = table[field]
    blank = raw.isna() | (raw.astype(str).str.strip() == "")
    if blank.any():
        raise LabelError(
            f"{name}: column '{field}' is empty in {int(blank.sum())} of {len(raw)} features (first: feature "
            f"{int(blank.to_numpy().argmax())}). A class for each was expected. Fill the column."
        )
    labels = [_label(value) for value in raw.tolist()]
    kinds = Counter(type(label).__name__ for label in labels)
    if kinds.keys() - {"int"} and kinds.keys() - {"str"}:
        found = ", ".join(f"{count} {'words' if kind == 'str' else kind}" for kind, count in kinds.items())
        raise LabelError(
            f"{name}: column '{field}' is mixed ({found}). Only words or only whole numbers were expected."
        )
    return tuple(labels)  # type: ignore[arg-type]


def _label(value: object) -> object:
    """Whole numbers as int (also 3.0, as shapefiles give them), words stripped; anything else as it is."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (int, np.integer, float)) and not isinstance(value, bool) and float(value).is_integer():
        return int(value)
    return value


def window_of(features: Features, grid: Grid) -> Window:
    """The pixels of the grid that the features' bounding box covers; may reach outside."""
    left, bottom, right, top = shapely.total_bounds(features.geometries)
    (row, col), (row_stop, col_stop) = grid.row_col(left, top), grid.row_col(right, bottom)
    first_row, first_col = int(np.floor(row)), int(np.floor(col))
    return Window(first_row, first_col, int(np.ceil(row_stop)) - first_row, int(np.ceil(col_stop)) - first_col)
