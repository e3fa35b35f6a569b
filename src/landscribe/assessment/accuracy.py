"""Compare a map with a reference, pixel by pixel or point by point."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe import progress
from landscribe.confusion import Confusion, Measure
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.data.scenes.scene import LabelSource
from landscribe.errors import ChipError, GridError, LabelError, RasterError
from landscribe.geo.access import open_dataset
from landscribe.geo.classes import IGNORE, Classes
from landscribe.geo.features import Features
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.style import CLASSES_TAG, classes_of_tag
from landscribe.outputs import write_text

_STRIP_PIXELS = 2**24


@dataclass(frozen=True, eq=False)
class Assessment:
    """A confusion, and what it was counted on."""

    confusion: Confusion
    maps: tuple[str, ...]
    reference: str
    """What the maps were compared with."""
    split: str | None = None
    """Which chips, where the reference is chips."""

    @property
    def f1(self) -> Measure:
        """By class."""
        return self.confusion.f1

    @property
    def iou(self) -> Measure:
        """By class."""
        return self.confusion.iou

    @property
    def overall_accuracy(self) -> float:
        """Share of pixels whose class is right."""
        return self.confusion.overall_accuracy

    def summary(self) -> dict[str, Any]:
        """All measures, ready for JSON."""
        counted_on = {"maps": list(self.maps), "reference": self.reference, "split": self.split}
        return counted_on | self.confusion.summary()

    def save(self, path: Path) -> None:
        """Write the summary as JSON, whole or not at all."""
        write_text(path, json.dumps(self.summary(), indent=1) + "\n")


def assess_labels(mapped: Raster, labels: LabelSource, classes: Classes) -> Confusion:
    """Compare a map with polygons or a label raster, over all pixels that both know."""
    confusion = Confusion.zeros(classes)
    strips = list(mapped.grid.strips(_STRIP_PIXELS))
    with progress.task("assessing", len(strips)) as advance:
        for window in strips:
            reference = classes.to_indices(labels.read(window))
            confusion += Confusion.of(classes, reference, _mapped_indices(mapped, window, classes))
            advance()
    _require_counted(confusion, mapped.paths[0])
    return confusion


def assess_points(mapped: Raster, points: Features, values: NDArray[np.uint8], classes: Classes) -> Confusion:
    """Compare a map with points: each counts for the pixel that it lies in.

    Args:
        mapped: the map.
        points: in the map's CRS.
        values: class value of each.
        classes: of both.
    """
    places = points.pixel_rows_cols(mapped.grid)
    inside = ((places >= 0) & (places < np.array(mapped.grid.shape))).all(axis=1)
    if not inside.any():
        raise LabelError(
            f"none of the {len(points)} points of {points.name} lies on {mapped.paths[0]}. Check the pair."
        )
    predicted = [_mapped_indices(mapped, Window(row, col, 1, 1), classes)[0, 0] for row, col in places[inside].tolist()]
    confusion = Confusion.of(classes, classes.to_indices(values[inside]), np.array(predicted, np.uint8))
    _require_counted(confusion, mapped.paths[0])
    return confusion


def assess_chips(maps: Sequence[Raster], chips: Chips) -> Confusion:
    """Compare maps with the masks of chips; where chips overlap, each pixel counts once.

    Args:
        maps: each on the grid of one of the chips' scenes.
        chips: of the split to assess with.

    Raises:
        ChipError: there are no chips.
        GridError: a scene has no map.
    """
    if not len(chips):
        raise ChipError(f"{chips.folder} has no chip of the split to assess with. Hold out more (val, test).")
    reader = ChipReader(chips)
    map_of = _maps_by_scene(maps, chips)
    confusion = Confusion.zeros(chips.classes)
    seen: dict[str, list[Window]] = {}
    with progress.task("assessing", len(chips)) as advance:
        for number, (scene, window) in enumerate(zip(chips.table["scene"], chips.windows, strict=True)):
            reference = chips.classes.to_indices(reader.read(number)[2])
            for earlier in seen.setdefault(scene, []):
                common = (earlier & window).relative_to(window)
                if not common.is_empty:
                    reference[common.slices] = IGNORE
            seen[scene].append(window)
            confusion += Confusion.of(chips.classes, reference, _mapped_indices(map_of[scene], window, chips.classes))
            advance()
    _require_counted(confusion, ", ".join(mapped.paths[0] for mapped in maps))
    return confusion


def map_classes(mapped: Raster) -> Classes:
    """The class table that a map carries; the values that occur, where it carries none."""
    if len(mapped.bands) != 1 or mapped.dtype != "uint8":
        raise RasterError(
            f"{mapped.paths[0]} has {len(mapped.bands)} bands of {mapped.dtype}. "
            "A class map with one band of uint8 was expected."
        )
    with open_dataset(mapped.paths[0]) as source:
        text = source.tags().get(CLASSES_TAG)
    if text is not None:
        return classes_of_tag(text)
    found: set[int] = set()
    for window in mapped.grid.strips(_STRIP_PIXELS):
        pixels, valid = mapped.read(window)
        found |= set(np.unique(pixels[0][valid]).tolist())
    return Classes.from_labels(sorted(found - {IGNORE}), background=False)


def _maps_by_scene(maps: Sequence[Raster], chips: Chips) -> dict[str, Raster]:
    images = chips.images()
    found: dict[str, Raster] = {}
    assessed = set(chips.table["scene"])
    for number, (name, image) in enumerate(images.items()):
        if name not in assessed:
            continue
        # Scenes without a CRS may all lie on the same place: then the order of the maps tells them apart.
        in_order = maps[number : number + 1] if len(maps) == len(images) else []
        on_it = [mapped for mapped in (*in_order, *maps) if mapped.grid.is_aligned(image.grid)]
        if not on_it:
            given = ", ".join(mapped.paths[0] for mapped in maps)
            raise GridError(
                f"none of the maps ({given}) lies on the grid of scene '{name}'. Map that scene and give its map too."
            )
        found[name] = on_it[0]
    return found


def _mapped_indices(mapped: Raster, window: Window, classes: Classes) -> NDArray[np.uint8]:
    pixels, valid = mapped.read(window)
    return classes.to_indices(np.where(valid, pixels[0], IGNORE).astype(np.uint8))


def _require_counted(confusion: Confusion, name: str) -> None:
    if not confusion.total:
        raise LabelError(f"{name} and the reference have no pixel in common that both know. Check extents and nodata.")
