"""Features: polygons or points of a file, queried through a spatial index and burned onto grids.

Features are reprojected to the raster's CRS; a raster is never warped to the CRS of features.
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
from landscribe.geo.access import allow_ungeoreferenced
from landscribe.geo.classes import IGNORE, Label
from landscribe.geo.grid import ASSIGN_CRS, Grid, Window, crs_label

POLYGONS = ("Polygon", "MultiPolygon")
POINTS = ("Point",)

_SUBPIXEL = 2**20
"""Vertices are snapped to this fraction of a pixel: far finer than any shape, far coarser than rounding errors."""


class Features:
    """Polygons or points in one CRS, with a label each. Immutable; created by `Features.read`."""

    def __init__(self, name: str, geometries: NDArray[np.object_], labels: tuple[Label, ...], crs: CRS) -> None:
        self.name = name
        """Path of the file."""
        self.geometries = geometries
        self.labels = labels
        """One per geometry: the value of the label field, or the file's stem without a field."""
        self.crs = crs

    def __len__(self) -> int:
        return len(self.geometries)

    def __getstate__(self) -> dict[str, Any]:
        # As WKB, geometries pickle fast; the other process builds its own index.
        state = {key: value for key, value in self.__dict__.items() if key != "_tree"}
        return state | {"geometries": shapely.to_wkb(self.geometries)}

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
        geometry_types: Sequence[str] = POLYGONS,
        fix_geometries: bool = False,
    ) -> "Features":
        """Read a file of features.

        Args:
            path: of GeoParquet or any vector format of GDAL; the first layer is read.
            field: the column of labels. None: all features are one class, with the file's stem as label.
            geometry_types: the accepted types; any other raises an error.
            fix_geometries: make invalid geometries valid and drop null and empty ones, instead of raising an error.

        Raises:
            LabelError: the file is unreadable or empty, has no CRS, lacks the column, has words and numbers in it, or
                has invalid, null or empty geometries.
        """
        table = _read_table(path)
        if table.crs is None:
            raise LabelError(
                f'{path} has no CRS. Assign the right one, for example with "ogr2ogr -a_srs EPSG:4326 out.gpkg in".'
            )
        table = _with_valid_geometries(table, str(path), fix=fix_geometries)
        _require_types(table, str(path), geometry_types)
        labels = _labels(table, field, str(path))
        return cls(str(path), table.geometry.to_numpy(), labels, CRS.from_wkt(table.crs.to_wkt()))

    def to_crs(self, crs: CRS | None, raster_name: str) -> "Features":
        """Reproject the features, vertex by vertex.

        Args:
            crs: of the raster.
            raster_name: for the message.

        Raises:
            LabelError: the raster has no CRS, or the features cannot be transformed to it.
        """
        if crs is None:
            raise LabelError(
                f"{raster_name} has no CRS, so the features of {self.name} ({crs_label(self.crs)}) cannot be located "
                f"on it. {ASSIGN_CRS}."
            )
        if crs == self.crs:
            return self
        try:
            transformer = pyproj.Transformer.from_crs(self.crs.to_wkt(), crs.to_wkt(), always_xy=True)
            geometries = shapely.transform(
                self.geometries, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1]))
            )
        except (ProjError, CRSError) as error:
            raise self._transform_error(crs, raster_name, str(error)) from error
        if (
            not np.isfinite(shapely.total_bounds(geometries)).all()
            or not np.isfinite(shapely.get_coordinates(geometries)).all()
        ):
            raise self._transform_error(crs, raster_name, "some vertices are outside the domain of that CRS")
        return Features(self.name, geometries, self.labels, crs)

    def _transform_error(self, crs: CRS, raster_name: str, reason: str) -> LabelError:
        return LabelError(
            f"{self.name} is in {crs_label(self.crs)}, which cannot be transformed to {crs_label(crs)} of "
            f"{raster_name}: {reason.rstrip('.')}. Save the features in another CRS, such as EPSG:4326."
        )

    def require_overlap(self, grid: Grid, raster_name: str) -> "Features":
        """Reproject the features to the CRS of a raster, and check that any of them overlaps it.

        Args:
            grid: of the raster.
            raster_name: for the message.

        Raises:
            LabelError: no feature overlaps the raster, or they cannot be transformed to its CRS.
        """
        features = self.to_crs(grid.crs, raster_name)
        if not intersects(features, grid):
            extent = bounding_window(features, grid)
            raise LabelError(
                f"no polygon of {self.name} lies on {raster_name}: they cover rows {extent.row} to {extent.row_stop}, "
                f"cols {extent.col} to {extent.col_stop} of a raster of {grid.height} x {grid.width} pixels. "
                "Check that the files belong together, and the CRS of each."
            )
        return features

    def intersecting(self, grid: Grid) -> NDArray[np.intp]:
        """Indices of the features whose bounding box intersects the grid, in file order, in logarithmic time."""
        return np.sort(self._tree.query(shapely.box(*grid.bounds)))

    def pixel_rows_cols(self, grid: Grid) -> NDArray[np.int64]:
        """(n, 2) row and column of the pixel that contains each point; may be outside the grid."""
        xy = shapely.get_coordinates(self.geometries)
        cols, rows = ~grid.transform @ (xy[:, 0], xy[:, 1])
        return np.floor(np.column_stack([rows, cols])).astype(np.int64)


def geometry_type(path: str | Path) -> str:
    """Type of the first geometry of a file, such as "Polygon"; empty if the file has no geometry."""
    types = _read_table(path).geometry.geom_type.dropna()
    return str(types.iloc[0]) if len(types) else ""


def rasterize_mask(features: Features, grid: Grid, window: Window | None = None) -> NDArray[np.bool_]:
    """(rows, cols), True where a polygon contains the centre of a pixel."""
    return burn(features, np.ones(len(features), np.uint8), (1,), grid, 0, window) == 1


def burn(
    features: Features,
    values: NDArray[np.uint8],
    order: Sequence[int],
    grid: Grid,
    fill: int,
    window: Window | None = None,
) -> NDArray[np.uint8]:
    """Rasterize polygons: a pixel takes the value of the polygon that contains its centre.

    The cost depends on the number of features that intersect the window, not on the number of all features.

    Args:
        features: polygons in the grid's CRS.
        values: one for each feature.
        order: values from bottom to top: where polygons overlap, the later value wins, whatever their order in the
            file.
        grid: of the result.
        fill: value of pixels outside all polygons.
        window: of the grid, may reach outside; None for the whole grid.

    Returns:
        (height, width) uint8. Law: burning a window equals that window of the whole grid burned at once.
    """
    window = grid.window if window is None else window
    near = features.intersecting(grid[window])
    burned = np.full(window.shape, fill, np.uint8)
    near_values = values[near]
    pairs = [
        (_snapped(features.geometries[near[near_values == value]], grid, window), value)
        for value in order
        if (near_values == value).any()
    ]
    if pairs:
        # rasterize itself changes the filters of warnings, which other threads share.
        with allow_ungeoreferenced():
            rasterize(pairs, out=burned, transform=Affine.scale(_SUBPIXEL, -_SUBPIXEL))
    return burned


def _snapped(geometries: NDArray[np.object_], grid: Grid, window: Window) -> dict[str, Any]:
    """Polygons as a GeoJSON MultiPolygon in subpixels from the first pixel of a window: x to the right, y up."""
    # One array of all vertices: a loop over polygons took several times as long as rasterizing them.
    _, vertices, (ring_starts, polygon_starts, *_) = shapely.to_ragged_array(geometries, include_z=False)
    cols, rows = ~grid.transform @ (vertices[:, 0], vertices[:, 1])
    # Snapped on the whole grid, vertices shift to the window without rounding: an edge through the exact centre of a
    # pixel falls on the same side of it in every window.
    snapped = np.round(np.column_stack([cols, -rows]) * _SUBPIXEL) - (window.col * _SUBPIXEL, -window.row * _SUBPIXEL)
    polygons = _split_at(_split_at(snapped.tolist(), ring_starts), polygon_starts)
    return {"type": "MultiPolygon", "coordinates": [rings for rings in polygons if rings]}


def _split_at(items: list[Any], starts: NDArray[np.int64]) -> list[list[Any]]:
    return [items[start:stop] for start, stop in pairwise(starts.tolist())]


def polygonize(values: NDArray[np.uint8], grid: Grid, ignore: int = IGNORE) -> Iterator[tuple[Any, int]]:
    """Polygonize pixels: (polygon, value) for each 4-connected region; pixels of value `ignore` are left out.

    Law: the areas of a value's polygons add up to the area of its pixels.
    """
    for geometry, value in shapes(values, mask=values != ignore, connectivity=4, transform=grid.transform):
        yield shapely.geometry.shape(geometry), int(value)


def intersects(features: Features, grid: Grid) -> bool:
    """True if the bounding box of any feature intersects the grid."""
    return bool(features.intersecting(grid).size)


def _read_table(path: str | Path) -> gpd.GeoDataFrame:
    try:
        table = gpd.read_parquet(path) if Path(path).suffix.lower() == ".parquet" else _read_by_gdal(path)
    except (DataSourceError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".;")
        raise LabelError(
            f"{path} cannot be read as vector features: {reason}. Expected a GeoJSON, GeoPackage, Shapefile or "
            "GeoParquet. Check the path, or copy the file again."
        ) from error
    if not isinstance(table, gpd.GeoDataFrame):
        raise LabelError(f"{path} is a table without geometries. Expected polygons or points.")
    if table.empty:
        raise LabelError(f"{path} holds no features. Expected at least one.")
    return table


def _read_by_gdal(path: str | Path) -> gpd.GeoDataFrame:
    """Read with pyogrio; a GeoJSON column of words and numbers keeps both types, rather than all as words."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Could not parse column", UserWarning)
        table = pyogrio.read_dataframe(path)
    info = pyogrio.read_info(path)
    for column, subtype in zip(info["fields"], info.get("ogr_subtypes", ()), strict=False):
        if subtype == "OFSTJSON":
            table[column] = [_from_json(value) if isinstance(value, str) else value for value in table[column]]
    return table


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _with_valid_geometries(table: gpd.GeoDataFrame, name: str, *, fix: bool) -> gpd.GeoDataFrame:
    """Raise LabelError for null, empty and invalid geometries, or drop and fix them."""
    geometry = table.geometry
    null = geometry.isna()
    empty = ~null & geometry.is_empty
    invalid = ~null & ~empty & ~geometry.is_valid
    if not (null | empty | invalid).any():
        return table
    if fix:
        fixed = table[~null & ~empty].copy()
        # A polygon without area, such as one that runs to and fro on a line, becomes empty rather than a line.
        geometries = shapely.make_valid(fixed.geometry.to_numpy(), method="structure", keep_collapsed=False)
        fixed.geometry = gpd.GeoSeries(geometries, index=fixed.index, crs=table.crs)
        fixed = fixed[~fixed.geometry.is_empty]
        if not fixed.empty:
            return fixed
    problems = "; ".join(
        f"{int(rows.sum())} {problem} (feature {rows.to_numpy().argmax()})"
        for problem, rows in (("null", null), ("empty", empty), ("invalid", invalid))
        if rows.any()
    )
    raise LabelError(
        f"{name} has bad geometries in its {len(table)} features: {problems}. Correct the file, or pass "
        "--fix-geometries to make invalid ones valid and drop null and empty ones."
    )


def _require_types(table: gpd.GeoDataFrame, name: str, geometry_types: Sequence[str]) -> None:
    counts = table.geometry.geom_type.value_counts(sort=False)
    others = ", ".join(f"{count} {kind}" for kind, count in counts.items() if kind not in geometry_types)
    if others:
        raise LabelError(
            f"{name} holds {others}. Expected {' or '.join(geometry_types)}. Buffer or convert the features first."
        )


def _labels(table: gpd.GeoDataFrame, field: str | None, name: str) -> tuple[Label, ...]:
    if field is None:
        return (Path(name).stem,) * len(table)
    columns = [column for column in table.columns if column != table.geometry.name]
    if field not in columns:
        raise LabelError(f"{name} has no column '{field}'. Its columns are {', '.join(columns)}. Choose one.")
    raw = table[field]
    blank = raw.isna() | (raw.astype(str).str.strip() == "")
    if blank.any():
        raise LabelError(
            f"{name}: column '{field}' is empty in {int(blank.sum())} of {len(raw)} features (first: feature "
            f"{int(blank.to_numpy().argmax())}). Give each feature a class."
        )
    labels = [_label(value) for value in raw.tolist()]
    types = Counter(type(label).__name__ for label in labels)
    if types.keys() - {"int"} and types.keys() - {"str"}:
        counts = ", ".join(f"{count} {'words' if kind == 'str' else kind}" for kind, count in types.items())
        raise LabelError(f"{name}: column '{field}' is mixed ({counts}). Expected only words or only whole numbers.")
    return tuple(labels)  # type: ignore[arg-type]


def _label(value: object) -> object:
    """Whole numbers as int (also 3.0: shapefiles hold floats), words stripped, other values unchanged."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (int, np.integer, float)) and not isinstance(value, bool) and float(value).is_integer():
        return int(value)
    return value


def bounding_window(features: Features, grid: Grid) -> Window:
    """The window of the grid that contains the features' bounding box; may reach outside."""
    left, bottom, right, top = shapely.total_bounds(features.geometries)
    (row, col), (row_stop, col_stop) = grid.row_col(left, top), grid.row_col(right, bottom)
    first_row, first_col = int(np.floor(row)), int(np.floor(col))
    return Window(first_row, first_col, int(np.ceil(row_stop)) - first_row, int(np.ceil(col_stop)) - first_col)
