"""Tilings: scenes that meet, and scenes that are tiles of one raster, so that their ground is one."""

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from landscribe.geo.grid import Grid, Window


def tilings(grids: Sequence[Grid | None]) -> list[list[int]]:
    """Numbers of the grids that are tiles of one raster, together: on one lattice of pixels, each touching another."""
    lattices: dict[tuple[object, ...], list[int]] = {}
    for number, grid in enumerate(grids):
        if grid is not None and grid.crs is not None:
            lattices.setdefault(_lattice(grid), []).append(number)
    found = []
    for numbers in lattices.values():
        groups = meeting([grids[number] for number in numbers], reach=0.5)
        found += [np.array(numbers)[groups == group].tolist() for group in np.unique(groups)]
    return [group for group in found if len(group) > 1]


def meeting(grids: Sequence[Grid | None], *, reach: float) -> NDArray[np.intp]:
    """Numbers of groups of grids of one CRS, from 0: those that meet, directly or by way of others, share a group.

    Args:
        grids: in one CRS.
        reach: pixels by which each is made larger beforehand; smaller, where it is below 0.
    """
    boxes = shapely.box(*np.array([_reaching(grid, reach) for grid in grids]).T)
    pairs = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    links = coo_matrix((np.ones(pairs.shape[1], bool), pairs), shape=(len(boxes), len(boxes)))
    return connected_components(links, directed=False)[1]


def on_common_ground(grids: Sequence[Grid], windows: Sequence[Sequence[Window]]) -> list[Window]:
    """The windows of all tiles of a tiling, one after the other, in pixels from its upper left corner.

    What a window has beyond its tile is no ground.
    """
    places = [~grids[0].transform @ grid.xy(0, 0) for grid in grids]
    col, row = np.round(np.array(places) - np.min(places, axis=0)).astype(int).T
    return [
        (window & grids[tile].window).relative_to(Window(-int(row[tile]), -int(col[tile]), 1, 1))
        for tile, some in enumerate(windows)
        for window in some
    ]


def _lattice(grid: Grid) -> tuple[object, ...]:
    """Equal for grids of one CRS whose pixels cover one another, to a tenth of a pixel or so."""
    t = grid.transform
    steps = (round(t.a, 9), round(t.b, 9), round(t.d, 9), round(t.e, 9))
    col, row = ~t @ (0.0, 0.0)
    assert grid.crs is not None
    return (grid.crs.to_wkt(), *steps, round(10 * (col % 1)) % 10, round(10 * (row % 1)) % 10)


def _reaching(grid: Grid | None, pixels: float) -> tuple[float, float, float, float]:
    """Bounds, and so many pixels more on each side."""
    assert grid is not None
    left, bottom, right, top = grid.bounds
    across, down = pixels * abs(grid.transform.a), pixels * abs(grid.transform.e)
    return left - across, bottom - down, right + across, top + down
