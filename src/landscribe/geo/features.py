"""Features: polygons or points of a file, in one CRS, queried through a spatial index.

Features are reprojected to the raster's CRS; a raster is never warped to the CRS of features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import CRSError, ProjError
from rasterio.crs import CRS

from landscribe.errors import LabelError, OutsideError
from landscribe.geo.classes import Label
from landscribe.geo.grid import ASSIGN_CRS, Grid, Window, crs_label, horizontal
from landscribe.geo.vectors.columns import labels_of, priorities_of
from landscribe.geo.vectors.datum_shifts import warn_of_datum_shift
from landscribe.geo.vectors.geometries import POINTS, POLYGONS, usable_geometries
from landscribe.geo.vectors.reprojection import at_longitudes_of, box_around, reproject
from landscribe.geo.vectors.vector_files import read_layer


@dataclass(frozen=True, eq=False)
class Features:
    """Polygons or points in one CRS, with a label each. Created by `Features.read`."""

    name: str
    """Path of the file."""
    geometries: NDArray[np.object_]
    labels: tuple[Label, ...]
    """One per geometry: the value of the label field, or the file's stem without a field."""
    crs: CRS | None
    """None only of windows of a grid without a CRS."""
    priorities: NDArray[np.float64] | None = None
    """One per geometry: the higher lies on top. None if the class table decides."""
    layer: str = ""
    """Name of the file's layer."""
    other_layers: tuple[str, ...] = ()
    """The layers of the file that are not used."""

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
        layer: str | None = None,
        crs: str | None = None,
        priority: str | None = None,
        geometry_types: Sequence[str] = POLYGONS,
        fix_geometries: bool = False,
    ) -> "Features":
        """Read a file of features.

        Args:
            path: of GeoParquet, or any vector format of GDAL.
            field: the column of labels. None: all features are one class, with the file's stem as label.
            layer: name of the layer. None: the only one with features of `geometry_types` and the column.
            crs: of the coordinates, if the file has none.
            priority: a column of numbers or dates, of which the larger lie on top; or "file-order": later features do.
            geometry_types: the accepted types; any other raises an error. MultiPoints are points.
            fix_geometries: make invalid geometries valid and drop null and empty ones, instead of raising an error.

        Raises:
            LabelError: the file is unreadable or empty, has no CRS, lacks the column, has words and numbers in it, has
                several such layers, or has invalid, null or empty geometries.
        """
        name = str(path)
        read = read_layer(name, field=field, layer=layer, types=geometry_types, crs=crs)
        table = usable_geometries(read.table, name, geometry_types, field, fix=fix_geometries)
        labels, priorities = labels_of(table, field, name), priorities_of(table, priority, name)
        table_crs = horizontal(CRS.from_wkt(table.crs.to_wkt()))
        return cls(name, table.geometry.to_numpy(), labels, table_crs, priorities, read.name, read.others)

    @classmethod
    def of_windows(cls, name: str, windows: Sequence[Window], grid: Grid) -> "Features":
        """Windows of a grid as polygons in its CRS, which may be none.

        Law: a pixel's centre is in a polygon if the pixel is in its window.

        Args:
            name: as if of a file.
            windows: may reach outside the grid.
            grid: of the windows.
        """
        corners: Any = np.array([_corners(window) for window in windows], float).reshape(-1, 4, 2)
        x, y = grid.transform @ (corners[..., 1], corners[..., 0])
        polygons = shapely.polygons(np.stack([x, y], axis=-1))
        return cls(name, polygons, (name,) * len(windows), grid.crs)

    def take(self, indices: NDArray[np.intp]) -> "Features":
        """The features with these indices."""
        priorities = None if self.priorities is None else self.priorities[indices]
        labels = tuple(self.labels[index] for index in indices)
        return replace(self, geometries=self.geometries[indices], labels=labels, priorities=priorities)

    def upside_down(self) -> "Features":
        """The same features with opposite priorities."""
        return self if self.priorities is None else replace(self, priorities=-self.priorities)

    def to_crs_of(self, grid: Grid, raster_name: str) -> "Features":
        """Reproject the features to the CRS of a raster; edges stay within a tenth of its pixels.

        Features of another part of the Earth, outside the domain of that CRS, become empty: they are off the raster.

        Args:
            grid: of the raster.
            raster_name: for the message.

        Raises:
            LabelError: the raster has no CRS, or features on it cannot be transformed to it.
        """
        if grid.crs is None:
            raise LabelError(
                f"{raster_name} has no CRS, so the features of {self.name} ({crs_label(self.crs)}) cannot be located "
                f"on it. {ASSIGN_CRS}."
            )
        try:
            geometries = reproject(self.geometries, self.crs, grid)
        except (ProjError, CRSError) as error:
            reason = f"cannot be transformed to {crs_label(grid.crs)} of {raster_name}: {str(error).rstrip('.')}"
            raise LabelError(f"{self.name} is in {crs_label(self.crs)}, which {reason}. Check both CRSs.") from error
        if geometries is self.geometries:
            return self
        warn_of_datum_shift(self.crs, grid, self.name)
        vertices, owners = shapely.get_coordinates(geometries, return_index=True)
        unknown = np.unique(owners[~np.isfinite(vertices).all(axis=1)])
        if unknown.size:
            if shapely.intersects(self.geometries[unknown], box_around(grid, self.crs)).any():
                raise LabelError(
                    f"{self.name} is in {crs_label(self.crs)}, and a feature of it near {raster_name} reaches beyond "
                    f"the domain of {crs_label(grid.crs)}. Clip the features to the surroundings of the raster "
                    "(ogr2ogr -clipsrc)."
                )
            geometries[unknown] = type(geometries[unknown[0]])()
        return replace(self, geometries=geometries, crs=grid.crs)

    def at_longitudes_of(self, grid: Grid) -> "Features":
        """Repeat features a turn of 360 degrees to the west or east, where a grid of their CRS holds them."""
        geometries = at_longitudes_of(grid, self.geometries)
        return self if geometries is self.geometries else replace(self, geometries=geometries)

    def on(self, grid: Grid, raster_name: str) -> "Features":
        """The features in the CRS and at the longitudes of a raster.

        Raises:
            LabelError: as `to_crs_of`.
        """
        return self.to_crs_of(grid, raster_name).at_longitudes_of(grid)

    def require_overlap(self, grid: Grid, raster_name: str) -> "Features":
        """The features, of which any overlaps a raster; they are `on` it.

        Args:
            grid: of the raster.
            raster_name: for the message.

        Raises:
            OutsideError: no feature overlaps the raster.
        """
        if shapely.is_empty(self.geometries).all():
            raise OutsideError(
                f"no polygon of {self.name} lies on {raster_name}: all lie far from it, or outside "
                f"the domain of {crs_label(grid.crs)}. Check that the files belong together, and the CRS of each."
            )
        if not intersects(self, grid):
            raise OutsideError(
                f"no polygon of {self.name} lies on {raster_name}: they cover {extent_label(self.geometries)}, the "
                f"raster covers {extent_label(shapely.box(*grid.bounds))}, both in {crs_label(grid.crs)}. Check that "
                "the files belong together, and the CRS of each."
            )
        return self

    def intersecting(self, grid: Grid) -> NDArray[np.intp]:
        """Indices of the features whose bounding box intersects the grid, in file order, in logarithmic time."""
        return np.sort(self._tree.query(shapely.box(*grid.bounds)))

    def pairs(self, indices: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The pairs of features whose bounding boxes intersect, the first of them among `indices`; each pair once."""
        row, second = self._tree.query(self.geometries[indices])
        first = indices[row]
        once = first < second
        return first[once], second[once]

    def pixel_rows_cols(self, grid: Grid) -> NDArray[np.int64]:
        """(n, 2) row and column of the pixel that contains each point; may be outside the grid. (-1, -1) if empty."""
        x, y, *_ = shapely.bounds(self.geometries).T
        cols, rows = ~grid.transform @ (x, y)
        return np.nan_to_num(np.floor(np.column_stack([rows, cols])), nan=-1).astype(np.int64)


def _corners(window: Window) -> list[tuple[int, int]]:
    """Row and column of the corners of a window, around it."""
    row, col, row_stop, col_stop = window.row, window.col, window.row_stop, window.col_stop
    return [(row, col), (row, col_stop), (row_stop, col_stop), (row_stop, col)]


def geometry_type(
    path: str | Path, *, field: str | None = None, layer: str | None = None, crs: str | None = None
) -> str:
    """Type of the first geometry of a file, such as "Polygon"; empty if the file has no geometry.

    Raises:
        LabelError: as `Features.read`.
    """
    read = read_layer(str(path), field=field, layer=layer, types=(*POLYGONS, *POINTS), crs=crs)
    types = read.table.geometry.geom_type.dropna()
    return str(types.iloc[0]) if len(types) else ""


def intersects(features: Features, grid: Grid) -> bool:
    """True if the bounding box of any feature intersects the grid."""
    return bool(features.intersecting(grid).size)


def extent_label(geometries: shapely.Geometry | NDArray[np.object_]) -> str:
    """The ranges of the coordinates of geometries, for messages.

    >>> extent_label(shapely.box(500000, 4999990.5, 500010, 5000000))
    'x 500000 to 500010 and y 4999990.5 to 5000000'
    """
    left, bottom, right, top = shapely.total_bounds(geometries)
    return f"x {left:.8g} to {right:.8g} and y {bottom:.8g} to {top:.8g}"


def bounding_window(features: Features, grid: Grid) -> Window:
    """The window of the grid that contains the features' bounding box; may reach outside."""
    left, bottom, right, top = shapely.total_bounds(features.geometries)
    (row, col), (row_stop, col_stop) = grid.row_col(left, top), grid.row_col(right, bottom)
    first_row, first_col = int(np.floor(row)), int(np.floor(col))
    return Window(first_row, first_col, int(np.ceil(row_stop)) - first_row, int(np.ceil(col_stop)) - first_col)
