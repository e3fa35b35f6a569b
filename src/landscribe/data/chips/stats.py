"""Statistics of chips: merged from the table without reading pixels, or streamed from the pixels."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from landscribe import progress
from landscribe.data.chips.chips import ChipReader, Chips

Weighting = Literal["none", "inverse", "median", "effective"]

_CODES = 2**16
_SAMPLED_CHIPS, _REFINEMENTS = 16, 3
"""Chips from which the centre of a histogram is found; each refinement of it is 128 times as exact as the last."""


def band_statistics(chips: Chips) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each band over all valid pixels of the chips.

    Exact under merging: `M2 = sum(n_i (std_i^2 + (mean_i - mean)^2))` (Chan, Golub & LeVeque 1983,
    "Algorithms for computing the sample variance", The American Statistician 37).

    Returns:
        Means (bands,) and standard deviations (bands,).
    """
    numbers = range(1, len(chips.metadata.bands) + 1)
    with_pixels = chips.table[chips.table["valid_pixels"] > 0]
    pixels = with_pixels["valid_pixels"].to_numpy(np.float64)[:, None]
    means = with_pixels[[f"mean_{n}" for n in numbers]].to_numpy(np.float64)
    deviations = with_pixels[[f"std_{n}" for n in numbers]].to_numpy(np.float64)
    mean = (pixels * means).sum(axis=0) / pixels.sum()
    variance = (pixels * (deviations**2 + (means - mean) ** 2)).sum(axis=0) / pixels.sum()
    return mean, np.sqrt(variance)


@dataclass(frozen=True, eq=False)
class Histogram:
    """Pixel counts by value, for each band. Adding merges two histograms.

    Exact for integers of 8 and 16 bits. Of other values, the differences to the centre are binned by their first 16
    bits as float32 (sign, exponent and 7 binary digits), which is a precision of 1/128 of the difference.
    """

    dtype: str
    counts: NDArray[np.int64]
    """(bands, codes): pixels by code, in the order of the values."""
    centre: NDArray[np.float64]
    """(bands,) the value around which a band's bins are narrowest; 0 for integers of 8 and 16 bits."""

    @classmethod
    def zeros(cls, bands: int, dtype: str, centre: NDArray[np.float64] | None = None) -> "Histogram":
        """An empty histogram."""
        return cls(dtype, np.zeros((bands, _CODES), np.int64), np.zeros(bands) if centre is None else centre)

    def plus(self, values: NDArray[Any]) -> "Histogram":
        """This histogram with `values` (bands, n) added."""
        codes = _codes(values if _is_exact(values.dtype) else values - self.centre[:, None])
        counts = np.stack([np.bincount(band, minlength=_CODES) for band in codes])
        return Histogram(self.dtype, self.counts + counts, self.centre)

    def __add__(self, other: "Histogram") -> "Histogram":
        """The histogram of the pixels of both, which have one centre."""
        return Histogram(self.dtype, self.counts + other.counts, self.centre)

    def quantile(self, q: float) -> NDArray[np.float64]:
        """(bands,) quantile `q` (0 to 1) of the pixels; NaN for a band without pixels.

        Law: `np.quantile(pixels, q, method="inverted_cdf")`, where codes are exact.
        """
        totals = self.counts.sum(axis=1)
        reached = np.cumsum(self.counts, axis=1) >= np.maximum(1, np.ceil(q * totals))[:, None]
        return np.where(totals > 0, _values(self.dtype)[reached.argmax(axis=1)] + self.centre, np.nan)

    def shares(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """(bands, len(edges) - 1) share of the pixels in each bin; the last bin includes its upper edge."""
        values, most = _values(self.dtype), len(edges) - 2
        binned = np.stack(
            [
                np.bincount(
                    np.clip(np.searchsorted(edges, values + centre, side="right") - 1, 0, most),
                    weights=band, minlength=most + 1,
                )
                for band, centre in zip(self.counts, self.centre, strict=True)
            ]
        )  # fmt: skip
        return np.asarray(binned / np.maximum(1, self.counts.sum(axis=1, keepdims=True)))


def histogram(chips: Chips, *, most: int | None = None) -> Histogram:
    """Histogram of the valid pixels of chips.

    Its centre is about the median of each band, found from a few chips: numbers far from 0, such as temperatures in
    kelvin, have bins as narrow as the same numbers around 0.

    Args:
        chips: at least one.
        most: read at most this many chips, evenly spaced; all if None.
    """
    bands, dtype = len(chips.metadata.bands), chips.metadata.dtype
    reader, indices = ChipReader(chips), _spaced(len(chips), most)
    start = Histogram.zeros(bands, dtype)
    if not _is_exact(np.dtype(dtype)):
        for _ in range(_REFINEMENTS):
            median = _counted(start, reader, _spaced(len(chips), _SAMPLED_CHIPS)).quantile(0.5)
            start = Histogram.zeros(bands, dtype, np.nan_to_num(median))
    with progress.task("band histograms", len(indices)) as advance:
        return _counted(start, reader, indices, advance)


def _spaced(count: int, most: int | None) -> list[int]:
    """At most so many indices from 0 to count - 1, evenly spaced; all if None."""
    indices: list[int] = np.unique(np.linspace(0, count - 1, min(count, most or count)).astype(int)).tolist()
    return indices


def _counted(
    start: Histogram, reader: ChipReader, indices: Iterable[int], advance: Callable[[], None] = lambda: None
) -> Histogram:
    """A histogram with the valid pixels of some chips added."""
    total = start
    for index in indices:
        pixels, valid, _ = reader.read(index)
        total = total.plus(pixels[:, valid])
        advance()
    return total


def _is_exact(dtype: np.dtype[Any]) -> bool:
    """True for integers of 8 and 16 bits, each of which has a code."""
    return dtype.kind in "ui" and dtype.itemsize <= 2


def _codes(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Integers from 0 to 65535 in the order of the values."""
    if values.dtype in (np.uint8, np.uint16):
        return values.astype(np.uint16)
    if values.dtype in (np.int8, np.int16):
        return (values.astype(np.int32) + 2**15).astype(np.uint16)
    bits = values.astype(np.float32).view(np.uint32) >> 16
    # The bits of positive floats ascend with their value, those of negative floats descend.
    return np.where(bits & 0x8000, 0xFFFF - bits, bits | 0x8000).astype(np.uint16)


def _values(dtype: str) -> NDArray[np.float64]:
    """(65536,) the value of each code."""
    codes = np.arange(_CODES)
    kind = np.dtype(dtype)
    if kind in (np.uint8, np.uint16):
        return codes.astype(np.float64)
    if kind in (np.int8, np.int16):
        return codes.astype(np.float64) - 2**15
    bits = np.where(codes & 0x8000, codes & 0x7FFF, 0xFFFF - codes)
    # No valid pixel is infinite or NaN; their codes become the largest float, because 0 * inf would make sums NaN.
    bits = np.where((bits & 0x7F80) == 0x7F80, (bits & 0x8000) | 0x7F7F, bits)
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def class_weights(chips: Chips, weighting: Weighting) -> NDArray[np.float64]:
    """Weight of a pixel of each class in a loss: (K,), mean 1.

    With n_k labelled pixels of class k:

    - inverse: `1 / n_k`;
    - median: `median(f) / f_k` with f_k the share of class k among the labelled pixels of chips that hold it (Eigen &
      Fergus 2015, arXiv:1411.4734, section 6.3.2);
    - effective: `1 / E_k` with `E_k = (1 - b^n_k) / (1 - b)` and `b = 1 - 1 / max(n)` (Cui et al. 2019,
      arXiv:1901.05555, whose samples are pixels here);
    - none: 1.

    A class without pixels has weight 1.
    """
    counts = chips.counts.astype(np.float64)
    pixels = counts.sum(axis=0)
    present = pixels > 0
    weights = np.ones(len(pixels))
    if weighting == "none" or not present.any():
        return weights
    if weighting == "inverse":
        raw = 1 / pixels[present]
    elif weighting == "median":
        within = ((counts > 0) * counts.sum(axis=1, keepdims=True)).sum(axis=0)[present]
        shares = pixels[present] / within
        raw = np.median(shares) / shares
    else:
        # log1p and expm1 keep digits that are lost with a base so close to 1.
        most = pixels.max()
        raw = 1 / -np.expm1(pixels[present] * np.log1p(-1 / max(most, 2)))
    weights[present] = raw / raw.mean()
    return weights
