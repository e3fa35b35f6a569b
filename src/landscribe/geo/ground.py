"""Ground: areas and lengths on the ellipsoid, of shapes whose points are given in pixels."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from scipy.ndimage import map_coordinates

from landscribe.geo.grid import Grid, is_local_crs
from landscribe.geo.pixel_area import REACH_M, SAME, is_by_row, node_counts, sides_at

Floats = NDArray[np.float64]

_SPAN = 4
"""Distances between nodes over which one step of Simpson's rule integrates."""


@dataclass(frozen=True)
class Ground:
    """The metric of a grid: lengths of a step of (rows, cols) pixels anywhere on it.

    Law: what it measures does not depend on the strips in which a raster is read.
    """

    rows: Floats
    """Of the nodes."""
    cols: Floats
    metric: Floats
    """(3, rows, cols): down · down, down · across and across · across of the sides of a pixel at the nodes, in m²."""

    @classmethod
    def of(cls, grid: Grid) -> "Ground | None":
        """The metric of a grid; None without a CRS, or where the CRS has no longitude and latitude."""
        if grid.crs is None:
            return None
        rows, cols = np.zeros(1), np.zeros(1)
        if is_local_crs(grid.crs):
            sides = grid.pixel_sides
            local = None if sides is None else np.array([sides[0] ** 2, 0, sides[1] ** 2])[:, None, None]
            return None if local is None else cls(rows, cols, local)
        try:
            rows, cols = _nodes(grid)
            side = np.linalg.norm(sides_at(grid, rows[len(rows) // 2], cols[len(cols) // 2], reach=0.5), axis=1).max()
            down, across = sides_at(grid, rows[:, None], cols[None, :], reach=min(0.5, REACH_M / side))
        except ProjError:
            return None
        pairs = ((down, down), (down, across), (across, across))
        metric = np.stack([(first * second).sum(axis=-1) for first, second in pairs])
        if not np.isfinite(metric).all():
            return None
        areas = _areas(metric)
        if np.ptp(areas) <= SAME * areas.mean():
            return cls(rows[:1], cols[:1], metric.mean(axis=(1, 2), keepdims=True))
        return cls(rows, cols, metric)

    @property
    def pixel_sides(self) -> tuple[float, float]:
        """Height and width of the pixel in the middle, in metres."""
        middle = self.metric[:, len(self.rows) // 2, len(self.cols) // 2]
        return math.sqrt(middle[0]), math.sqrt(middle[2])

    def areas(self, points: Floats, rings: NDArray[np.int64]) -> Floats:
        """Area of each ring in m², negative for a hole.

        Args:
            points: (points, 2), (row, col), without the last point of each ring, which is its first one.
            rings: (rings + 1,), the start of each ring and the end of the last.
        """
        start, stop, edges = self._steps(points, rings)
        # Green's theorem: the area south-west of each line, which the lines of a ring cancel outside of it.
        heights = stop[:, 0] - start[:, 0]
        middle = self._area_west_of((start + stop) / 2)
        areas = heights * (self._area_west_of(start) + 4 * middle + self._area_west_of(stop)) / 6
        return -np.add.reduceat(areas, edges)

    def lengths(self, points: Floats, rings: NDArray[np.int64]) -> Floats:
        """Length of each ring in m; arguments as of `areas`."""
        start, stop, edges = self._steps(points, rings)
        down, across = (stop - start).T
        at = [self._interpolated(self.metric, point) for point in (start, (start + stop) / 2, stop)]
        first, middle, last = (
            np.sqrt(np.maximum(d * down**2 + 2 * b * down * across + a * across**2, 0)) for d, b, a in at
        )
        return np.add.reduceat((first + 4 * middle + last) / 6, edges)

    def _steps(self, points: Floats, rings: NDArray[np.int64]) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Start and end of the steps of which rings are integrated, and the first step of each ring."""
        start, stop = points, points[following_in(rings)]
        if self.metric[0].size == 1:
            return start, stop, rings[:-1]
        spans = [_SPAN * (nodes[-1] - nodes[0]) / (len(nodes) - 1) for nodes in (self.rows, self.cols)]
        counts = np.maximum(np.ceil(np.abs(stop - start) / spans).max(axis=1), 1).astype(int)
        ends = np.concatenate([[0], counts.cumsum()])
        shares = (np.arange(ends[-1]) - np.repeat(ends[:-1], counts))[:, None] / np.repeat(counts, counts)[:, None]
        step = np.repeat((stop - start) / counts[:, None], counts, axis=0)
        first = np.repeat(start, counts, axis=0) + shares * np.repeat(stop - start, counts, axis=0)
        return first, first + step, ends[rings[:-1]]

    def _area_west_of(self, points: Floats) -> Floats:
        """Ground west of points, in m² for each row of pixels, counted from the grid's first column."""
        areas = _areas(self.metric)
        row, col = points.T
        if areas.size == 1:
            return areas.item() * col
        # Between nodes, the area of pixels is linear: its integral is exact to the second order.
        widths = np.diff(self.cols)
        sums = np.concatenate(
            [np.zeros((len(areas), 1)), ((areas[:, 1:] + areas[:, :-1]) / 2 * widths).cumsum(axis=1)], 1
        )
        before = np.clip(np.searchsorted(self.cols, col, side="right") - 1, 0, len(self.cols) - 1)
        beyond = col - self.cols[before]
        position = self._row_position(row)
        at, share = position.astype(int), position % 1
        after = np.minimum(at + 1, len(self.rows) - 1)

        def in_row(table: Floats, column: NDArray[np.int64]) -> Floats:
            return table[at, column] * (1 - share) + table[after, column] * share

        first, last = in_row(areas, before), in_row(areas, np.minimum(before + 1, len(self.cols) - 1))
        width = np.append(widths, 1.0)[before]
        return in_row(sums, before) + beyond * (first + (last - first) * beyond / width / 2)

    def _row_position(self, row: Floats) -> Floats:
        return np.interp(row, self.rows, np.arange(len(self.rows)))

    def _interpolated(self, tables: Floats, points: Floats) -> list[Floats]:
        """Values of tables over the nodes at points."""
        if tables[0].size == 1:
            return [np.broadcast_to(table.item(), len(points)) for table in tables]
        row, col = points.T
        position = [self._row_position(row), np.interp(col, self.cols, np.arange(len(self.cols)))]
        return [map_coordinates(table, position, order=1, mode="nearest") for table in tables]


def _nodes(grid: Grid) -> tuple[Floats, Floats]:
    """Rows and columns of the corners, or points between them, at which the sides of a pixel are computed."""
    if is_by_row(grid):
        return np.linspace(0, grid.height, node_counts(grid)[0]), np.linspace(0, grid.width, 2)
    rows, cols = (
        np.linspace(0, length, min(length + 1, count))
        for length, count in zip(grid.shape, node_counts(grid), strict=True)
    )
    return rows, cols


def _areas(metric: Floats) -> Floats:
    down, between, across = metric
    areas: Floats = np.sqrt(np.maximum(down * across - between**2, 0))
    return areas


def following_in(rings: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the next point of each point in its ring, for the start of each ring and the end of the last."""
    following = np.arange(1, rings[-1] + 1)
    following[rings[1:] - 1] = rings[:-1]
    return following
