"""Statistics of chips: merged from the index without reading a pixel, or streamed from their pixels."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from landscribe import progress
from landscribe.data.chips.chips import ChipReader, Chips

Weighting = Literal["none", "inverse", "median", "effective"]

_CODES = 2**16


def band_statistics(chips: Chips) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each band over all valid pixels of the chips.

    Exact under merging: `M2 = sum(n_i (std_i^2 + (mean_i - mean)^2))` (Chan, Golub & LeVeque 1983,
    "Algorithms for computing the sample variance", The American Statistician 37).

    Returns:
        Means (bands,) and standard deviations (bands,).
    """
    numbers = range(1, len(chips.head.bands) + 1)
    with_pixels = chips.table[chips.table["valid_pixels"] > 0]
    pixels = with_pixels["valid_pixels"].to_numpy(np.float64)[:, None]
    means = with_pixels[[f"mean_{n}" for n in numbers]].to_numpy(np.float64)
    deviations = with_pixels[[f"std_{n}" for n in numbers]].to_numpy(np.float64)
    mean = (pixels * means).sum(axis=0) / pixels.sum()
    variance = (pixels * (deviations**2 + (means - mean) ** 2)).sum(axis=0) / pixels.sum()
    return mean, np.sqrt(variance)


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often each pixel value occurs in each band. Adding merges.

    Exact for whole numbers of 8 and 16 bits. Other numbers are told apart by their first 16 bits as float32 (a sign,
    an exponent and 7 binary digits), within 1/128 of their size.
    """

    dtype: str
    counts: NDArray[np.int64]
    """(bands, codes): pixels by code, in the order of the values."""

    @classmethod
    def zeros(cls, bands: int, dtype: str) -> "Histogram":
        """Nothing counted yet."""
        return cls(dtype, np.zeros((bands, _CODES), np.int64))

    def plus(self, values: NDArray[Any]) -> "Histogram":
        """With the pixels of (bands, n) counted too."""
        counts = np.stack([np.bincount(band, minlength=_CODES) for band in _codes(values)])
        return Histogram(self.dtype, self.counts + counts)

    def __add__(self, other: "Histogram") -> "Histogram":
        return Histogram(self.dtype, self.counts + other.counts)

    def quantile(self, share: float) -> NDArray[np.float64]:
        """(bands,) the least value that `share` (0 to 1) of the pixels do not exceed; NaN for a band without pixels.

        Law: `np.quantile(pixels, share, method="inverted_cdf")`, where codes are exact.
        """
        totals = self.counts.sum(axis=1)
        reached = np.cumsum(self.counts, axis=1) >= np.maximum(1, np.ceil(share * totals))[:, None]
        return np.where(totals > 0, _values(self.dtype)[reached.argmax(axis=1)], np.nan)

    def shares(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """(bands, len(edges) - 1) share of the pixels between edges; the last bin holds its upper edge, too."""
        places = np.clip(np.searchsorted(edges, _values(self.dtype), side="right") - 1, 0, len(edges) - 2)
        binned = np.stack([np.bincount(places, weights=band, minlength=len(edges) - 1) for band in self.counts])
        return np.asarray(binned / np.maximum(1, self.counts.sum(axis=1, keepdims=True)))


def histogram(chips: Chips, *, most: int | None = None) -> Histogram:
    """Count the valid pixels of chips, read one after the other.

    Args:
        chips: to read.
        most: read so many at most, spread evenly; all if None.
    """
    reader = ChipReader(chips)
    numbers = np.unique(np.linspace(0, len(chips) - 1, min(len(chips), most or len(chips))).astype(int))
    counted = Histogram.zeros(len(chips.head.bands), chips.head.dtype)
    with progress.task("band histograms", len(numbers)) as advance:
        for number in numbers.tolist():
            pixels, valid, _ = reader.read(number)
            counted = counted.plus(pixels[:, valid])
            advance()
    return counted


def _codes(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Whole numbers from 0 to 65535 in the order of the values."""
    if values.dtype in (np.uint8, np.uint16):
        return values.astype(np.uint16)
    if values.dtype in (np.int8, np.int16):
        return (values.astype(np.int32) + 2**15).astype(np.uint16)
    bits = values.astype(np.float32).view(np.uint32) >> 16
    # The bits of positive floats are in their order, those of negative ones in the opposite one.
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
    # Codes of infinity and NaN, which no valid pixel has, would spoil sums: they become the largest number.
    bits = np.where((bits & 0x7F80) == 0x7F80, (bits & 0x8000) | 0x7F7F, bits)
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def class_weights(chips: Chips, weighting: Weighting) -> NDArray[np.float64]:
    """How much a pixel of each class should count in a loss, from how many there are: (K,), mean 1.

    With n_k labelled pixels of class k:

    - inverse: `1 / n_k`;
    - median: `median(f) / f_k` with f_k the share of class k among the labelled pixels of chips that hold it (Eigen &
      Fergus 2015, arXiv:1411.4734, section 6.3.2);
    - effective: `1 / E_k` with `E_k = (1 - b^n_k) / (1 - b)` and `b = 1 - 1 / max(n)` (Cui et al. 2019,
      arXiv:1901.05555, whose samples are pixels here);
    - none: 1.

    A class that no pixel has keeps weight 1.
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
        # log1p and expm1 keep the digits that a base so near to 1 would lose.
        most = pixels.max()
        raw = 1 / -np.expm1(pixels[present] * np.log1p(-1 / max(most, 2)))
    weights[present] = raw / raw.mean()
    return weights
