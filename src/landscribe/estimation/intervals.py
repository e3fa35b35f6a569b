"""Confidence intervals of estimated shares and areas. None has the length zero, unless all is in the sample."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


@dataclass(frozen=True)
class Estimated:
    """An estimate, its standard error and its confidence interval; NaN for the accuracy of a class without units."""

    value: float
    se: float
    """Standard error; 0 where no unit of the sample differs from the others of its stratum."""
    lower: float
    upper: float
    units: int
    """Sampling units that it rests on: of the map class for user's accuracy, of the reference class for producer's."""

    def as_dict(self) -> dict[str, float | int | None]:
        """In JSON's types; NaN is None."""
        numbers = {name: getattr(self, name) for name in ("value", "se", "lower", "upper")}
        return {name: None if math.isnan(value) else value for name, value in numbers.items()} | {"units": self.units}

    def times(self, factor: float) -> "Estimated":
        """The estimate of a multiple, such as an area from its share."""
        return Estimated(
            self.value * factor, self.se * factor, self.lower * factor, self.upper * factor, self.units
        )  # fmt: skip


UNDEFINED = Estimated(math.nan, math.nan, math.nan, math.nan, 0)


def share_interval(value: float, se: float, size: float, quantile: float) -> tuple[float, float]:
    """Confidence interval of a share, within 0 and 1.

    The normal interval, value ± quantile · se, where it lies between 0 and 1; elsewhere it covers too seldom, and the
    interval of Wilson (1927, doi:10.1080/01621459.1927.10502953) at the effective sample size takes over.

    Law: the interval holds the value and is longer than zero.

    Args:
        value: 0 to 1.
        se: its standard error.
        size: effective sample size where the standard error is 0; otherwise it follows from value and se.
        quantile: of the normal or t distribution, such as 1.96.

    >>> [round(end, 4) for end in share_interval(0.5, 0.05, 100, 1.96)]
    [0.402, 0.598]
    >>> [round(end, 4) for end in share_interval(1.0, 0.0, 15, 1.96)]
    [0.7961, 1.0]
    """
    if math.isnan(value):
        return math.nan, math.nan
    lower, upper = value - quantile * se, value + quantile * se
    if se > 0 and lower >= 0 and upper <= 1:
        return lower, upper
    ends = wilson(value, _effective_size(value, se, size), quantile)
    return float(ends[0]), float(ends[1])


def _effective_size(value: float, se: float, size: float) -> float:
    """Units of a simple random sample with this standard error (Korn and Graubard 1998)."""
    return value * (1 - value) / se**2 if se > 0 and 0 < value < 1 else size


def wilson(share: ArrayLike, size: ArrayLike, quantile: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper ends of Wilson's interval (1927, doi:10.1080/01621459.1927.10502953) of shares.

    Law: the interval holds the share, lies between 0 and 1, and has no length if the size is infinite.

    Args:
        share: 0 to 1, of any shape.
        size: units of the sample, of the same shape.
        quantile: of the normal or t distribution, such as 1.96.
    """
    value, squared = np.asarray(share, np.float64), quantile**2 / np.asarray(size, np.float64)
    centre = (value + squared / 2) / (1 + squared)
    half = np.sqrt(value * (1 - value) * squared + squared**2 / 4) / (1 + squared)
    # Rounding may leave the ends of a share of 0 or 1 beside it.
    return np.maximum(0.0, np.minimum(value, centre - half)), np.minimum(1.0, np.maximum(value, centre + half))


def interval_quantile(confidence: float, degrees: int | None = None) -> float:
    """Quantile of a two-sided interval: of the normal distribution, or of t with these degrees of freedom."""
    distribution = stats.norm if degrees is None else stats.t(max(degrees, 1))
    return float(distribution.ppf(0.5 + confidence / 2))
