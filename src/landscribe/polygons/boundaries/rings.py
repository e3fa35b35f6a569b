"""Rings: the sides of complete regions become polygons."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from landscribe.geo.ground import following_in
from landscribe.polygons.boundaries.regions import Sides
from landscribe.polygons.boundaries.runs import Ints, offsets_of, take_runs
from landscribe.polygons.boundaries.tracing import cycles

BATCH_POINTS = 2**18
"""Points of the rings, or polygons, that are worked on at once."""


@dataclass(frozen=True)
class Polygons:
    """Polygons in flat arrays: the exterior ring of each, then its holes."""

    points: NDArray[Any]
    """(points, 2): (row, col), without the last point of each ring, which is its first one; int32 or, where they are
    smoothed or squared, float64."""
    rings: Ints
    """(rings + 1,): start of each ring in `points`."""
    start: Ints
    """(polygons + 1,): start of each polygon in `rings`."""
    codes: Ints
    groups: Ints
    """Number of each polygon's group, ascending."""
    last_row: Ints
    """Row of the southernmost corner of the group, as it was traced."""
    first_corner: Ints
    """Number of the first corner of the group in row order, as it was traced."""
    pixels: Ints
    """Number of pixels of the polygon, as it was traced."""
    sums: NDArray[np.float64]
    """(polygons, 2): sum and number of the weights of its pixels; (polygons, 0) without weights."""

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def of_ring(self) -> Ints:
        """Number of each ring's polygon."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    def take(self, polygons: Ints) -> "Polygons":
        """These polygons, in this order."""
        rings, start = take_runs(np.arange(self.start[-1]), self.start, polygons)
        points, bounds = take_runs(self.points, self.rings, rings)
        return Polygons(points, bounds, start, *(getattr(self, name)[polygons] for name in _PER_POLYGON))

    def split(self, most: int) -> Iterator["Polygons"]:
        """The same polygons in parts of whole groups. A part has about `most` points, or is one larger group."""
        ends = np.flatnonzero(np.diff(self.groups, append=-1)) + 1
        for first, last in batches(self.rings[self.start[ends]], most):
            polygons = slice(ends[first - 1] if first else 0, ends[last - 1])
            start = self.start[polygons.start : polygons.stop + 1]
            rings = self.rings[start[0] : start[-1] + 1]
            points = self.points[rings[0] : rings[-1]]
            rest = (getattr(self, name)[polygons] for name in _PER_POLYGON)
            yield Polygons(points, rings - rings[0], start - start[0], *rest)

    @classmethod
    def join(cls, parts: Sequence["Polygons"]) -> "Polygons":
        """The polygons of several parts, whose groups get new numbers."""
        zero = np.zeros(1, np.int64)
        rings, start = (
            np.concatenate([zero, *(np.diff(getattr(part, name)) for part in parts)]).cumsum()
            for name in ("rings", "start")
        )
        rest = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_POLYGON}
        shifts = np.cumsum([0, *(part.groups.max(initial=-1) + 1 for part in parts)])[:-1]
        rest["groups"] = np.concatenate([part.groups + shift for part, shift in zip(parts, shifts, strict=True)])
        return cls(np.concatenate([part.points for part in parts]), rings, start, **rest)

    def take_points(self, is_kept: NDArray[np.bool_]) -> "Polygons":
        """The same polygons without points."""
        counts = np.add.reduceat(is_kept, self.rings[:-1]) if len(self) else np.zeros(0, np.int64)
        return replace(self, points=self.points[is_kept], rings=offsets_of(counts))

    def take_rings(self, is_kept: NDArray[np.bool_]) -> "Polygons":
        """The same polygons without rings, which are holes."""
        points, rings = take_runs(self.points, self.rings, np.flatnonzero(is_kept))
        start = offsets_of(np.add.reduceat(is_kept, self.start[:-1]))
        return replace(self, points=points, rings=rings, start=start)


_PER_POLYGON = [each.name for each in fields(Polygons)][3:]


def polygons_of(sides: Sides) -> Polygons:
    """Link the sides of complete groups to rings, and rings to polygons.

    Groups are in order of their last row, then of their first corner. Law: each polygon is valid: its exterior runs
    counter-clockwise where y points north, its holes clockwise, and its rings touch at single points at most.
    """
    if not len(sides.codes):
        none, zero = np.zeros(0, np.int64), np.zeros(1, np.int64)
        return Polygons(np.zeros((0, 2), np.int32), zero, zero, none, none, none, none, none, sides.sums)
    ordered, groups, last_row, first_corner = _ordered(sides)
    order, start = _rings(sides.links[ordered])
    order = ordered[order]
    # A region may span the raster: its points are copied as seldom as possible.
    points, bounds = take_runs(sides.points, sides.start, order)
    rings, first = bounds[start], order[start[:-1]]
    sums, pixels = (np.add.reduceat(each[order], start[:-1]) for each in (sides.sums, sides.areas))
    groups, codes = groups[first], sides.codes[first]
    del sides
    areas = signed_areas(points, rings)
    polygon = _polygon_of_rings(points, rings, areas, groups)
    by_polygon = np.lexsort((areas < 0, polygon))
    points, rings = take_runs(points, rings, by_polygon)
    counts = np.bincount(polygon)
    begins = offsets_of(counts)
    exteriors = by_polygon[begins[:-1]]
    groups = groups[exteriors]
    return Polygons(
        points, rings, begins, codes[exteriors], groups,
        last_row[groups], first_corner[groups],
        *(np.add.reduceat(each[by_polygon], begins[:-1]) for each in (pixels // 2, sums)),
    )  # fmt: skip


def _ordered(sides: Sides) -> tuple[Ints, Ints, Ints, Ints]:
    """The sides by group and first edge, for groups are numbered by last row and first corner.

    Returns:
        Indices of the sides, group of each side as it is given, last row and first corner of each group.
    """
    count = int(sides.groups.max()) + 1
    last_row, first_corner = np.zeros(count, np.int64), np.full(count, np.iinfo(np.int64).max)
    np.maximum.at(last_row, sides.groups, sides.last_row)
    np.minimum.at(first_corner, sides.groups, sides.first_corner)
    rank = np.empty(count, np.int64)
    order = np.lexsort((first_corner, last_row))
    rank[order] = np.arange(count)
    groups = rank[sides.groups]
    return np.lexsort((sides.links[:, 0], groups)), groups, last_row[order], first_corner[order]


def _polygon_of_rings(points: NDArray[Any], rings: Ints, areas: NDArray[np.float64], groups: Ints) -> Ints:
    """Polygon of each ring: exteriors are numbered in the order of rings; a hole is of the smallest one around it."""
    is_exterior = areas > 0
    polygon = is_exterior.cumsum() - 1
    exteriors, holes = np.flatnonzero(is_exterior), np.flatnonzero(~is_exterior)
    first = np.searchsorted(groups[exteriors], groups[holes])
    polygon[holes] = first
    is_shared = np.bincount(groups[exteriors])[groups[holes]] > 1
    doubtful = holes[is_shared]
    if len(doubtful):
        candidates = np.flatnonzero(np.isin(groups[exteriors], groups[doubtful]))
        outlines, inside = (_as_polygons(points, rings, own) for own in (exteriors[candidates], doubtful))
        hole, around = shapely.STRtree(outlines).query(shapely.point_on_surface(inside), predicate="within")
        size = areas[exteriors[candidates[around]]]
        # A region that fills the hole has the same outline as the hole.
        is_around = size > -areas[doubtful[hole]] * (1 + 1e-9)
        is_around &= groups[exteriors[candidates[around]]] == groups[doubtful[hole]]
        size, hole, around = size[is_around], hole[is_around], around[is_around]
        order = np.lexsort((size, hole))
        _, smallest = np.unique(hole[order], return_index=True)
        polygon[doubtful] = candidates[around[order][smallest]]
    return polygon


def _as_polygons(points: NDArray[Any], rings: Ints, own: Ints) -> NDArray[np.object_]:
    """Each ring as a polygon in (row, col)."""
    flat, start = take_runs(points, rings, own)
    flat = flat.astype(np.float64)
    return shapely.polygons(shapely.linearrings(flat, indices=np.repeat(np.arange(len(own)), np.diff(start))))


def _rings(links: Ints) -> tuple[Ints, Ints]:
    """Rings as lists of sides, whose links are given: see `tracing.follow`."""
    keys, stay, across = links.T
    by_key = np.argsort(keys)
    every = np.arange(len(keys))
    onward = by_key[np.searchsorted(keys[by_key], stay)]
    order, start = cycles(onward, every)
    meets = np.flatnonzero(stay != across)
    if len(meets):
        # A ring that meets itself at a corner would be invalid. It crosses over there, which cuts it in two.
        ring = np.empty(len(keys), np.int64)
        ring[order] = np.repeat(np.arange(len(start) - 1), np.diff(start))
        found = by_key[np.minimum(np.searchsorted(keys[by_key], across[meets]), len(keys) - 1)]
        is_own = (keys[found] == across[meets]) & (ring[found] == ring[meets])
        onward[meets[is_own]] = found[is_own]
        order, start = cycles(onward, every)
    return order, start


def batches(stops: Ints, most: int) -> Iterator[tuple[int, int]]:
    """Ranges of runs that hold about `most` items each; `stops` are the ends of the runs, which have no gaps.

    >>> list(batches(np.array([3, 5, 9, 30, 31]), 10))
    [(0, 3), (3, 4), (4, 5)]
    """
    last = np.flatnonzero(np.diff((stops - 1) // most, append=-1)) + 1
    return pairwise([0, *last.tolist()])


def by_batch(
    measure: Callable[[NDArray[np.float64], Ints], NDArray[np.float64]], points: NDArray[Any], rings: Ints
) -> NDArray[np.float64]:
    """A measure of rings, computed for some at a time, because it takes many times the memory of their points."""
    parts = [np.zeros(0)]
    for first, last in batches(rings[1:], BATCH_POINTS):
        own = rings[first : last + 1]
        parts.append(measure(points[own[0] : own[-1]].astype(np.float64), own - own[0]))
    return np.concatenate(parts)


def signed_areas(points: NDArray[Any], rings: Ints) -> NDArray[np.float64]:
    """Area of each ring in pixels, negative for a hole."""
    return by_batch(_signed_areas, points, rings)


def _signed_areas(points: NDArray[np.float64], rings: Ints) -> NDArray[np.float64]:
    following = following_in(rings)
    row, col = points.T
    # Counted from a point of the ring: coordinates far from 0 would cost digits.
    row = row - np.repeat(row[rings[:-1]], np.diff(rings))
    col = col - np.repeat(col[rings[:-1]], np.diff(rings))
    cross = row * col[following] - col * row[following]
    return np.add.reduceat(cross, rings[:-1]) / 2


def geometries(polygons: Polygons, transform: Affine) -> NDArray[np.object_]:
    """Shapely polygons in the CRS of a raster with this transform."""
    closed = np.diff(polygons.rings) + 1
    ends = closed.cumsum()
    index = np.ones(ends[-1] if len(ends) else 0, np.int64).cumsum() - 1 - np.repeat(np.arange(len(closed)), closed)
    index[ends - 1] = polygons.rings[:-1]
    offsets = (np.concatenate([[0], ends]), polygons.start)
    row, col = polygons.points[index].T
    a, b, c, d, e, f = transform[:6]
    xy = np.stack([a * col + b * row + c, d * col + e * row + f], axis=1)
    return shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, offsets)
