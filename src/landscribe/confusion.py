"""Confusion: counts of (reference, predicted), from which every measure derives.

One definition for training, assessment and report. Rows are the reference, columns the prediction.
Measures follow Stehman & Foody 2019, "Key issues in rigorous accuracy assessment of land cover products",
Remote Sensing of Environment 231, doi:10.1016/j.rse.2019.05.018.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.geo.classes import IGNORE, Classes

Counts = NDArray[np.int64]
Measure = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Confusion:
    """Pixel counts by reference class (rows) and predicted class (columns). Adding merges regions."""

    classes: Classes
    counts: Counts
    """(K, K) int64."""
    unmapped: int = 0
    """Pixels with a reference class where the map has none; they are not in `counts`."""

    @classmethod
    def zeros(cls, classes: Classes) -> "Confusion":
        """A confusion matrix without counts, to which others are added."""
        return cls(classes, np.zeros((len(classes), len(classes)), np.int64))

    @classmethod
    def of(cls, classes: Classes, reference: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> "Confusion":
        """Count pixels of two arrays of the same shape.

        Args:
            classes: K classes.
            reference: class indices 0 to K-1, or 255 for ignore.
            predicted: class indices 0 to K-1, or 255 for nodata.

        Returns:
            Pixels with 255 in either array are not in the matrix; those with a reference are counted as unmapped.
        """
        count = len(classes)
        assessed = (reference != IGNORE) & (predicted != IGNORE)
        pairs = reference[assessed].astype(np.int64) * count + predicted[assessed]
        unmapped = int(np.count_nonzero((reference != IGNORE) & (predicted == IGNORE)))
        return cls(classes, np.bincount(pairs, minlength=count * count).reshape(count, count), unmapped)

    def __add__(self, other: "Confusion") -> "Confusion":
        return Confusion(self.classes, self.counts + other.counts, self.unmapped + other.unmapped)

    @property
    def total(self) -> int:
        """Pixels counted."""
        return int(self.counts.sum())

    @property
    def unmapped_share(self) -> float:
        """Share of the pixels with a reference class where the map has none, 0 to 1; NaN without pixels."""
        return float(_ratio(np.array(self.unmapped), np.array(self.total + self.unmapped)))

    @property
    def overall_accuracy(self) -> float:
        """Share of the pixels that are mapped correctly; NaN without pixels."""
        return float(_ratio(np.array(np.trace(self.counts)), np.array(self.total)))

    @property
    def users_accuracy(self) -> Measure:
        """By class: share of its predicted pixels that are correct (precision); NaN without predicted pixels."""
        return _ratio(np.diag(self.counts), self.counts.sum(axis=0))

    @property
    def producers_accuracy(self) -> Measure:
        """By class: share of its reference pixels that are correct (recall); NaN without reference pixels."""
        return _ratio(np.diag(self.counts), self.counts.sum(axis=1))

    @property
    def f1(self) -> Measure:
        """By class: harmonic mean of user's and producer's accuracy, 2 TP / (2 TP + FP + FN)."""
        return _ratio(2 * np.diag(self.counts), self.counts.sum(axis=0) + self.counts.sum(axis=1))

    @property
    def iou(self) -> Measure:
        """By class: intersection over union, TP / (TP + FP + FN)."""
        diagonal = np.diag(self.counts)
        return _ratio(diagonal, self.counts.sum(axis=0) + self.counts.sum(axis=1) - diagonal)

    @property
    def mean_f1(self) -> float:
        """Mean F1 of the classes, without classes that are neither in the map nor in the reference.

        It is not the harmonic mean of the mean accuracies.
        """
        return _mean(self.f1)

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the classes, without classes that are neither in the map nor in the reference."""
        return _mean(self.iou)

    @property
    def mean_users_accuracy(self) -> float:
        """Mean user's accuracy of the classes that are in the map."""
        return _mean(self.users_accuracy)

    @property
    def mean_producers_accuracy(self) -> float:
        """Mean producer's accuracy of the classes that are in the reference."""
        return _mean(self.producers_accuracy)

    def summary(self) -> dict[str, Any]:
        """All measures, ready for JSON. NaN becomes None."""
        per_class = {
            "users_accuracy": self.users_accuracy,
            "producers_accuracy": self.producers_accuracy,
            "f1": self.f1,
            "iou": self.iou,
        }
        rows = [
            {
                "name": entry.name,
                "value": entry.value,
                "reference_pixels": int(self.counts[index].sum()),
                "predicted_pixels": int(self.counts[:, index].sum()),
                **{name: _plain(values[index]) for name, values in per_class.items()},
            }
            for index, entry in enumerate(self.classes)
        ]
        return {
            "pixels": self.total,
            "unmapped_pixels": self.unmapped,
            "overall_accuracy": _plain(self.overall_accuracy),
            "mean_f1": _plain(self.mean_f1),
            "mean_iou": _plain(self.mean_iou),
            "mean_users_accuracy": _plain(self.mean_users_accuracy),
            "mean_producers_accuracy": _plain(self.mean_producers_accuracy),
            "classes": rows,
            "confusion": {"rows": "reference", "columns": "predicted", "counts": self.counts.tolist()},
        }


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> Measure:
    """Part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)


def _mean(values: Measure) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
