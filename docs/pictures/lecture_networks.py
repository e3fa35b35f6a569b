"""Pictures of upsampling, kernels and networks; the shapes are those of Landscribe's networks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Patch, Rectangle
from numpy.typing import NDArray
from torch import Tensor, nn

import landscribe as ls
from landscribe.nn.architectures.blocks import Upsample
from landscribe.nn.architectures.deeplabv3plus import DeepLabV3Plus
from landscribe.nn.architectures.unet import UNet
from landscribe.nn.architectures.unetplusplus import UNetPlusPlus
from lecture_style import BLUE, GREEN, INK, ORANGE, RED, SKY, WIDTH, bare, new_figure, pixel_lines, shape_text


def upsampling() -> Figure:
    """A small array, upsampled in three ways."""
    array = torch.tensor([[1.0, 4.0, 2.0], [0.0, 3.0, 5.0], [2.0, 1.0, 4.0]])
    kernel = torch.tensor([[0.2, 0.4], [0.6, 0.8]])
    figure = new_figure(2.6)
    axes = figure.subplots(1, 5, width_ratios=[0.5, 1, 1, 0.34, 1])
    panels = [("input", array), ("nearest", upsampled(array, "nearest")), ("bilinear", upsampled(array, "bilinear"))]
    panels += [("kernel", kernel), ("transposed convolution", upsampled(array, "transposed", kernel))]
    for axis, (title, values) in zip(axes, panels, strict=True):
        _numbers(axis, values, title, highest=5.0)
    return figure


def upsampled(array: Tensor, mode: Any, kernel: Tensor | None = None) -> Tensor:
    """An array (rows, cols) at twice its size, by the upsampling of our decoders."""
    layer = Upsample((1, 1), 2, mode)
    if layer.learned is not None and layer.learned.bias is not None and kernel is not None:
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
    bare(axes)
    pixel_lines(axes, values.shape)


def dilation() -> Figure:
    """Kernels of 3 x 3 weights at three dilation rates, on a grid of pixels."""
    figure = new_figure(3.4)
    for axes, rate in zip(figure.subplots(1, 3), (1, 2, 3), strict=True):
        pixels = kernel_pixels(rate, side=9)
        axes.imshow(pixels, cmap=ListedColormap(["#f4f4f4", SKY]), vmin=0, vmax=1)
        axes.add_patch(Rectangle((3.5, 3.5), 1, 1, facecolor=RED))
        rows, cols = np.nonzero(pixels)
        height, width = int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1
        corner = (cols.min() - 0.5, rows.min() - 0.5)
        axes.add_patch(Rectangle(corner, width, height, fill=False, linewidth=2.5, edgecolor=BLUE, zorder=5))
        axes.set_title(f"rate {rate}")
        axes.set_xlabel(f"{pixels.sum()} weights, {height} x {width} pixels", labelpad=6)
        bare(axes)
        pixel_lines(axes, pixels.shape)
    return figure


def kernel_pixels(rate: int, side: int) -> NDArray[np.bool_]:
    """The pixels (side, side) that change the central output pixel of a dilated 3 x 3 convolution: by its gradient."""
    image = torch.zeros(1, 1, side, side, requires_grad=True)
    layer = nn.Conv2d(1, 1, 3, dilation=rate, padding=rate)
    layer(image)[0, 0, side // 2, side // 2].backward()
    assert image.grad is not None
    return image.grad[0, 0].numpy() != 0


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


def unet() -> Figure:
    """The UNet of the paper as boxes with their shapes."""
    network = ls.nn.build("unet", encoder="plain", bands=3, classes=10)
    assert isinstance(network, UNet)
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
    handles: list[Patch] = [Circle((0, 0), 1, facecolor=colour) for colour in (BLUE, GREEN, "#8a8a8a")]
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


def aspp() -> Figure:
    """The branches of the ASPP of a DeepLabv3+."""
    network = ls.nn.build("deeplabv3plus", encoder="resnet18", bands=3, classes=5)
    assert isinstance(network, DeepLabV3Plus)
    atrous: list[Any] = list(network.pyramid.atrous)
    rates = [branch[0].dilation[0] for branch in atrous]
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


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str,
    *, style: str = "-", bend: float = 0, shrink: float = 0,
) -> None:  # fmt: skip
    axes.add_patch(FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=12, color=colour, linewidth=1.6, linestyle=style,
        connectionstyle=f"arc3,rad={bend}", shrinkA=shrink, shrinkB=shrink, zorder=2,
    ))  # fmt: skip
