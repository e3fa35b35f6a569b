"""Figures of the report: arrays in; pictures as data URIs and charts as inline SVG out.

Pictures are PNGs with a palette: a third of the size of true colour, with hardly any visible difference.
"""

import base64
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from landscribe.errors import per_cent
from landscribe.geo.classes import IGNORE, Classes, rgb
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Pixels, Valid
from landscribe.maps.legends.style import colormap
from landscribe.nn.encoders.sensors import RGB, common_names
from landscribe.texts import length_text

Colours = NDArray[np.uint8]
"""(rows, cols, 3): red, green, blue."""
Values = NDArray[np.uint8]
"""(rows, cols) class values."""
Limits = NDArray[np.float64]
"""(2, bands): pixel values that become black and white."""

# Paul Tol's high-contrast scheme: distinct for every colour vision, and in print.
SPLIT_COLOURS = {"train": "#004488", "val": "#ddaa33", "test": "#bb5566", "gap": "#b8bcc0"}
ERROR_COLOURS = {"correct": "#c5e3d8", "error": "#b3261e"}
FALSE_ALARM = "#3b5bb5"
INK = "#1f2933"
NONE = "\u2013"
"""Shown for an undefined measure."""
_FAINT = "#7b8794"
_CELL_INK, _CELL_FAINT, _CELL_WHITE = "#1e2832", "#7a8693", "#fefefe"
"""Of the text in coloured cells, which is the same on a dark page."""
_LINES = "#e4e8ec"
_PAPER = "#fffffe"
"""Of the background: not the white that a class may have."""
_OF_PAGE = {INK: "var(--ink)", _FAINT: "var(--soft)", _LINES: "var(--line)", _PAPER: "var(--card)"}
"""Colours of charts that follow those of the page, which may be dark."""
_ALIKE = 0.45
"""Share of the common range of pixel values that each band of a photograph spans at least."""
_TRANSPARENT = 255

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",  # text stays text: sharp, searchable, in the page's font, in every script
    "text.parse_math": False,  # a class may be called "$a$"
    "figure.facecolor": _PAPER,
    "axes.facecolor": _PAPER,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.edgecolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _LINES,
}


@dataclass(frozen=True)
class Line:
    """One quantity over the epochs."""

    label: str
    colour: str
    values: Sequence[float | None]
    """One per epoch; None where it was not measured."""
    dashed: bool = False


def shown_bands(names: Sequence[str]) -> tuple[int, ...]:
    """Indices (from 0) of the bands to show as red, green and blue; of one band if there are fewer than three.

    >>> shown_bands(["B02", "B03", "B04", "B08"]), shown_bands(["b", "g", "r", "nir"])
    ((2, 1, 0), (2, 1, 0))
    """
    common = common_names(names, None)
    for colours in (RGB, tuple("rgb")):
        if set(colours) <= set(common):
            return tuple(common.index(colour) for colour in colours)
    return (0, 1, 2) if len(names) >= 3 else (0,)


def sentence(text: str) -> str:
    """A text with a capital first letter and a full stop.

    >>> sentence("fewer than 30 units")
    'Fewer than 30 units.'
    """
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def limits_of(pixels: Pixels, valid: Valid) -> Limits:
    """The 2nd and 98th percentile of each band (bands, rows, cols) over valid pixels, as `usable_limits` has them."""
    if not valid.any():
        return np.repeat([[0.0], [1.0]], len(pixels), axis=1)
    return usable_limits(np.percentile(pixels[:, valid].astype(np.float64), [2, 98], axis=1))


def usable_limits(ends: NDArray[np.float64]) -> Limits:
    """Limits from the 2nd and 98th percentiles of bands (2, bands): the same for all bands if these differ little.

    Common limits keep the colours of a photograph. Where the range of a band is less than 45 % of the common one, as
    in the bands of a satellite, each band has limits of its own: forest would be blue.

    >>> usable_limits(np.array([[18, 27, 24], [196, 189, 183.0]])).tolist()
    [[18.0, 18.0, 18.0], [196.0, 196.0, 196.0]]
    >>> usable_limits(np.array([[21, 38, 45], [115, 92, 82.0]])).tolist()
    [[21.0, 38.0, 45.0], [115.0, 92.0, 82.0]]
    """
    low, high = np.where(np.isfinite(ends), ends, [[0.0], [1.0]])
    if (high - low).min() >= _ALIKE * (high.max() - low.min()):
        low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
    limits = np.stack([low, high])
    # A constant band becomes mid grey.
    limits[:, low == high] += np.array([[-0.5], [0.5]])
    return limits


def stretched(pixels: Pixels, limits: Limits) -> Colours:
    """Three bands (bands, rows, cols) as colours, or one as grey."""
    low, high = limits[:, :, None, None]
    shares = np.clip((pixels - low) / (high - low), 0, 1)
    three = np.broadcast_to(shares, (3, *pixels.shape[1:]))
    colours: Colours = np.rint(255 * np.moveaxis(three, 0, -1)).astype(np.uint8)
    return colours


def halved(pixels: Pixels, valid: Valid) -> tuple[Pixels, Valid]:
    """Averages of two by two pixels (bands, rows, cols); nodata never bleeds into them."""
    height, width = valid.shape[0] // 2, valid.shape[1] // 2
    weights = valid.reshape(height, 2, width, 2)
    parts = pixels.astype(np.float64).reshape(len(pixels), *weights.shape)
    counts = weights.sum(axis=(1, 3))
    return parts.sum(axis=(2, 4), where=weights) / np.maximum(1, counts), counts > 0


def thinned(array: NDArray[Any], side: int) -> NDArray[Any]:
    """Every n-th row and column (the last two axes), so that neither is longer than `side`."""
    step = -(-max(array.shape[-2:]) // side)
    return array[..., ::step, ::step]


def overlaid(colours: Colours, mask: Values, classes: Classes) -> Colours:
    """An image with its labels: classes tinted and outlined, background only outlined, unlabelled pixels grey."""
    painted = colours.astype(np.float64)
    edges = np.zeros(mask.shape, bool)
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = mask[a] != mask[b]
        edges[a] |= differs
        edges[b] |= differs
    for entry in classes:
        colour, is_class = np.array(rgb(entry.colour)), mask == entry.value
        if entry.value != classes.background:
            painted[is_class] += 0.32 * (colour - painted[is_class])
        painted[is_class & edges] = colour
    painted[mask == classes.ignore] = 0.35 * painted[mask == classes.ignore] + 0.65 * 128
    return np.rint(painted).astype(np.uint8)


def split_picture(
    image: Colours,
    scale: float,
    windows: Sequence[Window],
    splits: Sequence[str],
    colours: Mapping[str, str] = SPLIT_COLOURS,
) -> str:
    """The chips of a scene coloured by split or fold, as a data URI.

    Args:
        image: the scene in colours; it is drawn in grey below the chips.
        scale: picture pixels per scene pixel.
        windows: of the chips.
        splits: of the chips, or their folds.
        colours: by split or fold.
    """
    held = np.full(image.shape[:2], -1)
    edges = np.zeros(held.shape, bool)
    # Where chips overlap, held-out chips are drawn on top.
    order = sorted(colours, key=lambda name: name != "gap")
    for window, index in sorted(zip(windows, map(order.index, splits), strict=True), key=lambda pair: pair[1]):
        sides = (window.row, window.col, window.row_stop, window.col_stop)
        row, col, row_stop, col_stop = (max(0, round(scale * side)) for side in sides)
        held[row:row_stop, col:col_stop] = index
        if min(row_stop - row, col_stop - col) >= 5:
            edges[row:row_stop, col:col_stop] = True
            edges[row + 1 : row_stop, col + 1 : col_stop] = False
    grey = 120 + 0.5 * image.mean(axis=-1, keepdims=True)
    tints = np.array([rgb(colours[split]) for split in order])[held]
    painted = np.where((held >= 0)[..., None], 0.35 * grey + 0.65 * tints, grey)
    painted[edges] = 0.4 * painted[edges] + 0.6 * 255
    return photo(np.rint(painted).astype(np.uint8), np.ones(held.shape, bool))


def photo(colours: Colours, valid: Valid) -> str:
    """A picture as a data URI; transparent where not valid."""
    picture = Image.fromarray(colours).quantize(_TRANSPARENT, Image.Quantize.MEDIANCUT)
    return _png(np.where(valid, np.asarray(picture), np.uint8(_TRANSPARENT)), picture.getpalette() or [])


def with_scale_bar(colours: Colours, valid: Valid, metres: float) -> tuple[Colours, Valid]:
    """A picture with a scale bar on a white plate at its lower left; the plate is valid. Tiny pictures get none.

    Args:
        colours: the picture.
        valid: its valid pixels.
        metres: width of a pixel of the picture on the ground.
    """
    height, width = valid.shape
    length = round_length(metres * width / 4)
    font = ImageFont.load_default(size=max(12, width // 34))
    text, bar, gap = length_text(length), round(length / metres), max(3, max(height, width) // 120)
    picture = Image.fromarray(colours)
    pen = ImageDraw.Draw(picture)
    left, top, right, bottom = map(int, pen.textbbox((0, 0), text, font=font))
    plate = (max(bar, right - left) + 2 * gap, bottom - top + 4 * gap)
    if plate[0] > width / 2 or plate[1] > height / 2:
        return colours, valid
    x, y = gap, height - gap - plate[1]
    pen.rectangle((x, y, x + plate[0], y + plate[1]), fill="white")
    pen.text((x + gap - left, y + gap - top), text, fill=INK, font=font)
    pen.rectangle((x + gap, y + plate[1] - 2 * gap, x + gap + bar - 1, y + plate[1] - gap), fill=INK)
    is_shown = valid.copy()
    is_shown[y : y + plate[1] + 1, x : x + plate[0] + 1] = True
    return np.asarray(picture), is_shown


def round_length(most: float) -> float:
    """The largest of 1, 2, 5, 10, 20 ... (and of 0.5, 0.2 ...) that is not larger.

    >>> [round_length(most) for most in (4.9, 5, 720, 0.3)]
    [2.0, 5.0, 500.0, 0.2]
    """
    power: float = 10.0 ** math.floor(math.log10(most))
    return float(f"{max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9)):.3g}")


def class_picture(values: Values, classes: Classes) -> str:
    """Class values in their colours, as a data URI; transparent where unlabelled."""
    return _flat_picture(values, {value: colour[:3] for value, colour in colormap(classes).items()})


def error_colours(classes: Classes) -> dict[str, str]:
    """Colours of an error picture: correct and wrong; of two classes, misses and false alarms of the second."""
    if len(classes) != 2:
        return ERROR_COLOURS
    correct, wrong = ERROR_COLOURS.values()
    return {"correct": correct, f"{classes.names[1]} missed": wrong, f"false alarm of {classes.names[1]}": FALSE_ALARM}


def error_picture(reference: Values, predicted: Values, classes: Classes) -> str:
    """Correct and wrong pixels in `error_colours`, as a data URI; transparent where either has no class."""
    assessed = (reference != IGNORE) & (predicted != IGNORE)
    outcome = (reference != predicted).astype(np.uint8)
    if len(classes) == 2:
        outcome[(outcome == 1) & (predicted == classes.values[1])] = 2
    colours = map(rgb, error_colours(classes).values())
    return _flat_picture(np.where(assessed, outcome, IGNORE).astype(np.uint8), dict(enumerate(colours)))


def _flat_picture(values: Values, colours: Mapping[int, Sequence[int]]) -> str:
    # Grey: a value that is not in the class table.
    palette = [channel for value in range(256) for channel in colours.get(value, (128, 128, 128))]
    return _png(values, palette)


def _png(indices: Values, palette: Sequence[int]) -> str:
    """A PNG of palette indices (rows, cols) as a data URI; 255 is transparent."""
    picture = Image.fromarray(indices)
    picture.putpalette([*palette, *[0] * (3 * 256 - len(palette))])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, transparency=_TRANSPARENT)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def line_chart(
    epochs: Sequence[int], lines: Sequence[Line], *, kept: int | None, top: float | None, alt: str
) -> Markup:
    """Lines over epochs, without a legend.

    Args:
        epochs: of the values.
        lines: quantities to draw, the last on top.
        kept: epoch of the model's weights, which is marked.
        top: upper bound of the values; None if there is none.
        alt: text alternative.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": alt}):
        figure = Figure(figsize=(4.9, 3.1), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            _draw_line(axes, epochs, line)
        if kept is not None and kept in epochs:
            axes.axvline(kept, color=INK, linewidth=1.1, linestyle=(0, (2, 2)), zorder=1)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axes.set_ylim(bottom=0, top=top * 1.02 if top else None)
        axes.tick_params(length=0)
        axes.grid(visible=True)
        return _svg(figure, alt)


def _draw_line(axes: Axes, epochs: Sequence[int], line: Line) -> None:
    values = [math.nan if value is None else value for value in line.values]
    style = (0, (4, 1.5)) if line.dashed else "-"
    (drawn,) = axes.plot(epochs, values, color=line.colour, linewidth=2, linestyle=style)
    if len(epochs) <= 40:
        drawn.set(marker="o", markersize=3.5)
    if line.colour != INK and not 260 < sum(rgb(line.colour)) < 500:
        # Pale and dark class colours get a rim, or they vanish on a page that is light or dark.
        drawn.set_path_effects([Stroke(linewidth=3.2, foreground=_FAINT), Normal()])


def histogram_chart(edges: Sequence[float], bands: Sequence[tuple[str, Sequence[float]]], alt: str) -> Markup:
    """Shares of pixels between edges, a step line for each band.

    Args:
        edges: of the bins.
        bands: name and shares of each.
        alt: text alternative.
    """
    colours = {"red": "#c0392b", "green": "#2e8b57", "blue": "#2f6fb5"}
    palette = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(bands)))
    with mpl.rc_context({**_STYLE, "svg.hashsalt": alt}):
        figure = Figure(figsize=(9.9, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for (name, shares), fallback in zip(bands, palette, strict=True):
            axes.stairs(shares, edges, label=name, color=colours.get(name.lower(), tuple(fallback)), linewidth=1.8)
        axes.set(xlabel="pixel value as stored", ylabel="share of pixels", xlim=(edges[0], edges[-1]))
        axes.set_ylim(bottom=0)
        axes.tick_params(length=0)
        axes.grid(visible=True)
        axes.legend(frameon=False, ncols=1 if len(bands) <= 6 else 2)
        return _svg(figure, alt)


def confusion_chart(names: Sequence[str], counts: NDArray[np.int64], alt: str) -> Markup:
    """A confusion matrix (K, K): reference in rows, prediction in columns; cells coloured by the share of their row."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    labels = [name if len(name) <= 20 else f"{name[:19]}\u2026" for name in names]
    longest = max(map(len, labels))
    side = min(0.95, max(0.58, 8.4 / len(names)))  # inches, of a cell
    slanted = longest > 12 * side
    width, height = 0.7 + 0.09 * longest, 0.7 + 0.06 * longest * slanted  # inches, of the labels beside the cells
    with mpl.rc_context({**_STYLE, "svg.hashsalt": alt}):
        figure = Figure(figsize=(len(names) * side + width, len(names) * side + height), layout="constrained")
        axes = figure.add_subplot()
        axes.pcolormesh(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1.12, edgecolors=_PAPER, linewidth=2)
        for (row, col), pixels in np.ndenumerate(counts):
            share, count = float(shares[row, col]), f"{pixels:,}"
            colour = _CELL_WHITE if share > 0.55 else (_CELL_INK if pixels else _CELL_FAINT)
            smaller = min(8.5, 115 * side / len(count))
            axes.text(
                col + 0.5,
                row + 0.48,
                percent(share),
                ha="center",
                va="bottom",
                color=colour,
                fontsize=min(10, 100 * side / 7),
            )
            axes.text(col + 0.5, row + 0.6, count, ha="center", va="top", color=colour, fontsize=smaller)
        centres = np.arange(len(names)) + 0.5
        axes.set(xticks=centres, yticks=centres, xticklabels=labels, yticklabels=labels, aspect="equal")
        axes.xaxis.set(label_position="top", ticks_position="top")
        for label in axes.get_xticklabels() if slanted else ():
            label.set(rotation=40, ha="left", rotation_mode="anchor")
        axes.set_xlabel("predicted", labelpad=8, weight="bold")
        axes.set_ylabel("reference", labelpad=8, weight="bold")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.invert_yaxis()
        return _svg(figure, alt)


def measure(value: float | None) -> str:
    """A measure from 0 to 1, with three decimals."""
    return NONE if value is None or math.isnan(value) else f"{value:z.3f}"


def percent(share: float | None) -> str:
    r"""A share in per cent, as `per_cent`, on one line.

    >>> percent(0.345), percent(None)
    ('34.5\xa0%', '\u2013')
    """
    return NONE if share is None or math.isnan(share) else per_cent(share).replace(" ", "\u00a0")


def _svg(figure: Figure, alt: str) -> Markup:
    """A figure as an inline `<svg>` element: no prolog, and only ids that are referred to."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Matplotlib's font only measures the text; the browser's fonts draw it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        plain = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=plain)
    text = buffer.getvalue()
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text[text.index("<svg") :])
    used = set(re.findall(r"#([\w.-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", text)
    text = re.sub("|".join(_OF_PAGE), lambda match: _OF_PAGE[match[0]], text)
    head = f'<svg role="img" aria-label="{escape(alt)}" style="--natural: {96 * figure.get_figwidth():.0f}px"'
    return Markup(text.replace("<svg", head, 1))  # noqa: S704  # matplotlib escaped what it wrote
