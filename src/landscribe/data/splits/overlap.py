"""Shared ground: scenes that meet, and their chips in pixels of one ground."""

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from landscribe.geo.grid import Grid, Window

# Of a pixel: what is so near to a whole one is that one.
_ROUNDING = 1e-3


def meeting(grids: Sequence[Grid | None], *, reach: float) -> NDArray[np.intp]:
    """Numbers of groups, from 0: grids of one CRS that meet, directly or by way of others, share a group.

    Args:
        grids: those without a place on the Earth meet no other.
        reach: pixels by which each is made larger beforehand; smaller, where it is below 0.
    """
    groups = np.arange(len(grids))
    by_crs: dict[str, list[int]] = {}
    for number, grid in enumerate(grids):
        if grid is not None and grid.crs is not None:
            by_crs.setdefault(grid.crs.to_wkt(), []).append(number)
    for numbers in by_crs.values():
        boxes = shapely.box(*np.array([_reaching(grids[number], reach) for number in numbers]).T)
        pairs = shapely.STRtree(boxes).query(boxes, predicate="intersects")
        links = coo_matrix((np.ones(pairs.shape[1], bool), pairs), shape=(len(boxes), len(boxes)))
        found = connected_components(links, directed=False)[1]
        groups[numbers] = np.array(numbers)[np.unique(found, return_index=True)[1]][found]
    return np.unique(groups, return_inverse=True)[1].reshape(-1)


def on_shared_ground(grids: Sequence[Grid], windows: Sequence[Sequence[Window]]) -> list[Window]:
    """The windows of scenes that meet, one after the other, in pixels of the first from the upper left of all of them.

    Where pixels of another scene do not cover those of the first, windows are rounded up to whole ones. What a window
    has beyond its scene is no ground.
    """
    corners = np.array(
        [
            (*(~grids[0].transform @ grid.xy(inside.row, inside.col)),
             *(~grids[0].transform @ grid.xy(inside.row_stop, inside.col_stop)))
            for grid, some in zip(grids, windows, strict=True)
            for inside in (window & grid.window for window in some)
        ]
    )  # fmt: skip
    starts = np.floor(corners[:, :2] + _ROUNDING)
    stops = np.ceil(corners[:, 2:] - _ROUNDING)
    origin = starts.min(axis=0)
    (cols, rows), (col_stops, row_stops) = ((places - origin).astype(int).T.tolist() for places in (starts, stops))
    return [
        Window(row, col, row_stop - row, col_stop - col)
        for row, col, row_stop, col_stop in zip(rows, cols, row_stops, col_stops, strict=True)
    ]


def _reaching(grid: Grid | None, pixels: float) -> tuple[float, float, float, float]:
    """Bounds, and so many pixels more on each side."""
    assert grid is not None
    left, bottom, right, top = grid.bounds
    across, down = pixels * abs(grid.transform.a), pixels * abs(grid.transform.e)
    return left - across, bottom - down, right + across, top + down
