"""Rings: the sides of complete regions become polygons."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from landscribe.polygons.regions import Sides
from landscribe.polygons.tracing import Ints, cycles, take_runs


@dataclass(frozen=True)
class Polygons:
    """Polygons in flat arrays: the exterior ring of each, then its holes."""

    points: NDArray[np.float64]
    """(points, 2): (row, col), without the last point of each ring, which is its first one."""
    rings: Ints
    """(rings + 1,): start of each ring in `points`."""
    start: Ints
    """(polygons + 1,): start of each polygon in `rings`."""
    codes: Ints
    regions: Ints
    """Number of each polygon's region in the `Sides` that it is of."""

    def __len__(self) -> int:
        return len(self.codes)


def polygons_of(sides: Sides) -> Polygons:
    """Link the sides of regions to rings, and rings to polygons.

    Polygons are in order of their last row, then of their first corner. Law: each is valid: its exterior runs
    counter-clockwise where y points north, its holes clockwise, and its rings touch at single points at most.
    """
    if not len(sides.codes):
        none = np.zeros(0, np.int64)
        return Polygons(np.zeros((0, 2)), np.zeros(1, np.int64), np.zeros(1, np.int64), none, none)
    sides, regions = _ordered(sides)
    order, start = _rings(sides)
    points, bounds = take_runs(sides.points, sides.start, order)
    rings = bounds[start]
    owners = sides.regions[order[start[:-1]]]
    is_hole = signed_areas(points, rings) < 0
    by_region = np.lexsort((is_hole, owners))
    points, rings = take_runs(points, rings, by_region)
    first = np.flatnonzero(~is_hole[by_region])
    return Polygons(points, rings, np.append(first, len(by_region)), sides.codes[order[start[:-1]]][by_region][first], regions)


def _ordered(sides: Sides) -> tuple[Sides, Ints]:
    """The sides by region and first edge, regions numbered in the order of their polygons; their numbers before."""
    count = int(sides.regions.max()) + 1
    last_row, first_corner = np.zeros(count, np.int64), np.full(count, np.iinfo(np.int64).max)
    np.maximum.at(last_row, sides.regions, sides.last_row)
    np.minimum.at(first_corner, sides.regions, sides.first_corner)
    before = np.lexsort((first_corner, last_row))
    rank = np.empty(count, np.int64)
    rank[before] = np.arange(count)
    regions = rank[sides.regions]
    ordered = sides.take(np.lexsort((sides.links[:, 0], regions)))
    return Sides(ordered.points, ordered.start, rank[ordered.regions], *_rest(ordered)), before


def _rest(sides: Sides) -> tuple[Any, ...]:
    return sides.codes, sides.links, sides.first_corner, sides.last_row


def _rings(sides: Sides) -> tuple[Ints, Ints]:
    """Rings as lists of sides: see `tracing.follow`."""
    keys, stay, across = sides.links.T
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


def signed_areas(points: NDArray[np.float64], rings: Ints) -> NDArray[np.float64]:
    """Area of each ring in pixels, negative for a hole."""
    following = np.arange(1, len(points) + 1)
    following[rings[1:] - 1] = rings[:-1]
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
