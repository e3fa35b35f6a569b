"""From finished units to the files that people open: generalised, assembled, named, coloured, told."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import rasterio
from rasterio.windows import Window as RasterioWindow

from landscribe import progress
from landscribe.geo.classes import Classes
from landscribe.geo.grid import Grid
from landscribe.geo.style import CLASSES_TAG, aux_xml, classes_as_tag, colormap, qml
from landscribe.geo.tiling import Unit
from landscribe.outputs import write_text
from landscribe.prediction.assembly import Dress, assemble, mosaic, placed
from landscribe.prediction.generalise import Generalisation
from landscribe.prediction.label_next import least_sure, write_places
from landscribe.prediction.layers import CLASS, UNCERTAINTY, Layer
from landscribe.prediction.parts import Parts, class_counts
from landscribe.prediction.places import Places

log = logging.getLogger(__name__)

RUN_TAG = "LANDSCRIBE_RUN"
PLAN_TAG = "LANDSCRIBE_PLAN"

_GENERALISED = replace(CLASS, kind="generalised")
LABEL_SIDE = 256


@dataclass(frozen=True)
class Finish:
    """What is made of the parts of a map once all units are done."""

    parts: Parts
    units: Sequence[Unit]
    grid: Grid
    classes: Classes
    layers: Sequence[Layer]
    """That were predicted."""
    generalisation: Generalisation | None
    tags: dict[str, str]
    """Where the map comes from."""
    label_side: int = LABEL_SIDE
    """Pixels; of the places that are worth a label."""

    def write(self, places: Places) -> None:
        """Write all files, the map last: when it is there, everything is. Tell how much of each class it holds."""
        layer, pixels = CLASS, {unit: self.parts.pixels(unit) for unit in self.units}
        if self.generalisation is not None:
            layer, pixels = _GENERALISED, self._generalise(self.generalisation)
        finished = [(self._assembled(layer, (CLASS.kind,)), places.map)]
        for side, text in _side_files(places.map, self.classes).items():
            write_text(self.parts.folder / side.name, text)
            finished.append((self.parts.folder / side.name, side))
        finished += self._others(places)
        # What may lie on another disk comes first: when that is full, there is no style without its map.
        for built, place in reversed(finished):
            placed(built, place)
        log.info("%s: %s", places.map.name, areas(self.classes, self.grid, pixels))

    def _others(self, places: Places) -> list[tuple[Path, Path]]:
        """What is made beside the map, and where it goes."""
        finished: list[tuple[Path, Path | None]] = []
        for layer in self.layers:
            if layer.kind == UNCERTAINTY.kind:
                built = self._assembled(layer, (layer.kind,))
                if places.label_next is not None:
                    told = self.parts.folder / places.label_next.name
                    write_places(least_sure(built, self.label_side), self.grid, told)
                    finished.append((told, places.label_next))
                finished.append((built, places.uncertainty))
            elif layer.kind != CLASS.kind:
                finished.append((self._assembled(layer, self.classes.names), places.probabilities))
        return [(built, place) for built, place in finished if place is not None]

    def _assembled(self, layer: Layer, bands: tuple[str, ...]) -> Path:
        tags = self.tags | {
            "AREA_OR_POINT": "Area",
            "LANDSCRIBE_VERSION": version("landscribe"),
            RUN_TAG: self.parts.run,
            PLAN_TAG: json.dumps(json.loads(self.parts.plan)),
        }
        dress = Dress(bands, tags)
        if layer in (CLASS, _GENERALISED):
            dress = Dress(bands, tags | {CLASSES_TAG: classes_as_tag(self.classes)}, colormap(self.classes))
        return assemble(self.parts, self.units, self.grid, layer, dress)

    def _generalise(self, generalisation: Generalisation) -> dict[Unit, dict[int, int]]:
        """Make parts without small patches, each with what lies around it in view; how many pixels of each class."""
        pixels: dict[Unit, dict[int, int]] = {}
        virtual = mosaic(self.parts, self.units, self.grid, CLASS, Dress((CLASS.kind,), {}))
        with rasterio.open(virtual) as source, progress.task("generalising", len(self.units)) as advance:
            for unit in self.units:
                pixels[unit] = {}
                if self.parts.pixels(unit):
                    seen = unit.keep.grown(generalisation.halo) & self.grid.window
                    values = source.read(1, window=RasterioWindow(seen.col, seen.row, seen.width, seen.height))
                    kept = generalisation.apply(values)[unit.keep.relative_to(seen).slices]
                    self.parts.put_layer(unit, kept[None], _GENERALISED, self.grid)
                    pixels[unit] = class_counts(kept)
                advance()
        return pixels


def areas(classes: Classes, grid: Grid, pixels: Mapping[Unit, Mapping[int, int]]) -> str:
    """How much of each class was mapped: on the ground where the size of a pixel is known, and its share."""
    counts, ground = Counter[int](), dict.fromkeys(classes.values, 0.0)
    for unit, by_value in pixels.items():
        # Where degrees are the units, a pixel is not as large in the north as it is in the south.
        side = grid[unit.keep].pixel_size or 0.0
        for value, count in by_value.items():
            counts[value] += count
            ground[value] += count * side**2 / 1e6
    return ", ".join(
        f"{entry.name} "
        + (f"{ground[entry.value]:.4g} km² " if grid.crs else f"{counts[entry.value]} pixels ")
        + f"({counts[entry.value] / counts.total():.1%})"
        for entry in classes
    )


def _side_files(place: Path, classes: Classes) -> dict[Path, str]:
    """What shows a map's names and colours in QGIS and ArcGIS."""
    return {place.with_suffix(".qml"): qml(classes), place.with_name(f"{place.name}.aux.xml"): aux_xml(classes)}
