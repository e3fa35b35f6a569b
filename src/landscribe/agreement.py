"""Agreement of a map and its reference: measures of a matrix of (reference, map), in counts or in shares of area.

Rows of a matrix are the reference, columns the map: numbers (K, K) from 0. The matrix of an `Estimate` has the map in
its rows: pass its transpose. Accuracies, F1 and IoU need sums alone: of what agrees, of the reference and of the map.
Measures that no pixel defines are NaN.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Measure = NDArray[np.float64]


def overall_accuracy(agreed: ArrayLike, reference: ArrayLike) -> Measure:
    """Share of all classes, along the last axis, that agrees: (..., K) to (...)."""
    return ratio(np.sum(agreed, axis=-1), np.sum(reference, axis=-1))


def users_accuracy(agreed: ArrayLike, mapped: ArrayLike) -> Measure:
    """Share of what is mapped as a class that is of it in the reference, of any shape; precision."""
    return ratio(agreed, mapped)


def producers_accuracy(agreed: ArrayLike, reference: ArrayLike) -> Measure:
    """Share of a class in the reference that is mapped as it, of any shape; recall."""
    return ratio(agreed, reference)


def f1(agreed: ArrayLike, reference: ArrayLike, mapped: ArrayLike) -> Measure:
    """Harmonic mean of user's and producer's accuracy, 2 TP / (2 TP + FP + FN), of any shape.

    >>> f1([8, 0], reference=[10, 0], mapped=[9, 0]).round(3)
    array([0.842,   nan])
    """
    return ratio(2 * np.asarray(agreed), np.add(reference, mapped))


def iou(agreed: ArrayLike, reference: ArrayLike, mapped: ArrayLike) -> Measure:
    """Intersection over union, TP / (TP + FP + FN), of any shape.

    >>> iou([8, 0], reference=[10, 0], mapped=[9, 0]).round(3)
    array([0.727,   nan])
    """
    return ratio(agreed, np.add(reference, mapped) - np.asarray(agreed))


def kappa(matrix: ArrayLike) -> float:
    """Cohen's kappa, (OA - E) / (1 - E), where E is the agreement of independent random labels with the same shares.

    Cohen 1960, doi:10.1177/001316446002000104. Critics advise against it: random labels are no baseline of a map, and
    kappa mixes errors of quantity and of allocation (Pontius & Millones 2011, doi:10.1080/01431161.2011.552923; Foody
    2020, doi:10.1016/j.rse.2019.111630).

    Law: it is the same for the transposed matrix.

    >>> round(kappa([[45, 15], [25, 15]]), 4)
    0.1304
    """
    shares = _shares(matrix)
    return 1 - float(ratio(_wrong(shares), _wrong(np.outer(shares.sum(axis=1), shares.sum(axis=0)))))


def mcc(matrix: ArrayLike) -> float:
    """Matthews correlation coefficient for K classes, -1 to 1: the correlation of reference and map.

    Gorodkin 2004 (R_K), doi:10.1016/j.compbiolchem.2004.09.006. NaN if the reference or the map has one class only.

    Law: it is the same for the transposed matrix.

    >>> round(mcc([[45, 15], [25, 15]]), 4)
    0.1336
    """
    shares = _shares(matrix)
    mapped, reference = shares.sum(axis=0), shares.sum(axis=1)
    spread = _wrong(np.outer(mapped, mapped)) * _wrong(np.outer(reference, reference))
    return float(ratio(_wrong(np.outer(reference, mapped)) - _wrong(shares), np.sqrt(spread)))


def quantity(matrix: ArrayLike) -> Measure:
    """By class: |mapped - reference|, the disagreement that no other location of the mapped pixels removes.

    In the unit of the matrix; half of the sum over the classes is that of the map. Pontius & Millones 2011,
    doi:10.1080/01431161.2011.552923.

    >>> quantity([[3, 2, 1], [1, 3, 3], [2, 0, 1]])  # diffeR's example: 2 of 16 pixels
    array([0., 2., 2.])
    """
    numbers = _numbers(matrix)
    return np.asarray(np.abs(numbers.sum(axis=0) - numbers.sum(axis=1)))


def allocation(matrix: ArrayLike) -> Measure:
    """By class: 2 min(omission, commission), the disagreement in location alone.

    Unit, sum and source as of `quantity`. Law: quantity + allocation of the map is what does not agree.
    """
    numbers = _numbers(matrix)
    return np.asarray(2 * np.minimum(numbers.sum(axis=0), numbers.sum(axis=1)) - 2 * np.diag(numbers))


def exchange(matrix: ArrayLike) -> Measure:
    """By class: 2 Σ min(m_kj, m_jk) over the other classes j, pairs of pixels whose classes are swapped.

    Unit and sum as of `quantity`. Pontius & Santacruz 2014, doi:10.1080/2150704X.2014.969814.

    >>> exchange([[3, 2, 1], [1, 3, 3], [2, 0, 1]])
    array([4., 2., 2.])
    """
    numbers = _numbers(matrix)
    return np.asarray(2 * (np.minimum(numbers, numbers.T).sum(axis=1) - np.diag(numbers)))


def shift(matrix: ArrayLike) -> Measure:
    """By class: the allocation disagreement that is no exchange of pairs, but goes round three or more classes.

    Unit, sum and source as of `exchange`. Law: exchange + shift = allocation.

    >>> shift([[3, 2, 1], [1, 3, 3], [2, 0, 1]])
    array([2., 2., 2.])
    """
    return np.asarray(np.maximum(allocation(matrix) - exchange(matrix), 0.0))


def efficacy(matrix: ArrayLike) -> float:
    """Map image classification efficacy (MICE), (OA - E) / (1 - E): E is Σ of the squared shares of the reference.

    E is the accuracy of a random map with the shares of the reference, so the baseline does not depend on the map, as
    that of kappa does. 1 is perfect, 0 no better than random. Shao et al. 2021, doi:10.1109/ACCESS.2021.3116526.

    >>> round(efficacy([[45, 15], [25, 15]]), 4)
    0.1667
    """
    shares = _shares(matrix)
    reference = shares.sum(axis=1)
    return 1 - float(ratio(_wrong(shares), _wrong(np.outer(reference, reference))))


def users_efficacy(matrix: ArrayLike) -> Measure:
    """By class: efficacy of user's accuracy, (UA - R) / (1 - R), where R is the class's share of the reference.

    Source as of `efficacy`.
    """
    shares = _shares(matrix)
    commission = ratio(_off_diagonal(shares).sum(axis=0), shares.sum(axis=0))
    return 1 - ratio(commission, _others(shares.sum(axis=1)))


def producers_efficacy(matrix: ArrayLike) -> Measure:
    """By class: efficacy of producer's accuracy, (PA - R) / (1 - R), where R is the class's share of the reference.

    Source as of `efficacy`.
    """
    shares = _shares(matrix)
    omission = ratio(_off_diagonal(shares).sum(axis=1), shares.sum(axis=1))
    return 1 - ratio(omission, _others(shares.sum(axis=1)))


def specificity(matrix: ArrayLike) -> Measure:
    """By class: share of the reference of other classes that is not mapped as it, TN / (TN + FP).

    >>> specificity([[8, 2], [1, 9]])  # of two classes, that of the second is the producer's accuracy of the first
    array([0.9, 0.8])
    """
    numbers = _numbers(matrix)
    return 1 - ratio(_off_diagonal(numbers).sum(axis=0), _others(numbers.sum(axis=1)))


def negative_predictive_value(matrix: ArrayLike) -> Measure:
    """By class: share of the map of other classes that is not of it in the reference, TN / (TN + FN)."""
    return specificity(_numbers(matrix).T)


def ratio(part: Any, whole: Any) -> Measure:
    """Part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)


def plain(value: float) -> float | None:
    """A measure in JSON's types: None for NaN."""
    return None if np.isnan(value) else float(value)


def _numbers(matrix: ArrayLike) -> Measure:
    return np.asarray(matrix, np.float64)


def _shares(matrix: ArrayLike) -> Measure:
    """The matrix as shares of its sum."""
    numbers = _numbers(matrix)
    return ratio(numbers, numbers.sum())


# Sums of the parts that are not of a class, rather than 1 less those that are: rounding would leave a remainder of a
# class that is all.


def _off_diagonal(matrix: Measure) -> Measure:
    return np.where(np.eye(len(matrix), dtype=np.bool_), 0.0, matrix)


def _wrong(matrix: Measure) -> float:
    """Sum of the pixels whose classes differ."""
    return float(_off_diagonal(matrix).sum())


def _others(by_class: Measure) -> Measure:
    """By class: the sum of the other classes."""
    return np.asarray(_off_diagonal(np.broadcast_to(by_class, (len(by_class), len(by_class)))).sum(axis=1))
