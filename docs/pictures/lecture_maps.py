"""Pictures of a drawn scene, its chips and its maps; a small network is trained for them."""

import atexit
import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch import Tensor, nn

import landscribe as ls
from landscribe.data.batches.augment import LabelledBatch, augment
from landscribe.inference.receptive_field import ReceptiveField, measure_receptive_field
from landscribe.synthetic import CLASSES, World, draw, write
from lecture_style import (
    BLUE,
    INK,
    ORANGE,
    PLAIN_LEGEND,
    RED,
    SKY,
    bare,
    class_colours,
    class_handles,
    class_legend,
    new_figure,
    rgb,
    shape_text,
)

SIDE = 512
TILE = 64
STEPS = 150


@dataclass(frozen=True)
class Scene:
    """A drawn scene, its files, and settings to read its labels."""

    world: World
    image: Path
    settings: dict[str, Any]


@functools.cache
def scene() -> Scene:
    """The scene of the pictures."""
    world = draw(SIDE, SIDE, seed=3)
    image, labels, _ = write(world, _folder() / "world")
    rows = [{"name": name, "value": value, "colour": colour} for name, value, colour in CLASSES]
    return Scene(world, image, {"images": [image], "labels": labels, "label_field": "class", "classes": rows})


@functools.cache
def chips() -> ls.Chips:
    """Chips of the scene, in blocks of train, val and test."""
    return ls.chip(**scene().settings, size=TILE, val=0.2, test=0.2, out=_folder() / "chips")


@functools.cache
def model(steps: int = STEPS) -> ls.Model:
    """A small UNet that was trained on the whole scene."""
    cut = ls.chip(**scene().settings, size=TILE, stride=TILE // 2, val=0, test=0, out=_folder() / f"chips-{steps}")
    network: Any = {"encoder": "plain", "options": {"encoder_widths": [8, 16, 32, 64, 64]}}
    trained = ls.train(cut, **network, steps=steps, out=_folder() / f"model-{steps}")
    trained.network.eval()
    return trained


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="landscribe-pictures-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def varied_chip() -> int:
    """Index of the chip whose pixels are spread most evenly over the classes."""
    shares = chips().counts / TILE**2
    return int((-(shares + 1e-9) * np.log(shares + 1e-9)).sum(axis=1).argmax())


def chip_and_mask() -> Figure:
    """A scene with its chips by split, one chip, and its mask."""
    index = varied_chip()
    sample, window = ls.ChipDataset(chips())[index], chips().windows[index]
    figure = new_figure(3.8)
    whole, chip, mask = figure.subplots(1, 3)
    whole.imshow(rgb(scene().world.image))
    colours = {"train": "white", "val": ORANGE, "test": SKY}
    for split, each in zip(chips().splits, chips().windows, strict=True):
        if split in colours:
            inside = (each.col + 3, each.row + 3), each.width - 7, each.height - 7
            whole.add_patch(Rectangle(*inside, fill=False, edgecolor=colours[split], linewidth=1.4))
    whole.add_patch(Rectangle((window.col, window.row), TILE, TILE, fill=False, edgecolor=RED, linewidth=3))
    whole.set_title("scene")
    chip.imshow(rgb(sample["image"].numpy()))
    chip.set_title(f"chip, {shape_text(sample['image'].shape)}")
    mask.imshow(class_colours(sample["label"].numpy()), interpolation="nearest")
    mask.set_title(f"mask, {shape_text(sample['label'].shape)}")
    for axes in (whole, chip, mask):
        bare(axes)
    handles = [Rectangle((0, 0), 1, 1, facecolor=colour, edgecolor="#888888") for colour in colours.values()]
    figure.legend(handles, list(colours), loc="outside lower left", ncols=len(colours), **PLAIN_LEGEND)
    handles, names = class_handles(range(len(CLASSES)))
    figure.legend(handles, names, loc="lower right", ncols=len(names), **PLAIN_LEGEND)
    return figure


def augmentation() -> Figure:
    """A chip and its mask, and versions of both."""
    sample = ls.ChipDataset(chips())[varied_chip()]
    versions = [("chip", sample["image"], sample["label"]), *_augmented(sample, count=4)]
    figure = new_figure(4.1)
    axes = figure.subplots(2, len(versions))
    for column, (title, image, label) in enumerate(versions):
        axes[0, column].imshow(rgb(image.numpy()))
        axes[0, column].set_title(title)
        axes[1, column].imshow(class_colours(label.numpy()), interpolation="nearest")
    for axis in axes.flat:
        bare(axis)
    class_legend(figure, range(len(CLASSES) + 1))
    return figure


def _augmented(sample: dict[str, Tensor], count: int) -> list[tuple[str, Tensor, Tensor]]:
    spec = ls.AugmentSpec(preset="strong", cutmix=0, blur=0.5, band_dropout=0)
    batch = LabelledBatch(sample["image"][None].float(), sample["valid"][None], sample["label"][None].long())
    versions = [augment(batch, spec, torch.Generator().manual_seed(seed)) for seed in range(count)]
    return [("augmented", version.images[0], version.labels[0]) for version in versions]


def receptive_field(steps: int = STEPS) -> Figure:
    """Theoretical receptive fields on the scene; the effective one as mismatch by distance from a tile's edge."""
    figure = new_figure(3.8)
    image, curve = figure.subplots(1, 2, width_ratios=[1, 1.25])
    fields = theoretical_fields(model(steps).network)
    _draw_squares(image, fields)
    _draw_mismatch(curve, effective_field(steps), theoretical=fields[-1][1])
    return figure


def _draw_squares(axes: Axes, fields: Sequence[tuple[str, int]]) -> None:
    """Receptive fields, by name and side, around one pixel in the middle of the scene."""
    half = SIDE // 4
    middle = slice(SIDE // 2 - half, SIDE // 2 + half)
    axes.imshow(rgb(scene().world.image[:, middle, middle]))
    for (name, side), colour in zip(fields, (SKY, ORANGE, "#f0e442", "white"), strict=True):
        corner = half - side / 2
        axes.add_patch(Rectangle((corner, corner), side, side, fill=False, edgecolor=colour, linewidth=2.2))
        # The smallest square has its name below, where the name of no other square is.
        y, alignment = (half + side / 2 + 3, "top") if side == fields[0][1] else (corner - 3, "bottom")
        text = axes.text(half, y, f"{name}: {side}", color=colour, ha="center", va=alignment, weight="bold")
        text.set(fontsize=9.5, path_effects=[withStroke(linewidth=3, foreground=INK)])
    axes.set_title("theoretical, side in pixels")
    bare(axes)


def _draw_mismatch(axes: Axes, field: ReceptiveField, *, theoretical: int) -> None:
    distances, margin = np.arange(len(field.mismatch)) + 0.5, margin_of(field)
    axes.plot(distances, 100 * field.mismatch, color=BLUE, linewidth=2)
    lines = {
        margin: (RED, f"margin: {margin}"),
        theoretical // 2: ("#666666", f"half of the\ntheoretical\nfield: {theoretical // 2}"),
    }
    for x, (colour, text) in lines.items():
        axes.axvline(x, color=colour, linestyle="--")
        axes.text(x + 2, 0.97, text, va="top", color=colour, transform=axes.get_xaxis_transform())
    axes.set(xlim=(0, 0.7 * theoretical), ylim=(0, None), xlabel="distance from the tile's edge, pixels")
    axes.set_ylabel("pixels with another class, %")
    axes.set_title("effective, measured")
    axes.spines[["top", "right"]].set_visible(False)


def theoretical_fields(network: nn.Module) -> list[tuple[str, int]]:
    """Sides of the receptive fields of encoder blocks and of the logits, in pixels."""
    table = ls.nn.summary(network, bands=3)
    blocks = [block for block in table.blocks if block.name.startswith("encoder.blocks.")][-3:]
    sides = [(f"block {block.name.rpartition('.')[2]}", block.receptive_field) for block in blocks]
    return [(name, side) for name, side in [*sides, ("logits", table.receptive_field)] if side is not None]


@functools.cache
def effective_field(steps: int = STEPS) -> ReceptiveField:
    """Of the trained network on its scene."""
    raster, tolerance = ls.Raster.open(scene().image), ls.PredictSpec().tolerance
    field = measure_receptive_field(model(steps), raster, tolerance=tolerance, largest=1024, threshold=None)
    assert field is not None
    return field


def margin_of(field: ReceptiveField) -> int:
    """The smallest margin around TILE pixels with which fewer pixels than the tolerance have another class."""
    steps = range(0, SIDE // 4, 8)  # so that a tile is a multiple of the network's 16 pixels
    return next(
        (margin for margin in steps if field.mismatch_of(margin, TILE + 2 * margin) < field.tolerance), steps[-1]
    )


def margins(steps: int = STEPS) -> Figure:
    """A map without margins and with margins, and where each differs from a map without tiles."""
    margin = margin_of(effective_field(steps))
    whole = _mapped(model(steps), tile=1024, margin=0)
    figure = new_figure(8.6)
    axes = figure.subplots(2, 2)
    for column, (tile, width) in enumerate([(TILE, 0), (TILE + 2 * margin, margin)]):
        classes = _mapped(model(steps), tile=tile, margin=width)
        differs = (classes != whole) & (whole != 255)
        share = differs.sum() / (whole != 255).sum()
        axes[0, column].imshow(class_colours(classes), interpolation="nearest")
        axes[0, column].set_title(f"margin {width}, tiles of {tile}")
        axes[1, column].imshow(differs, cmap=ListedColormap(["#f4f4f4", RED]), vmin=0, vmax=1, interpolation="nearest")
        axes[1, column].set_title(f"{share:.2%} of the pixels differ from the untiled map")
        for axis in axes[:, column]:
            axis.set(xlim=(128, 384), ylim=(384, 128))
            bare(axis)
    class_legend(figure, range(len(CLASSES)))
    return figure


def _mapped(trained: ls.Model, *, tile: int, margin: int) -> NDArray[np.uint8]:
    """Class values (rows, cols) of the scene's map."""
    with tempfile.TemporaryDirectory() as folder:
        (path,) = ls.predict(trained, scene().image, out=Path(folder) / "map.tif", tile=tile, margin=margin)
        values, valid = ls.Raster.open(path).read(ls.Window(0, 0, SIDE, SIDE))
    return np.where(valid, values[0], 255).astype(np.uint8)
