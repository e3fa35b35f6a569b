"""Calibration: how probabilities of a map agree with its reference, from counts that are streamed.

Reliability and expected calibration error: Guo et al. 2017, arXiv:1706.04599. Brier score: Brier 1950, for several
classes. Average precision: the sum of precision times the step of recall, over all thresholds.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.agreement import Measure, plain, ratio
from landscribe.confusion import Counts
from landscribe.errors import RasterError
from landscribe.geo.classes import IGNORE, Classes
from landscribe.geo.grid import Window
from landscribe.geo.rasters.encoding import Encoding
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.class_map import bands_of_classes

_CONFIDENCE = np.linspace(0, 1, 11)
"""Ends of the bins of confidence; an upper end belongs to its bin."""
_LOGITS = np.arange(-16.6, 16.61, 0.02)
"""Up to that of the largest number below 1 in float32."""
_LEVELS = np.unique(np.concatenate([np.arange(1001) / 1000, 1 / (1 + np.exp(-_LOGITS))]))
"""Lowest probability of each bin of one that is not stored in 8 bits: thousandths, and equal steps of the logit, for a
confident network has most probabilities within a thousandth of 0 and 1."""
_BYTE_LEVELS = 256
_STEPS = 2**26
"""Of a probability in a sum. Sums of whole numbers do not depend on their order; those of fractions do."""
_CURVE = np.linspace(0.05, 0.95, 19)
"""Thresholds of the precision-recall curve in a summary."""
_ROUNDING = 1e-3


@dataclass(frozen=True, eq=False)
class Calibration:
    """Pixels by the probability of their classes. Adding merges windows and maps."""

    reliability: Counts
    """(10, 3) pixels, those mapped correctly, and the sum of confidence in steps of 2⁻²⁶, by bin of confidence: the
    probability of the mapped class, from 0-0.1 to 0.9-1."""
    squares: int
    """Sum over pixels and classes of (probability - 1 or 0)², in steps of 2⁻²⁶."""
    levels: Counts
    """(K, 2, levels) pixels by class, whether it is another (0) or that of the reference (1), and the level of its
    probability. In 8 bits, levels are the stored numbers, so that curves are exact; else, and if bands have different
    encodings, they are a thousandth of 1 and 0.02 of the logit wide at most, and closer probabilities are ties."""
    probabilities: Measure
    """(levels,) lowest probability of each level."""

    @classmethod
    def of(
        cls,
        reference: NDArray[np.uint8],
        predicted: NDArray[np.uint8],
        stored: NDArray[Any],
        scale: float,
        offset: float,
    ) -> "Calibration":
        """Count pixels.

        Args:
            reference: (pixels,) class indices 0 to K-1.
            predicted: (pixels,) class indices 0 to K-1.
            stored: (K, pixels) numbers that mean the probability `stored * scale + offset`.
            scale: of the numbers.
            offset: of the numbers.
        """
        size, count = stored.shape
        shares = stored.astype(np.float64) * scale + offset
        is_class = reference == np.arange(size)[:, None]
        confidence = shares[predicted, np.arange(count)]
        bins = np.searchsorted(_CONFIDENCE[1:-1], confidence)
        rows = [np.bincount(bins, weights, minlength=len(_CONFIDENCE) - 1) for weights in (
            np.ones(count), (reference == predicted).astype(np.float64), np.rint(confidence * _STEPS),
        )]  # fmt: skip
        if stored.dtype == np.uint8:
            level, levels = stored.astype(np.int64), _BYTE_LEVELS
            lowest = np.arange(levels, dtype=np.float64) * np.float64(scale) + np.float64(offset)
        else:
            level, levels, lowest = np.maximum(np.searchsorted(_LEVELS, shares, "right") - 1, 0), len(_LEVELS), _LEVELS
        codes = (np.arange(size)[:, None] * 2 + is_class) * levels + level
        counts = np.bincount(codes.ravel(), minlength=size * 2 * levels).reshape(size, 2, levels)
        squares = np.rint(np.square(shares - is_class) * _STEPS).astype(np.int64)
        return cls(np.stack(rows, axis=1).astype(np.int64), int(squares.sum()), counts, lowest)

    def __add__(self, other: "Calibration") -> "Calibration":
        return Calibration(
            self.reliability + other.reliability, self.squares + other.squares, self.levels + other.levels,
            self.probabilities,
        )  # fmt: skip

    @property
    def pixels(self) -> int:
        """Compared pixels that have probabilities."""
        return int(self.reliability[:, 0].sum())

    @property
    def expected_calibration_error(self) -> float:
        """Mean of |accuracy - confidence| over the bins, weighted by their pixels; NaN without pixels."""
        _, correct, confidence = self.reliability.T
        return float(ratio(np.abs(correct - confidence / _STEPS).sum(), self.pixels))

    @property
    def brier_score(self) -> float:
        """Mean over pixels of the sum over classes of (probability - 1 or 0)², 0 to 2; NaN without pixels."""
        return float(ratio(self.squares / _STEPS, self.pixels))

    @property
    def precision(self) -> Measure:
        """(K, levels) share of the pixels with at least the level's probability that are of the class."""
        passed = self._passed
        return ratio(passed[:, 1], passed.sum(axis=1))

    @property
    def recall(self) -> Measure:
        """(K, levels) share of the pixels of the class that have at least the level's probability."""
        found = self._passed[:, 1]
        return ratio(found, np.broadcast_to(self.levels[:, 1].sum(axis=1)[:, None], found.shape))

    @property
    def average_precision(self) -> Measure:
        """(K,) area under the precision-recall curve in steps; NaN for a class without reference pixels."""
        # From each level to the next higher one; a level without pixels is no step.
        steps = -np.diff(self.recall, axis=1, append=0.0)
        found = np.nansum(np.where(steps > 0, steps * self.precision, 0.0), axis=1)
        return np.where(self.levels[:, 1].any(axis=1), found, np.nan)

    @property
    def _passed(self) -> Counts:
        """(K, 2, levels) pixels of at least each level."""
        return np.asarray(np.cumsum(self.levels[:, :, ::-1], axis=2)[:, :, ::-1])

    def as_dict(self, classes: Classes) -> dict[str, Any]:
        """Measures in JSON's types; NaN is None."""
        pixels, correct, confidence = self.reliability.T
        precision, recall, average = self.precision, self.recall, self.average_precision
        present = average[~np.isnan(average)]
        at = np.minimum(np.searchsorted(self.probabilities, _CURVE - 1e-9), len(self.probabilities) - 1)
        return {
            "pixels": self.pixels,
            "expected_calibration_error": plain(self.expected_calibration_error),
            "brier_score": plain(self.brier_score),
            "mean_average_precision": float(present.mean()) if present.size else None,
            "reliability": {
                "confidence_up_to": _CONFIDENCE[1:].round(1).tolist(),
                "pixels": pixels.astype(int).tolist(),
                "accuracy": _plain_list(ratio(correct, pixels)),
                "mean_confidence": _plain_list(ratio(confidence / _STEPS, pixels)),
            },
            "thresholds": _CURVE.round(2).tolist(),
            "classes": [
                {
                    "name": entry.name,
                    "average_precision": plain(average[index]),
                    "precision": _plain_list(precision[index, at]),
                    "recall": _plain_list(recall[index, at]),
                }
                for index, entry in enumerate(classes)
            ],
        }


@dataclass(frozen=True, eq=False)
class Probabilities:
    """A raster with a band for each class, as `predict` writes it."""

    raster: Raster

    def on(self, mapped: Raster, classes: Classes) -> "ProbabilitiesOnMap":
        """The bands of the classes of a map.

        Raises:
            RasterError: grids differ, or a class has no band.
        """
        return ProbabilitiesOnMap(self.raster, bands_of_classes(self.raster, mapped, classes.names))


@dataclass(frozen=True, eq=False)
class ProbabilitiesOnMap:
    """Probabilities on the grid of a map."""

    raster: Raster
    bands: NDArray[np.int64]
    """Index of the band of each class."""

    def calibration(
        self, window: Window, reference: NDArray[np.uint8], predicted: NDArray[np.uint8]
    ) -> Calibration | None:
        """The calibration of a window; arguments as of `PixelCounter.count`. None without compared pixels.

        Raises:
            RasterError: a probability is not between 0 and 1.
        """
        encodings = [self.raster.encoding_by_band[band].to(Encoding()) for band in self.bands.tolist()]
        pixels, valid = self.raster.read(window)
        compared = valid & (reference != IGNORE) & (predicted != IGNORE)
        if not compared.any():
            return None
        stored = pixels[self.bands][:, compared]
        if len(set(encodings)) > 1:  # a stored number means another probability in each band
            scales, offsets = np.array(encodings).T[:, :, None]
            stored, encodings = stored * scales + offsets, [(1.0, 0.0)]
        scale, offset = encodings[0]
        self._require_shares(stored, scale, offset)
        return Calibration.of(reference[compared], predicted[compared], stored, scale, offset)

    def _require_shares(self, stored: NDArray[Any], scale: float, offset: float) -> None:
        for value in (float(stored.min()) * scale + offset, float(stored.max()) * scale + offset):
            if not -_ROUNDING <= value <= 1 + _ROUNDING:
                raise RasterError(
                    f"{self.raster.paths[0]} holds the probability {value:g}. Expected 0 to 1, or a scale tag that "
                    "makes the stored numbers so (gdal_edit.py -scale)."
                )


def _plain_list(values: Measure) -> list[float | None]:
    return [plain(value) for value in values.tolist()]
