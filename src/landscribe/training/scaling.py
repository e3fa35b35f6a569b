"""How the network sees pixels: decided from the training chips, saved with the model."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.data.chips.chips import Chips
from landscribe.data.chips.stats import band_statistics, histogram
from landscribe.errors import ChipError
from landscribe.model import Scaling
from landscribe.nn.encoders.stems import normalisation
from landscribe.nn.encoders.weights import colours_expected
from landscribe.training.spec import ScalingName

_LOW, _HIGH = 0.02, 0.98


def scaling_of(training: Chips, wanted: ScalingName, *, encoder: str, pretrained: bool) -> Scaling:
    """Offset and factor of each band.

    - range: from the type's smallest and largest number to 0 and 1;
    - percentiles: from the 2nd and 98th percentile of the valid training pixels to -1 and 1, which a few clouds or dead
      pixels cannot move;
    - standardise: to mean 0 and standard deviation 1 of the valid training pixels;
    - auto: for uint8 the range, or with pretrained weights the mean and deviation of the images that these were
      trained on; percentiles for other whole numbers; standardise for floating numbers.

    Args:
        training: the chips to train on.
        wanted: one of these.
        encoder: whose weights may be pretrained.
        pretrained: whether they are.

    Raises:
        ChipError: the range of a type that has no range to speak of.
    """
    dtype = np.dtype(training.metadata.dtype)
    if wanted == "auto" and dtype == np.uint8 and pretrained:
        expected, spread = normalisation(training.metadata.bands, *colours_expected(encoder))
        return Scaling(
            offset=tuple(255 * mean for mean in expected), factor=tuple(1 / (255 * deviation) for deviation in spread)
        )
    if wanted == "auto":
        wanted = "range" if dtype == np.uint8 else "percentiles" if dtype.kind in "ui" else "standardise"
    if wanted == "range":
        return of_range(dtype, bands=len(training.metadata.bands))
    if wanted == "percentiles":
        counted = histogram(training)
        low, high = counted.quantile(_LOW), counted.quantile(_HIGH)
        # Around 0, so that the running statistics of normalisations, which start at mean 0 and deviation 1, are near.
        return _between((low + high) / 2, (high - low) / 2)
    return _between(*band_statistics(training))


def of_range(dtype: np.dtype[Any], *, bands: int) -> Scaling:
    """From a type's smallest and largest number to 0 and 1.

    Raises:
        ChipError: the type has no range to speak of.
    """
    if dtype.kind == "f":
        raise ChipError(
            f"scaling = range, but the chips hold {dtype}, which has no range. Use standardise or percentiles."
        )
    limits = np.iinfo(dtype)
    return _between(np.full(bands, limits.min), np.full(bands, float(limits.max) - limits.min))


def _between(offset: NDArray[Any], span: NDArray[Any]) -> Scaling:
    """Shifted by the offset and divided by the span; a constant band carries nothing and is only shifted to 0."""
    factor = 1 / np.where(span > 0, span, 1.0)
    return Scaling(offset=tuple(map(float, offset)), factor=tuple(factor.tolist()))
