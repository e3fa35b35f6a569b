"""Scaling of pixels, taken over from pretrained weights or computed from the training chips, saved with the model."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.data.chips.chips import Chips
from landscribe.data.chips.stats import band_statistics, histogram
from landscribe.errors import ChipError
from landscribe.geo.rasters.encoding import Encoding
from landscribe.model import Scaling
from landscribe.nn.encoders.sensors import RGB, FileBands, Quantity, named_bands
from landscribe.nn.encoders.stems import normalisation, sources
from landscribe.nn.encoders.weights import Weights, pretraining_statistics
from landscribe.training.spec import ScalingName

log = logging.getLogger(__name__)

_LOW, _HIGH = 0.02, 0.98
_REFLECTANCE_SCALE = 1e-4
"""Of Sentinel-2's integers without tags."""
_ROUNDING = 1e-9
"""Relative to the mean, a deviation that rounding alone may cause."""
_BRIGHTEST = 2.0
"""Mean reflectance that no imagery reaches: floating-point numbers with a larger mean are integers in disguise."""


def scaling_of(training: Chips, method: ScalingName, *, encoder: str, weights: Weights | None) -> Scaling:
    """Offset and factor of each band.

    - range: the data type's limits to 0 and 1;
    - percentiles: the 2nd and 98th percentile of the valid training pixels to -1 and 1; robust to outliers such as
      clouds and dead pixels. A band whose percentiles are equal, such as one that is 0 in almost all pixels, is
      standardised;
    - standardise: the valid training pixels to mean 0 and standard deviation 1;
    - auto: with a table of the weights' bands the scaling that the table holds (`_of_weights`); with other pretrained
      weights of red, green and blue, for uint8, the mean and deviation of the images that these were trained on;
      otherwise range for uint8, percentiles for other integers, standardise for floating-point numbers.

    Args:
        training: the training chips.
        method: one of these.
        encoder: name of the encoder.
        weights: pretrained weights of the encoder, or None.

    Raises:
        ChipError: method "range" for floating-point pixels.
    """
    dtype = np.dtype(training.metadata.dtype)
    file = None if weights is None else named_bands(weights.bands)
    if method == "auto" and file is not None and file.quantities:
        return _of_weights(training, file, encoder)
    if method == "auto" and dtype == np.uint8 and file is not None and set(file.bands) == set(RGB):
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
        # Of a band with one value but for a few pixels, these few have all the information.
        centres, spreads = band_statistics(training)
        is_sparse = high <= low
        # Centred on 0: batch normalisation starts from running statistics of mean 0 and deviation 1.
        return _to_scaling(
            np.where(is_sparse, centres, (low + high) / 2), np.where(is_sparse, spreads, (high - low) / 2)
        )
    return _to_scaling(*band_statistics(training))


def _of_weights(training: Chips, file: FileBands, encoder: str) -> Scaling:
    """The scaling of the weights' input, applied to what the stored numbers of each band mean.

    - Bands with scale and offset tags: the physical values that these declare.
    - Reflectance without tags: integers above 8 bits are 10000 times the reflectance, as Sentinel-2's; floating-point
      numbers are the reflectance, but if their mean is above 2, they are 10000 times of it.
    - Backscatter without tags: floating-point numbers with a mean below 0 are dB.
    - Weights of 8-bit images: uint8 alone.

    A band that lies between bands of the file has the mean of their means and deviations. A band that resembles none of
    them, or whose numbers are none of the above, is scaled as without pretrained weights.
    """
    metadata, means = training.metadata, band_statistics(training)[0]
    encodings = metadata.encoding or (Encoding(),) * len(metadata.bands)
    pairs: list[tuple[float, float] | None] = []
    for mixture, encoding, mean in zip(sources(metadata.bands, file), encodings, means, strict=True):
        if mixture is None:
            pairs.append(None)
            continue
        quantity = file.quantities[mixture.index(max(mixture))]
        stored = _physical(np.dtype(metadata.dtype), encoding, quantity, mean)
        centre, deviation = np.dot(mixture, file.means), np.dot(mixture, file.deviations)
        pairs.append(stored and (float(centre - stored[1]) / stored[0], stored[0] / float(deviation)))
    others = [band for band, pair in zip(metadata.bands, pairs, strict=True) if pair is None]
    if others:
        log.info("scaling: that of the weights, but for %s that of the training chips", ", ".join(others))
        own = scaling_of(training, "auto", encoder=encoder, weights=None)
        given = zip(pairs, own.offset, own.factor, strict=True)
        pairs = [pair or (offset, factor) for pair, offset, factor in given]
    offsets, factors = zip(*(pair for pair in pairs if pair is not None), strict=True)
    return Scaling(offset=offsets, factor=factors)


def _physical(dtype: np.dtype[Any], encoding: Encoding, quantity: Quantity, mean: float) -> tuple[float, float] | None:
    """Scale and offset by which stored numbers become a quantity; None if what they mean is not known."""
    is_float = dtype.kind == "f"
    if quantity == "byte":
        return (1.0, 0.0) if dtype == np.uint8 else None
    if encoding.is_declared:
        return encoding.scale * encoding.share, encoding.offset * encoding.share
    if quantity == "decibel":
        return (1.0, 0.0) if is_float and mean < 0 else None
    if is_float and mean <= _BRIGHTEST:
        return 1.0, 0.0
    return (_REFLECTANCE_SCALE, 0.0) if is_float or dtype.itemsize > 1 else None


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
    # A constant's deviation may be a rounding error.
    factor = 1 / np.where(span > _ROUNDING * np.abs(offset), span, 1.0)
    return Scaling(offset=tuple(map(float, offset)), factor=tuple(factor.tolist()))
