"""Sizes: how many sampling units a precision needs, how strata share them, and the precision of a given size.

Shares, accuracies and standard errors are fractions. An accuracy U is the share of correct units, so that the standard
deviation of a unit is S = sqrt(U (1 - U)).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landscribe.errors import SampleError, counted
from landscribe.estimation.intervals import interval_quantile, wilson

LEAST_OF_A_STRATUM = 50
"""Units of each stratum by the allocation auto (Olofsson et al. 2014 advise 50 to 100)."""
_LEAST = 2
"""A variance needs two units."""

Floats = NDArray[np.float64]


def simple_random_size(accuracy: float, standard_error: float, units: float = math.inf) -> float:
    """Units of a simple random sample that estimates an accuracy with a standard error (Cochran 1977, eq. 4.2 and 4.3).

    Args:
        accuracy: expected.
        standard_error: of the estimate; a half-width divided by `interval_quantile(confidence)`.
        units: of the population.

    >>> round(simple_random_size(0.85, 0.04 / interval_quantile(0.95)), 1)
    306.1
    """
    without_correction = accuracy * (1 - accuracy) / standard_error**2
    return without_correction / (1 + without_correction / units)


def stratified_size(
    shares: Sequence[float], accuracies: Sequence[float], standard_error: float, units: float = math.inf
) -> float:
    """Units of a stratified sample that estimates the overall accuracy with a standard error.

    (sum W S)² / (SE² + sum W S² / N): Olofsson et al. 2014, eq. 13, and Cochran 1977, eq. 5.25. Allocations other than
    Neyman's reach a larger standard error.

    Args:
        shares: W, of each stratum in the population.
        accuracies: expected, of each stratum.
        standard_error: of the overall accuracy.
        units: of the population, N.

    >>> shares, accuracies = [0.02, 0.015, 0.32, 0.645], [0.7, 0.6, 0.9, 0.95]  # Olofsson et al. 2014, section 5.1
    >>> round(stratified_size(shares, accuracies, 0.01), 3)
    640.536
    """
    weights, deviations = np.asarray(shares), deviations_of(accuracies)
    spread = float((weights * deviations).sum()) ** 2
    return spread / (standard_error**2 + float((weights * deviations**2).sum()) / units)


def deviations_of(accuracies: Sequence[float]) -> Floats:
    """Standard deviation S of a unit, for each accuracy."""
    accuracy = np.asarray(accuracies, np.float64)
    return np.sqrt(accuracy * (1 - accuracy))


def allocate(rule: str, size: int, units: Sequence[int], accuracies: Sequence[float]) -> list[int]:
    """Share a sample among strata.

    Law: the numbers sum to `size`, unless two units of each stratum are more. No number is above that of the stratum's
    units, unless all rules would break that: then see `require_enough`.

    Args:
        rule: proportional (to the units), equal, neyman (to the units times S) or auto (50 of each stratum, all if it
            has fewer, and the rest proportional).
        size: units to draw.
        units: of each stratum in the population.
        accuracies: expected, of each stratum.

    >>> allocate("auto", 500, [200_000, 150_000, 3_200_000, 6_450_000], [0.8] * 4)
    [50, 50, 133, 267]
    >>> allocate("neyman", 100, [1000, 1000], [0.5, 0.9])
    [63, 37]
    """
    population = np.asarray(units, np.float64)
    least = np.minimum(population, _LEAST)
    if rule == "auto":
        # Too few for 50 of each stratum: equal numbers.
        least = np.maximum(least, np.minimum(population, min(LEAST_OF_A_STRATUM, size // len(units))))
    weights = {
        "equal": np.ones(len(units)),
        "neyman": population * deviations_of(accuracies),
    }.get(rule, population)
    return _whole(_at_least(size, weights, least), max(size, int(least.sum())))


def _at_least(size: int, weights: Floats, least: Floats) -> Floats:
    """Numbers in proportion to weights; those below their least are raised, at the cost of the others."""
    is_raised = np.zeros(len(weights), bool)
    while True:
        rest = max(0.0, size - float(least[is_raised].sum()))
        free = np.where(is_raised, 0, weights)
        numbers = np.where(is_raised, least, rest * free / (free.sum() or 1))
        below = ~is_raised & (numbers < least)
        if not below.any():
            return numbers
        is_raised |= below


def _whole(numbers: Floats, total: int) -> list[int]:
    """Whole numbers with this total, by the largest remainders."""
    whole = np.floor(numbers + 1e-9).astype(int)
    order = np.argsort(whole - numbers, kind="stable")
    whole[order[: max(0, total - int(whole.sum()))]] += 1
    return [int(number) for number in whole]


def require_enough(names: Sequence[str], numbers: Sequence[int], units: Sequence[int]) -> None:
    """Raise SampleError for a stratum with fewer units than are to be drawn."""
    for name, number, available in zip(names, numbers, units, strict=True):
        if number > available:
            raise SampleError(
                f"the size of stratum {name} is {number:,}, but it has {counted(available, 'unit')}. Choose a smaller "
                f"size or a larger error, another allocation, or numbers with at most {available} for it."
            )


@dataclass(frozen=True)
class Expected:
    """An expected accuracy, and the standard error and interval that a sample would give it."""

    accuracy: float
    standard_error: float
    lower: float
    upper: float

    @classmethod
    def of(cls, accuracy: float, variance: float, quantile: float) -> "Expected":
        """With Wilson's interval at the effective size of the sample, which stays between 0 and 1.

        Args:
            accuracy: expected.
            variance: of its estimate.
            quantile: of the normal distribution, see `interval_quantile`.
        """
        size = accuracy * (1 - accuracy) / variance if variance > 0 else math.inf
        lower, upper = wilson(accuracy, size, quantile)
        return cls(accuracy, math.sqrt(variance), float(lower), float(upper))


def expected_by_stratum(
    accuracies: Sequence[float], numbers: Sequence[float], units: Sequence[int], confidence: float
) -> list[Expected | None]:
    """The expected accuracy of each stratum with its interval; None for strata without units in the sample.

    Args:
        accuracies: of each stratum.
        numbers: units of each stratum in the sample.
        units: of each stratum in the population.
        confidence: of the intervals.
    """
    quantile, rows = interval_quantile(confidence), zip(accuracies, numbers, units, strict=True)
    return [
        Expected.of(accuracy, _variance(accuracy, number, total), quantile) if number > 0 else None
        for accuracy, number, total in rows
    ]


def expected_overall(
    accuracies: Sequence[float], numbers: Sequence[float], units: Sequence[int], confidence: float
) -> Expected | None:
    """The expected overall accuracy of a stratified sample, with its interval; None if a stratum has no unit in it.

    Arguments as `expected_by_stratum`.
    """
    if not all(numbers):
        return None
    shares = np.asarray(units, np.float64) / sum(units)
    variances = [_variance(*row) for row in zip(accuracies, numbers, units, strict=True)]
    accuracy, variance = float((shares * accuracies).sum()), float((shares**2 * variances).sum())
    return Expected.of(accuracy, variance, interval_quantile(confidence))


def _variance(accuracy: float, number: float, units: int) -> float:
    """Of the estimated accuracy of one stratum, with the correction for a finite population."""
    return accuracy * (1 - accuracy) / number * max(0.0, 1 - number / units)
