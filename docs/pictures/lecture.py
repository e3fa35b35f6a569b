"""The pictures of docs/lecture.md. What they show is computed by networks and functions of Landscribe.

Draw them all into this folder by: python docs/pictures/lecture.py (or make pictures), or some: … unet aspp
"""

import atexit
import functools
import io
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import landscribe as ls
from landscribe.data.batches.augment import LabelledBatch, augment
from landscribe.inference.receptive_field import TOLERANCE, ReceptiveField, measure_receptive_field
from landscribe.nn.architectures.blocks import Upsample
from landscribe.nn.architectures.unetplusplus import UNetPlusPlus
from landscribe.synthetic import CLASSES, World, draw, write

WIDTH = 8.8
"""Inches; 880 pixels are as wide as a page on GitHub."""
DPI = 120
# Okabe & Ito 2008: distinct in every common colour vision.
BLUE, SKY, GREEN, ORANGE, RED, GREY, INK = "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#d9d9d9", "#222222"
STYLE = {
    "font.size": 11, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.edgecolor": "#888888",
    "text.color": INK, "axes.labelcolor": INK, "figure.facecolor": "white", "savefig.facecolor": "white",
}  # fmt: skip
LEGEND = ListedColormap([*(colour for _, _, colour in CLASSES), "#ffffff"])
"""Colours of the class indices; the last one is of pixels without a class."""
PLAIN_LEGEND: dict[str, Any] = {"frameon": False, "handlelength": 1.2, "fontsize": 10}
SIDE = 512
TILE = 64
STEPS = 150
PALETTE = 144
"""Colours of a PNG."""
FIXED = (*LEGEND.colors, BLUE, SKY, GREEN, ORANGE, RED, INK)
"""Those that a PNG has as they are, however few pixels they have."""


# ---- upsampling and kernels


def upsampling() -> Figure:
    """A small array, upsampled in three ways."""
    array = torch.tensor([[1.0, 4.0, 2.0], [0.0, 3.0, 5.0], [2.0, 1.0, 4.0]])
    kernel = torch.tensor([[0.2, 0.4], [0.6, 0.8]])
    figure = _figure(2.6)
    axes = figure.subplots(1, 5, width_ratios=[0.5, 1, 1, 0.34, 1])
    panels = [("input", array), ("nearest", upsampled(array, "nearest")), ("bilinear", upsampled(array, "bilinear"))]
    panels += [("kernel", kernel), ("transposed convolution", upsampled(array, "transposed", kernel))]
    for axis, (title, values) in zip(axes, panels, strict=True):
        _numbers(axis, values, title, highest=5.0)
    return figure


def upsampled(array: Tensor, mode: Any, kernel: Tensor | None = None) -> Tensor:
    """An array (rows, cols) at twice its size, by the upsampling of our decoders."""
    layer = Upsample((1, 1), 2, mode)
    if layer.learned is not None and kernel is not None:
        layer.learned.weight.data, layer.learned.bias.data = kernel[None, None], torch.zeros(1)
    with torch.inference_mode():
        result: Tensor = layer(array[None, None])[0, 0]
    return result


def _numbers(axes: Axes, values: Tensor, title: str, *, highest: float) -> None:
    """An array with its numbers."""
    axes.imshow(values.numpy(), cmap="Blues", vmin=0, vmax=1.6 * highest)
    for (row, col), value in np.ndenumerate(values.numpy()):
        axes.text(col, row, f"{value:.1f}".removesuffix(".0"), ha="center", va="center", fontsize=9)
    axes.set_title(title)
    _bare(axes)
    _grid(axes, values.shape)


def dilation() -> Figure:
    """Kernels of 3 x 3 weights at three dilation rates, on a grid of pixels."""
    figure = _figure(3.4)
    for axes, rate in zip(figure.subplots(1, 3), (1, 2, 3), strict=True):
        pixels = kernel_pixels(rate, side=9)
        axes.imshow(pixels, cmap=ListedColormap(["#f4f4f4", SKY]), vmin=0, vmax=1)
        axes.add_patch(Rectangle((3.5, 3.5), 1, 1, facecolor=RED))
        rows, cols = np.nonzero(pixels)
        height, width = np.ptp(rows) + 1, np.ptp(cols) + 1
        corner = (cols.min() - 0.5, rows.min() - 0.5)
        axes.add_patch(Rectangle(corner, width, height, fill=False, linewidth=2.5, edgecolor=BLUE, zorder=5))
        axes.set_title(f"rate {rate}")
        axes.set_xlabel(f"{pixels.sum()} weights, {height} x {width} pixels", labelpad=6)
        _bare(axes)
        _grid(axes, pixels.shape)
    return figure


def kernel_pixels(rate: int, side: int) -> NDArray[np.bool_]:
    """The pixels (side, side) that change the central output pixel of a dilated 3 x 3 convolution: by its gradient."""
    image = torch.zeros(1, 1, side, side, requires_grad=True)
    layer = nn.Conv2d(1, 1, 3, dilation=rate, padding=rate)
    layer(image)[0, 0, side // 2, side // 2].backward()
    assert image.grad is not None
    return image.grad[0, 0].numpy() != 0


# ---- networks


def output_shapes(network: nn.Module, *, bands: int, size: int) -> dict[str, tuple[int, ...]]:
    """Shape (channels, rows, cols) of the output of each module, "" for the network, for an image of that size."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            shapes[name] = tuple(output.shape[1:])

    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, __, output, name=name: note(name, output))
    # On torch's meta device nothing is computed but shapes.
    network.to("meta").eval()(torch.zeros(1, bands, size, size, device="meta"))
    return shapes


def shape_text(shape: Sequence[int]) -> str:
    """Such as "64 x 256 x 256"."""
    return " x ".join(map(str, shape))


def unet() -> Figure:
    """The UNet of the paper as boxes with their shapes."""
    network = ls.nn.build("unet", encoder="plain", bands=3, classes=10)
    shapes = output_shapes(network, bands=3, size=256)
    depth = len(network.features.decoder)
    figure = Figure((WIDTH, 5.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1.4, 11.4), ylim=(-5.2, 0.5))
    axes.axis("off")
    for level in range(depth):
        decoder = f"features.decoder.{depth - 1 - level}"
        _box(axes, 2.5, -level, shapes[f"features.encoder.blocks.{level}"], BLUE)
        _box(axes, 7.5, -level, shapes[decoder], GREEN)
        _arrow(axes, (3.75, -level), (6.25, -level), "#777777", style="--")
        if level < depth - 1:
            _arrow(axes, (2.5, -level - 0.25), (2.5, -level - 0.75), RED)
            _arrow(axes, (7.5, -level - 0.75), (7.5, -level - 0.25), ORANGE)
    _box(axes, 5, -depth, shapes[f"features.encoder.blocks.{depth}"], BLUE)
    _arrow(axes, (2.5, 0.75 - depth), (3.75, -depth), RED)
    _arrow(axes, (6.25, -depth), (7.5, 0.75 - depth), ORANGE)
    _arrow(axes, (0.65, 0), (1.25, 0), INK)
    _arrow(axes, (8.75, 0), (9.35, 0), INK)
    axes.text(0.55, 0, f"image\n{shape_text((3, *shapes['head'][1:]))}", ha="right", va="center")
    axes.text(9.45, 0, f"logits\n{shape_text(shapes['head'])}", ha="left", va="center")
    _legend(
        axes,
        [("two 3 x 3 convolutions, encoder", BLUE), ("two 3 x 3 convolutions, decoder", GREEN),
         ("2 x 2 max pooling", RED), ("2 x 2 transposed convolution", ORANGE), ("skip: concatenate", "#777777")],
    )  # fmt: skip
    return figure


def _box(axes: Axes, x: float, y: float, shape: Sequence[int], colour: str) -> None:
    axes.add_patch(Rectangle((x - 1.2, y - 0.22), 2.4, 0.44, facecolor=colour, edgecolor="none"))
    axes.text(x, y, shape_text(shape), ha="center", va="center", color="white", fontsize=10.5, weight="bold")


def _legend(axes: Axes, entries: Sequence[tuple[str, str]]) -> None:
    """Names of colours, in the lower left corner."""
    handles = [Rectangle((0, 0), 1, 1, facecolor=colour) for _, colour in entries]
    axes.legend(handles, [name for name, _ in entries], loc="lower left", frameon=False, fontsize=10, handlelength=1.2)


def unetplusplus() -> Figure:
    """The nodes of a UNet++, its connections and its branches."""
    network = ls.nn.build("unetplusplus", encoder="plain", bands=3, classes=5)
    assert isinstance(network, UNetPlusPlus)
    nodes = [(i, 0) for i in range(network.deepest + 1)] + [tuple(map(int, name.split("_"))) for name in network.nodes]
    figure = Figure((WIDTH, 6.3))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.5, 6.9), ylim=(-4.4, 0.9), aspect="equal")
    axes.axis("off")
    for i, j in nodes:
        x, y = node_position(i, j)
        if j == 0 and i > 0:
            _between(axes, node_position(i - 1, 0), (x, y), RED)
        if j > 0:
            _between(axes, node_position(i + 1, j - 1), (x, y), ORANGE)
            for earlier in range(j):
                _between(axes, node_position(i, earlier), (x, y), "#777777", bend=-0.22 if earlier < j - 1 else 0)
        colour = BLUE if j == 0 else GREEN if i == 0 and str(j) in network.heads else "#8a8a8a"
        axes.add_patch(Circle((x, y), 0.28, facecolor=colour, edgecolor="none", zorder=3))
        axes.text(x, y, f"{i}, {j}", ha="center", va="center", color="white", weight="bold", zorder=4)
    for branch in network.heads:
        x, y = node_position(0, int(branch))
        axes.text(x + 0.2, y - 0.24, f"branch {branch}", va="top", color=GREEN, weight="bold", fontsize=10)
    handles = [Circle((0, 0), 1, facecolor=colour) for colour in (BLUE, GREEN, "#8a8a8a")]
    handles += [Rectangle((0, 0), 1, 1, facecolor=colour) for colour in (RED, ORANGE, "#777777")]
    names = ["encoder block", "node with logits (supervised)", "other node"]
    names += ["2 x 2 max pooling", "2 x 2 transposed convolution", "skip: concatenate"]
    axes.legend(handles, names, loc="lower right", frameon=False, fontsize=10, handlelength=1.2)
    return figure


def node_position(i: int, j: int) -> tuple[float, float]:
    """Position (x, y) of node (i, j): each row a scale, each column half a step to the right."""
    return 1.35 * j + 0.62 * i, -1.0 * i


def _between(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, bend: float = 0) -> None:
    _arrow(axes, start, end, colour, bend=bend, shrink=25)


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str,
    *, style: str = "-", bend: float = 0, shrink: float = 0,
) -> None:  # fmt: skip
    axes.add_patch(FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=12, color=colour, linewidth=1.6, linestyle=style,
        connectionstyle=f"arc3,rad={bend}", shrinkA=shrink, shrinkB=shrink, zorder=2,
    ))  # fmt: skip


def aspp() -> Figure:
    """The branches of the ASPP of a DeepLabv3+."""
    network = ls.nn.build("deeplabv3plus", encoder="resnet18", bands=3, classes=5)
    rates = [branch[0].dilation[0] for branch in network.pyramid.atrous]
    shapes = output_shapes(network, bands=3, size=1024)
    features = next(shape for name, shape in reversed(shapes.items()) if name.startswith("encoder.body."))
    names = ["1 x 1 convolution", *(f"3 x 3, rate {rate}" for rate in rates), "image mean, 1 x 1"]
    outputs = ["pyramid.pointwise", *(f"pyramid.atrous.{index}" for index in range(len(rates))), "pyramid.pooled"]
    joined = (sum(shapes[name][0] for name in outputs), *shapes["pyramid"][1:])
    figure = Figure((WIDTH, 5.2))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 12), ylim=(-0.4, 7.2), aspect="equal")
    axes.axis("off")
    _label(axes, (1.15, 3.4), f"features\n{shape_text(features)}", BLUE)
    for index, (name, output) in enumerate(zip(names, outputs, strict=True)):
        y = 6.4 - 1.5 * index
        rate = None if output.endswith("pooled") else 0 if index == 0 else rates[index - 1]
        _icon(axes, (4.25, y), rate, side=features[1])
        axes.text(5.05, y + 0.02, f"{name}\n{shape_text(shapes[output])}", va="center", fontsize=10)
        _arrow(axes, (2.15, 3.4), (3.5, y), "#777777")
        _arrow(axes, (7.15, y), (8.42, 3.4 + 0.14 * (2 - index)), "#777777")
    _label(axes, (9.5, 3.4), f"concatenate\n{shape_text(joined)}", ORANGE)
    _arrow(axes, (9.5, 2.85), (9.5, 1.55), INK)
    axes.text(9.68, 2.2, "1 x 1 convolution", va="center", fontsize=10)
    _label(axes, (9.5, 1.0), f"output\n{shape_text(shapes['pyramid'])}", GREEN)
    return figure


def _label(axes: Axes, centre: tuple[float, float], text: str, colour: str) -> None:
    x, y = centre
    axes.add_patch(Rectangle((x - 1, y - 0.5), 2, 1, facecolor=colour, edgecolor="none"))
    ink = INK if colour == ORANGE else "white"
    axes.text(x, y, text, ha="center", va="center", color=ink, weight="bold", fontsize=10)


def _icon(axes: Axes, centre: tuple[float, float], rate: int | None, *, side: int) -> None:
    """Where a kernel's weights lie in features of side x side pixels; the whole image for rate None."""
    x, y = centre
    colour = SKY if rate is None else "#f4f4f4"
    axes.add_patch(Rectangle((x - 0.65, y - 0.65), 1.3, 1.3, facecolor=colour, edgecolor="#888888"))
    offsets = [] if rate is None else [0.0] if rate == 0 else [-1.3 * rate / side, 0.0, 1.3 * rate / side]
    for row in offsets:
        for col in offsets:
            axes.add_patch(Rectangle((x + col - 0.04, y + row - 0.04), 0.08, 0.08, facecolor=BLUE))


# ---- a scene, chips and maps


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
    figure = _figure(3.8)
    whole, chip, mask = figure.subplots(1, 3)
    whole.imshow(_rgb(scene().world.image))
    colours = {"train": "white", "val": ORANGE, "test": SKY}
    for split, each in zip(chips().splits, chips().windows, strict=True):
        if split in colours:
            inside = (each.col + 3, each.row + 3), each.width - 7, each.height - 7
            whole.add_patch(Rectangle(*inside, fill=False, edgecolor=colours[split], linewidth=1.4))
    whole.add_patch(Rectangle((window.col, window.row), TILE, TILE, fill=False, edgecolor=RED, linewidth=3))
    whole.set_title("scene")
    chip.imshow(_rgb(sample["image"].numpy()))
    chip.set_title(f"chip, {shape_text(sample['image'].shape)}")
    mask.imshow(_class_colours(sample["label"].numpy()), interpolation="nearest")
    mask.set_title(f"mask, {shape_text(sample['label'].shape)}")
    for axes in (whole, chip, mask):
        _bare(axes)
    handles = [Rectangle((0, 0), 1, 1, facecolor=colour, edgecolor="#888888") for colour in colours.values()]
    figure.legend(handles, list(colours), loc="outside lower left", ncols=len(colours), **PLAIN_LEGEND)
    handles, names = _class_handles(range(len(CLASSES)))
    figure.legend(handles, names, loc="lower right", ncols=len(names), **PLAIN_LEGEND)
    return figure


def augmentation() -> Figure:
    """A chip and its mask, and versions of both."""
    sample = ls.ChipDataset(chips())[varied_chip()]
    versions = [("chip", sample["image"], sample["label"]), *_augmented(sample, count=4)]
    figure = _figure(4.1)
    axes = figure.subplots(2, len(versions))
    for column, (title, image, label) in enumerate(versions):
        axes[0, column].imshow(_rgb(image.numpy()))
        axes[0, column].set_title(title)
        axes[1, column].imshow(_class_colours(label.numpy()), interpolation="nearest")
    for axis in axes.flat:
        _bare(axis)
    _class_legend(figure, range(len(CLASSES) + 1))
    return figure


def _augmented(sample: dict[str, Tensor], count: int) -> list[tuple[str, Tensor, Tensor]]:
    spec = ls.AugmentSpec(preset="strong", cutmix=0, blur=0.5, band_dropout=0)
    batch = LabelledBatch(sample["image"][None].float(), sample["valid"][None], sample["label"][None].long())
    versions = [augment(batch, spec, torch.Generator().manual_seed(seed)) for seed in range(count)]
    return [("augmented", version.images[0], version.labels[0]) for version in versions]


def receptive_field(steps: int = STEPS) -> Figure:
    """Theoretical receptive fields on the scene; the effective one as mismatch by distance from a tile's edge."""
    figure = _figure(3.8)
    image, curve = figure.subplots(1, 2, width_ratios=[1, 1.25])
    fields = theoretical_fields(model(steps).network)
    _draw_squares(image, fields)
    _draw_mismatch(curve, effective_field(steps), theoretical=fields[-1][1])
    return figure


def _draw_squares(axes: Axes, fields: Sequence[tuple[str, int]]) -> None:
    """Receptive fields, by name and side, around one pixel in the middle of the scene."""
    half = SIDE // 4
    middle = slice(SIDE // 2 - half, SIDE // 2 + half)
    axes.imshow(_rgb(scene().world.image[:, middle, middle]))
    for (name, side), colour in zip(fields, (SKY, ORANGE, "#f0e442", "white"), strict=True):
        corner = half - side / 2
        axes.add_patch(Rectangle((corner, corner), side, side, fill=False, edgecolor=colour, linewidth=2.2))
        # The smallest square has its name below, where the name of no other square is.
        y, alignment = (half + side / 2 + 3, "top") if side == fields[0][1] else (corner - 3, "bottom")
        text = axes.text(half, y, f"{name}: {side}", color=colour, ha="center", va=alignment, weight="bold")
        text.set(fontsize=9.5, path_effects=[withStroke(linewidth=3, foreground=INK)])
    axes.set_title("theoretical, side in pixels")
    _bare(axes)


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
    field = measure_receptive_field(model(steps), ls.Raster.open(scene().image))
    assert field is not None
    return field


def margin_of(field: ReceptiveField) -> int:
    """The smallest margin around TILE pixels with which fewer pixels than TOLERANCE have another class."""
    steps = range(0, SIDE // 4, 8)  # so that a tile is a multiple of the network's 16 pixels
    return next((margin for margin in steps if field.mismatch_of(margin, TILE + 2 * margin) < TOLERANCE), steps[-1])


def margins(steps: int = STEPS) -> Figure:
    """A map without margins and with margins, and where each differs from a map without tiles."""
    margin = margin_of(effective_field(steps))
    whole = _mapped(model(steps), tile=1024, margin=0)
    figure = _figure(8.6)
    axes = figure.subplots(2, 2)
    for column, (tile, width) in enumerate([(TILE, 0), (TILE + 2 * margin, margin)]):
        classes = _mapped(model(steps), tile=tile, margin=width)
        differs = (classes != whole) & (whole != 255)
        share = differs.sum() / (whole != 255).sum()
        axes[0, column].imshow(_class_colours(classes), interpolation="nearest")
        axes[0, column].set_title(f"margin {width}, tiles of {tile}")
        axes[1, column].imshow(differs, cmap=ListedColormap(["#f4f4f4", RED]), vmin=0, vmax=1, interpolation="nearest")
        axes[1, column].set_title(f"{share:.2%} of the pixels differ from the untiled map")
        for axis in axes[:, column]:
            axis.set(xlim=(128, 384), ylim=(384, 128))
            _bare(axis)
    _class_legend(figure, range(len(CLASSES)))
    return figure


def _mapped(trained: ls.Model, *, tile: int, margin: int) -> NDArray[np.uint8]:
    """Class values (rows, cols) of the scene's map."""
    with tempfile.TemporaryDirectory() as folder:
        (path,) = ls.predict(trained, scene().image, out=Path(folder) / "map.tif", tile=tile, margin=margin)
        values, valid = ls.Raster.open(path).read(ls.Window(0, 0, SIDE, SIDE))
    return np.where(valid, values[0], 255).astype(np.uint8)


# ---- style


def _figure(height: float) -> Figure:
    """A figure that arranges its panels itself."""
    return Figure((WIDTH, height), layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.05))


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])


def _grid(axes: Axes, shape: Sequence[int]) -> None:
    """Lines between the pixels of an array."""
    rows, cols = shape
    axes.hlines(np.arange(rows + 1) - 0.5, -0.5, cols - 0.5, color="white", lw=1)
    axes.vlines(np.arange(cols + 1) - 0.5, -0.5, rows - 0.5, color="white", lw=1)
    axes.spines[:].set_visible(False)


def _rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Bands (3, rows, cols) as a picture."""
    return np.moveaxis(image[:3], 0, -1).clip(0, 255).astype(np.uint8)


def _class_colours(indices: NDArray[Any]) -> NDArray[np.float64]:
    """Colours (rows, cols, 4) of class indices; 255 is white."""
    return LEGEND(np.where(indices == 255, len(CLASSES), indices).astype(int))


def _class_legend(figure: Figure, indices: Sequence[int]) -> None:
    handles, names = _class_handles(indices)
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), **PLAIN_LEGEND)


def _class_handles(indices: Sequence[int]) -> tuple[list[Rectangle], list[str]]:
    names = [*(name for name, _, _ in CLASSES), "ignored"]
    patches = [Rectangle((0, 0), 1, 1, facecolor=LEGEND.colors[index], edgecolor="#888888") for index in indices]
    return patches, [names[index] for index in indices]


PICTURES: dict[str, Callable[[], Figure]] = {
    "upsampling": upsampling,
    "unet": unet,
    "unetplusplus": unetplusplus,
    "receptive_field": receptive_field,
    "dilation": dilation,
    "aspp": aspp,
    "chip_and_mask": chip_and_mask,
    "augmentation": augmentation,
    "margins": margins,
}
"""By the names of their files, in the page's order."""


def save(figure: Figure, path: Path) -> None:
    """Write a PNG with a palette, so that it is small; the colours of classes and lines are in it as they are."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    picture = Image.open(buffer).convert("RGB")
    few = picture.quantize(PALETTE - len(FIXED), dither=Image.Dither.NONE)
    colours = [round(255 * part) for colour in FIXED for part in to_rgb(colour)]
    pixels, indices = np.asarray(picture), np.asarray(few) + len(FIXED)
    for index, colour in enumerate(zip(colours[::3], colours[1::3], colours[2::3], strict=True)):
        indices[(pixels == colour).all(axis=2)] = index
    exact = Image.fromarray(indices.astype(np.uint8), mode="P")
    exact.putpalette(colours + (few.getpalette() or []))
    exact.save(path, optimize=True)


def main(names: Sequence[str]) -> None:
    """Draw pictures into the folder of this file."""
    for name in names or PICTURES:
        path = Path(__file__).with_name(f"{name}.png")
        with mpl.rc_context(STYLE):
            save(PICTURES[name](), path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
