"""Confusion: counts of (reference, predicted), from which every measure derives.

Rows are the reference, columns the prediction. The measures are those of `agreement`; they follow Stehman & Foody 2019,
"Key issues in rigorous accuracy assessment of land cover products", Remote Sensing of Environment 231,
doi:10.1016/j.rse.2019.05.018.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe import agreement
from landscribe.agreement import Measure, plain, ratio
from landscribe.errors import ClassError
from landscribe.geo.classes import IGNORE, Classes

Counts = NDArray[np.int64]

_OVERALL = (
    "overall_accuracy", "mean_f1", "mean_iou", "mean_users_accuracy", "mean_producers_accuracy", "kappa", "mcc",
    "quantity_disagreement", "allocation_disagreement", "exchange", "shift", "efficacy",
)  # fmt: skip
_OF_TWO_CLASSES = ("specificity", "negative_predictive_value")


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

        Raises:
            ClassError: an index of no class. Values of classes, which masks and maps hold, are converted by
                `classes.to_indices`.
        """
        count = len(classes)
        assessed = (reference != IGNORE) & (predicted != IGNORE)
        rows, cols = reference[assessed], predicted[assessed]
        odd = [each for each in (rows, cols) if each.min(initial=0) < 0 or each.max(initial=0) >= count]
        if odd or rows.dtype.kind not in "ui" or cols.dtype.kind not in "ui":
            raise ClassError(
                f"the arrays hold {', '.join(f'{each.min()} to {each.max()}' for each in odd) or 'no integers'}. "
                f"Expected indices of classes, 0 to {count - 1}, or {IGNORE}. "
                "Convert values of classes with classes.to_indices."
            )
        pairs = rows.astype(np.int64) * count + cols
        unmapped = int(np.count_nonzero((reference != IGNORE) & (predicted == IGNORE)))
        return cls(classes, np.bincount(pairs, minlength=count * count).reshape(count, count), unmapped)

    def __add__(self, other: "Confusion") -> "Confusion":
        return Confusion(self.classes, self.counts + other.counts, self.unmapped + other.unmapped)

    @property
    def total(self) -> int:
        """Pixels counted."""
        return int(self.counts.sum())

    @property
    def _reference(self) -> Counts:
        """(K,) pixels of each class in the reference."""
        return np.asarray(self.counts.sum(axis=1))

    @property
    def _mapped(self) -> Counts:
        """(K,) pixels that are predicted as each class."""
        return np.asarray(self.counts.sum(axis=0))

    @property
    def unmapped_share(self) -> float:
        """Share of the pixels with a reference class where the map has none, 0 to 1; NaN without pixels."""
        return float(ratio(np.array(self.unmapped), np.array(self.total + self.unmapped)))

    @property
    def overall_accuracy(self) -> float:
        """Share of the pixels that are mapped correctly; NaN without pixels.

        It is also the micro average of user's accuracy, producer's accuracy and F1: each pixel has one class.
        """
        return float(agreement.overall_accuracy(np.diag(self.counts), self._reference))

    @property
    def users_accuracy(self) -> Measure:
        """By class: share of its predicted pixels that are correct (precision); NaN without predicted pixels."""
        return agreement.users_accuracy(np.diag(self.counts), self._mapped)

    @property
    def producers_accuracy(self) -> Measure:
        """By class: share of its reference pixels that are correct (recall); NaN without reference pixels."""
        return agreement.producers_accuracy(np.diag(self.counts), self._reference)

    @property
    def f1(self) -> Measure:
        """By class: harmonic mean of user's and producer's accuracy, 2 TP / (2 TP + FP + FN)."""
        return agreement.f1(np.diag(self.counts), self._reference, self._mapped)

    @property
    def iou(self) -> Measure:
        """By class: intersection over union, TP / (TP + FP + FN)."""
        return agreement.iou(np.diag(self.counts), self._reference, self._mapped)

    @property
    def mean_f1(self) -> float:
        """Mean F1 of the classes, without classes that are neither in the map nor in the reference.

        It is not the harmonic mean of the mean accuracies.
        """
        return class_mean(self.f1)

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the classes, without classes that are neither in the map nor in the reference."""
        return class_mean(self.iou)

    @property
    def mean_users_accuracy(self) -> float:
        """Mean user's accuracy of the classes that are in the map."""
        return class_mean(self.users_accuracy)

    @property
    def mean_producers_accuracy(self) -> float:
        """Mean producer's accuracy of the classes that are in the reference."""
        return class_mean(self.producers_accuracy)

    def of_reference_classes(self, values: Measure) -> Measure:
        """Values (K,) by class, NaN for the classes that the reference lacks."""
        return np.where(self.counts.any(axis=1), values, np.nan)

    @property
    def kappa(self) -> float:
        """Cohen's kappa; see `agreement.kappa` for its critics."""
        return agreement.kappa(self.counts)

    @property
    def mcc(self) -> float:
        """Matthews correlation coefficient of K classes, -1 to 1."""
        return agreement.mcc(self.counts)

    @property
    def quantity_disagreement(self) -> float:
        """Share of the pixels that disagree because classes have other sums in the map than in the reference.

        Law: with `allocation_disagreement` it sums to 1 - `overall_accuracy`.
        """
        return self._share(agreement.quantity(self.counts))

    @property
    def allocation_disagreement(self) -> float:
        """Share of the pixels that disagree in location alone. Law: it is `exchange` + `shift`."""
        return self._share(agreement.allocation(self.counts))

    @property
    def exchange(self) -> float:
        """Share of the pixels that disagree in pairs whose classes are swapped."""
        return self._share(agreement.exchange(self.counts))

    @property
    def shift(self) -> float:
        """Share of the pixels that disagree in location, but not in pairs."""
        return self._share(agreement.shift(self.counts))

    def _share(self, by_class: Measure) -> float:
        """Share of all pixels, of a disagreement that counts in two classes."""
        return float(ratio(by_class.sum() / 2, self.total))

    @property
    def efficacy(self) -> float:
        """Map image classification efficacy: accuracy from that of a random map (0) to perfect (1)."""
        return agreement.efficacy(self.counts)

    @property
    def specificity(self) -> float:
        """Of two classes: share of the reference of the first that is not mapped as the second; NaN for more."""
        return float(agreement.specificity(self.counts)[1]) if len(self.classes) == 2 else float("nan")

    @property
    def negative_predictive_value(self) -> float:
        """Of two classes: share of the map of the first that is not the second in the reference; NaN for more."""
        return float(agreement.negative_predictive_value(self.counts)[1]) if len(self.classes) == 2 else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """All measures, ready for JSON. NaN becomes None."""
        per_class = {
            "users_accuracy": self.users_accuracy,
            "producers_accuracy": self.producers_accuracy,
            "f1": self.f1,
            "iou": self.iou,
            "users_efficacy": agreement.users_efficacy(self.counts),
            "producers_efficacy": agreement.producers_efficacy(self.counts),
            "quantity": ratio(agreement.quantity(self.counts), self.total),
            "exchange": ratio(agreement.exchange(self.counts), self.total),
            "shift": ratio(agreement.shift(self.counts), self.total),
        }
        rows = [
            {
                "name": entry.name,
                "value": entry.value,
                "reference_pixels": int(self.counts[index].sum()),
                "predicted_pixels": int(self.counts[:, index].sum()),
                **{name: plain(values[index]) for name, values in per_class.items()},
            }
            for index, entry in enumerate(self.classes)
        ]
        overall = _OVERALL + (_OF_TWO_CLASSES if len(self.classes) == 2 else ())
        return {
            "pixels": self.total,
            "unmapped_pixels": self.unmapped,
            **{name: plain(getattr(self, name)) for name in overall},
            "classes": rows,
            "confusion": {"rows": "reference", "columns": "predicted", "counts": self.counts.tolist()},
        }


def class_mean(values: Measure) -> float:
    """Mean of the classes that have a value; NaN if none has."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
