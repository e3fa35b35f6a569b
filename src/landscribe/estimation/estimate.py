"""Estimate accuracy and area from a labelled reference sample, by the design that drew it."""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from landscribe.errors import SampleError, counted, listed
from landscribe.estimation.intervals import UNDEFINED, Estimated, interval_quantile, share_interval
from landscribe.estimation.sample_tables import OTHER, Floats, LabelledSample, read_tables
from landscribe.estimation.totals import Population, correction_matters

log = logging.getLogger(__name__)

_ROUNDING = 1e-12
FEW_UNITS = 30
"""Units of a map class below which a warning says that its accuracy is uncertain."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Accuracy and areas with standard errors and confidence intervals. Mappings are by class name."""

    overall: Estimated
    """Overall accuracy: share of the area whose class is correct."""
    users: dict[Hashable, Estimated]
    """User's accuracy: share of the mapped area of a class that is correct."""
    producers: dict[Hashable, Estimated]
    """Producer's accuracy: share of the true area of a class that is mapped as the class. Where no omission is in the
    sample, the interval reaches down to those that it can have missed."""
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
    share_of: str = "class",
    finite_population: bool | None = None,
) -> Estimate:
    """Estimate accuracy and areas from a labelled reference sample.

    Law: if every unit of the population is in the sample, every interval is its estimate, up to the smallest width.

    Estimates are totals of strata and their ratios (Stehman 2014, doi:10.1080/01431161.2014.930207). Where strata are
    the map's classes, they are those of Olofsson et al. 2014 (doi:10.1016/j.rse.2014.02.015); where units have areas,
    those of Tyukavina et al. 2025 (RSE 324:114714). With clusters, the variance is that between clusters.

    Args:
        sample: a table with one row for each labelled unit, as pandas reads it. Columns: stratum; map and reference
            (class names), or map_share and reference_share (of one class, 0 to 1). Optional: count (units that the row
            stands for), area (of the unit), weight (inverse of its inclusion probability, if that differs within a
            stratum), cluster (units that were drawn together).
        strata: a table with one row for each stratum. Columns: stratum; units (in the population; or shares of it).
            Optional: area (total, in the unit in which areas are estimated); map_share (mean share of the class in the
            map: areas are then those of the regression estimator, Cochran 1977, section 7).
        confidence: of the intervals, 0 to 1.
        classes: all class names, in order. Default: strata that are classes, then the others by name.
        share_of: name of the class whose shares the sample has; the rest is "other".
        finite_population: whether a large share of the population in the sample makes intervals narrower. Default: yes,
            unless strata are the map's classes and hold at most 5 % of their units in the sample.

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
    labelled = read_tables(sample, strata, classes, share_of)
    corrects = correction_matters(labelled) if finite_population is None else finite_population
    warnings = _warnings(labelled)
    for warning in warnings:
        log.warning(warning)
    estimators = _Estimators(Population(labelled, corrects), confidence)
    agreed, ones = np.minimum(labelled.mapped, labelled.reference), np.ones((len(labelled.count), 1))
    reference, unseen = labelled.reference, estimators.unseen_omissions()

    def by_class(estimates: list[Estimated]) -> dict[Hashable, Estimated]:
        return dict(zip(labelled.classes, estimates, strict=True))

    return Estimate(
        overall=estimators.ratios(agreed.sum(axis=1, keepdims=True), ones)[0],
        users=by_class(estimators.ratios(agreed, labelled.mapped)),
        producers=by_class(estimators.ratios(agreed, reference, unseen)),
        f1=by_class(estimators.ratios(2 * agreed, labelled.mapped + reference, unseen)),
        shares=by_class(estimators.shares()),
        areas=by_class(estimators.areas()),
        matrix=_matrix(estimators.population),
        confidence=confidence,
        units=int(labelled.count.sum()),
        warnings=warnings,
    )


@dataclass(frozen=True)
class _Estimators:
    population: Population
    confidence: float

    @property
    def quantile(self) -> float:
        return interval_quantile(self.confidence, self.population.degrees_of_freedom)

    def ratios(self, parts: Floats, wholes: Floats, unseen: Floats | None = None) -> list[Estimated]:
        """The ratio of two totals, for each pair of columns (n, q); `unseen` (q,) may be missing from the wholes."""
        part, whole = self.population.total(parts), self.population.total(wholes)
        ratio = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
        variance = np.diag(self.population.covariance(parts - np.nan_to_num(ratio) * wholes))
        unseen = np.zeros(len(part)) if unseen is None else unseen
        return [
            self._estimated(ratio[index], _root(variance[index], whole[index]), wholes[:, index]).with_lower(
                float(part[index] / (whole[index] + unseen[index])) if unseen[index] > 0 else 1.0
            )
            if whole[index] > 0
            else UNDEFINED
            for index in range(len(part))
        ]

    def unseen_omissions(self) -> Floats:
        """(K,) the area of each class that may be mapped as others although no such unit is in the sample; else 0.

        The variance of a sample without omissions knows of none. The upper end of Wilson's interval for a share of 0,
        among the units that are mapped as others, says how many it may have missed.
        """
        sample, population = self.population.sample, self.population
        others = (1 - sample.mapped) * population.is_open[:, None]
        omitted = population.total(sample.reference - np.minimum(sample.mapped, sample.reference))
        sizes = [population.effective_size(column) for column in others.T]
        shares = [share_interval(0.0, 0.0, size, self.quantile)[1] if size > 0 else 0.0 for size in sizes]
        return np.where(omitted > 0, 0.0, population.total(others) * shares)

    def shares(self) -> list[Estimated]:
        """The share of each class of the reference in the area."""
        reference = self.population.sample.reference
        if self.population.sample.strata.map_share is None:
            return self.ratios(reference, np.ones_like(reference))
        return [area.times(1 / float(self.population.area.sum())) for area in self.areas()]

    def areas(self) -> list[Estimated]:
        """The total of each class of the reference."""
        reference, population = self.population.sample.reference, self.population
        area, variance = population.total(reference), np.diag(population.covariance(reference))
        if population.sample.strata.map_share is not None:
            area, variance = self._regression(area)
        whole = float(population.area.sum())
        return [
            self._estimated(share, _root(each, whole), np.ones(len(reference))).times(whole)
            for share, each in zip(area / whole, variance, strict=True)
        ]

    def _regression(self, area: Floats) -> tuple[Floats, Floats]:
        """Areas and their variance with the map as a covariate whose total is known (Cochran 1977, section 7.10).

        One slope for all strata, that of the smallest variance; it costs one degree of freedom.
        """
        population, sample = self.population, self.population.sample
        share = sample.strata.map_share
        assert share is not None
        mapped = sample.mapped[:, :1]
        joint = population.covariance(np.concatenate([sample.reference[:, :1], mapped], axis=1))
        degrees = int(np.sum(sample.drawn - 1))
        if not joint[1, 1] > 0 or degrees < 2:
            raise SampleError(
                f"the regression estimator needs a map_share that varies among at least 3 units; the sample has "
                f"{counted(int(sample.count.sum()), 'unit')}. Leave map_share out of the strata."
            )
        slope = joint[0, 1] / joint[1, 1]
        sizes = np.bincount(sample.stratum, population.area, len(share))
        first = area[0] + slope * (sizes @ share - population.total(mapped)[0])
        variance = (joint[0, 0] - slope * joint[0, 1]) * degrees / (degrees - 1)
        whole = population.area.sum()
        first = min(max(first, 0.0), whole)
        return np.array([first, whole - first]), np.array([variance, variance])

    def _estimated(self, value: float, se: float, domain: Floats) -> Estimated:
        size = self.population.effective_size(domain)
        lower, upper = share_interval(float(value), se, size, self.quantile)
        return Estimated(float(value), se, lower, upper, int(self.population.sample.count[domain > 0].sum()))


def _root(variance: float, whole: float) -> float:
    """Standard error of a share of a whole; rounding must not leave one where no unit differs."""
    error = float(np.sqrt(np.maximum(variance, 0.0)) / whole)
    return 0.0 if error < _ROUNDING else error


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
    """Strata with a single unit, and map classes with few."""
    warnings = []
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
