"""What chips hold: class shares, statistics, weights and a sheet to look at."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landscribe.data.augment_spec import AugmentSpec
from landscribe.data.chips import ChipReader, Chips
from landscribe.data.stats import Weighting, band_statistics, class_weights, histogram
from landscribe.errors import ChipError
from landscribe.outputs import refuse_existing, whole_file
from landscribe.report.figures import Colours, limits_of, overlaid, shown_bands, stretched

_TILE_SIDE = 160
_GUTTER = 4
_PLACES = 6
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
    splits = chips.table["split"].to_numpy(str)
    names = [name for name in ("train", "val", "test", "gap") if (splits == name).any()]
    training = chips.of_split("train") if "train" in names else chips
    # "none" weighs nothing.
    weights = {way: class_weights(training, cast("Weighting", way)) for way in get_args(Weighting) if way != "none"}
    unknown = int(chips.table["count_ignore"].sum())
    labelled = max(1, int(counts.sum()))
    classes = tuple(
        ClassShare(
            entry.name, entry.value, int(counts[:, k].sum()), float(counts[:, k].sum() / labelled),
            {name: int(holds[splits == name, k].sum()) for name in names},
            {way: float(some[k]) for way, some in weights.items()},
        )
        for k, entry in enumerate(chips.classes)
    )  # fmt: skip
    bands, edges = _bands(chips)
    return Description(
        {name: int((splits == name).sum()) for name in names}, chips.head.size, chips.head.dtype,
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
            zip(chips.head.bands, means, deviations, counted.shares(edges), strict=True)
        )
    )  # fmt: skip
    return bands, tuple(edges.tolist())


def contact_sheet(
    chips: Chips, out: Path, *, augmentation: AugmentSpec, seed: int = 0, rows: int = 6, overwrite: bool = False
) -> Path:
    """Write a PNG of chips, a row each: as it is, under its labels, and as training may see it.

    Args:
        chips: some of each class come first.
        out: the picture.
        augmentation: how chips are changed in training; three examples of each are shown under their labels.
        seed: of chips and changes.
        rows: how many chips.
        overwrite: replace what stands there.
    """
    refuse_existing(out, overwrite=overwrite)
    reader, rng = ChipReader(chips), np.random.default_rng(seed)
    pictures = [
        np.concatenate(_row(reader, number, augmentation, seed), axis=1) for number in _varied(chips, rows, rng)
    ]
    with whole_file(out) as temporary:
        Image.fromarray(np.concatenate(pictures)).save(temporary, format="PNG")
    return out


def _varied(chips: Chips, count: int, rng: np.random.Generator) -> list[int]:
    """Numbers of chips, by turns the richest left in each class, then any."""
    order: list[int] = []
    shares = chips.counts / np.maximum(1, chips.counts.sum(axis=1, keepdims=True))
    for turn in range(min(count, len(chips))):
        wanted = shares[:, turn % shares.shape[1]] + 1e-6 * rng.random(len(shares))
        wanted[order] = -1
        order.append(int(wanted.argmax()))
    return order


def _row(reader: ChipReader, number: int, augmentation: AugmentSpec, seed: int) -> list[Colours]:
    """Pictures of a chip: plain, under its labels, and changed."""
    import torch

    from landscribe.data.augment import Labelled, augment

    classes, bands = reader.chips.classes, list(shown_bands(reader.chips.head.bands))
    pixels, valid, mask = reader.read(number)
    limits = limits_of(pixels[bands], valid, together=True)

    def shown(image: NDArray[Any], values: NDArray[np.uint8] | None) -> Colours:
        colours = stretched(image[bands], limits)
        return _framed(colours if values is None else overlaid(colours, values, classes))

    batch = Labelled(
        torch.from_numpy(pixels.astype(np.float32))[None],
        torch.from_numpy(valid)[None],
        torch.from_numpy(classes.to_indices(mask).astype(np.int64))[None],
    )
    pictures = [shown(pixels, None), shown(pixels, mask)]
    for turn in range(_PLACES - len(pictures)):
        changed = augment(batch, augmentation, torch.Generator().manual_seed(seed + 1000 * number + turn))
        values = classes.to_values(changed.labels[0].to(torch.uint8).numpy())
        pictures.append(shown(changed.images[0].numpy(), values))
    return pictures


def _framed(colours: Colours) -> Colours:
    """A picture of one size, with room around it."""
    tile = np.asarray(Image.fromarray(colours).resize((_TILE_SIDE, _TILE_SIDE), Image.Resampling.BILINEAR))
    return np.pad(tile, ((_GUTTER, _GUTTER), (_GUTTER, _GUTTER), (0, 0)), constant_values=255)
