"""What burning leaves out: polygons that contain no centre of a pixel, and classes under other classes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from landscribe.geo.features import Features
from landscribe.geo.grid import Grid, Window
from landscribe.geo.vectors.burning import burn, covers_a_centre, cut

_BLOCK = 1024
_MOST_BLOCKS = 256
_MOST_VERTICES = 5_000_000
"""Vertices of pairs of polygons that are compared."""
_NO_VALUE = 255
_ON_EDGE = 1e-5
"""Pixels between an edge and a centre that may lie on it."""
_FEW = 64
"""Pixel centres that are looked at one by one."""


class Overlaps(NamedTuple):
    """Pixels whose centre lies in polygons of several values."""

    pixels: Counter[tuple[int, int]]
    """By (value of the lowest polygon, value of the highest)."""
    complete: bool
    """False if only a part of a large grid was counted."""


def without_pixel(features: Features, grid: Grid) -> NDArray[np.intp]:
    """Indices of the features that lie on the grid and contain no centre of a pixel.

    A feature across the edge of the grid may have its pixels outside.
    """
    near = features.intersecting(grid)
    if not near.size:
        return near
    # Most polygons contain the pixel centre that is nearest to a point inside them, which is quick to see.
    cols, rows = ~grid.transform @ shapely.get_coordinates(shapely.point_on_surface(features.geometries[near])).T
    nearest = _centre_points(np.floor(cols), np.floor(rows), grid)
    rest = near[~shapely.contains(features.geometries[near], nearest)]
    counts, first_col, first_row, width = _centres(features.geometries[rest], grid)
    small = (counts > 0) & (counts <= _FEW)
    owner = np.repeat(np.flatnonzero(small), counts[small])
    index = np.arange(len(owner)) - np.repeat(np.cumsum(counts[small]) - counts[small], counts[small])
    row, col = np.divmod(index, width[owner])
    centres = _centre_points(first_col[owner] + col, first_row[owner] + row, grid)
    polygons = features.geometries[rest[owner]]
    has_pixel, on_edge = np.zeros((2, len(rest)), bool)
    has_pixel[owner[shapely.contains(polygons, centres)]] = True
    # Of a centre on an edge, burning decides.
    on_edge[owner[shapely.dwithin(polygons, centres, _ON_EDGE * abs(grid.transform.determinant) ** 0.5)]] = True
    for undecided in np.flatnonzero(~has_pixel & (on_edge | (counts > _FEW))):
        has_pixel[undecided] = covers_a_centre(features.geometries[rest[undecided]], grid)
    return rest[~has_pixel]


def _centre_points(cols: NDArray[Any], rows: NDArray[Any], grid: Grid) -> NDArray[np.object_]:
    xy: Any = np.stack([cols, rows]) + 0.5
    points: NDArray[np.object_] = shapely.points(*(grid.transform @ xy))
    return points


def _centres(
    geometries: NDArray[np.object_], grid: Grid
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of the pixel centres in each bounding box: their number, first column and row, and columns."""
    left, bottom, right, top = shapely.bounds(geometries).T
    cols, rows = ~grid.transform @ np.stack([[left, right, left, right], [bottom, top, top, bottom]])
    first_col, first_row = (np.ceil(np.min(each, axis=0) - 0.5 - _ON_EDGE).astype(np.int64) for each in (cols, rows))
    width, height = (
        np.maximum(np.floor(np.max(each, axis=0) - 0.5 + _ON_EDGE).astype(np.int64) - first + 1, 0)
        for each, first in ((cols, first_col), (rows, first_row))
    )
    return width * height, first_col, first_row, width


def overlaps(features: Features, values: NDArray[np.uint8], order: Sequence[int], grid: Grid) -> Overlaps:
    """Count the pixels of a grid whose centre lies in polygons of several values.

    Args:
        features: polygons in the grid's CRS.
        values: one for each feature.
        order: values from bottom to top.
        grid: pixels outside of it are not counted.
    """
    counts: Counter[tuple[int, int]] = Counter()
    blocks = _blocks(_shared_boxes(features, values, grid), grid)
    for block in blocks[:_MOST_BLOCKS]:
        inside = block & grid.window
        highest = burn(features, values, order, grid, _NO_VALUE, inside)
        lowest = burn(features.upside_down(), values, order[::-1], grid, _NO_VALUE, inside)
        pairs, pixels = np.unique(np.stack([lowest, highest])[:, lowest != highest], axis=1, return_counts=True)
        counts.update(
            {(low, high): count for (low, high), count in zip(pairs.T.tolist(), pixels.tolist(), strict=True)}
        )
    return Overlaps(counts, complete=len(blocks) <= _MOST_BLOCKS)


def _shared_boxes(features: Features, values: NDArray[np.uint8], grid: Grid) -> NDArray[np.object_]:
    """A box around what two polygons of different values may share."""
    near = features.intersecting(grid)
    first, second = features.pairs(near)
    different = values[first] != values[second]
    first, second = first[different], second[different]
    vertices = shapely.get_num_coordinates(features.geometries)
    if vertices[first].sum() + vertices[second].sum() <= _MOST_VERTICES:
        # Neighbours share only an edge.
        crossing = shapely.relate_pattern(features.geometries[first], features.geometries[second], "2********")
        first, second = first[crossing], second[crossing]
    bounds = shapely.bounds(features.geometries)
    low = np.maximum(bounds[first, :2], bounds[second, :2])
    high = np.minimum(bounds[first, 2:], bounds[second, 2:])
    boxes: NDArray[np.object_] = shapely.box(*low.T, *high.T)
    return boxes


def _blocks(boxes: NDArray[np.object_], grid: Grid) -> list[Window]:
    """The blocks of a grid that hold parts of boxes; of a large grid only the first, and one more than are counted."""
    found: dict[Window, None] = {}
    left, bottom, right, top = shapely.bounds(boxes).T
    corners = np.stack([[left, right, left, right], [bottom, top, top, bottom]])
    cols, rows = (np.floor(each / _BLOCK).astype(np.int64) for each in ~grid.transform @ corners)
    for box in zip(rows.min(axis=0), rows.max(axis=0), cols.min(axis=0), cols.max(axis=0), strict=True):
        row, row_stop, col, col_stop = (int(edge) * _BLOCK for edge in box)
        near = Window(row, col, row_stop + _BLOCK - row, col_stop + _BLOCK - col) & grid.window
        start = Window(near.row // _BLOCK * _BLOCK, near.col // _BLOCK * _BLOCK, 0, 0)
        for block in cut(replace(start, height=near.row_stop - start.row, width=near.col_stop - start.col), _BLOCK):
            found[block] = None
            if len(found) > _MOST_BLOCKS:
                return list(found)
    return list(found)
