"""Scaling of pixels, computed from the training chips and saved with the model."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.data.chips.chips import Chips
from landscribe.data.chips.stats import band_statistics, histogram
from landscribe.errors import ChipError
from landscribe.model import Scaling
from landscribe.nn.encoders.stems import normalisation
from landscribe.nn.encoders.weights import pretraining_statistics
from landscribe.training.spec import ScalingName

_LOW, _HIGH = 0.02, 0.98


def scaling_of(training: Chips, method: ScalingName, *, encoder: str, pretrained: bool) -> Scaling:
    """Offset and factor of each band.

    - range: the data type's limits to 0 and 1;
    - percentiles: the 2nd and 98th percentile of the valid training pixels to -1 and 1; robust to outliers such as
      clouds and dead pixels;
    - standardise: the valid training pixels to mean 0 and standard deviation 1;
    - auto: for uint8 range, or with pretrained weights the mean and deviation of the images that these were trained on;
      for other integers percentiles; for floating-point numbers standardise.

    Args:
        training: the training chips.
        method: one of these.
        encoder: name of the encoder.
        pretrained: True if the encoder's weights are pretrained.

    Raises:
        ChipError: method "range" for floating-point pixels.
    """
    dtype = np.dtype(training.metadata.dtype)
    if method == "auto" and dtype == np.uint8 and pretrained:
        means, deviations = normalisation(training.metadata.bands, *pretraining_statistics(encoder))
        return Scaling(
            offset=tuple(255 * mean for mean in means), factor=tuple(1 / (255 * deviation) for deviation in deviations)
        )
    if method == "auto":
        method = "range" if dtype == np.uint8 else "percentiles" if dtype.kind in "ui" else "standardise"
    if method == "range":
        return of_range(dtype, bands=len(training.metadata.bands))
    if method == "percentiles":
        counts = histogram(training)
        low, high = counts.quantile(_LOW), counts.quantile(_HIGH)
        # Centred on 0: batch normalisation starts from running statistics of mean 0 and deviation 1.
        return _to_scaling((low + high) / 2, (high - low) / 2)
    return _to_scaling(*band_statistics(training))


def of_range(dtype: np.dtype[Any], *, bands: int) -> Scaling:
    """Scale the limits of an integer type to 0 and 1.

    Raises:
        ChipError: a floating-point type.
    """
    if dtype.kind == "f":
        raise ChipError(
            f"scaling is range, but the chips are {dtype}, which has no limits. Use standardise or percentiles."
        )
    limits = np.iinfo(dtype)
    return _to_scaling(np.full(bands, limits.min), np.full(bands, float(limits.max) - limits.min))


def _to_scaling(offset: NDArray[Any], span: NDArray[Any]) -> Scaling:
    """Subtract the offset, divide by the span; a constant band, of span 0, becomes 0."""
    factor = 1 / np.where(span > 0, span, 1.0)
    return Scaling(offset=tuple(map(float, offset)), factor=tuple(factor.tolist()))
