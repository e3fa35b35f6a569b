"""Statistics of chips, merged from the index without reading a pixel."""

import numpy as np
from numpy.typing import NDArray

from landscribe.data.chips import Chips


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
