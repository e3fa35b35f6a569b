"""How the pictures of docs/lecture.md look, and how they are written."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from landscribe.synthetic import CLASSES

WIDTH = 8.8
"""Inches; 880 pixels are as wide as a page on GitHub."""
DPI = 120
# Okabe & Ito 2008: distinct in every common colour vision.
BLUE, SKY, GREEN, ORANGE, RED, GREY, INK = "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#d9d9d9", "#222222"
STYLE: dict[Any, Any] = {
    "font.size": 11, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.edgecolor": "#888888",
    "text.color": INK, "axes.labelcolor": INK, "figure.facecolor": "white", "savefig.facecolor": "white",
}  # fmt: skip
CLASS_COLOURS = [*(colour for _, _, colour in CLASSES), "#ffffff"]
"""Of the class indices; the last one is of pixels without a class."""
LEGEND = ListedColormap(CLASS_COLOURS)
PLAIN_LEGEND: dict[str, Any] = {"frameon": False, "handlelength": 1.2, "fontsize": 10}
PALETTE = 144
"""Colours of a PNG."""
FIXED = (*CLASS_COLOURS, BLUE, SKY, GREEN, ORANGE, RED, INK)
"""Those that a PNG has as they are, however few pixels they have."""


def new_figure(height: float) -> Figure:
    """A figure that arranges its panels itself."""
    return Figure((WIDTH, height), layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.05))


def bare(axes: Axes) -> None:
    """Axes without ticks."""
    axes.set(xticks=[], yticks=[])


def pixel_lines(axes: Axes, shape: Sequence[int]) -> None:
    """Lines between the pixels of an array."""
    rows, cols = shape
    axes.hlines(np.arange(rows + 1) - 0.5, -0.5, cols - 0.5, color="white", lw=1)
    axes.vlines(np.arange(cols + 1) - 0.5, -0.5, rows - 0.5, color="white", lw=1)
    axes.spines[:].set_visible(False)


def rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Bands (3, rows, cols) as a picture."""
    return np.moveaxis(image[:3], 0, -1).clip(0, 255).astype(np.uint8)


def class_colours(indices: NDArray[Any]) -> NDArray[np.float64]:
    """Colours (rows, cols, 4) of class indices; 255 is white."""
    return LEGEND(np.where(indices == 255, len(CLASSES), indices).astype(int))


def class_legend(figure: Figure, indices: Sequence[int]) -> None:
    """Names and colours of classes, below the panels."""
    handles, names = class_handles(indices)
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), **PLAIN_LEGEND)


def class_handles(indices: Sequence[int]) -> tuple[list[Rectangle], list[str]]:
    """Colours and names of class indices for a legend."""
    names = [*(name for name, _, _ in CLASSES), "ignored"]
    patches = [Rectangle((0, 0), 1, 1, facecolor=CLASS_COLOURS[index], edgecolor="#888888") for index in indices]
    return patches, [names[index] for index in indices]


def shape_text(shape: Sequence[int]) -> str:
    """Such as "64 x 256 x 256"."""
    return " x ".join(map(str, shape))


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
