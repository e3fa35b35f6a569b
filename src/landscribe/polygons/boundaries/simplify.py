"""Simplification and smoothing of boundary arcs: neighbours keep fitting, and no boundary crosses another.

Douglas and Peucker 1973, doi:10.3138/FM57-6770-U75U-7727, because its tolerance is a distance: no corner that is left
out lies farther from the simplified boundary. Visvalingam's tolerance is an area, which no user can measure on a map.

An arc is simplified once, for both of its regions. A part of an arc becomes one line only if its convex hull holds no
corner of another arc, nor of another part. Law: lines then cross nowhere. For if two hulls overlapped, and neither held
a corner of the other, both would reach through each other like the bars of a cross, and so would the traced arcs, which
never cross. The rule looks at traced corners alone, so that an arc does not wait for its neighbours.
"""

from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray

from landscribe.polygons.boundaries.regions import Points
from landscribe.polygons.boundaries.runs import Ints, offsets_of, spans, take_runs
from landscribe.polygons.boundaries.tracing import Lines

CUT = 512
"""Arcs end at rows that are multiples of this, so that the corners near an arc fit in memory."""

_CURVE = np.array([0, 1 / 3, 2 / 3, 1])
"""Where the curve around a corner is drawn, as shares of its course."""

Floats = NDArray[np.float64]


@dataclass
class Simplifier:
    """Simplifies, and smooths, arcs among all corners that were traced."""

    tolerance: float
    """Metres, or what `pixel` is measured in; 0 keeps all corners."""
    pixel: tuple[float, float]
    """Height and width of a pixel."""
    is_smooth: bool = False
    _corners: list[NDArray[np.int32]] = field(default_factory=list)

    def add(self, lines: Lines, row: int) -> None:
        """Take the corners of a strip that starts at a row."""
        # An arc that ends in this strip may end at its first row, and lies south of the cut before.
        first = max(row - 1, 0) // CUT * CUT
        self._corners = [part[part[:, 0] >= first] for part in self._corners] + [lines.points]

    def __call__(self, arcs: Lines) -> Points:
        """The points of each arc that stay, or those of the curve that replaces it."""
        corners = _CornerCounts.of(np.concatenate(self._corners))
        is_kept = np.ones(len(arcs.points), bool)
        if self.tolerance > 0:
            is_kept = _kept(arcs.points * np.array(self.pixel, np.float64), arcs, corners, self.tolerance)
        counts = np.add.reduceat(is_kept, arcs.start[:-1]) if len(arcs) else np.zeros(0, np.int64)
        start = offsets_of(counts)
        if not self.is_smooth:
            return arcs.points[is_kept], start
        return _smoothed(arcs, np.flatnonzero(is_kept), start, corners)


@dataclass(frozen=True)
class _CornerCounts:
    """How many corners lie in a part of the raster."""

    first_row: int
    sums: NDArray[np.int32]
    """[row, col]: number of corners north-west of it, rows counted from `first_row`."""
    keys: Ints
    """Of each corner in row order: its position in `sums`."""

    @classmethod
    def of(cls, corners: NDArray[np.int32]) -> "_CornerCounts":
        if not len(corners):
            return cls(0, np.zeros((1, 1), np.int32), np.zeros(0, np.int64))
        first_row = int(corners[:, 0].min())
        rows, cols = corners[:, 0] - first_row, corners[:, 1]
        sums = np.zeros((rows.max() + 2, cols.max() + 2), np.int32)
        sums[rows + 1, cols + 1] = 1
        keys = np.flatnonzero(sums)
        np.cumsum(sums, axis=0, out=sums)
        return cls(first_row, np.cumsum(sums, axis=1, out=sums), keys)

    def in_boxes(self, low: Ints, high: Ints) -> Ints:
        """Number of corners in boxes (n, 2) that include their edges."""
        (top, left), (bottom, right) = (low - (self.first_row, 0)).T, (high - (self.first_row - 1, -1)).T
        sums = self.sums
        return sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]

    def in_polygons(self, polygons: NDArray[np.object_]) -> Ints:
        """Number of corners in polygons in (row, col) that include their edges."""
        bounds = shapely.bounds(polygons)
        (top, left), (bottom, right) = np.ceil(bounds[:, :2]).astype(int).T, np.floor(bounds[:, 2:]).astype(int).T
        row, bounds_of_part = spans(top, np.maximum(bottom + 1, top))
        part = np.repeat(np.arange(len(polygons)), np.diff(bounds_of_part))
        row_start = (row - self.first_row + 1) * self.sums.shape[1] + 1
        first, stop = (
            np.searchsorted(self.keys, row_start + left[part]),
            np.searchsorted(self.keys, row_start + right[part] + 1),
        )
        corner, start = spans(first, stop)
        part = np.repeat(part, np.diff(start))
        rows, cols = np.divmod(self.keys[corner], self.sums.shape[1])
        is_in = shapely.intersects_xy(polygons[part], rows + float(self.first_row - 1), cols - 1.0)
        return np.bincount(part[is_in], minlength=len(polygons))


def _lattice_points(hulls: NDArray[np.object_]) -> Floats:
    """Number of lattice points in polygons between lattice points: the theorem of Pick 1899."""
    coordinates, part = shapely.get_coordinates(hulls, return_index=True)
    step = np.abs(np.diff(coordinates, axis=0)).astype(np.int64)
    on_edge = np.gcd(*step.T) * (part[1:] == part[:-1])
    return shapely.area(hulls) + np.bincount(part[1:], on_edge, minlength=len(hulls)) / 2 + 1


def _kept(points: Floats, arcs: Lines, corners: _CornerCounts, tolerance: float) -> NDArray[np.bool_]:
    """True for the corners that stay."""
    is_kept = np.zeros(len(points), bool)
    first, last = arcs.start[:-1], arcs.start[1:] - 1
    is_kept[first] = is_kept[last] = True
    # A bent arc keeps a corner between its ends, and each half of a ring: a region never shrinks to a line.
    forced = 1 + (arcs.points[first] == arcs.points[last]).all(axis=1)
    while len(first):
        is_long = last - first > 1
        first, last, forced = first[is_long], last[is_long], forced[is_long]
        if not len(first):
            break
        distance, farthest = _farthest(points, first, last)
        is_line = (forced == 0) & (distance <= tolerance)
        candidates = np.flatnonzero(is_line)
        is_line[candidates] = _are_free(arcs.points, first[candidates], last[candidates], corners)
        split = np.flatnonzero(~is_line)
        middle = farthest[split]
        is_kept[middle] = True
        forced = np.tile(np.maximum(forced[split] - 1, 0), 2)
        first, last = np.concatenate([first[split], middle]), np.concatenate([middle, last[split]])
    return is_kept


def _farthest(points: Floats, first: Ints, last: Ints) -> tuple[Floats, Ints]:
    """Largest distance of the points between the ends of each part from the line between its ends; the first such."""
    index, start = spans(first + 1, last)
    part = np.repeat(np.arange(len(first)), np.diff(start))
    chord = points[last] - points[first]
    offset = points[index] - points[first][part]
    square = (chord**2).sum(axis=1)
    along = (offset * chord[part]).sum(axis=1) / np.where(square == 0, 1, square)[part]
    distance = np.hypot(*(offset - np.clip(along, 0, 1)[:, None] * chord[part]).T)
    largest = np.maximum.reduceat(distance, start[:-1])
    at = np.flatnonzero(distance == largest[part])
    at = at[np.unique(part[at], return_index=True)[1]]
    return largest, index[at]


def _are_free(points: NDArray[np.int32], first: Ints, last: Ints, corners: _CornerCounts) -> NDArray[np.bool_]:
    """True for the parts of arcs whose hull holds no other corner."""
    if not len(first):
        return np.zeros(0, bool)
    index, start = spans(first, last + 1)
    own, counts = points[index], np.diff(start)
    low, high = (extreme.reduceat(own, start[:-1], axis=0) for extreme in (np.minimum, np.maximum))
    is_free = corners.in_boxes(low, high) == counts
    doubtful = np.flatnonzero(~is_free)
    if not len(doubtful):
        return is_free
    chains, chain_start = take_runs(own, start, doubtful)
    part = np.repeat(np.arange(len(doubtful)), np.diff(chain_start))
    hulls = shapely.convex_hull(shapely.linestrings(chains.astype(float), indices=part))
    # Most hulls are that narrow: they hold the points of the arc and no others.
    lengths = np.bincount(part[1:], np.abs(np.diff(chains, axis=0)).sum(axis=1) * (part[1:] == part[:-1]))
    is_narrow = _lattice_points(hulls) == lengths + 1
    is_free[doubtful[is_narrow]] = True
    wide = np.flatnonzero(~is_narrow)
    is_free[doubtful[wide]] = corners.in_polygons(hulls[wide]) == counts[doubtful[wide]]
    return is_free


def _smoothed(arcs: Lines, kept: Ints, start: Ints, corners: _CornerCounts) -> Points:
    """Replace corners by curves between the middles of their two lines, a quadratic B-spline.

    A curve stays in the triangle of the corner and these middles. Where that holds another traced corner, the corner
    stays sharp. Law: as in simplification, curves cross nowhere.
    """
    corner = arcs.points[kept].astype(np.float64)
    before, after = np.arange(len(kept)) - 1, np.arange(len(kept)) + 1
    heads, tails = start[:-1], start[1:] - 1
    is_bent = np.ones(len(kept), bool)
    is_bent[heads] = is_bent[tails] = False
    # The first point of a ring without junction, which is its last one, is a corner like the others.
    (into_start, back_at_start), (into_end, back_at_end) = arcs.links[:, :, :2].transpose(1, 2, 0)
    is_closed = (back_at_start == into_end) & (back_at_end == into_start)
    heads, tails = heads[is_closed], tails[is_closed]
    is_bent[heads] = is_bent[tails] = True
    before[heads], after[tails] = tails - 1, heads + 1
    bent = np.flatnonzero(is_bent)
    into, out = (corner[bent] + corner[before[bent]]) / 2, (corner[bent] + corner[after[bent]]) / 2
    triangles = shapely.polygons(np.stack([into, corner[bent], out, into], axis=1))
    own_ends = np.arange(len(kept)), np.arange(len(kept)) + 1
    own_ends[0][heads], own_ends[1][tails] = tails, heads + 1
    parts = [
        (kept[own_ends[0][bent] - 1], kept[own_ends[0][bent]] + 1),
        (kept[own_ends[1][bent] - 1] + 1, kept[own_ends[1][bent]] + 1),
    ]
    own = sum(_count_in(triangles, arcs.points, first, stop) for first, stop in parts)
    is_free = corners.in_polygons(triangles) == own
    curves = np.repeat(corner[:, None], len(_CURVE), axis=1)
    t, free = _CURVE[:, None], np.flatnonzero(is_free)
    ends = into[free, None], corner[bent[free], None], out[free, None]
    curves[bent[free]] = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t**2 * ends[2]
    curves[tails] = curves[heads, :1]  # a ring ends where its first curve starts
    flat = curves.reshape(-1, 2)
    line = np.repeat(np.arange(len(start) - 1), np.diff(start) * len(_CURVE))
    is_new = np.ones(len(flat), bool)
    is_new[1:] = (flat[1:] != flat[:-1]).any(axis=1) | (line[1:] != line[:-1])
    counts = np.bincount(line[is_new], minlength=len(start) - 1)
    return flat[is_new], offsets_of(counts)


def _count_in(polygons: NDArray[np.object_], points: NDArray[np.int32], first: Ints, stop: Ints) -> Ints:
    """Number of the points `first[i]:stop[i]` in polygon i."""
    index, start = spans(first, stop)
    part = np.repeat(np.arange(len(first)), np.diff(start))
    is_in = shapely.intersects_xy(polygons[part], *points[index].T.astype(float))
    return np.bincount(part[is_in], minlength=len(first))
