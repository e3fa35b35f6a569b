"""From finished units to the files that people open: generalised, assembled, named, coloured, told."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import rasterio
from rasterio.windows import Window as RasterioWindow

from landscribe import progress
from landscribe.geo.classes import Classes
from landscribe.geo.grid import Grid
from landscribe.geo.tiling import Unit
from landscribe.maps.areas import AREAS_TAG, Content, areas, told
from landscribe.maps.assembly import Dress, assemble, mosaic, placed
from landscribe.maps.candidates import least_sure, write_places
from landscribe.maps.layers import CLASS, UNCERTAINTY, Layer
from landscribe.maps.sieve import Generalisation
from landscribe.maps.style import CLASSES_TAG, aux_xml, classes_as_tag, colormap, qml
from landscribe.maps.unit_store import Parts
from landscribe.outputs import write_text
from landscribe.prediction.output_paths import Places

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
        layer, contents = CLASS, [self.parts.content(unit) for unit in self.units]
        if self.generalisation is not None:
            layer, contents = _GENERALISED, self._generalise(self.generalisation)
        found = areas(self.classes, contents)
        finished = [(self._assembled(layer, (CLASS.kind,), {AREAS_TAG: json.dumps(found)}), places.map)]
        for side, text in side_files(places.map, self.classes).items():
            write_text(self.parts.folder / side.name, text)
            finished.append((self.parts.folder / side.name, side))
        finished += self._others(places)
        # What may lie on another disk comes first: when that is full, there is no style without its map.
        for built, place in reversed(finished):
            placed(built, place)
        log.info("%s: %s", places.map.name, told(found))

    def _others(self, places: Places) -> list[tuple[Path, Path]]:
        """What is made beside the map, and where it goes."""
        finished: list[tuple[Path, Path | None]] = []
        for layer in self.layers:
            if layer.kind == UNCERTAINTY.kind:
                built = self._assembled(layer, (layer.kind,))
                if places.label_next is not None:
                    made = self.parts.folder / places.label_next.name
                    write_places(least_sure(built, self.label_side), self.grid, made, self.parts.run)
                    finished.append((made, places.label_next))
                finished.append((built, places.uncertainty))
            elif layer.kind != CLASS.kind:
                finished.append((self._assembled(layer, self.classes.names), places.probabilities))
        return [(built, place) for built, place in finished if place is not None]

    def _assembled(self, layer: Layer, bands: tuple[str, ...], more: Mapping[str, str] = {}) -> Path:
        tags = self.tags | {
            **more,
            "AREA_OR_POINT": "Area",
            "LANDSCRIBE_VERSION": version("landscribe"),
            RUN_TAG: self.parts.run,
            PLAN_TAG: json.dumps(json.loads(self.parts.plan)),
        }
        dress = Dress(bands, tags)
        if layer in (CLASS, _GENERALISED):
            dress = Dress(bands, tags | {CLASSES_TAG: classes_as_tag(self.classes)}, colormap(self.classes))
        return assemble(self.parts, self.units, self.grid, layer, dress)

    def _generalise(self, generalisation: Generalisation) -> list[Content]:
        """Make parts without small patches, each with what lies around it in view; what they hold now."""
        contents = []
        virtual = mosaic(self.parts, self.units, self.grid, CLASS, Dress((CLASS.kind,), {}))
        with rasterio.open(virtual) as source, progress.task("generalising", len(self.units)) as advance:
            for unit in self.units:
                if self.parts.content(unit).pixels:
                    seen = unit.keep.grown(generalisation.halo) & self.grid.window
                    values = source.read(1, window=RasterioWindow(seen.col, seen.row, seen.width, seen.height))
                    kept = generalisation.apply(values)[unit.keep.relative_to(seen).slices]
                    self.parts.put_layer(unit, kept[None], _GENERALISED, self.grid)
                    contents.append(Content.of(kept, self.grid[unit.keep]))
                advance()
        return contents


def side_files(place: Path, classes: Classes) -> dict[Path, str]:
    """What shows a map's names and colours in QGIS and ArcGIS."""
    return {place.with_suffix(".qml"): qml(classes), place.with_name(f"{place.name}.aux.xml"): aux_xml(classes)}
