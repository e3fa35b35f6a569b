"""Statistics of chips, merged from the index without reading a pixel."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from landscribe.data.chips import Chips

Weighting = Literal["none", "inverse", "median", "effective"]


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
