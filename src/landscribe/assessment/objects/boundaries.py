"""Boundaries of polygons: the length of those that lie within a tolerance of others, exact for straight edges."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from landscribe import progress

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

_BLOCK = 2**15
"""Edges that are compared at once."""


def rings_of(polygons: NDArray[np.object_]) -> tuple[NDArray[np.object_], Indices]:
    """The rings of all parts of polygons and MultiPolygons, and the index of the polygon of each."""
    parts, owners = shapely.get_parts(polygons, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    return rings, owners[part]


@dataclass(frozen=True, eq=False)
class Edges:
    """The edges of all rings of polygons, in the CRS's units."""

    starts: Floats
    """(n, 2)."""
    ends: Floats
    """(n, 2)."""
    metres: Floats
    """(n, 2, 2) `metres_per_unit` at each edge."""

    @classmethod
    def of(cls, polygons: NDArray[np.object_], metres: Floats) -> "Edges":
        """The edges of polygons.

        Args:
            polygons: (n,) of any CRS.
            metres: (n, 2, 2) `metres_per_unit` at each polygon.
        """
        rings, owners = rings_of(polygons)
        xy, ring = shapely.get_coordinates(rings, return_index=True)
        same = (ring[1:] == ring[:-1]) & (xy[1:] != xy[:-1]).any(axis=1)
        return cls(xy[:-1][same], xy[1:][same], metres[owners[ring[:-1][same]]])

    def __len__(self) -> int:
        return len(self.starts)

    def lengths(self) -> Floats:
        """Metres on the ground."""
        return np.linalg.norm(_turned(self.metres, self.ends - self.starts), axis=1)


def length_within(edges: Edges, others: Edges, tolerance: float) -> float:
    """Metres of edges that lie within a tolerance of any other edge.

    The points within a distance of an edge form a convex shape, so an edge enters and leaves it once. The intervals of
    all others are united, so nothing counts twice.

    Args:
        edges: are measured.
        others: are compared with.
        tolerance: metres.
    """
    tree = shapely.STRtree(shapely.linestrings(np.stack([others.starts, others.ends], axis=1)))
    low, high = np.minimum(edges.starts, edges.ends), np.maximum(edges.starts, edges.ends)
    reach = tolerance * np.linalg.norm(np.linalg.inv(edges.metres), axis=2)
    lengths, total, blocks = edges.lengths(), 0.0, range(0, len(edges), _BLOCK)
    with progress.task("boundaries", len(blocks), least=8) as advance:
        for start in blocks:
            part = slice(start, start + _BLOCK)
            boxes = shapely.box(*(low[part] - reach[part]).T, *(high[part] + reach[part]).T)
            row, near = tree.query(boxes)
            own = row + start
            middle = (edges.starts[own] + edges.ends[own]) / 2
            corners = (edges.starts[own], edges.ends[own], others.starts[near], others.ends[near])
            low_share, high_share = _interval([_turned(edges.metres[own], xy - middle) for xy in corners], tolerance)
            total += float(_united(row, low_share, high_share, len(boxes)) @ lengths[part])
            advance()
    return total


def _turned(matrices: Floats, steps: Floats) -> Floats:
    return np.einsum("nij,nj->ni", matrices, steps)


def _interval(corners: Sequence[Floats], tolerance: float) -> tuple[Floats, Floats]:
    """The part of edges within a distance of another edge each, as shares 0 to 1; empty where low exceeds high.

    Args:
        corners: start and end of the edges, start and end of the others, each (n, 2) in metres.
        tolerance: metres.
    """
    start, end, other_start, other_end = corners
    step, other_step = end - start, other_end - other_start
    # Within the distance of an edge: the discs around its ends, and the rectangle between them.
    discs = [_in_disc(start - centre, step, tolerance) for centre in (other_start, other_end)]
    length = np.hypot(*other_step.T)
    offset = start - other_start
    along = _in_strip((offset * other_step).sum(axis=1), (step * other_step).sum(axis=1), 0 * length, length**2)
    side = tolerance * length
    across = _in_strip(_cross(other_step, offset), _cross(other_step, step), -side, side)
    rectangle = np.maximum(along[0], across[0]), np.minimum(along[1], across[1])
    low, high = np.full(len(start), np.inf), np.full(len(start), -np.inf)
    for near, far in (*discs, rectangle):
        filled = near <= far
        low, high = np.where(filled, np.minimum(low, near), low), np.where(filled, np.maximum(high, far), high)
    return np.maximum(low, 0), np.minimum(high, 1)


def _cross(a: Floats, b: Floats) -> Floats:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _in_disc(offset: Floats, step: Floats, radius: float) -> tuple[Floats, Floats]:
    """Where |offset + t step| <= radius: from, to."""
    squared = (step**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        half = np.sqrt(squared * radius**2 - _cross(offset, step) ** 2) / squared
        middle = -(offset * step).sum(axis=1) / squared
    empty = ~np.isfinite(half)
    return np.where(empty, np.inf, middle - half), np.where(empty, -np.inf, middle + half)


def _in_strip(offset: Floats, slope: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Where low <= offset + t slope <= high: from, to."""
    with np.errstate(invalid="ignore", divide="ignore"):
        first, second = (low - offset) / slope, (high - offset) / slope
    parallel, inside = slope == 0, (low <= offset) & (offset <= high)
    near = np.where(parallel, np.where(inside, -np.inf, np.inf), np.minimum(first, second))
    return near, np.where(parallel, -near, np.maximum(first, second))


def _united(row: Indices, low: Floats, high: Floats, count: int) -> Floats:
    """(count,) share of each edge that its intervals cover together."""
    filled = low < high
    row, low, high = row[filled], low[filled], high[filled]
    order = np.lexsort((low, row))
    row, low, high = row[order], low[order], high[order]
    # Edges lie two apart on one axis, so that the running maximum of one ends before the next.
    ends = np.maximum.accumulate(high + 2 * row)
    before = np.append(0.0, ends)[: len(ends)]
    new = np.maximum(ends - np.maximum(low + 2 * row, before), 0)
    shares: Floats = np.bincount(row, new, count).astype(np.float64)
    return shares
