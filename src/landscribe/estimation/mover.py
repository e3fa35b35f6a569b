"""Intervals of ratios of totals from the limits of each stratum: MOVER, where the normal interval does not hold.

The method of variance estimates recovery: Zou and Donner 2008 (doi:10.1002/sim.3095) for sums, Donner and Zou 2012
(doi:10.1177/0962280210383082) for ratios. The variance of a total is recovered from an interval of each stratum. With
Wilson's intervals it is not 0 in a stratum whose sampled units all have the same value.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landscribe.estimation.intervals import wilson
from landscribe.estimation.sample_tables import Floats
from landscribe.estimation.totals import Population

_NO_VARIANCE = 1e-24
"""Variance of a share that is due to rounding."""
_ROUNDING = 1e-9
_MATTERS = 0.2
"""Ratio of what strata without a variance may hide to the half-width of the normal interval, from which it matters: the
interval would be wider by a fiftieth."""


@dataclass(frozen=True, eq=False)
class Variable:
    """Values of the units of a sample, whose totals are estimated."""

    values: Floats
    """(n, q) for q variables, 0 to `most`."""
    occurs: Floats
    """(n, q) above 0 in rows whose unit can have another value than 0. Strata without such a row have none."""
    most: float = 1.0


@dataclass(frozen=True, eq=False)
class Limits:
    """Totals of each stratum, and how far the truth may lie below and above them. Arrays are (H, q)."""

    share: Floats
    """The total in relation to the largest that the stratum can have, 0 to 1."""
    total: Floats
    variance: Floats
    below: Floats
    above: Floats
    is_blind: NDArray[np.bool_]
    """No unit of the sample differs from the others of the stratum, of which not all are in the sample."""

    @classmethod
    def of(cls, population: Population, variable: Variable, quantile: float) -> "Limits":
        """Wilson's limits at the effective size of each stratum (Korn and Graubard 1998).

        Where no unit differs, or a single one was drawn, that is the number of its units.
        """
        sizes = population.sizes[:, None] * variable.most
        total = population.by_stratum(variable.values)
        variance = np.nan_to_num(population.moments(variable.values, variable.values, areas_are_known=True))
        share = np.clip(np.divide(total, sizes, out=np.zeros_like(total), where=sizes > 0), 0.0, 1.0)
        spread = np.divide(variance, sizes**2, out=np.zeros_like(total), where=sizes > 0)
        spread = np.where(spread < _NO_VARIANCE, 0.0, spread)
        of_units = np.broadcast_to(population.effective_sizes[:, None], total.shape)
        differ = (spread > 0) & (share > 0) & (share < 1)
        size = np.divide(share * (1 - share), spread, out=of_units.copy(), where=differ)
        lower, upper = wilson(share, size, quantile)
        occurs = population.by_stratum((variable.occurs > 0).astype(np.float64)) > 0
        occurs |= ~occurs.any(axis=0)  # no unit of the sample, but the population may have some in any stratum
        reach = np.where(occurs, sizes, 0.0)
        is_blind = occurs & (spread == 0) & np.isfinite(of_units)
        return cls(share, total, spread * sizes**2, (share - lower) * reach, (upper - share) * reach, is_blind)


@dataclass(frozen=True, eq=False)
class RatioLimits:
    """Limits of the ratio part / (part + rest) of two totals, for q pairs of variables."""

    part: Limits
    rest: Limits
    correlation: Floats
    """(H, q) of the two totals in each stratum."""

    @classmethod
    def of(cls, population: Population, part: Variable, rest: Variable, quantile: float) -> "RatioLimits":
        """The limits of both totals, and how these depend on each other."""
        of_part, of_rest = Limits.of(population, part, quantile), Limits.of(population, rest, quantile)
        joint = np.nan_to_num(population.moments(part.values, rest.values, areas_are_known=True))
        spread = np.sqrt(of_part.variance * of_rest.variance)
        # In a stratum that is all part or all rest, what the one lacks is the other's.
        is_either = (of_part.share + of_rest.share > 1 - _ROUNDING) & (spread == 0)
        correlation = np.divide(joint, spread, out=np.where(is_either, -1.0, 0.0), where=spread > 0)
        return cls(of_part, of_rest, np.clip(correlation, -1.0, 1.0))

    @property
    def ends(self) -> tuple[Floats, Floats]:
        """(q,) lower and upper ends of the interval, 0 to 1. NaN where both totals are 0."""
        lower = _lower_end(self.part, self.rest, self.correlation)
        return lower, 1 - _lower_end(self.rest, self.part, self.correlation)

    def hides_much(self, half_widths: Floats) -> NDArray[np.bool_]:
        """(q,) whether strata without a variance matter beside intervals of these half-widths (q,).

        True where a half-width is NaN.
        """
        part, rest = self.part.total.sum(axis=0), self.rest.total.sum(axis=0)
        whole = np.where(part + rest > 0, part + rest, 1.0)
        hidden = [
            _squares(
                rest / whole**2 * np.where(self.part.is_blind, of_part, 0.0),
                part / whole**2 * np.where(self.rest.is_blind, of_rest, 0.0),
                self.correlation,
            ).sum(axis=0)
            for of_part, of_rest in ((self.part.below, self.rest.above), (self.part.above, self.rest.below))
        ]
        return np.asarray(~(np.maximum(*hidden) <= (_MATTERS * half_widths) ** 2))


def _squares(first: Floats, second: Floats, correlation: Floats) -> Floats:
    """Squared differences of two deviations that are correlated."""
    return np.maximum(0.0, first**2 - 2 * correlation * first * second + second**2)


def _lower_end(part: Limits, rest: Limits, correlation: Floats) -> Floats:
    """(q,) the lower end of part / (part + rest).

    The smallest r = part / rest for which part - r · rest may be 0: the root of (X - r Y)² = Σ a² - 2 c a r b + r² b²,
    with the totals X and Y, the distances a below X and b above Y, and their correlation c, summed over strata (Donner
    and Zou 2012).
    """
    first, second = part.total.sum(axis=0), rest.total.sum(axis=0)
    constant = np.maximum(first**2 - (part.below**2).sum(axis=0), 0.0)
    linear = first * second - (correlation * part.below * rest.above).sum(axis=0)
    squared = second**2 - (rest.above**2).sum(axis=0)
    denominator = constant + linear + np.sqrt(np.maximum(linear**2 - squared * constant, 0.0))
    ends = np.divide(constant, denominator, out=np.zeros_like(constant), where=denominator > 0)
    return np.where(first + second > 0, ends, np.nan)
