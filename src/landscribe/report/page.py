"""Report: one HTML page that holds everything in itself and says honestly how good a map is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.errors import LandscribeError, RasterError
from landscribe.geo.access import open_dataset
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Grid, crs_label
from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.outputs import write_text
from landscribe.report import figures
from landscribe.report.description import describe
from landscribe.report.figures import Colours, Limits, Line, Values

# Longer sides of pictures in pixels: about twice what they measure on the page.
_MAP_SIDE, _SPLIT_SIDE, _CHIP_SIDE = 900, 560, 256
# So many maps have pictures of full size; more of them share the room of these.
_FULL_SIZE, _MOST_PICTURES = 2, 24
_MOST_EXAMPLES = 12
# Held-out chips among which the worst and the best are looked for.
_MOST_COMPARED = 1000


@dataclass(frozen=True)
class ReportInputs:
    """What a report tells of."""

    title: str
    chips: Chips
    """Of all splits."""
    history: Sequence[Mapping[str, Any]]
    """One row per epoch, as in `Model.history`; may be empty."""
    kept_epoch: int | None
    """Whose weights were kept."""
    assessment: Mapping[str, Any]
    """`Confusion.summary()` with "reference", "split" and "maps"."""
    maps: Sequence[Path]
    """Class maps, each on the grid of one of the scenes."""
    facts: Sequence[tuple[str, str]]
    """What else there is to know, by name."""


def write_report(inputs: ReportInputs, out: Path) -> Path:
    """Write one self-contained HTML page. The same inputs give the same bytes.

    Args:
        inputs: what it tells of.
        out: the file.

    Returns:
        `out`.

    Raises:
        LandscribeError: a map or chip that cannot be read, or a place that cannot be written.
    """
    ground = _Ground(inputs.chips, inputs.maps)
    context = {
        "inputs": inputs,
        "told": inputs.assessment,
        "head": inputs.chips.head,
        "ground": ground,
        "split_colours": figures.SPLIT_COLOURS,
        "error_colours": figures.ERROR_COLOURS,
        "maps": _maps(ground),
        "charts": _charts(inputs),
        **_accuracy(inputs),
        **_splits(ground),
        **_contents(inputs.chips),
        "examples": _examples(ground),
        **_comparisons(ground),
    }
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {"measure": figures.measure, "percent": figures.percent, "count": "{:,}".format, "crs": crs_label}
    text = (files("landscribe.report") / "template.html").read_text(encoding="utf-8")
    write_text(out, page.from_string(text).render(context))
    return out


class _Ground:
    """Chips, the scenes and maps that they lie on, and how these are shown."""

    def __init__(self, chips: Chips, maps: Sequence[Path]) -> None:
        self.chips = chips
        self.windows = chips.windows
        self.splits = chips.table["split"].to_numpy(str)
        self.of_scene = chips.table["scene"].to_numpy(str)
        self.problem = ""
        self.images: dict[str, Raster] = {}
        try:
            self.images = chips.images()
        except LandscribeError as error:
            if chips.head.virtual:
                raise
            # A run folder may travel without its imagery: what the chips hold can still be told.
            self.problem = str(error)
        self.shown = figures.shown_bands(chips.head.bands)
        self.maps = [(path.stem, Raster.open([path])) for path in maps]
        self.scene_of: dict[int, str] = {}
        """By place in `maps`."""
        for place, (name, mapped) in enumerate(self.maps):
            free = [scene for scene in self.images if scene not in self.scene_of.values()]
            fitting = [scene for scene in free if self.images[scene].grid.is_aligned(mapped.grid)]
            # Without a CRS, pictures of one size all lie on the same place: then the name decides.
            alike = [scene for scene in fitting if f"_{scene}_" in f"_{name}_"]
            if fitting:
                self.scene_of[place] = max(alike, key=len) if alike else fitting[0]
        self.map_of = {scene: self.maps[place][1] for place, scene in self.scene_of.items()}
        self._limits: dict[str, Limits] = {}

    def _limits_of(self, pixels: Pixels, valid: Valid) -> Limits:
        return figures.limits_of(pixels, valid, together=self.chips.head.dtype == "uint8")

    def picture(self, scene: str, side: int) -> tuple[Colours, Valid]:
        """A scene whose longer side is at most `side` pixels, and where it is valid."""
        pixels, valid = _read_small(self.images[scene], self.shown, side)
        limits = self._limits.setdefault(scene, self._limits_of(pixels, valid))
        return figures.stretched(pixels, limits), valid

    def chip(self, scene: str, pixels: Pixels, valid: Valid) -> Colours:
        """A chip of a scene in the colours of the whole scene."""
        if scene in self.images and scene not in self._limits:
            self.picture(scene, _SPLIT_SIDE)
        shown = pixels[list(self.shown)]
        limits = self._limits.get(scene)
        return figures.stretched(shown, self._limits_of(shown, valid) if limits is None else limits)


def _read_small(raster: Raster, bands: Sequence[int], side: int) -> tuple[Pixels, Valid]:
    """Some bands of a raster (bands, rows, cols), its longer side at most `side`, and where they are valid."""
    height, width = _small_shape(raster.grid, side)
    if (height, width) == raster.grid.shape:
        return _sample(raster, bands, (height, width))
    return figures.halved(*_sample(raster, bands, (2 * height, 2 * width)))


def _small_shape(grid: Grid, side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(grid.shape))
    return max(1, round(scale * grid.height)), max(1, round(scale * grid.width))


def _sample(raster: Raster, bands: Sequence[int], shape: tuple[int, int]) -> tuple[Pixels, Valid]:
    """Nearest pixels of some bands (bands, height, width) on a coarser lattice, and where they are valid.

    GDAL takes them from overviews where a file has them, so that a huge raster is not read whole.
    """
    found: dict[int, NDArray[Any]] = {}
    valid = np.ones(shape, bool)
    first = 0
    for path in raster.paths:
        try:
            with open_dataset(path) as source:
                colours = zip(source.indexes, source.colorinterp, strict=True)
                indexes = [index for index, colour in colours if colour != ColorInterp.alpha]
                for place in set(bands) & set(range(first, first + len(indexes))):
                    found[place] = source.read(indexes[place - first], out_shape=shape)
                first += len(indexes)
                if any(MaskFlags.per_dataset in flags for flags in source.mask_flag_enums):
                    valid &= source.dataset_mask(out_shape=shape) > 0
        except (RasterioError, OSError) as error:
            raise RasterError(f"{path} cannot be read: {error.__cause__ or error}. Copy the file again.") from error
    pixels = np.stack([found[band] for band in bands])
    if raster.nodata is not None:
        held = pixels == raster.nodata
        # As in Raster: unsigned imagery has its nodata value as a dark or bright pixel, too.
        valid &= ~(held.all(axis=0) if pixels.dtype.kind == "u" else held.any(axis=0))
    valid &= np.isfinite(pixels).all(axis=0)
    return np.where(valid, pixels, 0), valid


def _maps(ground: _Ground) -> list[dict[str, Any]]:
    """Pictures of maps and of their scenes."""
    count = min(len(ground.maps), _MOST_PICTURES)
    side = _shared_side(_MAP_SIDE, count, _FULL_SIZE)
    rows = []
    for place, (name, mapped) in enumerate(ground.maps[:count]):
        scene = ground.scene_of.get(place)
        values, known = _sample(mapped, (0,), _small_shape(mapped.grid, side))
        values = np.where(known, values[0], IGNORE).astype(np.uint8)
        image = figures.photo(*ground.picture(scene, side)) if scene else None
        picture = figures.class_picture(values, ground.chips.classes)
        rows.append({"name": name, "scene": scene, "grid": mapped.grid, "image": image, "map": picture})
    return rows


def _shared_side(side: int, count: int, full_size: int) -> int:
    """The side of each of `count` pictures that together fill what `full_size` of them would."""
    return round(side * min(1.0, math.sqrt(full_size / max(1, count))))


def _charts(inputs: ReportInputs) -> list[dict[str, Any]]:
    """Loss and F1 over the epochs; what was never measured is left out."""
    rows, colours = inputs.history, figures.SPLIT_COLOURS
    losses = [
        Line("training", colours["train"], [row.get("train_loss") for row in rows]),
        Line("validation", colours["val"], [row.get("val_loss") for row in rows]),
    ]
    scores = [
        Line(entry.name, entry.colour, [row.get(f"val_f1_{entry.name}") for row in rows])
        for entry in inputs.chips.classes
    ]
    scores.append(Line("mean over classes", figures.INK, [row.get("val_mean_f1") for row in rows], dashed=True))
    epochs = [int(row["epoch"]) for row in rows]
    charts = []
    for title, lines, top in (("Loss", losses, None), ("F1 on the validation chips", scores, 1.0)):
        measured = [line for line in lines if any(value is not None for value in line.values)]
        if measured:
            alt = f"{title}, by epoch"
            chart = figures.line_chart(epochs, measured, kept=inputs.kept_epoch, top=top, alt=alt)
            charts.append({"title": title, "chart": chart, "lines": measured})
    return charts


def _accuracy(inputs: ReportInputs) -> dict[str, Any]:
    """The confusion matrix and the table by class."""
    colours = {entry.value: entry.colour for entry in inputs.chips.classes}
    rows = [{"colour": colours.get(row["value"], "#7b8794"), **row} for row in inputs.assessment.get("classes", ())]
    counts = np.array(inputs.assessment.get("confusion", {}).get("counts", []), np.int64).reshape(len(rows), len(rows))
    names = [row["name"] for row in rows]
    wrong = counts * (1 - np.eye(len(names), dtype=np.int64))
    mistake = None
    if wrong.sum():
        row, col = divmod(int(wrong.argmax()), len(names))
        share = float(wrong[row, col] / wrong.sum())
        mistake = {"reference": names[row], "predicted": names[col], "pixels": int(wrong[row, col]), "share": share}
    alt = "Confusion matrix; its rows are the reference, its columns the prediction"
    matrix = figures.confusion_chart(names, counts, alt) if counts.sum() else None
    return {"confusion": matrix, "mistake": mistake, "class_rows": rows}


def _splits(ground: _Ground) -> dict[str, Any]:
    """What each split holds, and where it lies."""
    chips = ground.chips
    present = [name for name in figures.SPLIT_COLOURS if name in ground.splits]
    held = {name: chips.counts[ground.splits == name].sum(axis=0) for name in present}
    rows = [
        (entry, [counts[place] / counts.sum() if counts.sum() else None for counts in held.values()])
        for place, entry in enumerate(chips.classes)
    ]
    scenes = [name for name in dict.fromkeys(ground.of_scene.tolist()) if name in ground.images]
    side = _shared_side(_SPLIT_SIDE, min(len(scenes), _MOST_PICTURES), 2 * _FULL_SIZE)
    return {
        "splits": [(name, int((ground.splits == name).sum()), int(counts.sum())) for name, counts in held.items()],
        "split_rows": rows,
        "split_maps": [(scene, _split_map(ground, scene, side)) for scene in scenes[:_MOST_PICTURES]],
        "scenes_in_all": len(scenes),
    }


def _contents(chips: Chips) -> dict[str, Any]:
    """Which classes chips hold together, and the histograms of their bands."""
    described = describe(chips)
    alt = "Histogram of each band over the valid pixels of the chips"
    bands = [(band.name, band.shares) for band in described.bands]
    return {
        "together": list(zip(chips.classes, described.together, strict=True)),
        "shares": list(zip(chips.classes, described.classes, strict=True)),
        "unknown_share": described.unknown_share,
        "band_rows": described.bands,
        "histogram": figures.histogram_chart(described.edges, bands, alt),
        "chips_read": described.chips_read,
    }


def _split_map(ground: _Ground, scene: str, side: int) -> str:
    picture, _ = ground.picture(scene, side)
    scale = len(picture) / ground.images[scene].grid.height
    chosen = np.flatnonzero(ground.of_scene == scene)
    windows = [ground.windows[number] for number in chosen]
    return figures.split_picture(picture, scale, windows, ground.splits[chosen].tolist())


def _examples(ground: _Ground) -> list[dict[str, Any]]:
    """Chips under their labels."""
    chips, reader = ground.chips, ChipReader(ground.chips)
    rows = []
    for number in _varied(ground):
        pixels, valid, mask = (figures.thinned(array, _CHIP_SIDE) for array in reader.read(number))
        colours = figures.overlaid(ground.chip(ground.of_scene[number], pixels, valid), mask, chips.classes)
        shares = chips.counts[number] / max(1, chips.counts[number].sum())
        most = [(chips.classes.names[k], shares[k]) for k in np.argsort(-shares, kind="stable")[:2] if shares[k]]
        rows.append({**_place(ground, number), "image": figures.photo(colours, valid), "most": most})
    return rows


def _varied(ground: _Ground) -> list[int]:
    """Numbers of chips that show each class in each split by turns, in the order of splits."""
    counts = ground.chips.counts
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    # Much of the class, and others beside it.
    worth = np.sqrt(shares) + 0.2 * (shares > 0.02).sum(axis=1, keepdims=True)
    splits = [name for name in ("train", "val", "test") if name in ground.splits]
    turns = [
        (k, splits[(k + i) % len(splits)]) for i in range(_MOST_EXAMPLES) for k in range(counts.shape[1]) if splits
    ]
    free = np.ones(len(counts), bool)
    chosen: list[int] = []
    for k, split in turns:
        left = np.flatnonzero((ground.splits == split) & (counts[:, k] > 0) & free)
        if len(left) and len(chosen) < _MOST_EXAMPLES:
            chosen.append(int(left[worth[left, k].argmax()]))
            free[chosen] = False
    return sorted(chosen, key=lambda number: splits.index(str(ground.splits[number])))


def _comparisons(ground: _Ground) -> dict[str, Any]:
    """The held-out chips that were mapped worst, middling and best."""
    split = next((name for name in ("test", "val") if name in ground.splits), None)
    scored = _scored(ground, split)
    last, middle = len(scored) - 1, len(scored) // 2
    words: dict[int, str] = {}
    for place, word in zip((0, last, middle, 1, last - 1, middle - 1), ("worst", "best", "median") * 2, strict=True):
        if 0 <= place <= last:
            words.setdefault(place, word)
    reader = ChipReader(ground.chips)
    rows = []
    for place, word in sorted(words.items()):
        accuracy, number, known = scored[place]
        arrays = (*reader.read(number), _predicted(ground, number))
        pixels, valid, mask, predicted = (figures.thinned(array, _CHIP_SIDE) for array in arrays)
        pictures = {
            "image": figures.photo(ground.chip(ground.of_scene[number], pixels, valid), valid),
            "label": figures.class_picture(mask, ground.chips.classes),
            "prediction": figures.class_picture(predicted, ground.chips.classes),
            "error": figures.error_picture(mask, predicted),
        }
        row = {"word": word, "accuracy": accuracy, "known": known, "pictures": pictures}
        rows.append(_place(ground, number) | row)
    return {"compared": rows, "compared_split": split, "compared_among": len(scored)}


def _scored(ground: _Ground, split: str | None) -> list[tuple[float, int, int]]:
    """Accuracy, number and labelled pixels of the chips of a split that a map covers, the worst first."""
    reader = ChipReader(ground.chips)
    numbers = np.flatnonzero((ground.splits == split) & np.isin(ground.of_scene, list(ground.map_of)))
    spread = np.linspace(0, len(numbers) - 1, min(len(numbers), _MOST_COMPARED)).astype(int)
    scored = []
    for number in numbers[spread].tolist():
        mask, predicted = reader.read(number)[2], _predicted(ground, number)
        known = (mask != IGNORE) & (predicted != IGNORE)
        if known.any():
            scored.append((float((mask == predicted)[known].mean()), number, int(known.sum())))
    return sorted(scored)


def _predicted(ground: _Ground, number: int) -> Values:
    """What the map of a chip's scene says there: class values (rows, cols), 255 where nothing."""
    pixels, valid = ground.map_of[ground.of_scene[number]].read(ground.windows[number])
    return np.where(valid, pixels[0], IGNORE).astype(np.uint8)


def _place(ground: _Ground, number: int) -> dict[str, Any]:
    row, col = ground.windows[number].row, ground.windows[number].col
    return {"scene": ground.of_scene[number], "row": row, "col": col, "split": ground.splits[number]}
