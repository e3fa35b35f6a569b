"""Contact sheet: a PNG of chips, with their labels and as augmented for training."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from landscribe.data.batches.augment_spec import AugmentSpec
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.data.scenes.scene import Sample
from landscribe.errors import ChipError, OutputError
from landscribe.geo.classes import Classes
from landscribe.outputs import atomic_file, require_absent, require_output_file
from landscribe.reports.figures import Colours, Limits, limits_of, overlaid, shown_bands, stretched, thinned

_TILE_SIDE = 160
_READ_SIDE = 4 * _TILE_SIDE
"""Of a longer chip, every n-th row and column is drawn, so that it is no longer than this."""
_LIMITS_SIDE = 256
"""Rows and columns of a chip that the limits of the colours are computed from, at most."""
_GUTTER = 4
_CELL = _TILE_SIDE + 2 * _GUTTER
_COLUMNS = 6
"""Pictures in a row."""
_LINE = 18
"""Height of a line of text in pixels."""
_ROWS = 6
"""At most."""
_SWATCH = 10
"""Side of the colour of a class in the legend, in pixels."""
_UNLABELLED = 128
"""The grey that `overlaid` mixes into unlabelled pixels."""


def contact_sheet(chips: Chips, out: Path, *, augmentation: AugmentSpec, seed: int, overwrite: bool) -> Path:
    """Write a PNG of chips: the image, the image with its labels, and augmented versions.

    A row holds one chip of split train with four augmented versions (no other split is augmented), or three chips
    without augmentation. Chips with several classes come first, so that class borders can be judged.

    Args:
        chips: chips to choose from; each class is shown in turn.
        out: the PNG.
        augmentation: augmentation as in training.
        seed: random seed of the choice of chips and of the augmentation.
        overwrite: overwrite an existing file.

    Raises:
        OutputError: `out` exists, cannot be written, or does not end in .png.
        ChipError: there is augmentation, but no chip of split train.
    """
    if out.suffix.lower() != ".png":
        raise OutputError(f"{out} does not end in .png, but the contact sheet is a PNG. Rename it.")
    require_absent(out, overwrite=overwrite)
    require_output_file(out)
    reader, rng = ChipReader(chips), np.random.default_rng(seed)
    candidates = np.arange(len(chips))
    if augmentation.changes_anything:
        candidates = np.flatnonzero(chips.splits == "train")
    if not len(candidates):
        raise ChipError(
            f"{chips.folder} has no chips of split train, and others are not augmented. Leave out --augment."
        )
    chips_per_row = 1 if augmentation.changes_anything else _COLUMNS // 2
    indices = _varied(chips, candidates, _ROWS * chips_per_row, rng)
    lines = [
        _titles(
            ["image", "labels"] + (["augmented"] * (_COLUMNS - 2) if chips_per_row == 1 else ["image", "labels"] * 2)
        )
    ]
    # Chips are read again to be drawn: together they may not fit into memory.
    limits = _common_limits(map(reader.read, indices), shown_bands(chips.metadata.bands))
    ids, splits, has_unlabelled = chips.ids, chips.splits, False
    for start in range(0, len(indices), chips_per_row):
        row = indices[start : start + chips_per_row]
        names = [f"{ids[index]}  {splits[index]}" for index in row]
        pictures: list[Colours] = []
        for index in row:
            versions = _versions(_drawn(reader.read(index)), chips, augmentation, seed + 1000 * index)
            pictures += _pictures(versions, chips, limits)
            has_unlabelled |= any((each.mask == chips.classes.ignore).any() for each in versions)
        lines += [_titles(names, every=_COLUMNS // chips_per_row), _row(pictures)]
    lines.append(_legend(chips.classes, has_unlabelled=has_unlabelled))
    with atomic_file(out) as temporary:
        Image.fromarray(np.concatenate(lines)).save(temporary, format="PNG")
    return out


def _varied(chips: Chips, candidates: NDArray[np.intp], count: int, rng: np.random.Generator) -> list[int]:
    """Indices of chips among the candidates: for each class in turn, that where it is nearest to half of the labels."""
    order: list[int] = []
    counts = chips.counts[candidates]
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    # A chip of one class shows no class border, but is better than a chip without the class.
    worth = np.minimum(shares, 1 - shares) + 1e-3 * shares
    for turn in range(min(count, len(candidates))):
        scores = worth[:, turn % worth.shape[1]] + 1e-6 * rng.random(len(worth))
        scores[order] = -1
        order.append(int(scores.argmax()))
    return candidates[order].tolist()


def _common_limits(samples: Iterable[Sample], bands: Sequence[int]) -> Limits:
    """The limits of these bands over all samples, so that the same colour means the same pixel values."""
    pixels, valid = [], []
    for sample in samples:
        # Copies: a view would keep the whole chip.
        pixels.append(thinned(sample.pixels, _LIMITS_SIDE)[list(bands)].reshape(len(bands), -1))
        valid.append(thinned(sample.valid, _LIMITS_SIDE).ravel())
    return limits_of(np.concatenate(pixels, axis=1), np.concatenate(valid))


def _drawn(sample: Sample) -> Sample:
    """A chip in no more pixels than its picture needs."""
    return Sample(*(thinned(array, _READ_SIDE) for array in sample))


def _versions(sample: Sample, chips: Chips, augmentation: AugmentSpec, seed: int) -> list[Sample]:
    """A chip, and augmented versions of it."""
    augmented = _augmented(sample, chips.classes, augmentation, seed) if augmentation.changes_anything else []
    return [sample, *augmented]


def _pictures(versions: Sequence[Sample], chips: Chips, limits: Limits) -> list[Colours]:
    """The image of a chip, and the image of each version with its labels."""
    classes, bands = chips.classes, list(shown_bands(chips.metadata.bands))

    def shown(image: NDArray[Any], valid: NDArray[np.bool_], values: NDArray[np.uint8] | None) -> Colours:
        colours = stretched(image[bands], limits)
        if values is None:
            return _framed(colours)
        # As in the legend: where there is no image, nothing shines through.
        return _framed(overlaid(np.where(valid[..., None], colours, np.uint8(_UNLABELLED)), values, classes))

    return [shown(versions[0].pixels, versions[0].valid, None), *(shown(*version) for version in versions)]


def _augmented(sample: Sample, classes: Classes, augmentation: AugmentSpec, seed: int) -> list[Sample]:
    """Augmented versions of a chip."""
    import torch

    from landscribe.data.batches.augment import LabelledBatch, augment

    batch = LabelledBatch(
        torch.from_numpy(sample.pixels.astype(np.float32))[None],
        torch.from_numpy(sample.valid)[None],
        torch.from_numpy(classes.to_indices(sample.mask).astype(np.int64))[None],
    )
    versions = []
    for turn in range(_COLUMNS - 2):
        augmented = augment(batch, augmentation, torch.Generator().manual_seed(seed + turn))
        labels = augmented.labels[0].to(torch.uint8).numpy()
        valid = augmented.valid[0].numpy()
        versions.append(Sample(augmented.images[0].numpy(), valid, classes.to_values(labels)))
    return versions


def _framed(colours: Colours) -> Colours:
    """A picture resized to a fixed size, with a white margin."""
    tile = np.asarray(Image.fromarray(colours).resize((_TILE_SIDE, _TILE_SIDE), Image.Resampling.BILINEAR))
    return np.pad(tile, ((_GUTTER, _GUTTER), (_GUTTER, _GUTTER), (0, 0)), constant_values=255)


def _row(pictures: list[Colours]) -> Colours:
    """Pictures side by side; missing ones at the end are white."""
    blank = np.full((_CELL, _CELL, 3), 255, np.uint8)
    return np.concatenate(pictures + [blank] * (_COLUMNS - len(pictures)), axis=1)


def _titles(words: list[str], *, every: int = 1) -> Colours:
    """A line of texts, one above every n-th picture (n = `every`), each truncated to fit."""
    picture, pen, font = _line()
    for index, word in enumerate(words):
        width = every * _CELL - 2 * _GUTTER
        letters = next(count for count in range(len(word), -1, -1) if pen.textlength(word[:count], font=font) <= width)
        pen.text((index * every * _CELL + _GUTTER, 2), word[:letters], fill="black", font=font)
    return np.asarray(picture)


def _legend(classes: Classes, *, has_unlabelled: bool) -> Colours:
    """Lines of text that name the colours of the pictures, which are drawn as in these."""
    entries = [(entry.value, entry.name) for entry in classes]
    entries += [(classes.ignore, "unlabelled")] if has_unlabelled else []
    lines = [_line()]
    x = _GUTTER
    for value, name in entries:
        picture, pen, font = lines[-1]
        width = int(_LINE + pen.textlength(name, font=font) + 12)
        if x > _GUTTER and x + width > picture.width:
            lines.append(_line())
            picture, pen, font = lines[-1]
            x = _GUTTER
        picture.paste(Image.fromarray(_swatch(value, classes)), (x, 4))
        pen.text((x + _LINE - 4, 2), name, fill="black", font=font)
        x += width
    return np.concatenate([np.asarray(picture) for picture, _, _ in lines])


def _swatch(value: int, classes: Classes) -> Colours:
    """A square of a class as `overlaid` draws it on white, with its outline; of unlabelled pixels without an image."""
    side = _SWATCH + 2
    ground = np.full((side, side, 3), _UNLABELLED if value == classes.ignore else 255, np.uint8)
    mask = np.full((side, side), classes.ignore, np.uint8)
    mask[1:-1, 1:-1] = value
    return overlaid(ground, mask, classes)[1:-1, 1:-1]


def _line() -> tuple[Image.Image, ImageDraw.ImageDraw, Any]:
    picture = Image.new("RGB", (_COLUMNS * _CELL, _LINE), "white")
    return picture, ImageDraw.Draw(picture), ImageFont.load_default(size=12)
