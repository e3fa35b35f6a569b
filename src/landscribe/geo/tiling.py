"""Tiling: windows of chips for training, and tiles and units for mapping. Pure arithmetic.

Along each axis, tiles of one size cover a raster. The kept parts of neighbouring tiles meet in the middle of their
overlap, so that every kept pixel has at least `margin` pixels of context (or the raster's edge) on each side:

    read      |<----------- size ----------->|
    next read                    |<----------- size ----------->|
    kept      |======================|======================...
                                 |<->|<->| at least `margin` each
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from landscribe.errors import TilingError
from landscribe.geo.grid import Window
from landscribe.geo.spec import EdgePolicy


@dataclass(frozen=True, slots=True)
class Tile:
    """A window to read, and the part of it to keep."""

    read: Window
    """May reach outside the grid on the right and at the bottom."""
    keep: Window
    """Lies inside `read` and inside the grid."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A rectangle of tiles that is read, computed and written on its own."""

    row: int
    """Row among the units of the grid."""
    col: int
    """Column among the units of the grid."""
    tiles: tuple[Tile, ...]
    """In row order. Their `keep` parts partition `keep`, unless tiles of neighbouring units are included."""
    read: Window
    """Bounding window of what its tiles read."""
    keep: Window
    """The part of the map that this unit writes."""

    @property
    def name(self) -> str:
        """Stem of its files; sorts in row order."""
        return f"{self.row:05d}_{self.col:05d}"


@dataclass(frozen=True)
class ChipLattice:
    """The chips of a grid, every `stride` pixels, each once. They are counted and located without being listed.

    With `shift` and `pad` and `stride <= size` they cover the grid.

    >>> lattice = ChipLattice(4, 10, size=4, stride=4, edge="shift")
    >>> lattice.rows, lattice.cols
    (1, 3)
    >>> [lattice.window(0, col).col for col in range(lattice.cols)]
    [0, 4, 6]
    """

    height: int
    """Rows of the grid, in pixels."""
    width: int
    size: int
    """Side of a chip in pixels."""
    stride: int
    """Step between chips in pixels; `size` for no overlap."""
    edge: EdgePolicy
    """Policy for a chip that would reach outside. `shift` moves it inward (a grid smaller than a chip is padded), `pad`
    lets it reach outside, `drop` leaves it out."""

    def __post_init__(self) -> None:
        if self.size < 1 or self.stride < 1:
            raise TilingError(
                f"chip size is {self.size} and stride is {self.stride}. Expected at least 1 pixel for both."
            )

    @property
    def rows(self) -> int:
        """Number of rows of chips."""
        return self._count(self.height)

    @property
    def cols(self) -> int:
        """Number of columns of chips."""
        return self._count(self.width)

    def window(self, row: int, col: int) -> Window:
        """The window of the chip in a row and column of the lattice."""
        return Window(self._start(row, self.height), self._start(col, self.width), self.size, self.size)

    def _count(self, length: int) -> int:
        """Number of chips along an axis of the grid."""
        inside = len(range(0, length - self.size + 1, self.stride))
        last = (inside - 1) * self.stride
        if self.edge == "drop" or (inside and last + self.size == length):
            return inside
        return inside + (not inside or self.edge == "shift" or last + self.stride < length)

    def _start(self, index: int, length: int) -> int:
        """First pixel of a chip along an axis of the grid."""
        start = index * self.stride
        return min(start, max(0, length - self.size)) if self.edge == "shift" else start


def kept_squares(
    rows: range, cols: range, is_kept: Callable[[range, range], bool], *, side: int
) -> Iterator[tuple[range, range]]:
    """Cut a lattice of cells into squares, and leave out those that are not kept.

    A part that is not kept is left out whole: `is_kept` is asked about the whole lattice first, then about its halves.

    Args:
        rows: rows of the lattice.
        cols: columns of the lattice.
        is_kept: True if a cell of these rows and columns may be kept.
        side: of a square in cells, at most.

    >>> list(kept_squares(range(3), range(2), lambda rows, cols: 2 in rows, side=2))
    [(range(2, 3), range(0, 2))]
    """
    if not rows or not cols or not is_kept(rows, cols):
        return
    if max(len(rows), len(cols)) <= side:
        yield rows, cols
        return
    for some_rows in _halves(rows, side):
        for some_cols in _halves(cols, side):
            yield from kept_squares(some_rows, some_cols, is_kept, side=side)


def _halves(span: range, side: int) -> list[range]:
    """Two parts of a range, the first a multiple of `side` long; the whole if it is not longer than that."""
    if len(span) <= side:
        return [span]
    middle = -(-len(span) // side) // 2 * side
    return [span[:middle], span[middle:]]


@dataclass(frozen=True, slots=True)
class _Span:
    """A Tile along one axis."""

    read: int
    size: int
    keep: int
    keep_stop: int


def units(
    height: int,
    width: int,
    *,
    size: int,
    margin: int,
    align: int = 1,
    side: int = 2048,
    overlapping: bool = False,
) -> Iterator[Unit]:
    """Cover a grid with tiles, grouped into units.

    Args:
        height: rows of the grid.
        width: columns of the grid.
        size: side of the window that a tile reads, in pixels; a multiple of `align`. Along an axis shorter than that,
            it is the length of the axis, rounded up to `align`.
        margin: pixels of context between a tile's edge and its kept part, except at the grid's edge.
        align: tile origins and sizes are multiples of this, the network's stride, so that the network's pooling cells
            are the same in every tile.
        side: target side of a unit in pixels.
        overlapping: include in each unit the tiles of its neighbours that read any pixel it keeps.

    Yields:
        Units in row order. Law: their `keep` parts partition the grid.

    Raises:
        TilingError: the size is no multiple of `align`, or the margin leaves nothing to keep.
    """
    rows = _spans(height, size, margin, align)
    cols = _spans(width, size, margin, align)
    row_groups, col_groups = _grouped(rows, side), _grouped(cols, side)
    for row, row_group in enumerate(row_groups):
        for col, col_group in enumerate(col_groups):
            keep = _kept(row_group, col_group)
            if overlapping:
                yield _unit(row, col, _overlapping(rows, row_group), _overlapping(cols, col_group), keep)
            else:
                yield _unit(row, col, row_group, col_group, keep)


def aligned(side: int, align: int) -> int:
    """The largest multiple of `align` up to `side`; `align` at least.

    >>> aligned(100, 32), aligned(10, 32)
    (96, 32)
    """
    return max(align, side // align * align)


def rounded_up(side: int, align: int) -> int:
    """The smallest multiple of `align` from `side` on.

    >>> rounded_up(100, 32), rounded_up(96, 32)
    (128, 96)
    """
    return -(-side // align) * align


def _spans(length: int, size: int, margin: int, align: int) -> list[_Span]:
    if size % align:
        raise TilingError(f"tile size {size} is not a multiple of the network's stride {align}. Choose a multiple.")
    core = (size - 2 * margin) // align * align
    if margin < 0 or core < 1:
        raise TilingError(
            f"tile size {size} with margin {margin} leaves no core to keep. "
            f"Expected a margin from 0 to {(size - align) // 2}."
        )
    aligned_length = rounded_up(length, align)
    if aligned_length <= size:
        return [_Span(0, aligned_length, 0, length)]
    last = aligned_length - size
    starts = [*range(0, last, core), last]
    # Neighbours share their overlap half and half; each half is at least the margin.
    seams = [(left + size + right) // 2 for left, right in pairwise(starts)]
    keeps, keep_stops = [0, *seams], [*seams, length]
    return [_Span(*span) for span in zip(starts, [size] * len(starts), keeps, keep_stops, strict=True)]


def _grouped(spans: list[_Span], side: int) -> list[list[_Span]]:
    """Groups of consecutive spans whose kept parts add up to about `side`; at least one span each."""
    longest = max(span.keep_stop - span.keep for span in spans)
    count = max(1, side // longest)
    return [spans[start : start + count] for start in range(0, len(spans), count)]


def _kept(rows: list[_Span], cols: list[_Span]) -> Window:
    row, col = rows[0].keep, cols[0].keep
    return Window(row, col, rows[-1].keep_stop - row, cols[-1].keep_stop - col)


def _overlapping(spans: list[_Span], group: list[_Span]) -> list[_Span]:
    """All spans that read any pixel that a group keeps."""
    start, stop = group[0].keep, group[-1].keep_stop
    return [span for span in spans if span.read < stop and span.read + span.size > start]


def _unit(row: int, col: int, rows: list[_Span], cols: list[_Span], keep: Window) -> Unit:
    tiles = tuple(
        Tile(
            read=Window(r.read, c.read, r.size, c.size),
            keep=Window(r.keep, c.keep, r.keep_stop - r.keep, c.keep_stop - c.keep),
        )
        for r in rows
        for c in cols
    )
    return Unit(row, col, tiles, Window.around(tile.read for tile in tiles), keep)
