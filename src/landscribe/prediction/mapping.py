"""Map a raster: plan, predict what is missing, assemble."""

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rasterio
import torch

from landscribe import progress
from landscribe.engine import run_units
from landscribe.errors import ModelError, OutputError, RasterError
from landscribe.geo.raster import Raster
from landscribe.geo.style import CLASSES_TAG, aux_xml, classes_as_tag, colormap, qml
from landscribe.geo.tiling import Unit, units
from landscribe.model import Model
from landscribe.outputs import refuse_existing, require_writable, write_text
from landscribe.prediction.assembly import Layer, assemble, placed
from landscribe.prediction.fit import fitted
from landscribe.prediction.parts import CLASS, PROBABILITY, Parts, begun
from landscribe.prediction.spec import PredictSpec
from landscribe.prediction.unit import PROBABILITY_STEPS, predict_unit

RUN_TAG = "LANDSCRIBE_RUN"
# GDAL would otherwise keep up to a twentieth of the machine's memory in decoded blocks.
_BLOCK_CACHE_MB = 256


def predict(
    model: Model,
    raster: Raster,
    out: Path,
    *,
    spec: PredictSpec,
    probabilities: Path | None = None,
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
        probabilities: also write these, one band per class, uint8 in steps of 1/254, nodata 255.
        overwrite: replace `out`, or the unfinished parts of another map there.

    Returns:
        `out`.

    Raises:
        ModelError: the raster does not fit the model.
        RasterError: it cannot be read, or has no valid pixel.
        OutputError: `out` stands already, or cannot be written.
    """
    raster = fitted(model, raster, spec)
    _require_places_apart(raster, out, probabilities)
    device = _device(spec.device)
    plan = _plan(model, raster, spec, device, with_probabilities=probabilities is not None)
    planned = list(units(raster.grid.height, raster.grid.width, **plan["tiling"]))
    parts = Parts.of(out, plan)
    if _is_finished(out, probabilities, parts.run):
        if parts.is_begun():
            parts.remove()
        return out
    refuse_existing(out, overwrite=overwrite)
    if probabilities is not None:
        refuse_existing(probabilities, overwrite=overwrite)
        require_writable(probabilities)
    model.network.to(device).eval().to(memory_format=torch.channels_last)
    with begun(parts, raster.paths, overwrite=overwrite), rasterio.Env(GDAL_CACHEMAX=_BLOCK_CACHE_MB):
        _predict_missing(model, raster, planned, parts, batch=plan["batch"], probabilities=probabilities is not None)
        if not any(parts.valid_pixels(unit) for unit in planned):
            raise RasterError(
                f"{raster.paths[0]} has no valid pixel: all are nodata ({raster.nodata}). Imagery was expected. "
                "Check the file, or override nodata."
            )
        _write_maps(model, raster, planned, parts, out, probabilities)
    parts.remove()
    return out


def _require_places_apart(raster: Raster, out: Path, probabilities: Path | None) -> None:
    """Refuse to write over what is read, or two results over one another."""
    if probabilities is not None and probabilities.resolve() == out.resolve():
        raise OutputError(f"{out} is the place of both the map and the probabilities. Give each its own.")
    read = {Path(path).resolve() for path in raster.paths}
    for place in (out, probabilities):
        if place is not None and place.resolve() in read:
            raise OutputError(f"{place} is the raster that is to be mapped. Nothing was changed. Choose another place.")


def _plan(
    model: Model, raster: Raster, spec: PredictSpec, device: torch.device, *, with_probabilities: bool
) -> dict[str, Any]:
    """Everything that the map's bytes depend on."""
    align = model.reduction
    return {
        "model": model.sha256,
        "raster": [_fingerprint(path) for path in raster.paths],
        "nodata": str(raster.nodata),
        "bands": list(raster.bands),
        "tiling": {
            "size": max(align, spec.tile // align * align),
            "margin": spec.margin,
            "align": align,
            "side": spec.unit,
        },
        "batch": spec.batch or (1 if device.type == "cpu" else 4),
        "probabilities": with_probabilities,
        "device": device.type,
    }


def _fingerprint(path: str) -> list[Any]:
    """Name, size and time of change of a file; the name alone of what is no local file."""
    local = Path(path)
    if not local.exists():
        return [path]
    stat = local.stat()
    return [local.name, stat.st_size, stat.st_mtime_ns]


def _is_finished(out: Path, probabilities: Path | None, run: str) -> bool:
    """True if the files that stand there are what this run would write."""
    return all(path is None or (path.exists() and _run_of(path) == run) for path in (out, probabilities))


def _run_of(path: Path) -> str | None:
    try:
        with rasterio.open(path) as source:
            tag = source.tags().get(RUN_TAG)
            return None if tag is None else str(tag)
    except rasterio.errors.RasterioIOError:
        return None


def _predict_missing(
    model: Model, raster: Raster, planned: Sequence[Unit], parts: Parts, *, batch: int, probabilities: bool
) -> None:
    missing = [unit for unit in planned if not parts.is_done(unit)]
    done = sum(len(unit.tiles) for unit in planned) - sum(len(unit.tiles) for unit in missing)
    task = partial(_predict_and_put, model, raster, parts, batch=batch, probabilities=probabilities)
    with progress.task(f"mapping {raster.name}", done + sum(len(unit.tiles) for unit in missing)) as advance:
        advance(done, "resumed" if done else "")
        for unit, _ in run_units(task, missing):
            advance(len(unit.tiles))


def _predict_and_put(
    model: Model, raster: Raster, parts: Parts, unit: Unit, *, batch: int, probabilities: bool
) -> None:
    with torch.inference_mode():
        prediction = predict_unit(model, raster, unit, batch=batch, probabilities=probabilities)
    parts.put(unit, prediction, raster.grid)


def _write_maps(
    model: Model, raster: Raster, planned: Sequence[Unit], parts: Parts, out: Path, probabilities: Path | None
) -> None:
    tags = {
        "AREA_OR_POINT": "Area",
        RUN_TAG: parts.run,
        "LANDSCRIBE_VERSION": version("landscribe"),
        "LANDSCRIBE_MODEL_SHA256": model.sha256,
        "LANDSCRIBE_SOURCE": ", ".join(Path(path).name for path in raster.paths),
    }
    finished = []
    if probabilities is not None:
        layer = Layer(PROBABILITY, model.classes.names, tags, scale=1 / PROBABILITY_STEPS, resampling="AVERAGE")
        finished.append((assemble(parts, planned, raster.grid, layer), probabilities))
    class_tags = tags | {CLASSES_TAG: classes_as_tag(model.classes)}
    layer = Layer(CLASS, ("class",), class_tags, colormap(model.classes))
    mapped = assemble(parts, planned, raster.grid, layer)
    # The map comes last: when it is there, it is there with its names and colours.
    for side, text in ((out.with_suffix(".qml"), qml(model.classes)), (_aux(out), aux_xml(model.classes))):
        write_text(parts.folder / side.name, text)
        finished.append((parts.folder / side.name, side))
    for built, place in (*finished, (mapped, out)):
        placed(built, place)


def _aux(out: Path) -> Path:
    return out.with_name(f"{out.name}.aux.xml")


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"device '{name}' cannot be used: {reason}. Use auto, cpu, cuda or mps.") from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
