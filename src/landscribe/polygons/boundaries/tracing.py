"""Tracing: the boundaries of the regions in one strip of a class raster, as lines that the next strip can continue.

A region is a 4-connected set of pixels of one code; code 0 is no region. Regions are complete one by one, or in groups
of those that touch. Points are corners of pixels, (row, col). Each
boundary is traced once, for both of its regions, with the higher code on its left. A line runs from junction to
junction, where three or more regions meet or the raster ends; a closed line has none. A line that crosses a seam
between strips ends there, at a *port*: the column of the seam that it crosses.

All steps are array operations over the corners of boundaries, never over single pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from skimage.measure import label

from landscribe.polygons.boundaries.runs import Ints, offsets_of, take_runs

Codes = NDArray[Any]
"""(rows, cols) of unsigned integers, 0 where no region is."""

EAST, NORTH, WEST, SOUTH = range(4)
STEPS = np.array([(0, 1), (-1, 0), (0, -1), (1, 0)])
"""(row, col) of one pixel in each direction."""
_LEFT = np.array([(0, 1), (0, 0), (1, 0), (1, 1)])
_RIGHT = np.array([(1, 1), (0, 1), (0, 0), (1, 0)])
"""The pixel on the left, and on the right, of the edge that leaves a corner: offsets in an array that is padded by one
pixel, whose pixel (row, col) lies north-west of the corner (row, col)."""


def _turns() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tables [edges of a corner as bits, direction of arrival] of the direction in which a ring leaves a corner.

    A ring keeps its region on the left. The first table stays beside the same pixel: the leftmost edge. Where four
    edges meet, the second one crosses over to the diagonal pixel: the rightmost edge.
    """
    stay = np.zeros((16, 4), np.int64)
    cross = np.zeros((16, 4), np.int64)
    for edges in range(16):
        for arrival in range(4):
            leftmost = [way % 4 for way in (arrival + 1, arrival, arrival + 3) if edges >> way % 4 & 1]
            stay[edges, arrival] = leftmost[0] if leftmost else -1
            cross[edges, arrival] = (arrival + 3) % 4 if edges == 15 else stay[edges, arrival]
    return stay, cross


_STAY, _CROSS = _turns()


@dataclass(frozen=True)
class Chains:
    """Chains of points in flat arrays, with further arrays that have one entry for each chain."""

    points: NDArray[Any]
    """(points, 2): (row, col); chain i has the points `start[i]:start[i + 1]`."""
    start: Ints
    """(chains + 1,)."""

    def __len__(self) -> int:
        return len(self.start) - 1

    def take(self, chains: Ints) -> Self:
        """The same arrays of these chains, in this order."""
        points, start = take_runs(self.points, self.start, chains)
        return type(self)(points, start, *(getattr(self, name)[chains] for name in self._per_chain()))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The chains of several parts."""
        start = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.start) for part in parts)]).cumsum()
        rest = (np.concatenate([getattr(part, name) for part in parts]) for name in cls._per_chain())
        return cls(np.concatenate([part.points for part in parts]), start, *rest)

    @classmethod
    def _per_chain(cls) -> list[str]:
        return [each.name for each in fields(cls)][2:]


@dataclass(frozen=True)
class Lines(Chains):
    """Boundary lines; their points are int32."""

    codes: Ints
    """(lines, 2): code on the left and on the right; the left one is higher."""
    groups: Ints
    """(lines, 2): group of regions on the left and on the right, 0 for none."""
    links: Ints
    """(lines, 2, 3), at the first and the last point: key of the edge from that point into the line; keys of the edges
    that may follow in the ring that leaves the line at that point, beside the same pixel and across. The ring of the
    left region runs forward, that of the right region backward. -1 at a port."""
    ports: Ints
    """(lines, 2): column of the seam that the line crosses before its first and after its last point; -1 for none."""
    is_north: NDArray[np.bool_]
    """(lines, 2): True if that seam is the one north of the strip."""
    sums: NDArray[np.float64]
    """(lines, 2, 2): sum and number of the weights of pixels on the left and on the right; (lines, 2, 0) without
    weights. The pixels of a region in a strip count for one of its lines."""


Grouping = Literal["region", "diagonal", "touching"]
"""Regions that are complete together: each alone; those of one code that touch, also at a corner; all that touch."""


@dataclass(frozen=True)
class Trace:
    """One strip."""

    lines: Lines
    count: int
    """Groups are numbered from 1 to this."""
    north: NDArray[np.int32]
    """(cols,): group of each pixel in the row above the strip; that row belongs to the strip before."""
    south: NDArray[np.int32]
    """(cols,): group of each pixel in the last row."""


@dataclass(frozen=True)
class Tracing:
    """How strips are traced."""

    grouping: Grouping = "region"
    cut: int | None = None
    """Lines also end where they cross a row that is a multiple of this."""

    def trace(
        self, codes: Codes, first_row: int, *, is_last: bool, weights: NDArray[np.float32] | None = None
    ) -> Trace:
        """Trace the boundaries of a strip.

        Args:
            codes: (1 + rows, cols): the row above the strip, zeros above the first one, then the strip.
            first_row: of the strip in the raster.
            is_last: True if the raster ends with the strip.
            weights: (rows, cols) that are summed by region, NaN where there is none.
        """
        padded = np.pad(codes, ((0, int(is_last)), (1, 1)))
        labelled = padded > 0 if self.grouping == "touching" else padded
        groups = _labelled(labelled, 1 if self.grouping == "region" else 2)
        corners = _Corners.of(padded, first_row, is_last=is_last, cut=self.cut)
        lines, pixels = _lines(corners, padded, groups, first_row)
        if weights is not None:
            regions = groups if self.grouping == "region" else _labelled(padded, 1)
            lines = replace(lines, sums=_sums(regions, weights, pixels))
        last = groups[len(codes) - 1, 1:-1]
        return Trace(lines, int(groups.max()), groups[0, 1:-1].astype(np.int32), last.astype(np.int32))


def _labelled(codes: Codes, connectivity: int) -> Ints:
    """Numbers from 1 of connected pixels of one code, and 0 for code 0."""
    regions: Ints = label(codes, background=0, connectivity=connectivity)
    return regions


def _sums(regions: Ints, weights: NDArray[np.float32], pixels: tuple[Ints, Ints]) -> NDArray[np.float64]:
    """Sums and numbers of weights (lines, 2, 2) from those of regions; `pixels` are on both sides of each line."""
    is_known = ~np.isnan(weights)
    own, known = regions[1 : len(weights) + 1, 1:-1][is_known], weights[is_known]
    totals = np.stack([np.bincount(own, known, regions.max() + 1), np.bincount(own, minlength=regions.max() + 1)], 1)
    beside = np.stack([regions[tuple(side)] for side in pixels], axis=1)
    sums = np.zeros((beside.size, 2))
    region, first = np.unique(beside, return_index=True)
    sums[first] = totals[region]
    sums[beside.ravel() == 0] = 0
    return sums.reshape(*beside.shape, 2)


@dataclass(frozen=True)
class _Corners:
    """Corners of pixels where a boundary turns, branches or ends, in row order."""

    rows: Ints
    """Counted from the strip's first row."""
    cols: Ints
    edges: NDArray[np.uint8]
    """Bit d is set if a boundary leaves in direction d."""
    leaves: NDArray[np.bool_]
    """(4, corners): True if the line on that edge leads away: the higher code is on its left."""
    neighbours: Ints
    """(4, corners): the next corner on that edge; -1 if the edge crosses a seam, or there is none."""
    first: Ints
    """(cols + 1,): the first corner of each column; -1 if there is none."""
    last: Ints
    """(cols + 1,): the last one."""
    is_junction: NDArray[np.bool_]

    @classmethod
    def of(cls, padded: Codes, first_row: int, *, is_last: bool, cut: int | None) -> "_Corners":
        across, down = padded[:, 1:] != padded[:, :-1], padded[1:] != padded[:-1]
        north, south, west, east = across[:-1], across[1:], down[:, :-1], down[:, 1:]
        is_corner = (north ^ south) | (west ^ east) | (north & west)
        height, width = is_corner.shape
        cuts = np.zeros(height, bool) if cut is None else (np.arange(height) + first_row) % cut == 0
        is_corner[cuts] |= north[cuts]
        flat = np.flatnonzero(is_corner)
        rows, cols = np.divmod(flat, width)
        edges = np.zeros(len(flat), np.uint8)
        for direction, has_edge in enumerate((east, north, west, south)):
            edges |= has_edge[rows, cols].view(np.uint8) << direction
        north_west, north_east, south_west, south_east = (
            padded[rows + row, cols + col] for row in (0, 1) for col in (0, 1)
        )
        leaves = np.stack(
            [north_east > south_east, north_west > north_east, south_west > north_west, south_east > south_west]
        )
        neighbours, first, last = _neighbours(edges, cols, width)
        is_on_frame = (cols == 0) | (cols == width - 1) | (rows + first_row == 0) | (is_last & (rows == height - 1))
        branches = np.array([bits.bit_count() > 2 for bits in range(16)])[edges]
        return cls(rows, cols, edges, leaves, neighbours, first, last, branches | is_on_frame | cuts[rows])


def _neighbours(edges: NDArray[np.uint8], cols: Ints, width: int) -> tuple[Ints, Ints, Ints]:
    """The next corner on each edge, and the first and last corner of each column."""
    count = len(cols)
    # Between two corners of a row or column, a boundary runs straight: the next corner is the next in order.
    index = np.arange(count)
    by_column = np.argsort(cols.astype(np.uint16) if width < 2**16 else cols, kind="stable")
    bounds = np.searchsorted(cols[by_column], np.arange(width + 1))
    south = np.full(count, -1)
    if count:
        is_same = cols[by_column][1:] == cols[by_column][:-1]
        south[by_column[:-1][is_same]] = by_column[1:][is_same]
    north = np.full(count, -1)
    north[south[south >= 0]] = index[south >= 0]
    neighbours = np.stack([index + 1, north, index - 1, south])
    for direction in range(4):
        neighbours[direction, edges >> direction & 1 == 0] = -1
    is_empty = bounds[1:] == bounds[:-1]
    ordered = np.append(by_column, -1)
    first, last = ordered[bounds[:-1]], ordered[bounds[1:] - 1]
    first[is_empty] = last[is_empty] = -1
    return neighbours, first, last


@dataclass(frozen=True)
class _Starts:
    """Where lines start: at a corner or, with corner -1, at a port."""

    corners: Ints
    directions: Ints
    ports: Ints
    """Column, for corner -1."""
    next: Ints
    """The first corner after the start; -1 if the line reaches a port before."""

    @classmethod
    def of(cls, corners: _Corners, padded: Codes) -> "_Starts":
        """Those of all lines that are not closed."""
        directions, junctions = np.nonzero(corners.leaves & corners.is_junction)
        # Southward through the seam above, and northward through the seam below.
        into_south = np.flatnonzero(padded[0, 1:] > padded[0, :-1])
        into_north = np.flatnonzero(padded[-1, :-1] > padded[-1, 1:])
        ports = np.concatenate([into_south, into_north])
        return cls(
            np.concatenate([junctions, np.full(len(ports), -1)]),
            np.concatenate([directions, np.repeat([SOUTH, NORTH], [len(into_south), len(into_north)])]),
            np.concatenate([np.full(len(junctions), -1), ports]),
            np.concatenate(
                [corners.neighbours[directions, junctions], corners.first[into_south], corners.last[into_north]]
            ),
        )


def _lines(corners: _Corners, padded: Codes, groups: Ints, first_row: int) -> tuple[Lines, tuple[Ints, Ints]]:
    """Lines along the corners, first those from junctions and ports, then the closed ones; pixels on both sides."""
    leaves = corners.leaves.argmax(axis=0)  # of a corner that is no junction: its one edge that leads away
    following = corners.neighbours[leaves, np.arange(len(leaves))]
    is_passed = ~corners.is_junction
    following[~is_passed] = -1
    onward = np.where((following >= 0) & np.append(is_passed, False)[following], following, -1)
    starts = _Starts.of(corners, padded)
    bodies, start = follow(onward, np.where(np.append(is_passed, False)[starts.next], starts.next, -1))
    is_left = is_passed.copy()
    is_left[bodies] = False
    closed = np.flatnonzero(is_left)
    if len(closed):
        ring_bodies, ring_start = cycles(onward, closed)
        heads = ring_bodies[ring_start[:-1]]
        rings = _Starts(heads, leaves[heads], np.full(len(heads), -1), following[heads])
        starts = _Starts(*(np.concatenate(pair) for pair in zip(_columns(starts), _columns(rings), strict=True)))
        # The head of a ring is its first point, and again its last one.
        bodies = np.concatenate([bodies, np.delete(ring_bodies, ring_start[:-1])])
        counts = np.concatenate([np.diff(start), np.diff(ring_start) - 1])
        start = offsets_of(counts)
    return _as_lines(corners, starts, (bodies, start), (leaves, following), (padded, groups, first_row))


def _columns(starts: _Starts) -> tuple[Ints, ...]:
    return starts.corners, starts.directions, starts.ports, starts.next


def _as_lines(
    corners: _Corners, starts: _Starts, bodies: tuple[Ints, Ints], onward: tuple[Ints, Ints],
    strip: tuple[Codes, Ints, int],
) -> tuple[Lines, tuple[Ints, Ints]]:  # fmt: skip
    """Points, groups and ends of lines from their starts and the corners between their ends."""
    (body, start), (leaves, following), (padded, groups, first_row) = bodies, onward, strip
    has_body = np.diff(start) > 0
    before_end = np.append(body, 0)[np.maximum(start[1:] - 1, 0)]
    ends = np.where(has_body, np.append(following, -1)[before_end], starts.next)
    arrivals = np.where(has_body, np.append(leaves, 0)[before_end], starts.directions)
    cols = np.append(corners.cols, 0)
    last_cols = np.where(has_body, cols[before_end], np.where(starts.corners >= 0, cols[starts.corners], starts.ports))
    # Points: the start corner, the body, the end corner; a port adds none.
    counts = np.diff(start) + (starts.corners >= 0) + (ends >= 0)
    offsets = offsets_of(counts)
    indices = np.empty(offsets[-1], np.int64)
    has_start, has_end = starts.corners >= 0, ends >= 0
    indices[offsets[:-1][has_start]] = starts.corners[has_start]
    indices[offsets[1:][has_end] - 1] = ends[has_end]
    indices[np.arange(len(body)) + np.repeat(offsets[:-1] + has_start - start[:-1], np.diff(start))] = body
    points = np.stack([corners.rows[indices] + first_row, corners.cols[indices]], axis=1).astype(np.int32)
    lefts, rights = _beside(corners, starts, len(padded))
    width = padded.shape[1] - 1
    lines = Lines(
        points, offsets,
        np.stack([padded[tuple(lefts)], padded[tuple(rights)]], axis=1).astype(np.int64),
        np.stack([groups[tuple(lefts)], groups[tuple(rights)]], axis=1).astype(np.int64),
        np.stack(
            [
                _links(corners, starts.corners, starts.directions, (starts.directions + 2) % 4, first_row, width),
                _links(corners, ends, (arrivals + 2) % 4, arrivals, first_row, width),
            ],
            axis=1,
        ),
        np.stack([starts.ports, np.where(has_end, -1, last_cols)], axis=1),
        np.stack([starts.directions == SOUTH, arrivals == NORTH], axis=1),
        np.zeros((len(ends), 2, 0)),
    )  # fmt: skip
    return lines, (lefts, rights)


def _beside(corners: _Corners, starts: _Starts, height: int) -> tuple[Ints, Ints]:
    """Indices (2, lines) of the padded pixels on the left and on the right of each line's first edge."""
    is_port = starts.corners < 0
    rows = np.append(corners.rows, 0)[starts.corners]
    cols = np.where(is_port, starts.ports, np.append(corners.cols, 0)[starts.corners])
    left, right = (offsets[starts.directions].T + np.stack([rows, cols]) for offsets in (_LEFT, _RIGHT))
    # The edge that crosses a seam lies in the row above the strip, or in its last row.
    seam_row = np.where(starts.directions == SOUTH, 0, height - 1)
    left[0], right[0] = np.where(is_port, seam_row, left[0]), np.where(is_port, seam_row, right[0])
    return left, right


def _links(corners: _Corners, ends: Ints, into: Ints, arrivals: Ints, first_row: int, width: int) -> Ints:
    """Keys (lines, 3) of the edges at one end of each line; see `Lines.links`.

    Args:
        corners: of the strip.
        ends: the corner at that end; -1 for a port.
        into: direction from it into the line.
        arrivals: direction in which a ring comes out of the line.
        first_row: of the strip.
        width: corners in a row.
    """
    edges = np.append(corners.edges, 0)[ends]
    corner = (np.append(corners.rows, 0)[ends] + first_row) * width + np.append(corners.cols, 0)[ends]
    keys = np.stack([into, _STAY[edges, arrivals], _CROSS[edges, arrivals]], axis=1) + 4 * corner[:, None]
    keys[ends < 0] = -1
    return keys


def follow(onward: Ints, heads: Ints) -> tuple[Ints, Ints]:
    """Walk linked lists: (members of all lists one after the other, start of each list and the end of the last).

    Args:
        onward: the member after each member; -1 at the end of a list.
        heads: the first member of each list; -1 for an empty list.
    """
    size, lists = len(onward), len(heads)
    if not lists:
        return np.zeros(0, np.int64), np.zeros(1, np.int64)
    # A backbone of one node a list, whose branch is the list: depth-first order visits a list after its node.
    has_head, has_next = heads >= 0, np.arange(lists) < lists - 1
    pairs = np.stack([heads, np.arange(lists) + size + 1], axis=1)
    targets = np.concatenate([onward[onward >= 0], pairs[np.stack([has_head, has_next], axis=1)]])
    degrees = np.concatenate([onward >= 0, has_head.astype(int) + has_next])
    pointers = offsets_of(degrees)
    graph = sparse.csr_matrix((np.ones(len(targets)), targets, pointers), shape=(size + lists, size + lists))
    order = csgraph.depth_first_order(graph, size, return_predecessors=False).astype(np.int64)
    nodes = np.flatnonzero(order >= size)
    start = np.append(nodes - np.arange(lists), len(order) - lists)
    return np.delete(order, nodes), start


def cycles(onward: Ints, members: Ints) -> tuple[Ints, Ints]:
    """The cycles that hold all `members`, as by `follow`; each starts at its lowest member, in their order."""
    position = np.full(len(onward), -1)
    position[members] = np.arange(len(members))
    following = position[onward[members]]
    graph = sparse.csr_matrix(
        (np.ones(len(members)), following, np.arange(len(members) + 1)), shape=(len(members), len(members))
    )
    _, labels = csgraph.connected_components(graph, directed=False)
    heads = np.sort(np.unique(labels, return_index=True)[1])
    is_head = np.zeros(len(members), bool)
    is_head[heads] = True
    order, start = follow(np.where(is_head[following], -1, following), heads)
    return members[order], start
