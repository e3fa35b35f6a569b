"""Finish: from the units of a map to the files that people open: sieved, assembled, styled, with areas."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from landscribe import progress
from landscribe.geo.access import bounded_block_cache, without_secrets
from landscribe.geo.tiling import Unit
from landscribe.maps.areas import Areas, ClassAreas, format_areas, total_areas
from landscribe.maps.assembly.cog import BandMetadata, assemble, move_into_place, unit_sources
from landscribe.maps.assembly.sources import Sources
from landscribe.maps.candidates import most_uncertain, write_candidates
from landscribe.maps.class_map import (
    AREAS_TAG,
    CLASSES_TAG,
    FINGERPRINT_TAG,
    RUN_TAG,
    classes_as_tag,
    model_tags,
    trained_tag,
)
from landscribe.maps.layers import CLASS, UNCERTAINTY, Layer
from landscribe.maps.legends.style import colormap, new_side_files
from landscribe.maps.sieve import Sieve
from landscribe.maps.unit_store import UnitStore
from landscribe.outputs import remove_stale
from landscribe.prediction.plan import MapPlan

log = logging.getLogger(__name__)

_SIEVED = replace(CLASS, kind="generalised")
_CANDIDATE_SIDE = 256
"""Pixels; of the squares suggested for labelling, where the model's chip size is not known."""


@bounded_block_cache()
def finish(plan: MapPlan, store: UnitStore) -> Path:
    """Assemble the units of a map into its files, and remove the store.

    Args:
        plan: of the map.
        store: by `run`, with all units done.

    Returns:
        The map, a Cloud Optimized GeoTIFF of class values (uint8, nodata 255), with `.qml` and `.aux.xml`.

    Raises:
        OutputError: a file cannot be written. UnfinishedError, if units are kept for the same command.
    """
    with store.session():
        areas = {unit: store.areas(unit) for unit in plan.units}
        _Assembler(plan, store, {unit: part for unit, part in areas.items() if part.pixels}).write()
    store.remove()
    return plan.paths.map


@dataclass(frozen=True)
class _Assembler:
    """Builds all files inside the store, then moves them out."""

    plan: MapPlan
    store: UnitStore
    areas: dict[Unit, ClassAreas]
    """Of the units that have mapped pixels."""

    def write(self) -> None:
        """Write all files, the map last: when it exists, everything does."""
        layer, parts = CLASS, list(self.areas.values())
        if self.plan.sieve is not None:
            layer, parts = _SIEVED, self._sieve(self.plan.sieve)
        areas = total_areas(self.plan.classes, parts)
        out = self.plan.paths.map
        built = [*self._layers(), (self._map(layer, areas), out)]
        for file, path in built:
            remove_stale(path)
            move_into_place(file, path, new_side_files(out, self.plan.classes) if path == out else {})
        log.info("%s: %s", out.name, format_areas(areas))

    def _map(self, layer: Layer, areas: Areas) -> Path:
        classes = self.plan.classes
        tags = {AREAS_TAG: json.dumps(areas), CLASSES_TAG: classes_as_tag(classes)}
        return self._assemble(layer, BandMetadata(layer.band_names(classes), self._tags() | tags, colormap(classes)))

    def _layers(self) -> list[tuple[Path, Path]]:
        """Built files of the optional layers, and where they go."""
        paths, built = self.plan.paths, list[tuple[Path, Path]]()
        for layer in self.plan.layers[1:]:
            file = self._assemble(layer, BandMetadata(layer.band_names(self.plan.classes), self._tags()))
            if layer == UNCERTAINTY and paths.suggested_labels is not None:
                built.append((self._candidates(file, paths.suggested_labels), paths.suggested_labels))
            if (path := paths.of(layer.output)) is not None:
                built.append((file, path))
        return built

    def _candidates(self, uncertainty: Path, out: Path) -> Path:
        side = self.plan.predictor.models[0].chip_size or _CANDIDATE_SIDE
        file = self.store.folder / out.name
        write_candidates(most_uncertain(uncertainty, side), self.plan.raster.grid, file, self.store.fingerprint.sha256)
        return file

    def _assemble(self, layer: Layer, metadata: BandMetadata) -> Path:
        return assemble(self.store, tuple(self.areas), self.plan.raster.grid, layer, metadata)

    def _tags(self) -> dict[str, str]:
        models = self.plan.predictor.models
        return (
            model_tags(models)
            | trained_tag(models)
            | {
                "LANDSCRIBE_SOURCE": ", ".join(Path(without_secrets(path)).name for path in self.plan.raster.paths),
                RUN_TAG: self.store.fingerprint.sha256,
                FINGERPRINT_TAG: json.dumps(self.store.fingerprint.fields),
            }
        )

    def _sieve(self, sieve: Sieve) -> list[ClassAreas]:
        """Write units without small patches, each read with its halo; the areas that they hold now."""
        units: Sequence[Unit] = tuple(self.areas)
        grid, areas = self.plan.raster.grid, []
        files = unit_sources(self.store, units, CLASS)
        sources = Sources(files, bands=1, dtype=CLASS.dtype, nodata=CLASS.nodata)
        with progress.task("sieving", len(units)) as advance:
            for unit in units:
                window = unit.keep.grown(sieve.halo) & grid.window
                values = sources.read(window)[0]
                kept = sieve.apply(values)[unit.keep.relative_to(window).slices]
                self.store.write_layer(unit, kept[None], _SIEVED, grid)
                areas.append(ClassAreas.of(kept, grid[unit.keep]))
                advance()
        return areas
