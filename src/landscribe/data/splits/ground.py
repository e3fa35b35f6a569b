"""Overlap on the ground of chips and scenes of different CRSs: their outlines in longitude and latitude intersect."""

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.crs import CRS

from landscribe.geo.grid import LONLAT, Grid, Window, transformer

# On each edge of an outline: straight edges are curved in another CRS.
_POINTS = 21


def crs_text(grid: Grid | None) -> str:
    """The CRS of a grid as text; "" if there is none."""
    return "" if grid is None or grid.crs is None else grid.crs.to_wkt()


def outlines(grid: Grid, windows: Sequence[Window], crs: CRS, *, buffer_px: float = 0) -> NDArray[np.float64]:
    """(windows, points, 2) outlines in coordinates x, y of `crs`; inf where `crs` cannot show them.

    Args:
        grid: of the windows, with a CRS.
        windows: their padding outside the grid is cut away.
        crs: of the outlines.
        buffer_px: pixels of the grid by which windows grow on each side; they shrink if it is negative.
    """
    assert grid.crs is not None
    boxes = [(w.row, w.col, w.row_stop, w.col_stop) for w in (window & grid.window for window in windows)]
    top, left, bottom, right = np.array(boxes, np.float64).reshape(-1, 4).T[:, :, None]
    along, zeros = np.arange(_POINTS) / _POINTS, np.zeros(_POINTS)
    down, across = (
        np.concatenate([zeros, along, zeros + 1, 1 - along]),
        np.concatenate([along, zeros + 1, 1 - along, zeros]),
    )
    rows = top - buffer_px + down * (bottom - top + 2 * buffer_px)
    cols = left - buffer_px + across * (right - left + 2 * buffer_px)
    xy = np.stack(grid.transform @ (cols, rows), axis=-1)
    try:
        return np.stack(transformer(grid.crs, crs).transform(xy[..., 0], xy[..., 1]), axis=-1)
    except ProjError:
        # A local CRS has no position on Earth.
        return np.full_like(xy, np.inf)


def pairs_between_crss(
    grids: Sequence[Grid | None], windows: Sequence[Sequence[Window]], *, buffer_px: float
) -> NDArray[np.intp]:
    """(n, 2) indices of windows of scenes of different CRSs that intersect on the ground; each pair in both orders.

    Args:
        grids: of the scenes; None, and grids without a CRS, intersect no other.
        windows: of each scene; indices count them scene by scene.
        buffer_px: pixels by which each window grows on each side beforehand; they shrink if it is negative.
    """
    texts = [crs_text(grid) for grid in grids]
    if len({*texts} - {""}) < 2:
        return np.zeros((0, 2), np.intp)
    crs_of = np.unique(texts, return_inverse=True)[1].reshape(-1)
    of_scenes = [_shapes(grid, [grid.window if grid else Window(0, 0, 0, 0)], buffer_px) for grid in grids]
    near = np.unique(_intersecting(of_scenes, crs_of)).tolist()
    stops = np.cumsum([len(own) for own in windows])
    shapes = [_shapes(grids[index], windows[index], buffer_px) for index in near]
    indices = [np.arange(stops[index] - len(windows[index]), stops[index]) for index in near]
    if not near:
        return np.zeros((0, 2), np.intp)
    return np.concatenate(indices)[_intersecting(shapes, crs_of[near])]


def _intersecting(shapes: Sequence[NDArray[np.object_]], crs_of: NDArray[np.intp]) -> NDArray[np.intp]:
    """(n, 2) indices of shapes that intersect, of scenes with different numbers `crs_of`."""
    of_shape = np.repeat(crs_of, [len(own) for own in shapes])
    every = np.concatenate(shapes)
    a, b = shapely.STRtree(every).query(every)
    differs = of_shape[a] != of_shape[b]
    a, b = a[differs], b[differs]
    meets = shapely.intersects(every[a], every[b])
    return np.column_stack([a[meets], b[meets]])


def _shapes(grid: Grid | None, windows: Sequence[Window], buffer_px: float) -> NDArray[np.object_]:
    """(windows,) shapes in longitude and latitude; empty ones for windows without a position on Earth.

    A window across the antimeridian has a polygon at either end of the longitudes.
    """
    shapes = np.full(len(windows), shapely.Polygon(), object)
    if grid is None or grid.crs is None or not len(windows):
        return shapes
    outline = outlines(grid, windows, LONLAT, buffer_px=buffer_px)
    is_finite = np.isfinite(outline).all(axis=(1, 2))
    finite = outline[is_finite]
    # An outline across the antimeridian is continuous from 0 to 360 degrees.
    finite[np.ptp(finite[..., 0], axis=1) > 180, :, 0] %= 360
    # Grids count longitudes from -180 or from 0.
    finite[..., 0] -= np.floor((finite[..., 0].min(axis=1, keepdims=True) + 180) / 360) * 360
    own = shapely.polygons(finite)
    is_across = finite[..., 0].max(axis=1) > 180
    copies = shapely.transform(own[is_across], lambda lonlat: lonlat - [360, 0])
    own[is_across] = shapely.multipolygons(np.column_stack([own[is_across], copies]))
    shapes[is_finite] = own
    return shapes
