"""A sheet of chips to look at: as they are, under their labels, and as training may see them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from landscribe.data.batches.augment_spec import AugmentSpec
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.errors import OutputError
from landscribe.geo.classes import Classes, rgb
from landscribe.outputs import refuse_existing, whole_file
from landscribe.report.figures import Colours, limits_of, overlaid, shown_bands, stretched

_TILE_SIDE = 160
_GUTTER = 4
_CELL = _TILE_SIDE + 2 * _GUTTER
_PLACES = 6
"""Pictures in a row."""
_LINE = 18
"""Height of a line of text."""
_UNKNOWN = (128, 128, 128)
"""How `overlaid` veils what is not known."""


def contact_sheet(
    chips: Chips, out: Path, *, augmentation: AugmentSpec, seed: int = 0, rows: int = 6, overwrite: bool = False
) -> Path:
    """Write a PNG of chips: each as it is, under its labels, and as training may see it.

    A row holds one chip and four changes of it, or three chips where nothing is changed. Chips in which a class meets
    others come first, so that its borders can be judged.

    Args:
        chips: some of each class come first.
        out: the picture.
        augmentation: how chips are changed in training.
        seed: of chips and changes.
        rows: how many rows at most.
        overwrite: replace what stands there.

    Raises:
        OutputError: something stands there, it cannot be written, or it is not to be a PNG.
    """
    if out.suffix.lower() != ".png":
        raise OutputError(f"the sheet is to be {out.name}, but it is a PNG. Give it a name that ends in .png.")
    refuse_existing(out, overwrite=overwrite)
    reader, rng = ChipReader(chips), np.random.default_rng(seed)
    a_row = 1 if augmentation.changes_anything else _PLACES // 2
    numbers = _varied(chips, rows * a_row, rng)
    lines = [_titles(["image", "labels"] + (["changed"] * (_PLACES - 2) if a_row == 1 else ["image", "labels"] * 2))]
    for start in range(0, len(numbers), a_row):
        some = numbers[start : start + a_row]
        names = [f"{chips.ids[number]}  {chips.splits[number]}" for number in some]
        pictures = [picture for number in some for picture in _pictures(reader, number, augmentation, seed)]
        lines += [_titles(names, every=_PLACES // a_row), _row(pictures)]
    lines.append(_legend(chips.classes))
    with whole_file(out) as temporary:
        Image.fromarray(np.concatenate(lines)).save(temporary, format="PNG")
    return out


def _varied(chips: Chips, count: int, rng: np.random.Generator) -> list[int]:
    """Numbers of chips, by turns of each class that in which most of it meets others, then any."""
    order: list[int] = []
    shares = chips.counts / np.maximum(1, chips.counts.sum(axis=1, keepdims=True))
    # Where a class is all there is, no border shows; but better so than not at all.
    worth = np.minimum(shares, 1 - shares) + 1e-3 * shares
    for turn in range(min(count, len(chips))):
        wanted = worth[:, turn % worth.shape[1]] + 1e-6 * rng.random(len(worth))
        wanted[order] = -1
        order.append(int(wanted.argmax()))
    return order


def _pictures(reader: ChipReader, number: int, augmentation: AugmentSpec, seed: int) -> list[Colours]:
    """A chip: plain, under its labels, and changed."""
    classes, bands = reader.chips.classes, list(shown_bands(reader.chips.metadata.bands))
    pixels, valid, mask = reader.read(number)
    limits = limits_of(pixels[bands], valid, together=True)

    def shown(image: NDArray[Any], values: NDArray[np.uint8] | None) -> Colours:
        colours = stretched(image[bands], limits)
        return _framed(colours if values is None else overlaid(colours, values, classes))

    pictures = [shown(pixels, None), shown(pixels, mask)]
    if augmentation.changes_anything:
        pictures += [
            shown(*changed) for changed in _changed(pixels, valid, mask, classes, augmentation, seed + 1000 * number)
        ]
    return pictures


def _changed(
    pixels: NDArray[Any], valid: NDArray[np.bool_], mask: NDArray[np.uint8], classes: Classes,
    augmentation: AugmentSpec, seed: int,
) -> list[tuple[NDArray[Any], NDArray[np.uint8]]]:  # fmt: skip
    """Pixels and class values as training may see them."""
    import torch

    from landscribe.data.batches.augment import LabelledBatch, augment

    batch = LabelledBatch(
        torch.from_numpy(pixels.astype(np.float32))[None],
        torch.from_numpy(valid)[None],
        torch.from_numpy(classes.to_indices(mask).astype(np.int64))[None],
    )
    found = []
    for turn in range(_PLACES - 2):
        made = augment(batch, augmentation, torch.Generator().manual_seed(seed + turn))
        found.append((made.images[0].numpy(), classes.to_values(made.labels[0].to(torch.uint8).numpy())))
    return found


def _framed(colours: Colours) -> Colours:
    """A picture of one size, with room around it."""
    tile = np.asarray(Image.fromarray(colours).resize((_TILE_SIDE, _TILE_SIDE), Image.Resampling.BILINEAR))
    return np.pad(tile, ((_GUTTER, _GUTTER), (_GUTTER, _GUTTER), (0, 0)), constant_values=255)


def _row(pictures: list[Colours]) -> Colours:
    """Pictures beside one another, the last places blank where there are fewer."""
    blank = np.full((_CELL, _CELL, 3), 255, np.uint8)
    return np.concatenate(pictures + [blank] * (_PLACES - len(pictures)), axis=1)


def _titles(words: list[str], *, every: int = 1) -> Colours:
    """A line of text, each above the first of `every` pictures, cut where the next begins."""
    picture, pen, font = _line()
    for place, word in enumerate(words):
        room = every * _CELL - 2 * _GUTTER
        letters = next(count for count in range(len(word), -1, -1) if pen.textlength(word[:count], font=font) <= room)
        pen.text((place * every * _CELL + _GUTTER, 2), word[:letters], fill="black", font=font)
    return np.asarray(picture)


def _legend(classes: Classes) -> Colours:
    """Lines that name the colours."""
    entries = [(rgb(entry.colour), entry.name) for entry in classes] + [(_UNKNOWN, "not known")]
    lines = [_line()]
    x = _GUTTER
    for colour, name in entries:
        picture, pen, font = lines[-1]
        width = int(_LINE + pen.textlength(name, font=font) + 12)
        if x > _GUTTER and x + width > picture.width:
            lines.append(_line())
            picture, pen, font = lines[-1]
            x = _GUTTER
        pen.rectangle((x, 4, x + _LINE - 8, _LINE - 4), fill=colour)
        pen.text((x + _LINE - 4, 2), name, fill="black", font=font)
        x += width
    return np.concatenate([np.asarray(picture) for picture, _, _ in lines])


def _line() -> tuple[Image.Image, ImageDraw.ImageDraw, Any]:
    picture = Image.new("RGB", (_PLACES * _CELL, _LINE), "white")
    return picture, ImageDraw.Draw(picture), ImageFont.load_default(size=12)
