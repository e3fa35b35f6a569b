"""What chips hold: class shares, statistics, weights."""

from dataclasses import asdict, dataclass
from typing import Any, cast, get_args

import numpy as np

from landscribe.data.chips.chips import Chips
from landscribe.data.chips.stats import Weighting, band_statistics, class_weights, histogram
from landscribe.errors import ChipError

_MOST_READ = 500
_PERCENTS = (0, 0.5, 2, 50, 98, 99.5, 100)
_BINS = 32


@dataclass(frozen=True)
class ClassShare:
    """One class in the chips."""

    name: str
    value: int
    pixels: int
    share: float
    """Of the labelled pixels."""
    train_share: float
    """Of those in the chips to train on, from which the weights are."""
    chips: dict[str, int]
    """How many chips hold it, by split."""
    weights: dict[str, float]
    """What it would weigh in a loss, by the way of weighing."""


@dataclass(frozen=True)
class BandStatistics:
    """One band over valid pixels, as stored: mean and deviation of all chips, the rest of those that were read."""

    name: str
    mean: float
    standard_deviation: float
    quantiles: dict[str, float | None]
    """By percentage: 0 is the least value, 50 the median."""
    shares: tuple[float, ...]
    """Of its pixels in each bin."""


@dataclass(frozen=True)
class Description:
    """What a chips folder holds."""

    chips: dict[str, int]
    """By split."""
    size: int
    dtype: str
    unknown_share: float
    """Of all pixels: nodata, or not labelled."""
    classes: tuple[ClassShare, ...]
    together: tuple[tuple[int, ...], ...]
    """Chips that hold class i (row) and class j (column)."""
    bands: tuple[BandStatistics, ...]
    edges: tuple[float, ...]
    """Of the bins; what lies outside is counted in the first and the last one."""
    chips_read: int
    """For quantiles and bins."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def describe(chips: Chips) -> Description:
    """Say what chips hold: counts from their index, the spread of pixels from at most 500 of them.

    Raises:
        ChipError: there are no chips.
    """
    if not len(chips):
        raise ChipError(f"{chips.folder} has no chips. Cut some first.")
    counts = chips.counts
    holds = (counts > 0).astype(np.int64)
    splits = chips.splits
    names = [name for name in ("train", "val", "test", "gap") if (splits == name).any()]
    training = chips.of_split("train") if "train" in names else chips
    # "none" weighs nothing.
    weights = {way: class_weights(training, cast("Weighting", way)) for way in get_args(Weighting) if way != "none"}
    unknown = int(chips.table["count_ignore"].sum())
    labelled, trained = max(1, int(counts.sum())), training.counts.sum(axis=0)
    classes = tuple(
        ClassShare(
            entry.name, entry.value, int(counts[:, k].sum()), float(counts[:, k].sum() / labelled),
            float(trained[k] / max(1, trained.sum())), {name: int(holds[splits == name, k].sum()) for name in names},
            {way: float(some[k]) for way, some in weights.items()},
        )
        for k, entry in enumerate(chips.classes)
    )  # fmt: skip
    bands, edges = _bands(chips)
    return Description(
        {name: int((splits == name).sum()) for name in names}, chips.metadata.size, chips.metadata.dtype,
        unknown / (unknown + labelled), classes, tuple(map(tuple, (holds.T @ holds).tolist())), bands, edges,
        min(len(chips), _MOST_READ),
    )  # fmt: skip


def _bands(chips: Chips) -> tuple[tuple[BandStatistics, ...], tuple[float, ...]]:
    """Statistics of the bands, and the edges of the bins that they share."""
    means, deviations = band_statistics(chips)
    counted = histogram(chips, most=_MOST_READ)
    quantiles = {f"{percent:g}": counted.quantile(percent / 100) for percent in _PERCENTS}
    low, high = (float(np.nan_to_num(edge)) for edge in (np.nanmin(quantiles["0.5"]), np.nanmax(quantiles["99.5"])))
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    bands = tuple(
        BandStatistics(
            name, float(mean), float(deviation),
            {percent: float(values[place]) for percent, values in quantiles.items()}, tuple(shares.tolist()),
        )
        for place, (name, mean, deviation, shares) in enumerate(
            zip(chips.metadata.bands, means, deviations, counted.shares(edges), strict=True)
        )
    )  # fmt: skip
    return bands, tuple(edges.tolist())
