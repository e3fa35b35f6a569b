"""Threshold: the probability from which a pixel is of the second of two classes, chosen by its F1-score."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscribe.agreement import Measure, f1
from landscribe.confusion import Counts
from landscribe.inference.evaluation import count_pairs

BINS = 1024
"""Thresholds are multiples of 1 / 1024: float32 holds them, and multiplies by 1024, without rounding."""


def count_bins(reference: Tensor, probability: Tensor) -> Tensor:
    """Pixels by reference class and bin of the probability, (2, BINS), counted on the device of the tensors.

    Args:
        reference: class indices 0 and 1, or 255 for ignore.
        probability: of the second class, float32 0 to 1, of the same shape; NaN counts as 0.
    """
    bins = (torch.nan_to_num(probability.float()) * BINS).long().clamp(max=BINS - 1)
    return count_pairs(reference, bins, (2, BINS))


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """F1-score of the second class for each threshold of its probability. Counts of several add up to those of all."""

    counts: Counts
    """(2, BINS) pixels by reference class and bin; bin k has the probabilities from k / BINS to below (k + 1) / BINS,
    the last one also 1."""

    @property
    def f1(self) -> Measure:
        """(BINS,) F1-score of the second class if it has the pixels from k / BINS up.

        It is 0 where the class is neither in the reference nor predicted.

        >>> counts = count_bins(torch.tensor([0, 0, 1, 1]), torch.tensor([0.1, 0.3, 0.2, 0.9]))
        >>> ThresholdCurve(counts.numpy()).f1[[BINS // 8, BINS // 4, BINS // 2]].round(3).tolist()
        [0.8, 0.5, 0.667]
        """
        predicted = np.cumsum(self.counts[:, ::-1], axis=1)[:, ::-1]
        return np.nan_to_num(f1(agreed=predicted[1], reference=self.counts[1].sum(), mapped=predicted.sum(axis=0)))

    @property
    def best(self) -> tuple[float, float] | None:
        """The threshold with the highest F1-score, and that score; of equal ones the nearest to 0.5.

        None if no threshold has an F1-score above 0, as without reference pixels of the second class.

        >>> counts = count_bins(torch.tensor([0, 0, 1, 1]), torch.tensor([0.1, 0.3, 0.2, 0.9]))
        >>> ThresholdCurve(counts.numpy()).best
        (0.19921875, 0.8)
        """
        # A threshold of 0 is none: every pixel would be of the second class.
        thresholds, scores = np.arange(1, BINS) / BINS, self.f1[1:]
        if not scores.any():
            return None
        highest = np.flatnonzero(scores == scores.max())
        index = highest[np.abs(thresholds[highest] - 0.5).argmin()]
        return float(thresholds[index]), float(scores[index])
