"""Description of chips: class shares, class weights and band statistics."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from landscribe.data.chips.chips import Chips
from landscribe.data.chips.stats import Weighting, band_statistics, class_weights, histogram
from landscribe.data.splits.footprints import Footprints, pairs_within
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
    """Share of the labelled pixels, 0 to 1."""
    train_share: float
    """Share of the labelled pixels in the train chips, from which the weights are computed."""
    chips: dict[str, int]
    """Number of chips with this class, by split."""
    weights: dict[str, float]
    """Class weight in a loss, by weighting."""


@dataclass(frozen=True)
class GroupShare:
    """The chips of one group of scenes."""

    name: str
    """Empty for scenes without a group."""
    chips: dict[str, int]
    """Number of chips by split."""
    shares: dict[str, float]
    """Share of the labelled pixels by class, 0 to 1."""


@dataclass(frozen=True)
class BandStatistics:
    """One band over valid pixels, as stored. Mean and standard deviation are of all chips, the rest of `chips_read`."""

    name: str
    mean: float
    standard_deviation: float
    quantiles: dict[str, float | None]
    """Pixel value by percentage: "0" is the minimum, "50" the median."""
    shares: tuple[float, ...]
    """Share of the pixels in each histogram bin."""


@dataclass(frozen=True)
class Description:
    """Content of a chips folder."""

    chips: dict[str, int]
    """Number of chips by split."""
    size: int
    dtype: str
    unknown_share: float
    """Share of all pixels that are nodata or unlabelled."""
    classes: tuple[ClassShare, ...]
    together: tuple[tuple[int, ...], ...]
    """(K, K): number of chips that hold both class i (row) and class j (column)."""
    bands: tuple[BandStatistics, ...]
    edges: tuple[float, ...]
    """Edges of the histogram bins; values outside are counted in the first or the last bin."""
    chips_read: int
    """Number of chips that were read for quantiles and histograms."""
    groups: tuple[GroupShare, ...] = ()
    """Empty if no scene has a group."""
    overlaps: bool = False
    """True if chips of a scene overlap: a pixel in several chips is counted in each of them."""

    def __repr__(self) -> str:
        return (
            f"Description(chips={self.chips}, size={self.size}, dtype={self.dtype!r}, bands={len(self.bands)}, "
            f"classes={len(self.classes)}, unknown_share={self.unknown_share:.3f})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def describe(chips: Chips) -> Description:
    """Describe chips: class counts from their table, pixel values from at most 500 chips.

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
    weightings = [name for name in get_args(Weighting) if name != "none"]
    weights = {name: class_weights(training, cast("Weighting", name)) for name in weightings}
    unlabelled = int(chips.table["count_ignore"].sum())
    labelled, trained = max(1, int(counts.sum())), training.counts.sum(axis=0)
    classes = tuple(
        ClassShare(
            entry.name, entry.value, int(counts[:, k].sum()), float(counts[:, k].sum() / labelled),
            float(trained[k] / max(1, trained.sum())), {name: int(holds[splits == name, k].sum()) for name in names},
            {name: float(values[k]) for name, values in weights.items()},
        )
        for k, entry in enumerate(chips.classes)
    )  # fmt: skip
    bands, edges = _bands(chips)
    return Description(
        {name: int((splits == name).sum()) for name in names}, chips.metadata.size, chips.metadata.dtype,
        unlabelled / (unlabelled + labelled), classes, tuple(map(tuple, (holds.T @ holds).tolist())), bands, edges,
        min(len(chips), _MOST_READ), tuple(_groups(chips, names)), _overlaps(chips),
    )  # fmt: skip


def _overlaps(chips: Chips) -> bool:
    scenes = np.unique(chips.scene_names, return_inverse=True)[1].reshape(-1)
    size = chips.metadata.size
    located = zip(scenes.tolist(), chips.windows, strict=True)
    cells = {(scene, window.row // size, window.col // size) for scene, window in located}
    # Two chips of one cell overlap; without such chips, each has few neighbours.
    return len(cells) < len(chips) or len(pairs_within(Footprints.of_windows(chips.windows, scenes), 0)) > 0


def _groups(chips: Chips, splits: Sequence[str]) -> Iterator[GroupShare]:
    """Chips and class shares by group, in alphabetical order; none if no scene has a group."""
    if not (chips.group_names != "").any():
        return
    for name in np.unique(chips.group_names).tolist():
        is_in = chips.group_names == name
        pixels = chips.counts[is_in].sum(axis=0)
        shares = (pixels / max(1, pixels.sum())).tolist()
        of_split = {split: int((is_in & (chips.splits == split)).sum()) for split in splits}
        yield GroupShare(name, of_split, dict(zip(chips.classes.names, shares, strict=True)))


def bin_edges(low: float, high: float, dtype: str) -> NDArray[np.float64]:
    """The edges of at most 32 histogram bins of one width, from `low` to at least `high`.

    Bins of integers hold the same number of integers each: otherwise equal frequencies would look like a comb.

    >>> bin_edges(0, 255, "uint8")[[0, 1, 2, -1]].tolist()
    [-0.5, 7.5, 15.5, 255.5]
    """
    if np.dtype(dtype).kind not in "ui":
        return np.linspace(low, high if high > low else low + 1, _BINS + 1)
    count = high - low + 1
    width = np.ceil(count / _BINS)
    return np.asarray(low - 0.5 + width * np.arange(np.ceil(count / width) + 1))


def _bands(chips: Chips) -> tuple[tuple[BandStatistics, ...], tuple[float, ...]]:
    """Statistics of the bands, and the edges of their common histogram bins."""
    means, deviations = band_statistics(chips)
    pixel_counts = histogram(chips, most=_MOST_READ)
    quantiles = {f"{percent:g}": pixel_counts.quantile(percent / 100) for percent in _PERCENTS}
    low, high = (float(np.nan_to_num(edge)) for edge in (np.nanmin(quantiles["0.5"]), np.nanmax(quantiles["99.5"])))
    edges = bin_edges(low, high, chips.metadata.dtype)
    bands = tuple(
        BandStatistics(
            name, float(mean), float(deviation),
            {percent: float(values[index]) for percent, values in quantiles.items()}, tuple(shares.tolist()),
        )
        for index, (name, mean, deviation, shares) in enumerate(
            zip(chips.metadata.bands, means, deviations, pixel_counts.shares(edges), strict=True)
        )
    )  # fmt: skip
    return bands, tuple(edges.tolist())
