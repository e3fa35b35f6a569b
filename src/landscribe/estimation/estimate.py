"""Estimate accuracy and area from a labelled reference sample, by the design that drew it."""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from landscribe.errors import SampleError, counted, listed
from landscribe.estimation.intervals import UNDEFINED, Estimated, interval_quantile, share_interval
from landscribe.estimation.mover import RatioLimits, Variable
from landscribe.estimation.sample_tables import OTHER, SHARE_OF, Floats, LabelledSample, read_tables
from landscribe.estimation.totals import Population, correction_matters

log = logging.getLogger(__name__)

_ROUNDING = 1e-12
FEW_UNITS = 30
"""Units of a map class below which a warning says that its accuracy is uncertain."""
_FEW_OF_REGRESSION = 50
"""Units below which intervals of the regression estimator are too narrow, with a warning (Cochran 1977, chapter 7)."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Accuracy and areas with standard errors and confidence intervals. Mappings are by class name."""

    overall: Estimated
    """Overall accuracy: share of the area whose class is correct."""
    users: dict[Hashable, Estimated]
    """User's accuracy: share of the mapped area of a class that is correct."""
    producers: dict[Hashable, Estimated]
    """Producer's accuracy: share of the true area of a class that is mapped as the class."""
    f1: dict[Hashable, Estimated]
    """Harmonic mean of user's and producer's accuracy."""
    shares: dict[Hashable, Estimated]
    """Share of the area that is truly of a class."""
    areas: dict[Hashable, Estimated]
    """Area that is truly of a class, in the unit of the strata's area; in units without one."""
    matrix: pd.DataFrame
    """Shares of the area, by class of the map (rows) and of the reference (columns). They sum to 1."""
    confidence: float
    """Of the intervals, such as 0.95."""
    units: int
    """Labelled sampling units."""
    warnings: tuple[str, ...]
    """Why an interval may be wide, or may not hold."""

    def __repr__(self) -> str:
        overall = self.overall
        return (
            f"Estimate(overall={overall.value:.3f} ({overall.lower:.3f} to {overall.upper:.3f}), "
            f"confidence={self.confidence:g}, units={self.units}, classes={len(self.users)})"
        )

    def as_dict(self) -> dict[str, Any]:
        """All estimates in JSON's types, by class name as text."""
        by_class = {
            name: {str(key): each.as_dict() for key, each in getattr(self, name).items()}
            for name in ("users", "producers", "f1", "shares", "areas")
        }
        matrix = {
            "rows": "map",
            "columns": "reference",
            "classes": [str(name) for name in self.matrix.columns],
            "shares": self.matrix.to_numpy().tolist(),
        }
        return {
            "confidence": self.confidence,
            "units": self.units,
            "overall": self.overall.as_dict(),
            **by_class,
            "matrix": matrix,
            "warnings": list(self.warnings),
        }


def estimate(
    sample: Any,
    strata: Any,
    *,
    confidence: float = 0.95,
    classes: Sequence[Hashable] | None = None,
    share_of: str = SHARE_OF,
    finite_population: bool | None = None,
) -> Estimate:
    """Estimate accuracy and areas from a labelled reference sample.

    Law: if every unit of the population is in the sample, every interval is its estimate. Clusters count as drawn with
    replacement, so their intervals keep a length.

    Estimates are totals of strata and their ratios (Stehman 2014, doi:10.1080/01431161.2014.930207). Where strata are
    the map's classes, they are those of Olofsson et al. 2014 (doi:10.1016/j.rse.2014.02.015); where units have areas,
    those of Tyukavina et al. 2025 (RSE 324:114714). With clusters, the variance is that between clusters.

    Intervals are normal, value ± quantile · se, where they lie within 0 and 1 and each stratum that matters has units
    that differ. Elsewhere they are those of MOVER (Donner and Zou 2012, doi:10.1177/0962280210383082) with Wilson's
    limits of each stratum: they reach to the errors that a sample without any can have missed. Those of the regression
    estimator are normal or Wilson's.

    Args:
        sample: a table with one row for each labelled unit, as pandas reads it. Columns: stratum; map and reference
            (class names), or map_share and reference_share (of one class, 0 to 1). Optional: count (units that the row
            stands for), area (of the unit), weight (inverse of its inclusion probability, if that differs within a
            stratum), cluster (units that were drawn together).
        strata: a table with one row for each stratum. Columns: stratum; units (in the population), or else share (of
            the units of the population; sums to 1, or to 100). Units that sum to 1 or 100 are shares. Optional: area
            (total, in the unit in which areas are estimated); map_share (mean share of the class in the map: areas are
            then those of the regression estimator, Cochran 1977, section 7).
        confidence: of the intervals, 0 to 1.
        classes: all class names, in order. Default: strata that are classes, then the others by name.
        share_of: name of the class whose shares the sample has; the rest is "other".
        finite_population: whether a large share of the population in the sample makes intervals narrower. Default: yes,
            unless strata are the map's classes and hold at most 5 % of their units in the sample, or have shares.

    Returns:
        Accuracy (0 to 1) and areas (in the unit of `strata`) with standard errors and intervals.

    Raises:
        SampleError: a table lacks a column, holds a value out of range, or does not fit to the other.

    >>> import landscribe as ls
    >>> sample = [  # Olofsson et al. 2014 write such counts as a matrix
    ...     {"stratum": "forest", "map": "forest", "reference": "forest", "count": 45},
    ...     {"stratum": "forest", "map": "forest", "reference": "field", "count": 5},
    ...     {"stratum": "field", "map": "field", "reference": "field", "count": 50},
    ... ]
    >>> strata = [{"stratum": "forest", "units": 2_000, "area": 180}, {"stratum": "field", "units": 8_000, "area": 720}]
    >>> result = ls.estimate(sample, strata)
    >>> round(result.areas["forest"].value, 1), round(result.areas["forest"].se, 1)
    (162.0, 7.7)
    >>> [round(end, 3) for end in (result.users["field"].lower, result.users["field"].upper)]  # none of 50 is wrong
    [0.929, 1.0]
    """
    if not isinstance(confidence, Real) or not 0 < confidence < 1:
        raise SampleError(f"confidence is {confidence!r}; expected a number between 0 and 1, such as 0.95.")
    labelled = read_tables(sample, strata, classes, share_of, finite_population=finite_population)
    corrects = correction_matters(labelled) if finite_population is None else finite_population
    warnings = _warnings(labelled)
    for warning in warnings:
        log.warning(warning)
    estimators = _Estimators(Population(labelled, corrects), confidence)
    measured = _ratios_of(labelled)

    def by_class(estimates: list[Estimated]) -> dict[Hashable, Estimated]:
        return dict(zip(labelled.classes, estimates, strict=True))

    return Estimate(
        overall=estimators.ratios(*measured["overall"])[0],
        users=by_class(estimators.ratios(*measured["users"])),
        producers=by_class(estimators.ratios(*measured["producers"])),
        f1=by_class(estimators.ratios(*measured["f1"])),
        shares=by_class(estimators.shares()),
        areas=by_class(estimators.areas()),
        matrix=_matrix(estimators.population),
        confidence=confidence,
        units=int(labelled.count.sum()),
        warnings=warnings,
    )


def _ratios_of(sample: LabelledSample) -> dict[str, tuple[Variable, Variable]]:
    """The accuracies, each as the part and the rest of a whole."""
    mapped, reference, everywhere = sample.mapped, sample.reference, np.ones_like(sample.mapped)
    agreed = np.minimum(mapped, reference)
    correct = agreed.sum(axis=1, keepdims=True)
    hit, committed = Variable(agreed, mapped), Variable(mapped - agreed, mapped)
    return {
        "overall": (Variable(correct, everywhere[:, :1]), Variable(1 - correct, everywhere[:, :1])),
        "users": (hit, committed),
        "producers": (hit, Variable(reference - agreed, 1 - mapped)),
        "f1": (Variable(2 * agreed, mapped, most=2.0), Variable(mapped + reference - 2 * agreed, everywhere)),
    }


@dataclass(frozen=True)
class _Estimators:
    population: Population
    confidence: float

    @cached_property
    def quantile(self) -> float:
        return interval_quantile(self.confidence, self.population.degrees_of_freedom)

    def ratios(self, part: Variable, rest: Variable, variance: Floats | None = None) -> list[Estimated]:
        """The ratio part / (part + rest) of two totals, for each pair of variables.

        Args:
            part: q variables.
            rest: q variables.
            variance: (q,) of the part, if the whole counts as known; None for that of the ratio times the whole.
        """
        population, wholes = self.population, part.values + rest.values
        whole = population.total(wholes)
        ratio = np.divide(population.total(part.values), whole, out=np.full(len(whole), np.nan), where=whole > 0)
        residuals = part.values - np.nan_to_num(ratio) * wholes
        total = population.moments(residuals, residuals).sum(axis=0) if variance is None else variance
        # MOVER takes the area of a stratum as known: it lacks the variance of one that is estimated.
        known = population.moments(residuals, residuals, areas_are_known=True).sum(axis=0)
        ses, lacking = _roots(total, whole), self.quantile * np.nan_to_num(_roots(total - known, whole))
        half, limits = self.quantile * ses, RatioLimits.of(population, part, rest, self.quantile)
        ends = limits.ends
        is_normal = (ratio - half >= 0) & (ratio + half <= 1) & ~limits.hides_much(half)
        lower = np.where(is_normal, ratio - half, np.maximum(0.0, ratio - np.hypot(ratio - ends[0], lacking)))
        upper = np.where(is_normal, ratio + half, np.minimum(1.0, ratio + np.hypot(ends[1] - ratio, lacking)))
        units = population.sample.count @ (wholes > 0)
        columns = [ratio, ses, np.minimum(lower, ratio), np.maximum(upper, ratio), units]
        return [
            UNDEFINED if np.isnan(value) else Estimated(value, se, low, high, int(count))
            for value, se, low, high, count in np.stack(columns, axis=1).tolist()
        ]

    def shares(self) -> list[Estimated]:
        """The share of each class of the reference in the area."""
        if self.population.sample.strata.map_share is None:
            return self.ratios(*self._classes)
        return [area.times(1 / float(self.population.area.sum())) for area in self.areas()]

    @property
    def _classes(self) -> tuple[Variable, Variable]:
        """The area of each class of the reference, and that of the others."""
        reference = self.population.sample.reference
        everywhere = np.ones_like(reference)
        return Variable(reference, everywhere), Variable(1 - reference, everywhere)

    def areas(self) -> list[Estimated]:
        """The total of each class of the reference."""
        reference, population = self.population.sample.reference, self.population
        area, whole = population.total(reference), float(population.area.sum())
        if population.sample.strata.map_share is None:
            estimates = self.ratios(*self._classes, population.moments(reference, reference).sum(axis=0))
        else:
            size = population.effective_size(np.ones(len(reference)))
            estimates = []
            totals, variances = self._regression(area)
            for share, se in zip((totals / whole).tolist(), _roots(variances, np.full(2, whole)).tolist(), strict=True):
                ends = share_interval(share, se, size, self.quantile)
                estimates.append(Estimated(share, se, *ends, int(population.sample.count.sum())))
        return [each.times(whole) for each in estimates]

    def _regression(self, area: Floats) -> tuple[Floats, Floats]:
        """Areas and their variance with the map as a covariate whose total is known (Cochran 1977, section 7.10).

        One slope for all strata, that of the smallest variance; it costs one degree of freedom.
        """
        population, sample = self.population, self.population.sample
        share = sample.strata.map_share
        assert share is not None
        mapped = sample.mapped[:, :1]
        pairs = [sample.reference[:, :1], sample.reference[:, :1], mapped], [sample.reference[:, :1], mapped, mapped]
        of_reference, joint, of_map = population.moments(*(np.concatenate(each, axis=1) for each in pairs)).sum(axis=0)
        degrees = int(np.sum(sample.drawn - 1))
        if not of_map > 0 or degrees < 2:
            units, what = int(sample.drawn.sum()), "unit" if sample.cluster is None else "cluster"
            least = 2 + int(np.count_nonzero(sample.drawn))  # a mean of each stratum and one slope are estimated
            found = counted(units, what) if degrees < 2 else f"one map_share in all {what}s of each stratum"
            raise SampleError(
                f"the regression estimator needs a map_share that varies within strata, and at least "
                f"{counted(least, what)}; the sample has {found}. Leave map_share out of the strata."
            )
        slope = joint / of_map
        sizes = np.bincount(sample.stratum, population.area, len(share))
        first = area[0] + slope * (sizes @ share - population.total(mapped)[0])
        variance = (of_reference - slope * joint) * degrees / (degrees - 1)
        whole = population.area.sum()
        first = min(max(first, 0.0), whole)
        return np.array([first, whole - first]), np.array([variance, variance])


def _roots(variance: Floats, whole: Floats) -> Floats:
    """(q,) standard errors of shares of a whole; NaN if that is 0. Rounding leaves none where no unit differs."""
    errors = np.sqrt(np.maximum(variance, 0.0))
    errors = np.divide(errors, whole, out=np.full(len(errors), np.nan), where=whole > 0)
    return np.where(errors < _ROUNDING, 0.0, errors)


def _matrix(population: Population) -> pd.DataFrame:
    sample = population.sample
    weighted = population.area[:, None] / population.area.sum()
    shares = (weighted * sample.mapped).T @ sample.reference
    if sample.has_shares:
        # Of a unit's parts, as much agrees as can: the two shares say no more.
        agreed = (weighted * np.minimum(sample.mapped, sample.reference)).sum(axis=0)
        mapped, reference = (weighted * sample.mapped).sum(axis=0), (weighted * sample.reference).sum(axis=0)
        shares = np.array([[agreed[0], mapped[0] - agreed[0]], [reference[0] - agreed[0], agreed[1]]])
    return pd.DataFrame(shares, index=list(sample.classes), columns=list(sample.classes))


def _warnings(sample: LabelledSample) -> tuple[str, ...]:
    """Strata with a single unit, map classes with few, and a regression estimator with few."""
    warnings = []
    if sample.strata.map_share is not None and sample.drawn.sum() < _FEW_OF_REGRESSION:
        warnings.append(
            f"areas are those of the regression estimator: their intervals are normal ones, which are too narrow with "
            f"fewer than {_FEW_OF_REGRESSION} units (the sample has {sample.drawn.sum()})"
        )
    strata, drawn = sample.strata, sample.drawn
    single = [
        name for name, units, n in zip(strata.names, strata.units, drawn, strict=True) if n == 1 and units > n
    ]  # fmt: skip
    if single:
        what = "unit" if sample.cluster is None else "cluster"
        warnings.append(
            f"stratum {listed(single)} has one {what} in the sample: its variance is taken from the whole sample. "
            "Label at least two, or join strata"
        )
    counts = sample.count @ (sample.mapped > 0)
    few = [
        f"{name} ({count})"
        for name, count in zip(sample.classes, counts, strict=True)
        if 0 < count < FEW_UNITS and name != OTHER
    ]
    if few:
        warnings.append(
            f"fewer than {FEW_UNITS} units of the map class {listed(few)}: their intervals are wide and approximate. "
            "Olofsson et al. (2014) advise 50 to 100 units of each class"
        )
    return tuple(warnings)
