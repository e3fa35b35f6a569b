"""Regions: strips are joined into whole boundary arcs and whole regions, which leave as soon as they are complete.

Memory holds the open arcs: those that cross the seam to the next strip, and those of groups of regions that reach it.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from landscribe.polygons.boundaries.runs import Ints, offsets_of, take_runs
from landscribe.polygons.boundaries.tracing import STEPS, Chains, Lines, Trace, cycles, follow

Points = tuple[NDArray[Any], Ints]
"""(points, 2) of many lines as (row, col), int32 or, where they are smoothed, float64; and the start of each line and
the end of the last."""


@dataclass(frozen=True)
class Sides(Chains):
    """One side of arcs each: the arc as part of the ring that has its region on the left.

    Points are those of `Points`, without the last one of each arc, which is the first one of the next.
    """

    groups: Ints
    codes: Ints
    links: Ints
    """(sides, 3): key of its first edge; keys of the edges that may follow it, beside the same pixel and across."""
    first_corner: Ints
    """Number of its first corner in row order, as it was traced."""
    last_row: Ints
    """Row of its southernmost corner, as it was traced."""
    areas: Ints
    """Twice the signed area in pixels between the arc, as it was traced, and the raster's first corner."""
    sums: NDArray[np.float64]
    """(sides, 2): sum and number of weights, see `tracing.Lines`; (sides, 0) without weights."""


@dataclass
class RegionJoiner:
    """Takes the strips of a raster from north to south, and returns the groups of regions that are complete by then."""

    width: int
    """Columns of the raster."""
    shape: Callable[[Lines], Points]
    """From whole arcs to the points that each keeps: simplification, or none."""
    _open_arcs: Lines | None = None
    _south: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """Number of the open group of each pixel north of the seam; 0 for none."""
    _sides: dict[int, list[Sides]] = field(default_factory=lambda: defaultdict(list))
    """Of the open groups."""
    _begun: dict[int, int] = field(default_factory=dict)
    """First row of the strip in which each open group begins."""
    _count: int = 0
    """Numbers given to open groups so far."""

    @property
    def first_open_row(self) -> float:
        """A row north of which no group is open; infinity if none is."""
        return min(self._begun.values(), default=math.inf)

    def add(self, trace: Trace, row: int, *, is_last: bool) -> Sides:
        """Join the next strip, which starts at a row; the sides of complete groups, which are numbered from 0."""
        before = set(np.unique(self._south).tolist())
        owners = self._owners(trace, row, is_last=is_last)
        arcs = self._whole_arcs(trace.lines)
        sides = _sides(arcs, self.shape(arcs), self.width)
        own = owners[sides.groups]
        open_sides = np.flatnonzero(own)
        for group, members in _grouped(own[open_sides]):
            self._sides[group].append(sides.take(open_sides[members]))
        ended = (before | set(owners[owners > 0].tolist())) - set(np.unique(self._south).tolist()) - {0}
        for group in ended & self._begun.keys():
            del self._begun[group]
        within = sides.take(np.flatnonzero(own == 0))
        # Not by np.unique, which is slow where most groups have few sides.
        numbers = np.zeros(trace.count + 1, np.int64)
        numbers[within.groups] = 1
        numbers = numbers.cumsum() - 1
        parts = [replace(within, groups=numbers[within.groups])]
        for number, group in enumerate(sorted(ended & self._sides.keys()), start=int(numbers[-1]) + 1):
            parts += [replace(part, groups=np.full(len(part.codes), number)) for part in self._sides.pop(group)]
        return Sides.join(parts)

    def _owners(self, trace: Trace, row: int, *, is_last: bool) -> Ints:
        """Number of the open group that each group of the strip is part of; 0 if it lies within the strip."""
        owners = np.zeros(trace.count + 1, np.int64)
        if len(self._south):
            is_region = trace.north > 0
            pairs = np.unique(np.stack([self._south[is_region], trace.north[is_region]], axis=1), axis=0)
            for open_groups, groups in _connected(pairs):
                kept = int(open_groups[0])
                owners[groups] = kept
                for other in open_groups[1:].tolist():
                    self._sides[kept] += self._sides.pop(other, [])
                    self._begun[kept] = min(self._begun[kept], self._begun.pop(other))
        begun = np.unique(trace.south) if not is_last else np.zeros(0, np.int64)
        begun = begun[(begun > 0) & (owners[begun] == 0)]
        owners[begun] = np.arange(len(begun)) + self._count + 1
        # The row above the strip belongs to it as well, for the regions that are traced along it.
        self._begun |= dict.fromkeys(owners[begun].tolist(), row - 1)
        self._count += len(begun)
        self._south = np.zeros(0, np.int64) if is_last else owners[trace.south]
        return owners

    def _whole_arcs(self, lines: Lines) -> Lines:
        """The arcs that are complete with this strip; the others stay open."""
        crosses = (lines.ports >= 0).any(axis=1)
        whole, pieces = lines.take(np.flatnonzero(~crosses)), lines.take(np.flatnonzero(crosses))
        arcs, rings = _joined(self._open_arcs, pieces)
        is_open = (arcs.ports >= 0).any(axis=1)
        self._open_arcs = arcs.take(np.flatnonzero(is_open))
        return Lines.join([whole, arcs.take(np.flatnonzero(~is_open)), _closed(rings, self.width)])


def _joined(open_arcs: Lines | None, lines: Lines) -> tuple[Lines, Lines]:
    """Join open arcs and the lines of the next strip at the seam between them; arcs, and rings without an end."""
    if open_arcs is None:
        return lines, lines.take(np.zeros(0, np.int64))
    pieces = Lines.join([open_arcs, lines])
    is_open = np.arange(len(pieces)) < len(open_arcs)
    onward = np.full(len(pieces), -1)
    ends_at_seam = (pieces.ports[:, 1] >= 0) & (is_open | pieces.is_north[:, 1])
    starts_at_seam = (pieces.ports[:, 0] >= 0) & (is_open | pieces.is_north[:, 0])
    for is_before in (is_open, ~is_open):  # southward from an open arc, northward into one
        ends, starts = np.flatnonzero(ends_at_seam & is_before), np.flatnonzero(starts_at_seam & ~is_before)
        onward[ends[np.argsort(pieces.ports[ends, 1])]] = starts[np.argsort(pieces.ports[starts, 0])]
    is_head = np.ones(len(pieces), bool)
    is_head[onward[onward >= 0]] = False
    order, start = follow(onward, np.flatnonzero(is_head))
    is_in_ring = np.ones(len(pieces), bool)
    is_in_ring[order] = False
    ring_order, ring_start = cycles(onward, np.flatnonzero(is_in_ring))
    return _concatenated(pieces, order, start), _concatenated(pieces, ring_order, ring_start)


def _concatenated(pieces: Lines, order: Ints, start: Ints) -> Lines:
    """The pieces `order[start[i]:start[i + 1]]` as one line each; pieces of earlier strips come first in `pieces`."""
    if not len(order):
        return pieces.take(order)
    first, last = order[start[:-1]], order[start[1:] - 1]
    # Groups are numbered by strip: those of the last strip count.
    newest = np.maximum.reduceat(order, start[:-1])
    points, bounds = take_runs(pieces.points, pieces.start, order)
    return Lines(
        points, bounds[start],
        pieces.codes[newest], pieces.groups[newest],
        np.stack([pieces.links[first, 0], pieces.links[last, 1]], axis=1),
        np.stack([pieces.ports[first, 0], pieces.ports[last, 1]], axis=1),
        np.zeros((len(first), 2), bool), np.add.reduceat(pieces.sums[order], start[:-1]),
    )  # fmt: skip


def _closed(rings: Lines, width: int) -> Lines:
    """Rings that start, and end, at their first corner in row order."""
    points, links = [], []
    for index in range(len(rings)):
        own = rings.points[rings.start[index] : rings.start[index + 1]]
        own = np.roll(own, -np.lexsort((own[:, 1], own[:, 0]))[0], axis=0)
        points.append(np.concatenate([own, own[:1]]))
        links.append(_ring_links(points[-1], width))
    if not points:
        return rings
    start = offsets_of([len(own) for own in points])
    ports = np.full((len(rings), 2), -1)
    return replace(rings, points=np.concatenate(points), start=start, links=np.stack(links), ports=ports)


def _ring_links(points: NDArray[np.int32], width: int) -> Ints:
    """Links (2, 3) at the corner where a ring starts and ends."""
    row, col = points[0].tolist()
    leaves, arrives = (
        int((np.sign(points[i + 1] - points[i]) == STEPS).all(axis=1).argmax()) for i in (0, len(points) - 2)
    )
    back = (arrives + 2) % 4
    return 4 * (row * (width + 1) + col) + np.array([[leaves, back, back], [back, leaves, leaves]])


def _sides(arcs: Lines, kept: Points, width: int) -> Sides:
    """Both sides of whole arcs, without those of code 0."""
    points, start = kept
    corners = arcs.points[:, 0].astype(np.int64) * (width + 1) + arcs.points[:, 1]
    first_corner, last_row = (
        (np.minimum.reduceat(corners, arcs.start[:-1]), np.maximum.reduceat(arcs.points[:, 0], arcs.start[:-1]))
        if len(arcs) else (np.zeros(0, np.int64), np.zeros(0, np.int64))
    )  # fmt: skip
    areas = _doubled_areas(arcs)
    parts = []
    for side in (0, 1):
        own = np.flatnonzero(arcs.codes[:, side])
        counts = np.diff(start)[own] - 1
        bounds = offsets_of(counts)
        step = np.arange(bounds[-1]) - np.repeat(bounds[:-1], counts)
        index = np.repeat(start[own], counts) + step if side == 0 else np.repeat(start[own + 1] - 1, counts) - step
        links = np.stack([arcs.links[own, side, 0], arcs.links[own, 1 - side, 1], arcs.links[own, 1 - side, 2]], axis=1)
        parts.append(
            Sides(
                points[index],
                bounds,
                arcs.groups[own, side],
                arcs.codes[own, side],
                links,
                first_corner[own],
                last_row[own].astype(np.int64),
                areas[own] if side == 0 else -areas[own],
                arcs.sums[own, side],
            )
        )
    return Sides.join(parts)


def _doubled_areas(arcs: Lines) -> Ints:
    """Twice the signed area between each arc and the raster's first corner: a whole number."""
    if not len(arcs):
        return np.zeros(0, np.int64)
    row, col = arcs.points.astype(np.int64).T
    cross = np.zeros(len(row), np.int64)
    cross[:-1] = row[:-1] * col[1:] - col[:-1] * row[1:]
    cross[arcs.start[1:] - 1] = 0
    areas: Ints = np.add.reduceat(cross, arcs.start[:-1])
    return areas


def _grouped(keys: Ints) -> Iterator[tuple[int, Ints]]:
    """Each key, and the indices where it is."""
    order = np.argsort(keys, kind="stable")
    unique, bounds = np.unique(keys[order], return_index=True)
    return zip(unique.tolist(), np.split(order, bounds)[1:], strict=True)


def _connected(pairs: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Groups of pairs that share a member: the first members of each group, and its second members."""
    (first, rows), (second, cols) = (np.unique(column, return_inverse=True) for column in pairs.T)
    graph = sparse.coo_matrix((np.ones(len(pairs)), (rows, cols + len(first))), shape=(len(first) + len(second),) * 2)
    _, groups = csgraph.connected_components(graph, directed=False)
    for _, members in _grouped(groups):
        yield first[members[members < len(first)]], second[members[members >= len(first)] - len(first)]
