"""Squaring: polygons of buildings get right angles, and walls that they share stay shared.

Each group of polygons that touch has one direction. Its edges become parallel or perpendicular to it: corners that an
edge along the direction joins get one coordinate across it, and the other way round. Polygons share corners, so a
shared wall moves once, for both.

A group is squared only if its polygons stay valid, fit together, and meet no other group; otherwise it keeps its
simplified form. Whether it does depends on that group and its neighbours alone.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from landscribe.polygons.boundaries.rings import Polygons, geometries, signed_areas
from landscribe.polygons.boundaries.runs import Ints

Floats = NDArray[np.float64]

_LIMIT = 2.0
"""Pixels by which a corner may move."""
_REACH = 8
"""Rows between groups that cannot meet: twice the limit, and twice the tolerance of the simplification."""
_TRIALS = ((25.0, 1.2), (15.0, 0.0))
"""Largest angle in degrees by which a long edge turns, and length in pixels below which an edge vanishes. The first
pair is tried for all groups, the second one for those that the first does not fit."""
_ANGLES = np.radians(np.arange(0, 90, 2))
"""Directions that are compared."""
_CLEAR = 1e-4
"""Pixels by which corners are clear of other edges: coordinates of a CRS have fewer digits than those of pixels."""
_ROUNDS = 2
"""Moves of the walls until a group has the area of its pixels: the first misses it by the square of the distance."""
_LONG = 5.0
"""Pixels from which an edge counts as a wall whose slant is meant."""


@dataclass
class Squarer:
    """Takes simplified polygons as they are complete, and returns them squared, when their neighbours are complete."""

    pixel: tuple[float, float]
    """Height and width of a pixel."""
    _simple: Polygons | None = None
    """Of groups to come, and of groups that have left and may be neighbours of these."""
    _squared: Polygons | None = None
    _stop: float = -1
    """All groups whose last row is north of this one have left."""

    def add(self, polygons: Polygons, first_open_row: float) -> Polygons:
        """Take the polygons of complete groups; those that are ready, in the order of their groups.

        Args:
            polygons: simplified.
            first_open_row: a row north of which no group is open or to come.
        """
        squared = squared_alone(polygons, self.pixel)
        simple = polygons if self._simple is None else Polygons.join([self._simple, polygons])
        squared = squared if self._squared is None else Polygons.join([self._squared, squared])
        stop = first_open_row - _REACH
        ready = np.flatnonzero((simple.last_row >= self._stop) & (simple.last_row < stop))
        ready = ready[np.lexsort((ready, simple.first_corner[ready], simple.last_row[ready]))]
        chosen = _merged(simple, squared, _are_free(simple, squared)).take(ready)
        self._stop = max(stop, self._stop)
        kept = np.flatnonzero(simple.last_row >= self._first_row_to_come(simple, first_open_row) - _REACH)
        self._simple, self._squared = simple.take(kept), squared.take(kept)
        return replace(chosen, groups=np.unique(chosen.groups, return_inverse=True)[1])

    def _first_row_to_come(self, polygons: Polygons, first_open_row: float) -> float:
        is_waiting = polygons.last_row >= self._stop
        if not is_waiting.any():
            return first_open_row
        waiting = polygons.take(np.flatnonzero(is_waiting))
        return min(first_open_row, float(waiting.points[:, 0].min()))


def squared_alone(polygons: Polygons, pixel: tuple[float, float]) -> Polygons:
    """The same polygons squared, whatever their neighbours are; a group that squaring would spoil stays as it is."""
    result = polygons
    left = np.arange(len(polygons))
    for trial in _TRIALS:
        if not len(left):
            break
        moved, is_good = _squared(polygons.take(left), pixel, *trial)
        index = np.arange(len(result))
        index[left[is_good]] = len(result) + np.flatnonzero(is_good)
        result = replace(Polygons.join([result, moved]).take(index), groups=polygons.groups)
        left = left[~is_good]
    return result


def _squared(
    polygons: Polygons, pixel: tuple[float, float], angle: float, shortest: float
) -> tuple[Polygons, NDArray[np.bool_]]:
    """Polygons with right angles, and which of them are of a group that squaring does not spoil."""
    corners = _SharedCorners.of(polygons, pixel)
    edges = _Edges.of(corners, math.sqrt(math.prod(pixel)), angle, shortest)
    across, along = corners.turned(edges.direction)
    lines_across = _joined(len(across), edges.ends[:, edges.is_along | edges.is_short])
    lines_along = _joined(len(along), edges.ends[:, edges.is_across | edges.is_short])
    across = _levelled(across, lines_across, edges, edges.is_along)
    along = _levelled(along, lines_along, edges, edges.is_across)
    if len(polygons):
        numbers = np.unique(polygons.groups, return_inverse=True)[1]
        areas = np.bincount(numbers, polygons.pixels).astype(np.float64) * math.prod(pixel)
        most = math.sqrt(math.prod(pixel))
        across, along = _keeping_area((across, along), (lines_across, lines_along), corners, areas, most)
    moved = corners.turned_back(across, along, edges.direction)
    shift = np.hypot(*((moved - corners.points) / pixel).T)
    spoilt = [corners.groups[shift > _LIMIT]]
    own = corners.of_point
    is_kept = _needed(lines_across[own], lines_along[own], edges.is_junction(len(moved))[own], polygons.rings)
    sizes = np.add.reduceat(is_kept, polygons.rings[:-1])
    spoilt.append(polygons.groups[polygons.of_ring[sizes < 3]])
    is_whole = ~np.isin(polygons.groups, np.concatenate(spoilt))
    kept = np.flatnonzero(is_whole)
    candidates = replace(polygons, points=moved[own] / pixel).take_points(is_kept).take(kept)
    is_good = np.zeros(len(polygons), bool)
    is_good[kept] = _fit_together(candidates)
    index = np.arange(len(polygons))
    index[kept] = len(polygons) + np.arange(len(kept))
    return replace(Polygons.join([polygons, candidates]).take(index), groups=polygons.groups), is_good


@dataclass(frozen=True)
class _SharedCorners:
    """The distinct corners of polygons, in metres."""

    points: Floats
    """(corners, 2): (row, col) in the unit of the pixel."""
    groups: Ints
    of_point: Ints
    """Corner of each point of the polygons."""
    before: Ints
    """The point before each point in its ring."""
    middle: Floats
    """(corners, 2): a point of each corner's group, from which its coordinates are counted."""

    @classmethod
    def of(cls, polygons: Polygons, pixel: tuple[float, float]) -> "_SharedCorners":
        keys = polygons.points.astype(np.int64)
        width = keys[:, 1].max(initial=0) + 1
        _, first, of_point = np.unique(keys[:, 0] * width + keys[:, 1], return_index=True, return_inverse=True)
        owner = np.repeat(polygons.of_ring, np.diff(polygons.rings))
        before = np.arange(-1, len(keys) - 1)
        before[polygons.rings[:-1]] = polygons.rings[1:] - 1
        points, groups = (polygons.points * pixel)[first], polygons.groups[owner][first]
        begins = np.unique(groups, return_index=True)
        middle = points[begins[1]][np.searchsorted(begins[0], groups)]
        return cls(points, groups, of_point, before, middle)

    def turned(self, direction: Floats) -> tuple[Floats, Floats]:
        """Coordinates across and along the direction of each corner's group, which is an angle by corner."""
        row, col = (self.points - self.middle).T
        return row * np.cos(direction) - col * np.sin(direction), row * np.sin(direction) + col * np.cos(direction)

    def turned_back(self, across: Floats, along: Floats, direction: Floats) -> Floats:
        """The inverse of `turned`."""
        row = across * np.cos(direction) + along * np.sin(direction)
        col = along * np.cos(direction) - across * np.sin(direction)
        return np.stack([row, col], axis=1) + self.middle


@dataclass(frozen=True)
class _Edges:
    """The distinct edges between corners."""

    ends: Ints
    """(2, edges): corners."""
    lengths: Floats
    is_along: NDArray[np.bool_]
    """It becomes parallel to the direction of its group."""
    is_across: NDArray[np.bool_]
    """It becomes perpendicular to it."""
    is_short: NDArray[np.bool_]
    """It vanishes."""
    direction: Floats
    """Of each corner's group, in radians."""

    @classmethod
    def of(cls, corners: _SharedCorners, pixel: float, angle: float, shortest: float) -> "_Edges":
        count = len(corners.points)
        pairs = np.sort(np.stack([corners.of_point[corners.before], corners.of_point]), axis=0)
        ends = np.stack(np.divmod(np.unique(pairs[0] * count + pairs[1]), count))
        step = corners.points[ends[1]] - corners.points[ends[0]]
        lengths, turn = np.hypot(*step.T), np.arctan2(*step.T)
        group = np.unique(corners.groups, return_inverse=True)[1]
        own = group[ends[0]]
        direction = _directions(own, lengths, turn)
        slant = _slant(turn - direction[own])
        is_short = lengths < shortest * pixel
        is_slanted = (lengths >= _LONG * pixel) & (np.abs(slant) > math.radians(angle))
        is_parallel = np.abs(np.cos(turn - direction[own])) >= math.sqrt(0.5)
        is_bound = ~is_short & ~is_slanted
        return cls(ends, lengths, is_bound & is_parallel, is_bound & ~is_parallel, is_short, direction[group])

    def is_junction(self, corners: int) -> NDArray[np.bool_]:
        """True for the corners where more than two edges meet: polygons there must keep the same point."""
        return np.bincount(self.ends.ravel(), minlength=corners) > 2


def _needed(across: Ints, along: Ints, is_junction: NDArray[np.bool_], rings: Ints) -> NDArray[np.bool_]:
    """True for the points of rings that are neither where the point before is, nor between two on their own line.

    Args:
        across: line, parallel to the direction, of each point.
        along: line perpendicular to it.
        is_junction: points that stay on a line, because another polygon ends there.
        rings: start of each ring, and end of the last.
    """
    location = np.unique(across * (along.max(initial=0) + 1) + along, return_inverse=True)[1]
    is_junction = np.bincount(location, is_junction) > 0
    ring = np.repeat(np.arange(len(rings) - 1), np.diff(rings))
    kept = np.arange(len(across))
    while len(kept):
        bounds = np.searchsorted(ring[kept], np.arange(len(rings)))
        has_points = bounds[1:] > bounds[:-1]
        before, after = np.arange(len(kept)) - 1, np.arange(len(kept)) + 1
        before[bounds[:-1][has_points]] = bounds[1:][has_points] - 1
        after[bounds[1:][has_points] - 1] = bounds[:-1][has_points]
        is_twin = location[kept] == location[kept[before]]
        is_between = np.zeros(len(kept), bool)
        for lines in (across[kept], along[kept]):
            is_between |= (lines == lines[before]) & (lines == lines[after])
        is_left_out = is_twin if is_twin.any() else is_between & ~is_junction[location[kept]]
        if not is_left_out.any():
            break
        kept = kept[~is_left_out]
    is_needed = np.zeros(len(across), bool)
    is_needed[kept] = True
    return is_needed


def _directions(groups: Ints, lengths: Floats, turn: Floats) -> Floats:
    """The angle of each group at which its edges are shortest, measured along it and across it.

    For a rectangle these lengths add up to its perimeter at its own angle, and to more at all others.
    """
    totals = np.stack(
        [np.bincount(groups, lengths * (np.abs(np.cos(turn - a)) + np.abs(np.sin(turn - a)))) for a in _ANGLES]
    )
    direction = _ANGLES[totals.argmin(axis=0)]
    # Between these angles: the mean slant of the long edges that are nearly parallel or perpendicular.
    slant = _slant(turn - direction[groups])
    near = lengths**2 * (np.abs(slant) < math.radians(10))
    direction += np.bincount(groups, near * slant) / np.maximum(np.bincount(groups, near), 1e-12)
    return direction


def _slant(angle: Floats) -> Floats:
    """The angle to the nearest multiple of a right angle."""
    quarter = math.pi / 2
    return angle - np.round(angle / quarter) * quarter


def _joined(count: int, ends: Ints) -> Ints:
    """Number of the line that each corner is on: edges join corners to lines."""
    graph = sparse.coo_matrix((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(count, count))
    lines: Ints = csgraph.connected_components(graph, directed=False)[1].astype(np.int64)
    return lines


def _levelled(coordinates: Floats, lines: Ints, edges: _Edges, which: NDArray[np.bool_]) -> Floats:
    """One coordinate for all corners of a line: the mean along its edges, or of its corners if it has none."""
    first, second = edges.ends[:, which]
    weights = edges.lengths[which]
    total = np.bincount(lines[first], weights, minlength=lines.max() + 1)
    sums = np.bincount(lines[first], weights * (coordinates[first] + coordinates[second]) / 2, minlength=len(total))
    means = np.bincount(lines, coordinates) / np.bincount(lines)
    return np.where(total > 0, sums / np.where(total > 0, total, 1), means)[lines]


def _keeping_area(
    coordinates: tuple[Floats, Floats], lines: tuple[Ints, Ints], corners: _SharedCorners, areas: Floats, most: float
) -> tuple[Floats, Floats]:
    """Coordinates across and along, with the outer walls moved so that each group keeps its area.

    Lines follow the corners that simplification keeps, which lie on one side of the steps of a wall. All outer walls of
    a group move outward or inward by the same distance. A common wall stays where it is.

    Args:
        coordinates: across and along, of each corner.
        lines: across and along, on which each corner is.
        corners: of the polygons.
        areas: of each group, in the order of their numbers.
        most: distance by which walls move at most.
    """
    across, along = coordinates
    group = np.unique(corners.groups, return_inverse=True)[1]
    own, before = corners.of_point, corners.of_point[corners.before]
    for _ in range(_ROUNDS):
        missing = areas - np.bincount(group[own], across[before] * along[own] - along[before] * across[own]) / 2
        # An area grows with the coordinate of a line by the length of the walls on it: common ones cancel out.
        outward, growth = [], np.zeros(len(areas))
        steps = along[own] - along[before], across[before] - across[own]
        for line, edge in zip(lines, steps, strict=True):
            step = np.where(line[own] == line[before], edge, 0)
            net = np.bincount(line[own], step, minlength=line.max() + 1)
            length = np.bincount(line[own], np.abs(step), minlength=len(net))
            outward.append((net / np.where(length > 0, length, 1))[line])
            growth += np.bincount(group[own], step * outward[-1][own])
        distance = np.clip(missing / np.where(growth > 0, growth, np.inf), -most, most)[group]
        across, along = across + outward[0] * distance, along + outward[1] * distance
    return across, along


def _fit_together(polygons: Polygons) -> NDArray[np.bool_]:
    """True for the polygons of groups that are valid and meet along whole edges."""
    shapes = geometries(polygons, Affine.identity())
    is_hole = np.ones(len(polygons.rings) - 1, bool)
    is_hole[polygons.start[:-1]] = False
    is_turned = (signed_areas(polygons.points, polygons.rings) < 0) != is_hole
    # A corner that lies on an edge but for rounding errors would cross it in the coordinates of a CRS.
    is_good = shapely.is_valid(shapes) & (shapely.minimum_clearance(shapes) > _CLEAR)
    is_good[polygons.of_ring[is_turned]] = False
    good = np.bincount(polygons.groups, ~is_good, minlength=polygons.groups.max(initial=0) + 1) == 0
    order = np.argsort(polygons.groups, kind="stable")
    numbers, first = np.unique(polygons.groups[order], return_index=True)
    for number, members in zip(numbers.tolist(), np.split(order, first)[1:], strict=True):
        if good[number] and len(members) > 1:
            good[number] = shapely.coverage_is_valid(shapes[members])
    return good[polygons.groups]


def _are_free(simple: Polygons, squared: Polygons) -> NDArray[np.bool_]:
    """True for the polygons of groups whose squared form meets no other group, squared or not."""
    if not len(simple):
        return np.zeros(0, bool)
    forms = np.concatenate([geometries(each, Affine.identity()) for each in (squared, simple)])
    groups = np.concatenate([simple.groups, simple.groups])
    own, other = shapely.STRtree(forms).query(forms[: len(simple)], predicate="intersects")
    meets = np.unique(groups[own[groups[own] != groups[other]]])
    return ~np.isin(simple.groups, meets)


def _merged(simple: Polygons, squared: Polygons, is_squared: NDArray[np.bool_]) -> Polygons:
    index = np.where(is_squared, np.arange(len(simple)) + len(simple), np.arange(len(simple)))
    return replace(Polygons.join([simple, squared]).take(index), groups=simple.groups)
