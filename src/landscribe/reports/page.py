"""The report: one self-contained HTML page on the accuracy of a map, its training and its chips."""

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from landscribe.data.chips.chips import ChipReader
from landscribe.geo.classes import IGNORE, Classes
from landscribe.geo.grid import Grid, crs_label
from landscribe.geo.rasters.raster import Valid
from landscribe.maps.class_map import ClassMap, caveat_of_split, class_values, scene_in_name
from landscribe.outputs import write_text
from landscribe.reports import figures
from landscribe.reports.description import Description, describe
from landscribe.reports.figures import Colours, Line, Values
from landscribe.reports.inputs import ReportInputs
from landscribe.reports.scenes import Scenes
from landscribe.texts import area_decimals, area_text, area_unit, four_digits, length_text

# Longer sides of pictures in pixels: about twice their size on the page, for sharp screens.
_MAP_SIDE, _SPLIT_SIDE, _CHIP_SIDE = 900, 560, 256
# Up to this many maps have pictures of full size; more maps share the same total area.
_FULL_SIZE, _MOST_PICTURES = 2, 24
_MOST_EXAMPLES = 12
# Held-out chips that are compared with the map at most, to find the worst and the best.
_MOST_COMPARED = 1000


def write_report(inputs: ReportInputs, out: Path) -> Path:
    """Write one self-contained HTML page. The same inputs give the same bytes.

    Args:
        inputs: chips, history, measures and maps.
        out: the HTML file.

    Returns:
        `out`.

    Raises:
        LandscribeError: a map or chip cannot be read, or `out` cannot be written.
    """
    described = describe(inputs.chips)
    scenes = Scenes(inputs.chips, inputs.maps, inputs.folds, described)
    assessed = inputs.maps if inputs.assessed_maps is None else inputs.assessed_maps
    context = {
        "inputs": inputs,
        "assessment": inputs.assessment,
        # Of a run of an earlier version, whose model was trained on the train chips.
        "old_caveat": caveat_of_split(inputs.assessment.get("split"), ["train"]),
        "reference": inputs.reference,
        "sample": inputs.sample,
        **_areas(inputs.maps),
        "published": inputs.published,
        "metadata": inputs.chips.metadata,
        "scenes": scenes,
        "split_colours": scenes.colours,
        "error_colours": figures.error_colours(inputs.chips.classes),
        "maps": _maps(scenes),
        "charts": _charts(inputs),
        **_accuracy(inputs),
        **_splits(scenes),
        **_contents(scenes, described),
        "examples": _examples(scenes),
        **_comparisons(scenes if assessed is inputs.maps else Scenes(inputs.chips, assessed, inputs.folds, described)),
    }
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {
        "measure": figures.measure, "percent": figures.percent, "count": "{:,}".format, "crs": crs_label,
        "decimals": area_decimals, "area": area_text, "sentence": figures.sentence, "four_digits": four_digits,
        "metres": length_text,
    }  # fmt: skip
    text = (files("landscribe.reports") / "template.html").read_text(encoding="utf-8")
    write_text(out, page.from_string(text).render(context))
    return out


def _maps(scenes: Scenes) -> list[dict[str, Any]]:
    """Pictures of the maps and of their scenes."""
    count = min(len(scenes.maps), _MOST_PICTURES)
    side = _shared_side(_MAP_SIDE, count, _FULL_SIZE)
    rows = []
    for mapped in scenes.maps[:count]:
        covered = [scene for scene, map_raster in scenes.map_of.items() if map_raster is mapped]
        scene = scene_in_name(mapped.name, covered) or next(iter(covered), None)
        values = class_values(*mapped.overview(side))
        rows.append(
            {
                "name": mapped.name, "scene": scene, "grid": mapped.grid,
                "image": _scaled_photo(*scenes.picture(scene, side), mapped.grid) if scene else None,
                "map": figures.class_picture(values, scenes.chips.classes),
                "shown": _shares_text(values, scenes.chips.classes),
            }
        )  # fmt: skip
    return rows


def _scaled_photo(colours: Colours, valid: Valid, grid: Grid) -> str:
    """A picture of a grid, with a scale bar where pixels have a size on the ground."""
    sides = grid.pixel_sides
    if sides is not None:
        colours, valid = figures.with_scale_bar(colours, valid, sides[1] * grid.width / valid.shape[1])
    return figures.photo(colours, valid)


def _shares_text(values: Values, classes: Classes) -> str:
    """The classes of a picture and their shares, for readers who do not see it."""
    counts = np.bincount(values.ravel(), minlength=IGNORE + 1)[list(classes.values)]
    shares = zip(classes.names, counts / max(1, counts.sum()), strict=True)
    return ", ".join(f"{name} {figures.percent(share)}" for name, share in shares if share) or "nodata"


def _shared_side(side: int, count: int, full_size: int) -> int:
    """The side of each of `count` pictures, so that together they cover at most `full_size` pictures of full size."""
    return round(side * min(1.0, math.sqrt(full_size / max(1, count))))


def _areas(maps: Sequence[Path]) -> dict[str, Any]:
    """Pixels of each class in all maps together, and the unit of areas; empty if a map does not carry its counts."""
    counted = [ClassMap.open(path).areas for path in maps]
    if not counted or not all(counted):
        return {"areas": [], "unit": None}
    whole = sum(area["pixels"] for areas in counted for area in areas.values())
    rows = []
    for name in counted[0]:
        of_class = [areas[name] for areas in counted if name in areas]
        pixels, km2 = sum(area["pixels"] for area in of_class), [area["km2"] for area in of_class]
        share, square_metres = pixels / whole if whole else None, None if None in km2 else sum(km2) * 1e6
        rows.append({"name": name, "pixels": pixels, "share": share, "square_metres": square_metres})
    is_measured = all(row["square_metres"] is not None for row in rows)
    return {"areas": rows, "unit": area_unit(sum(row["square_metres"] for row in rows)) if is_measured else None}


def _charts(inputs: ReportInputs) -> list[dict[str, Any]]:
    """Loss and F1 by epoch; quantities that were never measured are left out."""
    titles = ["Loss", "F1 on the validation chips"]
    if inputs.folds:
        titles = ["Loss of each fold", "Mean F1 on the validation chips of each fold"]
        epochs, drawn = inputs.folds.epochs, (inputs.folds.losses, inputs.folds.scores)
    else:
        epochs, drawn = [int(row["epoch"]) for row in inputs.history], _curves(inputs)
    charts = []
    for title, lines, top in zip(titles, drawn, (None, 1.0), strict=True):
        measured = [line for line in lines if any(value is not None for value in line.values)]
        if measured:
            alt = f"{title}, by epoch"
            chart = figures.line_chart(epochs, measured, kept=inputs.kept_epoch, top=top, alt=alt)
            labels = {line.label: line for line in measured}
            charts.append({"title": title, "chart": chart, "lines": list(labels.values())})
    return charts


def _curves(inputs: ReportInputs) -> tuple[list[Line], list[Line]]:
    """The losses of a model, and its F1 by class."""
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
    return losses, scores


def _accuracy(inputs: ReportInputs) -> dict[str, Any]:
    """The confusion matrix and the table by class, and those of the independent reference."""
    rows, counts, matrix = _confusion(inputs.assessment, inputs.chips.classes)
    reference_rows, _, reference_matrix = _confusion(inputs.reference or {}, inputs.chips.classes)
    names = [row["name"] for row in rows]
    errors = counts * (1 - np.eye(len(names), dtype=np.int64))
    confused = None
    if errors.sum():
        row, col = divmod(int(errors.argmax()), len(names))
        share = float(errors[row, col] / errors.sum())
        confused = {"reference": names[row], "predicted": names[col], "pixels": int(errors[row, col]), "share": share}
    return {
        "confusion": matrix,
        "confused": confused,
        "class_rows": rows,
        "reference_rows": reference_rows,
        "reference_confusion": reference_matrix,
    }


def _confusion(
    assessment: Mapping[str, Any], classes: Classes
) -> tuple[list[dict[str, Any]], NDArray[np.int64], Markup | None]:
    """Rows of the table by class, counts (classes, classes), and their chart, None if nothing was counted."""
    colours = {entry.value: entry.colour for entry in classes}
    classes_of_map = assessment.get("classes", ())
    intervals = assessment.get("intervals", {}).get("classes") or [{}] * len(classes_of_map)
    rows = [
        {"colour": colours.get(row["value"], "#7b8794"), "intervals": ends, **row}
        for row, ends in zip(classes_of_map, intervals, strict=True)
    ]
    counts = np.array(assessment.get("confusion", {}).get("counts", []), np.int64).reshape(len(rows), len(rows))
    alt = "Confusion matrix: reference in rows, prediction in columns"
    chart = figures.confusion_chart([row["name"] for row in rows], counts, alt) if counts.sum() else None
    return rows, counts, chart


def _splits(scenes: Scenes) -> dict[str, Any]:
    """Chips and class shares of each split, and the split maps."""
    chips = scenes.chips
    present = [name for name in scenes.colours if name in scenes.splits]
    pixels = {name: chips.counts[scenes.splits == name].sum(axis=0) for name in present}
    rows = [
        (entry, [counts[index] / counts.sum() if counts.sum() else None for counts in pixels.values()])
        for index, entry in enumerate(chips.classes)
    ]
    names = [name for name in dict.fromkeys(scenes.of_chip.tolist()) if name in scenes.images]
    side = _shared_side(_SPLIT_SIDE, min(len(names), _MOST_PICTURES), 2 * _FULL_SIZE)
    return {
        "splits": [(name, int((scenes.splits == name).sum()), int(counts.sum())) for name, counts in pixels.items()],
        "split_rows": rows,
        "split_maps": [
            (name, _split_map(scenes, name, side), _chips_text(scenes, name)) for name in names[:_MOST_PICTURES]
        ],
        "scene_count": len(names),
    }


def _chips_text(scenes: Scenes, scene: str) -> str:
    """How many chips of a scene each split or fold has, for readers who do not see the picture."""
    splits = scenes.splits[scenes.of_chip == scene].tolist()
    return ", ".join(f"{splits.count(name):,} {name}" for name in scenes.colours if name in splits)


def _contents(scenes: Scenes, described: Description) -> dict[str, Any]:
    """Class shares, classes that occur in the same chips, and band histograms."""
    chips = scenes.chips
    medians = ", ".join(
        f"{name} {four_digits(band.quantiles['50'] or 0)}"
        for name, band in zip(scenes.bands, described.bands, strict=True)
    )
    alt = f"Histogram of each band over the valid pixels of the chips; medians: {medians}"
    bands = [(name, band.shares) for name, band in zip(scenes.bands, described.bands, strict=True)]
    return {
        "together": list(zip(chips.classes, described.together, strict=True)),
        "shares": list(zip(chips.classes, described.classes, strict=True)),
        "unlabelled_share": described.unknown_share,
        "band_rows": list(zip(scenes.bands, described.bands, strict=True)),
        "histogram": figures.histogram_chart(described.edges, bands, alt),
        "chips_read": described.chips_read,
        "chips_overlap": described.overlaps,
    }


def _split_map(scenes: Scenes, scene: str, side: int) -> str:
    picture, _ = scenes.picture(scene, side)
    scale = len(picture) / scenes.images[scene].grid.height
    indices = np.flatnonzero(scenes.of_chip == scene)
    windows = [scenes.windows[index] for index in indices]
    return figures.split_picture(picture, scale, windows, scenes.splits[indices].tolist(), scenes.colours)


def _examples(scenes: Scenes) -> list[dict[str, Any]]:
    """Example chips with their labels drawn over them."""
    chips, reader = scenes.chips, ChipReader(scenes.chips)
    rows = []
    for index in _varied(scenes):
        pixels, valid, mask = (figures.thinned(array, _CHIP_SIDE) for array in reader.read(index))
        colours = figures.overlaid(scenes.chip(pixels), mask, chips.classes)
        shares = chips.counts[index] / max(1, chips.counts[index].sum())
        order = np.argsort(-shares, kind="stable")
        most = [(chips.classes.names[k], shares[k]) for k in order[:2] if shares[k]]
        if others := shares[order[2:]].sum():
            most.append(("other classes", others))
        rows.append({**_location(scenes, index), "image": figures.photo(colours, valid), "most": most})
    return rows


def _varied(scenes: Scenes) -> list[int]:
    """Indices of example chips: each class in each split in turn, sorted by split."""
    counts = scenes.chips.counts
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    # Prefer chips with much of the class, and with other classes beside it.
    worth = np.sqrt(shares) + 0.2 * (shares > 0.02).sum(axis=1, keepdims=True)
    splits = [name for name in scenes.used if name in scenes.splits]
    turns = [
        (k, splits[(k + i) % len(splits)]) for i in range(_MOST_EXAMPLES) for k in range(counts.shape[1]) if splits
    ]
    free = np.ones(len(counts), bool)
    chosen: list[int] = []
    for k, split in turns:
        candidates = np.flatnonzero((scenes.splits == split) & (counts[:, k] > 0) & free)
        if len(candidates) and len(chosen) < _MOST_EXAMPLES:
            chosen.append(int(candidates[worth[candidates, k].argmax()]))
            free[chosen] = False
    return sorted(chosen, key=lambda index: splits.index(str(scenes.splits[index])))


def _comparisons(scenes: Scenes) -> dict[str, Any]:
    """The held-out chips with the lowest, the median and the highest accuracy."""
    scored = _scored(scenes)
    last, middle = len(scored) - 1, len(scored) // 2
    words: dict[int, str] = {}
    for rank, word in zip((0, last, middle, 1, last - 1, middle - 1), ("worst", "best", "median") * 2, strict=True):
        if 0 <= rank <= last:
            words.setdefault(rank, word)
    reader = ChipReader(scenes.chips)
    rows = []
    for rank, word in sorted(words.items()):
        accuracy, index, labelled = scored[rank]
        arrays = (*reader.read(index), _predicted(scenes, index))
        pixels, valid, mask, predicted = (figures.thinned(array, _CHIP_SIDE) for array in arrays)
        pictures = {
            "image": figures.photo(scenes.chip(pixels), valid),
            "label": figures.class_picture(mask, scenes.chips.classes),
            "prediction": figures.class_picture(predicted, scenes.chips.classes),
            "error": figures.error_picture(mask, predicted, scenes.chips.classes),
        }
        texts = {
            "label": _shares_text(mask, scenes.chips.classes),
            "prediction": _shares_text(predicted, scenes.chips.classes),
            "error": f"{figures.percent(1 - accuracy)} of the pixels are wrong",
        }
        row = {"word": word, "accuracy": accuracy, "labelled": labelled, "pictures": pictures, "texts": texts}
        rows.append(_location(scenes, index) | row)
    split = "held-out" if len(scenes.held_out) > 1 else next(iter(scenes.held_out), None)
    return {"compared": rows, "compared_split": split, "compared_among": len(scored)}


def _scored(scenes: Scenes) -> list[tuple[float, int, int]]:
    """(accuracy, index, labelled pixels) of the held-out chips that a map covers, lowest accuracy first."""
    reader = ChipReader(scenes.chips)
    indices = np.flatnonzero(np.isin(scenes.splits, scenes.held_out) & np.isin(scenes.of_chip, list(scenes.map_of)))
    sample = np.linspace(0, len(indices) - 1, min(len(indices), _MOST_COMPARED)).astype(int)
    scored = []
    for index in indices[sample].tolist():
        mask, predicted = reader.read(index).mask, _predicted(scenes, index)
        assessed = (mask != IGNORE) & (predicted != IGNORE)
        if assessed.any():
            scored.append((float((mask == predicted)[assessed].mean()), index, int(assessed.sum())))
    return sorted(scored)


def _predicted(scenes: Scenes, index: int) -> Values:
    """The map in the window of a chip: class values (rows, cols), 255 for nodata."""
    return class_values(*scenes.map_of[scenes.of_chip[index]].read(scenes.windows[index]))


def _location(scenes: Scenes, index: int) -> dict[str, Any]:
    row, col = scenes.windows[index].row, scenes.windows[index].col
    return {"scene": str(scenes.of_chip[index]), "row": row, "col": col, "split": scenes.splits[index]}
