"""Duplicates: chips with the same content, also if recompressed, brightened, shifted a little, flipped or rotated.

Thumbnails find candidate pairs among thousands of chips at once; the pixels of each candidate pair decide. Both steps
compare local contrast (a pixel minus its surroundings), because fields, forests and lakes have similar averages.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, uniform_filter

from landscribe import progress
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.data.chips.stats import band_statistics

Gray = NDArray[np.float32]
"""(rows, cols), mean 0 and standard deviation 1 over all chips; NaN where not valid."""

# A thumbnail has at most this many cells along a side, each of at least this many pixels.
_MAX_CELLS = 16
_MIN_CELL_PX = 4
# Thumbnails of duplicates correlate by 0.8 or more, those of other chips by about 0.
_CANDIDATE_CORRELATION = 0.6
_CANDIDATES_PER_CHIP = 3
# Measured on real scenes: different areas correlate by 0.1 (by 0.4 with chips of 64 pixels, by 0.6 with parallel crop
# rows); duplicates with JPEG quality 50 or noise by 0.9, but less in smooth chips where mostly noise is compared.
_MIN_SIMILARITY = 0.7
# Small chips have less content to compare, so they need more; below the smallest size only exact duplicates count.
_SMALL_CHIP, _MIN_SIMILARITY_OF_SMALL = 128, 0.85
_SMALLEST_CHIP = 32
# A chip is compared in at most this many parts along a side, each of at least this many pixels: with fewer pixels,
# chance correlations are frequent.
_MAX_PARTS = 4
_MIN_PART_PX = 16
_MIN_FRACTION_OF_PARTS = 3 / 8
# Local contrast below this, in standard deviations of all pixels, is rounding.
_FLAT = 2e-3
_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Duplicate:
    """Two chips of different splits with the same content."""

    splits: tuple[str, str]
    chips: tuple[str, str]
    similarity: float
    """Correlation of their local contrast; 1 for equal pixels."""
    exact: bool
    """Every pixel is equal."""


def duplicates(chips: Chips) -> list[Duplicate]:
    """Pairs of chips of different splits with the same content.

    Chips without contrast, such as calm water or nodata, are no duplicates. For chips smaller than 32 pixels, only
    exact duplicates are found. Each chip is read once for its thumbnail, and again for each candidate pair; only
    thumbnails stay in memory.

    Args:
        chips: of splits train, val and test; chips of the gap are skipped.
    """
    used = np.flatnonzero(np.isin(chips.splits, ["train", "val", "test"]))
    reader = _GrayReader(chips)
    thumbnails, digests = np.zeros((len(used), _side(chips.metadata.size) ** 2), np.float32), []
    with progress.task("finding duplicates", len(used)) as advance:
        for position, index in enumerate(used.tolist()):
            gray, digest = reader.read(index)
            thumbnails[position] = _thumbnail(gray, _side(chips.metadata.size))
            valid = gray[~np.isnan(gray)]
            digests.append(digest if valid.size and valid.max() > valid.min() else f"flat {position}")
            advance()
    names, splits = chips.ids, chips.splits
    min_similarity = _MIN_SIMILARITY if chips.metadata.size >= _SMALL_CHIP else _MIN_SIMILARITY_OF_SMALL
    pairs = []
    for first, second in combinations(("train", "val", "test"), 2):
        of_first, of_second = (np.flatnonzero(splits[used] == split) for split in (first, second))
        for a, b, symmetry in _candidates(of_first, of_second, thumbnails, digests):
            exact = digests[a] == digests[b]
            if not exact and chips.metadata.size < _SMALLEST_CHIP:
                continue
            similarity = 1.0 if exact else reader.similarity(int(used[a]), int(used[b]), symmetry)
            if similarity >= min_similarity:
                pair = names[used[a]], names[used[b]]
                pairs.append(Duplicate((first, second), pair, round(similarity, 3), exact))
    return pairs


class _GrayReader:
    """Reads chips as one gray band."""

    def __init__(self, chips: Chips) -> None:
        self.reader = ChipReader(chips)
        means, deviations = band_statistics(chips)
        self.means = means[:, None, None]
        self.factors = (1 / np.where(deviations > 0, deviations, np.inf))[:, None, None]

    def read(self, index: int) -> tuple[Gray, str]:
        """The mean of the standardised bands, and a digest of the stored pixels."""
        pixels, valid, _ = self.reader.read(index)
        digest = hashlib.sha256(np.where(valid, pixels, 0).tobytes() + valid.tobytes()).hexdigest()
        gray = ((pixels - self.means) * self.factors).mean(axis=0).astype(np.float32)
        return np.where(valid, gray, np.float32(np.nan)), digest

    def similarity(self, a: int, b: int, symmetry: int) -> float:
        """Similarity of two chips, the second flipped or rotated by one of the eight symmetries."""
        first, second = self.read(a)[0], list(_symmetries(self.read(b)[0]))[symmetry]
        return _similarity(_local_contrast(first), _local_contrast(second)) if first.shape == second.shape else 0.0


def _symmetries(images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The eight symmetries of the square, on the last two axes; the first is the image itself."""
    for flipped in (images, np.flip(images, -1)):
        for quarters in range(4):
            yield np.rot90(flipped, quarters, axes=(-2, -1))


def _side(size: int) -> int:
    """Cells along the side of the thumbnail of a chip of `size` pixels."""
    return max(1, min(_MAX_CELLS, size // _MIN_CELL_PX))


def _thumbnail(gray: Gray, side: int) -> NDArray[np.float32]:
    """(side * side,) local contrast of the cell means, as a unit vector; 0 if the chip is flat."""
    cell = min(gray.shape) // side
    top, left = ((length - cell * side) // 2 for length in gray.shape)
    middle = gray[top : top + cell * side, left : left + cell * side]
    cells = middle.reshape(side, cell, side, cell).mean(axis=(1, 3))
    contrast = np.nan_to_num(cells - _box_blur(cells, 1))
    length = float(np.sqrt((contrast**2).sum()))
    return contrast.ravel() / length if length > _FLAT * side else np.zeros(side * side, np.float32)


def _candidates(
    of_first: NDArray[np.intp], of_second: NDArray[np.intp], thumbnails: NDArray[np.float32], digests: list[str]
) -> Iterator[tuple[int, int, int]]:
    """Candidate pairs (a, b, symmetry to apply to b): for each b of `of_second`, the most similar of `of_first`."""
    side = round(thumbnails.shape[1] ** 0.5)
    by_digest = {digests[a]: a for a in of_first.tolist()}
    first_vectors = thumbnails[of_first].T
    count = min(_CANDIDATES_PER_CHIP, len(of_first))
    for start in range(0, len(of_second) if len(of_first) else 0, _ROWS_AT_ONCE):
        rows = of_second[start : start + _ROWS_AT_ONCE]
        best = np.full((len(rows), len(of_first)), -1, np.float32)
        symmetries = np.zeros((len(rows), len(of_first)), np.int8)
        for symmetry, images in enumerate(_symmetries(thumbnails[rows].reshape(-1, side, side))):
            correlations = images.reshape(len(rows), -1) @ first_vectors
            np.putmask(symmetries, correlations > best, symmetry)
            np.maximum(best, correlations, out=best)
        nearest = np.argpartition(-best, count - 1, axis=1)[:, :count]
        for row, b in enumerate(rows.tolist()):
            candidates = {
                int(of_first[col]): int(symmetries[row, col])
                for col in nearest[row]
                if best[row, col] >= _CANDIDATE_CORRELATION
            }
            if digests[b] in by_digest:
                candidates.setdefault(by_digest[digests[b]], 0)
            yield from ((a, b, symmetry) for a, symmetry in sorted(candidates.items()))


def _local_contrast(gray: Gray) -> Gray:
    """A pixel minus its surroundings, slightly smoothed against noise; NaN near pixels that are not valid."""
    return _box_blur(gray, 1) - _box_blur(gray, 5)


def _box_blur(image: Gray, radius: int) -> Gray:
    """Mean over a square of `2 * radius + 1` pixels; edge pixels are repeated outwards. NaN if one is not finite."""
    absent, width = ~np.isfinite(image), 2 * radius + 1
    means = uniform_filter(np.where(absent, 0.0, image.astype(np.float64)), width, mode="nearest")
    return np.where(maximum_filter(absent, width, mode="nearest"), np.nan, means).astype(np.float32)


def _similarity(a: Gray, b: Gray) -> float:
    """Median correlation of the parts of two chips, after shifting the second to fit best.

    Only parts with contrast in both chips count. If there are few of them, the similarity is 0: one shore or one road
    in common makes no duplicate.
    """
    down, right = _best_shift(np.nan_to_num(a), np.nan_to_num(b))
    height, width = a.shape
    first = a[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
    second = b[max(0, -down) : height + min(0, -down), max(0, -right) : width + min(0, -right)]
    parts = max(1, min(_MAX_PARTS, min(a.shape) // _MIN_PART_PX))
    correlations = []
    for rows in np.array_split(np.arange(first.shape[0]), parts):
        for cols in np.array_split(np.arange(first.shape[1]), parts):
            part_a, part_b = first[np.ix_(rows, cols)], second[np.ix_(rows, cols)]
            valid = ~np.isnan(part_a) & ~np.isnan(part_b)
            if valid.mean() > 0.5 and min(part_a[valid].std(), part_b[valid].std()) > _FLAT:
                correlations.append(float(np.corrcoef(part_a[valid], part_b[valid])[0, 1]))
    return float(np.median(correlations)) if len(correlations) >= _MIN_FRACTION_OF_PARTS * parts**2 else 0.0


def _best_shift(a: Gray, b: Gray) -> tuple[int, int]:
    """The shift (rows, cols) of the second chip that fits the first best, at most an eighth of the side each."""
    product = np.fft.irfft2(np.fft.rfft2(a) * np.conj(np.fft.rfft2(b)), s=a.shape)
    most = max(1, min(a.shape) // 8)
    shifts = np.r_[0 : most + 1, -most:0]
    near = product[np.ix_(shifts, shifts)]
    row, col = np.unravel_index(int(near.argmax()), near.shape)
    return int(shifts[row]), int(shifts[col])
