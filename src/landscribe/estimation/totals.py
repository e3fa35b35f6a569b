"""Totals of a population and their covariance, from a reference sample: by stratum, by unit or by cluster.

Formulas: Cochran 1977, "Sampling Techniques", chapters 5 and 6; Särndal, Swensson and Wretman 1992, chapters 5 and 7.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from landscribe.estimation.sample_tables import Floats, Indices, LabelledSample

NEGLIGIBLE = 0.05
"""Share of a stratum's units in the sample up to which the finite-population correction may be left out (Cochran 1977,
section 2.6)."""


@dataclass(frozen=True, eq=False)
class Population:
    """The population that a labelled sample stands for."""

    sample: LabelledSample
    corrects: bool
    """Whether the finite-population correction is applied."""

    @cached_property
    def area(self) -> Floats:
        """(n,) area of the population that each row stands for; units where no area is given.

        Law: by stratum, it sums to the stratum's area if that is given, and else to its units times their mean area.
        """
        sample, strata = self.sample, self.sample.strata
        drawn = sample.count * sample.weight
        if strata.area is None:
            return drawn * sample.area * self._by_stratum(strata.units, self._sums(drawn))
        return drawn * sample.area * self._by_stratum(strata.area, self._sums(drawn * sample.area))

    def _by_stratum(self, totals: Floats, sums: Floats) -> Floats:
        ratio = np.divide(totals, sums, out=np.zeros_like(sums), where=sums > 0)
        return np.asarray(ratio[self.sample.stratum])

    def _sums(self, values: Floats) -> Floats:
        sums: Floats = np.bincount(self.sample.stratum, values, len(self.sample.strata.names)).astype(np.float64)
        return sums

    def total(self, values: Floats) -> Floats:
        """Estimated totals over the population of values (n, ...) by row."""
        return np.asarray(self.area @ values)

    def by_stratum(self, values: Floats) -> Floats:
        """(H, q) estimated totals of each stratum of q variables (n, q)."""
        return np.stack([self._sums(column) for column in (self.area[:, None] * values).T], axis=1)

    def moments(self, first: Floats, second: Floats, *, areas_are_known: bool = False) -> Floats:
        """(H, q) estimated covariance of the totals of each stratum, of q pairs of variables (n, q).

        In a stratum, units (or clusters) count as drawn with equal chance and with replacement, less the correction for
        a finite population. A stratum with a single unit has the variance of the whole sample.

        Law: with itself, a variable has its variance. Strata are drawn apart, so that their variances sum to that of
        the total.

        Args:
            first: by row.
            second: by row.
            areas_are_known: the area of each stratum counts as known, also where it is estimated.
        """
        drawn, size = self.sample.drawn, np.ones(len(self.area)) if areas_are_known else self._known_size
        products = self._deviations(first, size) * self._deviations(second, size) * self._count_of_rows[:, None]
        sums = [np.bincount(self._stratum_of_rows, column, len(drawn)) for column in products.T]
        within = np.divide(drawn, drawn - 1, out=np.zeros(len(drawn)), where=drawn > 1)
        of_several = np.stack(sums, axis=1) * (within * self._uncorrected)[:, None]
        return np.asarray(of_several + self._of_single_units(first, second))

    @cached_property
    def _uncorrected(self) -> Floats:
        """(H,) share of the variance that is left by the finite-population correction."""
        units = self.sample.strata.units
        if not self.corrects or self.sample.cluster is not None:
            return np.ones(len(units))
        return 1 - np.divide(self.sample.drawn, units, out=np.zeros_like(units), where=units > 0)

    def _deviations(self, values: Floats, size: Floats) -> Floats:
        """(rows or clusters, q) contributions to the totals less what the known size of their stratum explains."""
        sample, sums = self.sample, self.by_stratum(values)
        known = self._sums(self.area * size)[:, None]
        expected = np.divide(sums, known, out=np.zeros_like(sums), where=known > 0)[sample.stratum]
        deviations = self.area[:, None] * (values - size[:, None] * expected)
        if sample.cluster is not None:
            return _sums_of(sample.cluster, deviations)
        return deviations / np.maximum(sample.count, 1)[:, None]

    @cached_property
    def _known_size(self) -> Floats:
        """(n,) units for each unit of area, whose sums by stratum are known; 1 if the areas themselves are known."""
        return np.ones(len(self.area)) if self.sample.strata.area is not None else 1 / self.sample.area

    @cached_property
    def _stratum_of_rows(self) -> Indices:
        """Stratum of each row, or of each cluster."""
        if self.sample.cluster is None:
            return self.sample.stratum
        _, first = np.unique(self.sample.cluster, return_index=True)
        return self.sample.stratum[first]

    @cached_property
    def _count_of_rows(self) -> Indices:
        """Draws that each row stands for; 1 for a cluster."""
        return self.sample.count if self.sample.cluster is None else np.ones(len(self._stratum_of_rows), np.intp)

    def _of_single_units(self, first: Floats, second: Floats) -> Floats:
        """(H, q) covariance of the totals of strata in which a single unit (or cluster) was drawn; 0 for the others."""
        single = (self.sample.drawn == 1) & (self.sample.strata.units > 0) & (self._uncorrected > 0)
        if not single.any():
            return np.zeros((len(single), first.shape[1]))
        counts = self._count_of_rows
        if counts.sum() < 2:
            return np.full((len(single), first.shape[1]), np.nan)
        apart = [each - np.average(each, axis=0, weights=counts) for each in map(self._means, (first, second))]
        pooled = counts @ (apart[0] * apart[1]) / (counts.sum() - 1)
        return np.outer(np.where(single, self.sizes, 0.0) ** 2, pooled)

    def _means(self, values: Floats) -> Floats:
        """(rows or clusters, q) the values of the units, or their means in each cluster."""
        cluster = self.sample.cluster
        if cluster is None:
            return values
        return _sums_of(cluster, self.area[:, None] * values) / np.bincount(cluster, self.area)[:, None]

    @cached_property
    def sizes(self) -> Floats:
        """(H,) area of each stratum; units where no area is given."""
        return self._sums(self.area)

    def effective_size(self, values: Floats) -> float:
        """Units that carry the total of a variable (n,), less those that unequal weights cost (Kish 1965).

        Law: with equal weights, it is the number of units whose value is 1.
        """
        parts = self.area * values
        squares = self._squares(parts).sum()
        return float(parts.sum() ** 2 / squares) if squares > 0 else 0.0

    @cached_property
    def effective_sizes(self) -> Floats:
        """(H,) units that carry the area of each stratum, less those that unequal weights cost (Kish 1965).

        The correction for a finite population makes them more: infinite if all of the stratum is in the sample, or if
        the stratum has no area.
        """
        squares = self._squares(self.area) * self._uncorrected
        return np.divide(self.sizes**2, squares, out=np.full(len(squares), np.inf), where=squares > 0)

    def _squares(self, parts: Floats) -> Floats:
        """(H,) sums of the squares that each unit (or cluster) has of parts (n,) of a total."""
        cluster, counts = self.sample.cluster, self._count_of_rows
        of_units = parts if cluster is None else np.asarray(np.bincount(cluster, parts), np.float64)
        squares = np.divide(of_units**2, counts, out=np.zeros(len(of_units)), where=counts > 0)
        return np.asarray(np.bincount(self._stratum_of_rows, squares, len(self.sample.strata.names)), np.float64)

    @property
    def degrees_of_freedom(self) -> int | None:
        """Clusters less strata; None if units were drawn one by one, where the normal distribution holds."""
        return None if self.sample.cluster is None else int(np.sum(np.maximum(self.sample.drawn - 1, 0)))


def _sums_of(cluster: Indices, values: Floats) -> Floats:
    """(clusters, q) sums of values (n, q) by cluster, of which each number from 0 has a row."""
    return np.stack([np.bincount(cluster, column) for column in values.T], axis=1)


def correction_matters(sample: LabelledSample) -> bool:
    """Whether the finite-population correction is applied, unless the caller says.

    Published tables of samples whose strata are the map's classes (Olofsson et al. 2013, 2014) leave it out; they and
    we apply it there only if a stratum's share in the sample is above 5 %. Strata that are given as shares of the
    population have no such correction.
    """
    if sample.strata.are_shares:
        return False
    units, drawn = sample.strata.units, np.bincount(sample.stratum, sample.count, len(sample.strata.names))
    share = np.divide(drawn, units, out=np.zeros_like(units), where=units > 0)
    return not sample.strata_are_map_classes or bool(share.max() > NEGLIGIBLE)
