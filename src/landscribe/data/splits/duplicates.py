"""Duplicates: chips that show the same picture, also recompressed, brightened, moved a little, mirrored or turned.

A small thumbnail of each chip finds the pairs that may be alike, for thousands of chips at once; whether they are is
decided on their pixels. Both look at detail only, what a pixel has beyond its surroundings, since fields, forests and
lakes are much alike from afar.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe import progress
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.data.chips.stats import band_statistics

Gray = NDArray[np.float32]
"""(rows, cols), mean 0 and standard deviation 1 over all chips; NaN where not valid."""

# A thumbnail has at most as many cells along a side, each of at least as many pixels.
_CELLS = 16
_LEAST_CELL = 4
# Thumbnails of copies correlate by 0.8 and more, those of others by about 0; the pixels decide.
_MAY_BE_ALIKE = 0.6
_TRIED_FOR_EACH = 3
# Seen on real scenes: other places 0.1, with chips of 64 pixels 0.4, and 0.6 where crop rows run alike; copies in JPEG
# of quality 50 or under noise 0.9, but less where a chip is so smooth that little else than noise is left to compare.
_ARE_ALIKE = 0.7
# Small chips have fewer things in them to be told apart by; in chips of fewer pixels only exact copies are looked for.
_SMALL, _ARE_ALIKE_WHERE_SMALL = 128, 0.85
_SMALLEST = 32
# A picture has at most as many parts along a side, each of at least as many pixels: fewer are alike by chance.
_PARTS = 4
_LEAST_PART = 16
_LEAST_SHARE_OF_PARTS = 3 / 8
# Detail below this, in standard deviations of all pixels, is no more than rounding.
_FLAT = 2e-3
_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Duplicate:
    """Two chips of different splits that show the same picture."""

    splits: tuple[str, str]
    chips: tuple[str, str]
    likeness: float
    """Correlation of their detail; 1 for the same pixels."""
    exact: bool
    """Every pixel is the same."""


def duplicates(chips: Chips) -> list[Duplicate]:
    """Pairs of chips of different splits that are copies of one another.

    Chips without any detail, such as calm water or nodata, are alike but no copies. In chips of fewer than 32 pixels,
    only exact copies are looked for. Each chip is read once for its thumbnail, and again with each of the few that may
    be a copy of it; in between only thumbnails are kept.

    Args:
        chips: of splits train, val and test; others are left out.
    """
    used = np.flatnonzero(chips.table["split"].isin(["train", "val", "test"]).to_numpy())
    reader = _GrayReader(chips)
    thumbnails, digests = np.zeros((len(used), _side(chips.head.size) ** 2), np.float32), []
    with progress.task("looking for copies", len(used)) as advance:
        for place, number in enumerate(used.tolist()):
            gray, digest = reader.read(number)
            thumbnails[place] = _thumbnail(gray, _side(chips.head.size))
            known = gray[~np.isnan(gray)]
            digests.append(digest if known.size and known.max() > known.min() else f"flat {place}")
            advance()
    names, splits = chips.table["chip"].tolist(), chips.table["split"].to_numpy()
    found = []
    for first, second in combinations(("train", "val", "test"), 2):
        ones, others = (np.flatnonzero(splits[used] == split) for split in (first, second))
        for one, other, turn in _candidates(ones, others, thumbnails, digests):
            exact = digests[one] == digests[other]
            if not exact and chips.head.size < _SMALLEST:
                continue
            likeness = 1.0 if exact else reader.likeness(int(used[one]), int(used[other]), turn)
            if likeness >= (_ARE_ALIKE if chips.head.size >= _SMALL else _ARE_ALIKE_WHERE_SMALL):
                pair = names[used[one]], names[used[other]]
                found.append(Duplicate((first, second), pair, round(likeness, 3), exact))
    return found


class _GrayReader:
    """Reads chips as one band of detail."""

    def __init__(self, chips: Chips) -> None:
        self.reader = ChipReader(chips)
        means, deviations = band_statistics(chips)
        self.means = means[:, None, None]
        self.factors = (1 / np.where(deviations > 0, deviations, np.inf))[:, None, None]

    def read(self, number: int) -> tuple[Gray, str]:
        """The mean of the standardised bands, and a digest of the pixels as they are."""
        pixels, valid, _ = self.reader.read(number)
        digest = hashlib.sha256(np.where(valid, pixels, 0).tobytes() + valid.tobytes()).hexdigest()
        gray = ((pixels - self.means) * self.factors).mean(axis=0).astype(np.float32)
        return np.where(valid, gray, np.float32(np.nan)), digest

    def likeness(self, one: int, other: int, turn: int) -> float:
        """Of two chips, the second turned in one of eight ways."""
        first, second = self.read(one)[0], list(_turned(self.read(other)[0]))[turn]
        return _likeness(_detail(first), _detail(second)) if first.shape == second.shape else 0.0


def _turned(picture: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The last two axes as they are, turned, and mirrored: the eight symmetries of the square."""
    for mirrored in (picture, np.flip(picture, -1)):
        for quarters in range(4):
            yield np.rot90(mirrored, quarters, axes=(-2, -1))


def _side(size: int) -> int:
    """Cells along the side of the thumbnail of a chip of `size` pixels."""
    return max(1, min(_CELLS, size // _LEAST_CELL))


def _thumbnail(gray: Gray, side: int) -> NDArray[np.float32]:
    """(side * side,) detail of the means of cells, of length 1; 0 where a chip is flat."""
    cell = min(gray.shape) // side
    top, left = ((length - cell * side) // 2 for length in gray.shape)
    middle = gray[top : top + cell * side, left : left + cell * side]
    cells = middle.reshape(side, cell, side, cell).mean(axis=(1, 3))
    detail = np.nan_to_num(cells - _blurred(cells, 1))
    length = float(np.sqrt((detail**2).sum()))
    return detail.ravel() / length if length > _FLAT * side else np.zeros(side * side, np.float32)


def _candidates(
    ones: NDArray[np.intp], others: NDArray[np.intp], thumbnails: NDArray[np.float32], digests: list[str]
) -> Iterator[tuple[int, int, int]]:
    """Pairs that may be alike, each with how the second is to be turned: for each of `others`, the few nearest."""
    side = round(thumbnails.shape[1] ** 0.5)
    by_digest = {digests[one]: one for one in ones.tolist()}
    flat = thumbnails[ones].T
    tried = min(_TRIED_FOR_EACH, len(ones))
    for start in range(0, len(others) if len(ones) else 0, _ROWS_AT_ONCE):
        some = others[start : start + _ROWS_AT_ONCE]
        best, turns = np.full((len(some), len(ones)), -1, np.float32), np.zeros((len(some), len(ones)), np.int8)
        for turn, turned in enumerate(_turned(thumbnails[some].reshape(-1, side, side))):
            likeness = turned.reshape(len(some), -1) @ flat
            np.putmask(turns, likeness > best, turn)
            np.maximum(best, likeness, out=best)
        nearest = np.argpartition(-best, tried - 1, axis=1)[:, :tried]
        for row, other in enumerate(some.tolist()):
            near = {
                int(ones[place]): int(turns[row, place]) for place in nearest[row] if best[row, place] >= _MAY_BE_ALIKE
            }
            if digests[other] in by_digest:
                near.setdefault(by_digest[digests[other]], 0)
            yield from ((one, other, turn) for one, turn in sorted(near.items()))


def _detail(gray: Gray) -> Gray:
    """What a pixel has beyond its surroundings, a little smoothed against noise; NaN near what is not valid."""
    return _blurred(gray, 1) - _blurred(gray, 5)


def _blurred(picture: Gray, reach: int) -> Gray:
    """Mean over a square of `2 * reach + 1` pixels; NaN where one of them is."""
    known = _box_means(~np.isnan(picture), reach) > 1 - 1e-6
    return np.where(known, _box_means(np.nan_to_num(picture), reach), np.nan).astype(np.float32)


def _box_means(picture: NDArray[Any], reach: int) -> NDArray[np.float64]:
    """At the edges the outermost pixels stand for what lies beyond."""
    width = 2 * reach + 1
    sums = np.pad(picture.astype(np.float64), reach, mode="edge")
    for _ in range(2):
        sums = np.cumsum(np.pad(sums, ((1, 0), (0, 0))), axis=0)
        sums = (sums[width:] - sums[:-width]).T / width
    return sums


def _likeness(one: Gray, other: Gray) -> float:
    """Median correlation of the parts of two pictures, the second moved to where it fits best.

    A part counts if it has detail in both. With few such parts nothing can be told, and the likeness is 0: one
    shore or one road that runs alike makes no copy.
    """
    down, right = _best_shift(np.nan_to_num(one), np.nan_to_num(other))
    height, width = one.shape
    first = one[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
    second = other[max(0, -down) : height + min(0, -down), max(0, -right) : width + min(0, -right)]
    parts = max(1, min(_PARTS, min(one.shape) // _LEAST_PART))
    found = []
    for rows in np.array_split(np.arange(first.shape[0]), parts):
        for cols in np.array_split(np.arange(first.shape[1]), parts):
            part, its = first[np.ix_(rows, cols)], second[np.ix_(rows, cols)]
            known = ~np.isnan(part) & ~np.isnan(its)
            if known.mean() > 0.5 and min(part[known].std(), its[known].std()) > _FLAT:
                found.append(float(np.corrcoef(part[known], its[known])[0, 1]))
    return float(np.median(found)) if len(found) >= _LEAST_SHARE_OF_PARTS * parts**2 else 0.0


def _best_shift(one: Gray, other: Gray) -> tuple[int, int]:
    """Rows and columns, each at most an eighth of the side, by which the second is to be moved to fit the first."""
    product = np.fft.irfft2(np.fft.rfft2(one) * np.conj(np.fft.rfft2(other)), s=one.shape)
    reach = max(1, min(one.shape) // 8)
    steps = np.r_[0 : reach + 1, -reach:0]
    near = product[np.ix_(steps, steps)]
    row, col = np.unravel_index(int(near.argmax()), near.shape)
    return int(steps[row]), int(steps[col])
