"""Plan: everything that is decided before a raster is mapped, once.

The fingerprint of a plan decides whether two maps are the same map. Some of its fields are fixed by the user, some are
chosen for the machine (tile, margin, batch, engine). A map that was begun or finished keeps its choices, so that the
same command makes the same map, also on another day or machine.
"""

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from landscribe.errors import RasterError, counted
from landscribe.fingerprint import Fingerprint
from landscribe.geo.access import bounded_block_cache
from landscribe.geo.classes import Classes
from landscribe.geo.features import Features, intersects
from landscribe.geo.grid import ASSIGN_CRS, Window
from landscribe.geo.pixel_area import pixel_areas
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.source_files import file_state, files_of, raster_state
from landscribe.geo.rasters.whole_files import require_geotiff_holds
from landscribe.geo.tiling import Unit, aligned, rounded_up, units
from landscribe.inference.backends.choice import allowed_backends, default_backend, fastest_backend
from landscribe.inference.device import resolve_device
from landscribe.inference.memory import estimated_memory
from landscribe.inference.predictor import Predictor
from landscribe.machine import require_memory
from landscribe.maps.class_map import fingerprint_in, read_tags
from landscribe.maps.layers import EXACT_PROBABILITY, OBJECT_PROBABILITY, PROBABILITY, UNCERTAINTY, Layer, class_layer
from landscribe.maps.output_paths import OutputPaths
from landscribe.maps.sieve import Sieve
from landscribe.maps.unit_store import UnitStore, unfinished_fingerprint
from landscribe.model import Model
from landscribe.prediction.compatibility import (
    conform,
    require_object_heads,
    require_same_pixel_size,
    resolve_threshold,
)
from landscribe.prediction.spec import CHOSEN, NOT_IN_FINGERPRINT, PredictSpec
from landscribe.prediction.tiling import Tiling, choose_tiling, overlap_overhead
from landscribe.prediction.unit import UnitOptions
from landscribe.texts import area_text

log = logging.getLogger(__name__)

_ALWAYS_FIT = 2**22
"""Pixels of a batch for which the network is not traced to estimate its memory."""
_UNEVEN = 1.25
"""Largest pixel in smallest ones up to which a minimum area is one number of pixels without a warning."""
_STEPS = 4
"""Parts of a raster's rows and columns, at whose ends pixels are measured for that."""


@dataclass(frozen=True)
class MapPlan:
    """How one raster is mapped. The map's bytes depend on nothing else but how the processor rounds."""

    raster: Raster
    """As the networks see it: their bands, nodata value, pixel size and CRS."""
    predictor: Predictor
    """One network or an ensemble, with its backend and device."""
    paths: OutputPaths
    spec: PredictSpec
    """Its threshold is a number or None."""
    layers: tuple[Layer, ...]
    """The layers to predict, the class map first."""
    tiling: Tiling
    area: Features | None
    """Area of interest, in the raster's CRS; all of the raster if None."""
    sieve: Sieve | None
    fingerprint: Fingerprint

    @property
    def classes(self) -> Classes:
        """Of the map."""
        return self.predictor.classes

    @property
    def store(self) -> UnitStore:
        """Where the units are kept until the map is assembled."""
        return UnitStore.of(self.paths.map, self.fingerprint)

    @property
    def unit_options(self) -> UnitOptions:
        """How each unit is predicted."""
        return UnitOptions(self.layers, batch=self.tiling.batch, is_blended=self.spec.is_blended)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """The units of the map that may hold a mapped pixel, in row order."""
        if not self._may_map(self.raster.grid.window):
            return ()
        height, width = self.raster.grid.shape
        planned = units(
            height, width, size=self.tiling.tile, margin=self.tiling.margin, align=self.predictor.reduction,
            side=self.spec.unit, overlapping=self.spec.is_blended,
        )  # fmt: skip
        kept: list[Unit] = []
        for _, row in groupby(planned, key=lambda unit: unit.row):
            # Most rows of a sparse raster are empty: one question answers for all of their units.
            strip = tuple(row)
            if self._may_map(replace(strip[0].keep, width=width)):
                kept += (unit for unit in strip if self._may_map(unit.keep))
        return tuple(kept)

    def _may_map(self, window: Window) -> bool:
        is_in_area = self.area is None or intersects(self.area, self.raster.grid[window])
        return is_in_area and self.raster.may_hold_valid(window)


@dataclass(frozen=True)
class Planner:
    """Plans maps with the same layers one by one; they share what is built of the networks."""

    predictor: Predictor
    spec: PredictSpec
    """Its threshold is a number or None."""

    @classmethod
    def of(cls, model: Model, spec: PredictSpec, out: OutputPaths, ensemble: Sequence[Model] = ()) -> "Planner":
        """Prepare the networks for the maps of some rasters.

        Args:
            model: its network is moved to the device; of one in training mode, a copy.
            spec: tiles, margin, units, bands, device.
            out: the files of any of the maps, whose layers are those of all.
            ensemble: further models with the same bands and classes, whose probabilities are averaged with the first's.

        Raises:
            ModelError: the threshold or the outputs do not fit the models, or these do not fit together.
        """
        models = [model, *ensemble]
        spec = spec.model_copy(update={"threshold": resolve_threshold(spec, models)})
        if out.object_probabilities is not None:
            require_object_heads(models)
        heads = tuple(dict.fromkeys(head for layer in _layers(out, spec) for head in layer.heads))
        return cls(Predictor(models, device=resolve_device(spec.device), tta=spec.tta, heads=heads), spec)

    @bounded_block_cache()
    def plan(self, raster: Raster, out: OutputPaths, windows: Sequence[Window] | None = None) -> MapPlan:
        """Decide how a raster is mapped; nothing is written but what is learned about the models.

        Plan a map right before it is written: a shard takes over the choices of the shard that began the map.

        Args:
            raster: the input.
            out: the files to write.
            windows: of the map, at least one, in place of the area of interest. Their pixels are as if all of it were
                mapped; of the other pixels, at most those that decide about small patches are mapped.

        Raises:
            ModelError: the raster does not fit the models.
            GridError: the raster cannot be brought into the CRS, or the area of interest does not overlap it.
            OutputError: two outputs share a path, or an output is an input.
        """
        model, *ensemble = self.predictor.models
        spec, raster = self.spec, conform(model, raster, self.spec)
        require_same_pixel_size(ensemble, raster, spec)
        out.require_distinct(input_files(raster, spec))
        name = raster.paths[0]
        require_geotiff_holds(raster.grid, name if spec.crs is None else f"the map of {name}")
        sieve, layers = _sieve(raster, spec), _layers(out, spec)
        area = _area(raster, spec, windows, sieve)
        fixed = _fixed_fields(self.predictor, raster, spec, layers)
        if windows is not None:
            fixed["area"] = hashlib.sha256(repr(list(windows)).encode()).hexdigest()
        tiling, engine, choice = _choice(self.predictor, raster, spec, fixed, out)
        _require_memory(self.predictor, raster, tiling)
        predictor = self.predictor.with_backend(engine)
        return MapPlan(raster, predictor, out, spec, layers, tiling, area, sieve, Fingerprint.of(fixed | choice))


def input_files(raster: Raster, spec: PredictSpec) -> set[Path]:
    """All files that a map is computed from, resolved: of the raster, and of polygons."""
    areas = spec.area, None if raster.area is None else raster.area.name
    files = [*(file for path in raster.paths for file in files_of(path)), *(area for area in areas if area is not None)]
    return {Path(file).resolve() for file in files}


def _require_memory(predictor: Predictor, raster: Raster, tiling: Tiling) -> None:
    """Raise ResourceError if one batch of tiles needs more memory than this machine has; a GPU says so itself."""
    rows, cols = (min(tiling.tile, rounded_up(length, predictor.reduction)) for length in raster.grid.shape)
    if predictor.device.type == "cpu" and tiling.batch * rows * cols > _ALWAYS_FIT:
        require_memory(
            estimated_memory(predictor.models, (tiling.batch, rows, cols)) or 0,
            f"a batch of {counted(tiling.batch, 'tile')} of {cols} x {rows} pixels",
            "Pass --tile auto, or a smaller --tile or --batch.",
        )


def _area(raster: Raster, spec: PredictSpec, windows: Sequence[Window] | None, sieve: Sieve | None) -> Features | None:
    """The area of interest in the raster's CRS: windows with the pixels that decide about small patches in them."""
    if windows is not None:
        halo = 0 if sieve is None else sieve.halo
        return Features.of_windows("windows", [window.grown(halo) for window in windows], raster.grid)
    if spec.area is None:
        return None
    return Features.read(spec.area).on(raster.grid, raster.paths[0]).require_overlap(raster.grid, raster.paths[0])


def require_minimum_area(raster: Raster, minimum_area: float) -> None:
    """Raise RasterError if a raster has no CRS, by which m² are counted in pixels, or is smaller than the area."""
    pixel = _middle_pixel_area(raster)
    if math.isnan(pixel):
        raise RasterError(
            f"{raster.paths[0]} has no CRS, so a minimum area of {minimum_area:g} m² cannot be counted in pixels. "
            f"{ASSIGN_CRS}, or leave out --minimum-area."
        )
    ground = math.prod(raster.grid.shape) * pixel
    if minimum_area > ground:
        raise RasterError(
            f"the minimum area is {minimum_area:g} m², but all of {raster.paths[0]} is {ground:.4g} m². Choose a "
            "smaller minimum area."
        )


def _middle_pixel_area(raster: Raster) -> float:
    height, width = raster.grid.shape
    return _pixel_area(raster, height // 2, width // 2)


def _pixel_area(raster: Raster, row: int, col: int) -> float:
    """Area of a pixel in m²; nan without a CRS."""
    return float(np.mean(pixel_areas(raster.grid[Window(row, col, 1, 1)])))


def _sieve(raster: Raster, spec: PredictSpec) -> Sieve | None:
    if spec.minimum_area is None:
        return None
    require_minimum_area(raster, spec.minimum_area)
    pixel = _middle_pixel_area(raster)
    sieve = Sieve(math.ceil(spec.minimum_area / pixel))
    if sieve.min_pixels > sieve.extent:
        log.warning(
            "%s: a minimum area of %s is %s pixels. Smaller patches that span more than %d rows or columns stay; those "
            "below %s are all merged",
            raster.paths[0], area_text(spec.minimum_area), f"{sieve.min_pixels:,}", sieve.extent,
            area_text(sieve.extent * pixel),
        )  # fmt: skip
    _warn_of_uneven_pixels(raster, sieve)
    return sieve


def _warn_of_uneven_pixels(raster: Raster, sieve: Sieve) -> None:
    """Warn where as many pixels are a much larger area in one part of a raster than in another."""
    rows, cols = (
        sorted({length * step // _STEPS for step in range(_STEPS)} | {length - 1}) for length in raster.grid.shape
    )
    areas = [_pixel_area(raster, row, col) for row in rows for col in cols]
    least, most = (sieve.min_pixels * bound for bound in (np.nanmin(areas), np.nanmax(areas)))
    if most > _UNEVEN * least:
        log.warning(
            "%s has pixels of different areas, so the smallest patch that stays, of %s pixels, is %s in one part and "
            "%s in another. Map it in an equal-area CRS (--crs) for one minimum area",
            raster.paths[0], f"{sieve.min_pixels:,}", area_text(least), area_text(most),
        )  # fmt: skip


def _layers(out: OutputPaths, spec: PredictSpec) -> tuple[Layer, ...]:
    layers = [class_layer(spec.class_threshold)]
    if out.probabilities is not None:
        layers.append(PROBABILITY if spec.probabilities_as == "uint8" else EXACT_PROBABILITY)
    if out.uncertainty is not None or out.suggested_labels is not None:
        layers.append(UNCERTAINTY)
    if out.object_probabilities is not None:
        layers.append(OBJECT_PROBABILITY)
    return tuple(layers)


def _fixed_fields(predictor: Predictor, raster: Raster, spec: PredictSpec, layers: tuple[Layer, ...]) -> dict[str, Any]:
    """The fields of the fingerprint that are not chosen: inputs, and all settings but the named exclusions."""
    settings = spec.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT.keys() | CHOSEN)
    return (
        settings
        | {
            "model": [model.sha256 for model in predictor.models],
            "raster": [raster_state(path) for path in raster.paths],
            **raster.fingerprint_fields,
            "layers": [[layer.kind, layer.dtype, *layer.heads] for layer in layers],
            "device": predictor.device.type,
            "area": None if spec.area is None else file_state(spec.area),
        }
        | ({} if spec.threshold is None else {"threshold": spec.threshold})
    )


def _choice(
    predictor: Predictor, raster: Raster, spec: PredictSpec, fixed: dict[str, Any], out: OutputPaths
) -> tuple[Tiling, str, dict[str, Any]]:
    """Tiling, engine, and both as fields of the fingerprint: those of the map that exists, or the best ones here."""
    requested = _requested(predictor, spec)
    choice = _previous_choice(out, fixed, requested, spec)
    if choice is None:
        tiling = choose_tiling(predictor, raster, spec)
        own = _as_fields(tiling, _engine(predictor, raster, spec, tiling), spec)
        # Choosing takes seconds, in which another shard may have begun with its own choice.
        choice = _previous_choice(out, fixed, requested, spec) or own
    tile, margin, batch = choice["tile"], choice["margin"], choice["batch"]
    return Tiling(tile, margin, batch, overlap_overhead(tile, margin)), choice["engine"], choice


def _as_fields(tiling: Tiling, engine: str, spec: PredictSpec) -> dict[str, Any]:
    return {
        "tile": tiling.tile,
        "margin": tiling.margin,
        "batch": tiling.batch,
        "engine": engine,
        "tolerance": spec.tolerance,
    }


def _requested(predictor: Predictor, spec: PredictSpec) -> dict[str, Any]:
    """The chosen fields that the user fixed."""
    fields: dict[str, Any] = {"margin": spec.margin, "batch": spec.batch or "auto", "engine": spec.engine}
    # The tolerance decides about engines of 16 bits, too.
    if "auto" in (spec.tile, spec.margin) or (spec.engine == "auto" and spec.precision != "32"):
        fields["tolerance"] = spec.tolerance
    if spec.tile != "auto":
        fields["tile"] = aligned(spec.tile, predictor.reduction)
    return {name: value for name, value in fields.items() if value != "auto"}


def _previous_choice(
    out: OutputPaths, fixed: dict[str, Any], requested: dict[str, Any], spec: PredictSpec
) -> dict[str, Any] | None:
    """What was chosen when the same map was begun or finished; None if there is none."""
    engines = allowed_backends(spec.precision, on_dask=spec.dask is not None)
    for fields in (unfinished_fingerprint(out.map), fingerprint_in(read_tags(out.map))):
        choice = {name: fields[name] for name in CHOSEN if name in fields}
        is_same = fields.keys() - CHOSEN == fixed.keys() and all(
            fields.get(name) == value for name, value in (fixed | requested).items()
        )
        if len(choice) == len(CHOSEN) and is_same and choice["engine"] in engines:
            return choice
    return None


def _engine(predictor: Predictor, raster: Raster, spec: PredictSpec, tiling: Tiling) -> str:
    """The backend that the user asked for, or the fastest one that is right for all networks."""
    if spec.engine != "auto":
        return spec.engine
    pixels = math.prod(raster.grid.shape) * tiling.overlap_overhead
    engines = {
        fastest_backend(
            model, tile=tiling.tile, batch=tiling.batch, device=predictor.device, pixels=pixels,
            precision=spec.precision, tolerance=spec.tolerance, on_dask=spec.dask is not None,
        )
        for model in predictor.models
    }  # fmt: skip
    return engines.pop() if len(engines) == 1 else default_backend(spec.precision)
