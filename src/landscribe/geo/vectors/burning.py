"""Burning: polygons as pixels of a grid, by window."""

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from landscribe.geo.access import allow_ungeoreferenced
from landscribe.geo.features import Features
from landscribe.geo.grid import Grid, Window

_SUBPIXEL = 2**20
"""Vertices are snapped to this fraction of a pixel: far finer than any shape, far coarser than rounding errors."""
_TRANSFORM = Affine.scale(_SUBPIXEL, -_SUBPIXEL)
_LARGE_BLOCK = 2048
_BLOCK = 256
"""Side of the blocks in which touched pixels are burned."""


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
    all_touched: Collection[int] = (),
    numbers: NDArray[np.uint32] | None = None,
) -> NDArray[Any]:
    """Rasterize polygons: a pixel takes the value of the polygon that contains its centre.

    Where polygons overlap, the one of the higher priority wins (`Features.priorities`); of equal priority, or without
    priorities, the value that is later in `order`, whatever the order of the file. The cost depends on the number of
    features that intersect the window, not on the number of all features.

    Args:
        features: polygons in the grid's CRS.
        values: one for each feature.
        order: values from bottom to top; features of other values are left out.
        grid: of the result.
        fill: value of pixels outside all polygons.
        window: of the grid, may reach outside; None for the whole grid.
        all_touched: values whose polygons take every pixel that they touch.
        numbers: one for each feature, that a pixel takes instead of the value.

    Returns:
        (height, width) uint8, or uint32 with numbers. Laws: burning a window equals that window of the whole grid
        burned at once; a pixel has the number of the feature whose value it would have.
    """
    window = grid.window if window is None else window
    dtype = np.uint8 if numbers is None else np.uint32
    burned = np.full(window.shape, fill, dtype)
    # GDAL follows a touched line with rounding errors of its own, which depend on the window that it burns.
    for block in _blocks(window) if all_touched else [window]:
        near = features.intersecting(grid[block])
        near = near[np.isin(values[near], list(order))]
        if near.size:
            part = np.full(block.shape, fill, dtype)
            ordered = near[_bottom_to_top(features, values, order, near)]
            is_touched = np.isin(values[ordered], list(all_touched))
            for touched, same in _groups_of_equals(ordered, is_touched):
                shapes_of = _runs(features, values if numbers is None else numbers, same, grid, block)
                # rasterize itself changes the filters of warnings, which other threads share.
                with allow_ungeoreferenced():
                    rasterize(shapes_of, out=part, transform=_TRANSFORM, all_touched=bool(touched))
            inside = window & block
            burned[inside.relative_to(window).slices] = part[inside.relative_to(block).slices]
    return burned


def _blocks(window: Window) -> Iterator[Window]:
    """The blocks of the grid that hold a window."""
    row, col = window.row // _BLOCK * _BLOCK, window.col // _BLOCK * _BLOCK
    return cut(Window(row, col, window.row_stop - row, window.col_stop - col), _BLOCK)


def _bottom_to_top(
    features: Features, values: NDArray[np.uint8], order: Sequence[int], near: NDArray[np.intp]
) -> NDArray[np.intp]:
    rank = np.zeros(256, np.intp)
    rank[list(order)] = np.arange(len(order))
    ranks = rank[values[near]]
    return np.argsort(ranks, kind="stable") if features.priorities is None else np.lexsort(
        (ranks, features.priorities[near])
    )  # fmt: skip


def _runs(
    features: Features, values: NDArray[Any], ordered: NDArray[np.intp], grid: Grid, window: Window
) -> list[tuple[dict[str, Any], int]]:
    """Features in this order, as (MultiPolygon, value): neighbours of one value are burned at once."""
    runs = _groups_of_equals(ordered, values[ordered])
    return [(_snapped(features.geometries[run], grid, window), int(value)) for value, run in runs]


def _groups_of_equals(items: NDArray[Any], keys: NDArray[Any]) -> Iterator[tuple[Any, NDArray[Any]]]:
    """Consecutive items with equal keys, and their key."""
    starts = [0, *(np.flatnonzero(keys[1:] != keys[:-1]) + 1).tolist(), len(items)]
    return ((keys[start], items[start:stop]) for start, stop in pairwise(starts))


def covers_a_centre(polygon: Any, grid: Grid) -> bool:
    """True if a polygon contains the centre of a pixel, of the grid or within `_LARGE_BLOCK` pixels around it."""
    alone = np.array([polygon], dtype=object)
    cols, rows = ~grid.transform @ shapely.get_coordinates(polygon).T
    row, col = int(np.floor(rows.min())), int(np.floor(cols.min()))
    row_stop, col_stop = int(np.ceil(rows.max())), int(np.ceil(cols.max()))
    # A thin polygon may go around the Earth.
    near = Window(row, col, row_stop - row, col_stop - col) & grid.window.grown(_LARGE_BLOCK)
    for window in cut(near, _LARGE_BLOCK):
        burned = np.zeros(window.shape, np.uint8)
        with allow_ungeoreferenced():
            rasterize([(_snapped(alone, grid, window), 1)], out=burned, transform=_TRANSFORM)
        if burned.any():
            return True
    return False


def cut(window: Window, side: int) -> Iterator[Window]:
    """Cut a window into squares, from its first pixel; the last ones reach beyond it."""
    for row in range(window.row, window.row_stop, side):
        for col in range(window.col, window.col_stop, side):
            yield Window(row, col, side, side)


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
