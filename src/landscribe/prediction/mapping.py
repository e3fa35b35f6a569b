"""Map a raster: plan, predict what is missing, finish."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from landscribe.errors import OutputError, RasterError
from landscribe.geo.access import bounded_block_cache, without_secrets
from landscribe.geo.classes import Classes
from landscribe.geo.features import Features
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.tiling import Unit, units
from landscribe.inference.backends import device_of, fastest
from landscribe.inference.predictor import Predictor
from landscribe.maps.areas import told
from landscribe.maps.candidates import run_of
from landscribe.maps.layers import CLASS, EXACT_PROBABILITY, PROBABILITY, UNCERTAINTY, Layer
from landscribe.maps.sieve import Generalisation
from landscribe.maps.unit_store import Parts, begun
from landscribe.model import Model
from landscribe.outputs import write_text
from landscribe.prediction.compatibility import fitted, require_same_size
from landscribe.prediction.finish import LABEL_SIDE, RUN_TAG, Finish, side_files
from landscribe.prediction.output_paths import Places
from landscribe.prediction.plan import areas_of, chosen_before, plan_in, require_unchanged, stated, tags_of
from landscribe.prediction.receptive_field import redundancy
from landscribe.prediction.run import Mapping, predict_missing
from landscribe.prediction.seams import check_seams
from landscribe.prediction.spec import PredictSpec
from landscribe.prediction.tiling import Tiling, chosen
from landscribe.prediction.unit import Way

log = logging.getLogger(__name__)

_AFTER_SHARDS = "When all shards have ended, the same command without --shard makes the map."


@bounded_block_cache()
def predict(
    model: Model,
    raster: Raster,
    out: Path,
    *,
    spec: PredictSpec,
    probabilities: Path | None = None,
    uncertainty: Path | None = None,
    label_next: Path | None = None,
    others: Sequence[Model] = (),
    overwrite: bool = False,
) -> Path:
    """Map a raster; memory does not grow with its size.

    The work is done in units that are written as they are finished, so that the same call goes on where an
    interrupted one was. A finished map of the same raster, model and settings is left as it is.

    Args:
        model: its network is moved to the device and set to eval mode.
        raster: what to map.
        out: the map, a Cloud Optimized GeoTIFF of class values (uint8, nodata 255), with `.qml` and `.aux.xml`.
        spec: tiles, margin, units, bands, device.
        probabilities: also write these, one band per class, uint8 in steps of 1/254 (nodata 255), or float32.
        uncertainty: also write the entropy of the class probabilities, from 0 (certain) to 1 (all alike), uint8 in
            steps of 1/254, nodata 255.
        label_next: also write the places where a label would teach most, as polygons (.gpkg or .geojson).
        others: further models with the same bands and classes, whose probabilities are averaged with the first's.
        overwrite: replace what stands there, or the unfinished parts of another map.

    Returns:
        `out`.

    Raises:
        ModelError: the raster does not fit the model, or the models do not fit together.
        RasterError: it cannot be read, or has no valid pixel.
        OutputError: a result stands already, or cannot be written.
        UnfinishedError: some of its units could not be mapped, or something went away or filled up in the middle; the
            units that are done are kept for the same call.
    """
    places = Places(out, probabilities, uncertainty, label_next)
    raster = fitted(model, raster, spec)
    require_same_size(others, raster, spec)
    area = None if spec.area is None else Features.read(spec.area).require_overlap(raster.grid, raster.paths[0])
    places.require_apart(raster.paths)
    generalisation = _generalisation(raster, spec)
    layers = _layers(places, spec)
    predictor = Predictor([model, *others], device=device_of(spec.device), symmetries=spec.symmetries)
    plan = _plan(predictor, raster, spec, layers, out)
    predictor.engine = plan["engine"]
    if spec.check_seams:
        log.info("%s", check_seams(predictor, raster, _tiling(plan)))
    planned = list(units(*raster.grid.shape, **plan["tiling"]))
    parts = Parts.of(out, plan)
    if _stands(places, parts, overwrite=overwrite):
        return _confirmed(out, model.classes)
    with begun(parts, overwrite=overwrite, alone=spec.shard is None):
        way = Way(layers, batch=plan["batch"], is_blended=spec.blend == "gaussian")
        predict_missing(Mapping(predictor, raster, parts, way, area), planned, spec)
        require_unchanged(raster, plan)
        if spec.shard is not None:
            # Also the last of them makes no map: two that end at once would make it over one another.
            log.info("%d of %d units are done. %s", sum(map(parts.is_done, planned)), len(planned), _AFTER_SHARDS)
            return out
        _require_any(raster, parts, planned, spec)
        Finish(
            parts, planned, raster.grid, model.classes, layers, generalisation, _provenance(predictor, raster),
            model.chip_size or LABEL_SIDE,
        ).write(places)  # fmt: skip
    parts.remove()
    return out


def _stands(places: Places, parts: Parts, *, overwrite: bool) -> bool:
    """True if the very files that are asked for are there.

    Raises:
        OutputError: others stand in their place.
    """
    out = places.map
    own = {path for path in places.rasters if tags_of(path).get(RUN_TAG) == parts.run}
    if places.label_next is not None and run_of(places.label_next) == parts.run:
        own.add(places.label_next)
    if own == set(places):
        if parts.is_begun():
            parts.remove()
        return True
    if not overwrite and out not in own and (differs := parts.differs(plan_in(out))):
        raise OutputError(
            f"{out} exists already, a map with another {differs}. Nothing was changed. Choose another place or pass "
            "--overwrite."
        )
    # When a run was killed between its files, some stand already.
    places.require_free(overwrite=overwrite, own=own)
    return False


def _confirmed(out: Path, classes: Classes) -> Path:
    """Say that a map stands, and put back what is lost of its style."""
    for side, text in side_files(out, classes).items():
        if not side.exists():
            write_text(side, text)
    log.info("%s is there already: the same map of the same raster. Nothing was done", out)
    log.info("%s: %s", out.name, told(areas_of(out)))
    return out


def _require_any(raster: Raster, parts: Parts, planned: Sequence[Unit], spec: PredictSpec) -> None:
    """Raise RasterError if nothing was mapped."""
    if not any(parts.content(unit).pixels for unit in planned):
        raise RasterError(
            f"{raster.paths[0]} has no valid pixel{' in ' + spec.area if spec.area else ''}: all are nodata "
            f"({raster.nodata}). Imagery was expected. Check the file, or override nodata."
        )


def _layers(places: Places, spec: PredictSpec) -> tuple[Layer, ...]:
    """What is to be predicted for these places."""
    wanted = [CLASS]
    if places.probabilities is not None:
        wanted.append(PROBABILITY if spec.probabilities_as == "uint8" else EXACT_PROBABILITY)
    if places.uncertainty is not None or places.label_next is not None:
        wanted.append(UNCERTAINTY)
    return tuple(wanted)


def _generalisation(raster: Raster, spec: PredictSpec) -> Generalisation | None:
    if spec.minimum_area is None:
        return None
    side = raster.grid.pixel_size
    if side is None:
        raise RasterError(
            f"{raster.paths[0]} has no CRS, so that the size of its pixels is not known, but patches below "
            f"{spec.minimum_area:g} m² are to be dissolved. Assign its CRS (gdal_edit.py -a_srs), or leave that out."
        )
    pixels, ground = math.ceil(spec.minimum_area / side**2), math.prod(raster.grid.shape) * side**2
    if spec.minimum_area > ground:
        raise RasterError(
            f"patches below {spec.minimum_area:g} m² are to be dissolved, but all of {raster.paths[0]} is "
            f"{ground:.4g} m². Ask for a smaller minimum area."
        )
    return Generalisation(pixels)


def _provenance(predictor: Predictor, raster: Raster) -> dict[str, str]:
    return {
        "LANDSCRIBE_MODEL_SHA256": ", ".join(model.sha256 for model in predictor.models),
        "LANDSCRIBE_SOURCE": ", ".join(Path(without_secrets(path)).name for path in raster.paths),
    }


def _plan(
    predictor: Predictor, raster: Raster, spec: PredictSpec, layers: tuple[Layer, ...], out: Path
) -> dict[str, Any]:
    """All that the map's bytes depend on."""
    plan, asked = stated(predictor, raster, spec, layers), _asked(predictor, spec)
    choice = chosen_before(out, plan, asked)
    if choice is None:
        own = _choice(predictor, raster, spec)
        # That takes seconds, in which another shard may have begun with its own.
        choice = chosen_before(out, plan, asked) or own
    return plan | choice


def _tiling(plan: dict[str, Any]) -> Tiling:
    tile, margin = plan["tiling"]["size"], plan["tiling"]["margin"]
    return Tiling(tile, margin, plan["batch"], redundancy(tile, margin))


def _asked(predictor: Predictor, spec: PredictSpec) -> dict[str, Any]:
    """What of the tiling and the engine is not left to the machine."""
    settings: dict[str, Any] = {
        "margin": spec.margin,
        "batch": spec.batch or "auto",
        "engine": spec.engine,
        "side": spec.unit,
    }
    if "auto" in (spec.tile, spec.margin):
        settings["tolerance"] = spec.tolerance
    if spec.tile != "auto":
        align = predictor.reduction
        settings["size"] = max(align, spec.tile // align * align)
    return {name: value for name, value in settings.items() if value != "auto"}


def _choice(predictor: Predictor, raster: Raster, spec: PredictSpec) -> dict[str, Any]:
    """Tiles, batch and engine for this raster on this machine."""
    tiling = chosen(predictor, raster, spec, tolerance=spec.tolerance)
    engine: str = spec.engine
    if engine == "auto":
        work = math.prod(raster.grid.shape) * tiling.redundancy
        shape = {"tile": tiling.tile, "batch": tiling.batch}
        engines = {fastest(model, **shape, device=predictor.device, pixels=work) for model in predictor.models}
        # One that is right for all of them; torch is for any.
        engine = engines.pop() if len(engines) == 1 else "torch"
    cut = {"size": tiling.tile, "margin": tiling.margin, "align": predictor.reduction, "side": spec.unit}
    return {
        "tiling": cut | ({"overlapping": True} if spec.blend == "gaussian" else {}),
        "batch": tiling.batch,
        "engine": engine,
        "tolerance": spec.tolerance,
    }
