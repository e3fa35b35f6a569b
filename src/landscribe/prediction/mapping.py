"""Map a raster: plan, predict what is missing, assemble."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rasterio
import torch

from landscribe import progress
from landscribe.engine import Outcome, run_on_dask, run_units, share_of
from landscribe.errors import ModelError, OutputError, RasterError, UnfinishedError
from landscribe.geo.features import Features, covered
from landscribe.geo.raster import Pixels, Raster, Valid
from landscribe.geo.style import CLASSES_TAG, aux_xml, classes_as_tag, colormap, qml
from landscribe.geo.tiling import Unit, units
from landscribe.model import Model
from landscribe.outputs import refuse_existing, require_writable, write_text
from landscribe.prediction.assembly import Layer, assemble, placed
from landscribe.prediction.fit import fitted
from landscribe.prediction.margin import measure_reach, redundancy
from landscribe.prediction.parts import CLASS, PROBABILITY, Parts, begun
from landscribe.prediction.spec import PredictSpec
from landscribe.prediction.unit import PROBABILITY_STEPS, Prediction, Way, predict_unit

log = logging.getLogger(__name__)

RUN_TAG = "LANDSCRIBE_RUN"
# GDAL would otherwise keep up to a twentieth of the machine's memory in decoded blocks.
_BLOCK_CACHE_MB = 256
# Of the units that failed; more of them make no line that people read.
_MOST_TOLD = 2


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
        UnfinishedError: some of its units could not be mapped.
    """
    raster = fitted(model, raster, spec)
    area = None if spec.area is None else Features.read(spec.area).on(raster.grid, raster.paths[0])
    _require_places_apart(raster, out, probabilities)
    device = _device(spec.device)
    spec = _with_margin(model, raster, spec, device)
    plan = _plan(model, raster, spec, device, with_probabilities=probabilities is not None)
    planned = list(units(raster.grid.height, raster.grid.width, **plan["tiling"]))
    parts = Parts.of(out, plan)
    if _is_finished(out, probabilities, parts.run):
        if parts.is_begun():
            parts.remove()
        return out
    for place in (out, probabilities):
        if place is not None:
            # One of the two may stand already, of this very run when it was killed.
            refuse_existing(place, overwrite=overwrite or (place.exists() and _run_of(place) == parts.run))
    if probabilities is not None:
        require_writable(probabilities)
    model.network.to(device).eval().to(memory_format=torch.channels_last)
    with begun(parts, raster.paths, overwrite=overwrite):
        way = Way(batch=plan["batch"], probabilities=probabilities is not None, symmetries=spec.symmetries)
        mapping = _Mapping(model, raster, parts, way, area)
        _predict_missing(mapping, planned, spec)
        _require_unchanged(raster, plan)
        if spec.shard is not None:
            # Also the last of them makes no map: two that end at once would make it over one another.
            log.info(
                "%d of %d units are done. When all shards have ended, the same command without --shard makes the map.",
                sum(map(parts.is_done, planned)), len(planned),
            )  # fmt: skip
            return out
        if not any(map(parts.pixels, planned)):
            raise RasterError(
                f"{raster.paths[0]} has no valid pixel{' in ' + spec.area if spec.area else ''}: all are nodata "
                f"({raster.nodata}). Imagery was expected. Check the file, or override nodata."
            )
        _write_maps(model, raster, planned, parts, out, probabilities)
        log.info("%s: %s", out.name, _areas(model, raster, planned, parts))
    parts.remove()
    return out


def _areas(model: Model, raster: Raster, planned: Sequence[Unit], parts: Parts) -> str:
    """How much of each class was mapped: on the ground where the size of a pixel is known, and its share."""
    pixels = dict.fromkeys(model.classes.values, 0)
    ground = dict.fromkeys(model.classes.values, 0.0)
    for unit in planned:
        # Where degrees are the units, a pixel is not as large in the north as it is in the south.
        side = raster.grid[unit.keep].pixel_size or 0.0
        for value, count in parts.pixels(unit).items():
            pixels[value] += count
            ground[value] += count * side**2 / 1e6
    total = sum(pixels.values())
    return ", ".join(
        f"{entry.name} "
        + (f"{ground[entry.value]:.4g} km² " if raster.grid.crs else f"{pixels[entry.value]} pixels ")
        + f"({pixels[entry.value] / total:.1%})"
        for entry in model.classes
    )


def _with_margin(model: Model, raster: Raster, spec: PredictSpec, device: torch.device) -> PredictSpec:
    """The settings with a margin in pixels, and a tile that goes with it."""
    if spec.margin != "auto":
        return spec
    align = model.reduction
    tile = max(align, spec.tile // align * align)
    if max(raster.grid.shape) <= tile:
        return spec.model_copy(update={"margin": 0})
    model.network.to(device).eval().to(memory_format=torch.channels_last)
    reach = measure_reach(model, raster)
    if reach.is_global and model.chip_size:
        # Nothing is far enough from an edge: tiles are as large as what the network was trained on.
        tile = max(align, model.chip_size // align * align)
    margin = reach.margin(tile)
    log.info(
        "margin: %d pixels of tiles of %d (measured: %.2g of the pixels differ from a single pass), %.2f pixels are "
        "read for each that is kept%s", margin, tile, reach.share(margin, tile), redundancy(tile, margin),
        "; this network looks at tiles as a whole, so they are as large as in training" if reach.is_global else "",
    )  # fmt: skip
    return spec.model_copy(update={"tile": tile, "margin": margin})


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
        "symmetries": spec.symmetries,
        "area": spec.area and _fingerprint(spec.area),
    }


def _fingerprint(path: str) -> list[Any]:
    """Name, size and time of change of a file; the name alone of what is no local file."""
    local = Path(path)
    if not local.exists():
        return [path]
    stat = local.stat()
    return [local.name, stat.st_size, stat.st_mtime_ns]


def _require_unchanged(raster: Raster, plan: dict[str, Any]) -> None:
    """Raise RasterError if a file became another one while it was mapped: the map would be of both."""
    for path, before in zip(raster.paths, plan["raster"], strict=True):
        if _fingerprint(path) != before:
            raise RasterError(
                f"{path} was changed while it was mapped. One raster from beginning to end was expected. "
                "Nothing was written; map it again when it is whole."
            )


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


@dataclass(frozen=True)
class _Mapping:
    """A unit's work: read it with its halo, run the network, put what it made."""

    model: Model
    raster: Raster
    parts: Parts
    way: Way
    area: Features | None
    """Polygons that alone are mapped, in the raster's CRS."""

    def read(self, unit: Unit) -> tuple[Pixels, Valid, Valid | None]:
        with rasterio.Env(GDAL_CACHEMAX=_BLOCK_CACHE_MB):
            pixels, valid = self.raster.read(unit.read)
        return pixels, valid, None if self.area is None else covered(self.area, self.raster.grid[unit.keep])

    def compute(self, unit: Unit, read: tuple[Pixels, Valid, Valid | None]) -> Prediction | None:
        pixels, valid, wanted = read
        with torch.inference_mode():
            return predict_unit(self.model, unit, pixels, valid, self.way, wanted)

    def write(self, unit: Unit, computed: Prediction | None) -> None:
        self.parts.put(unit, computed, self.raster.grid)


def _predict_missing(mapping: _Mapping, planned: Sequence[Unit], spec: PredictSpec) -> None:
    """Map the units that are not done, or this shard's share of all.

    Raises:
        UnfinishedError: some of them could not be mapped; the others are done.
    """
    wanted = share_of(planned, spec.share)
    missing = [unit for unit in wanted if not mapping.parts.is_done(unit)]
    done = sum(len(unit.tiles) for unit in wanted) - sum(len(unit.tiles) for unit in missing)
    outcomes = run_units(mapping, missing) if spec.dask is None else run_on_dask(mapping, missing, spec.dask)
    failed: list[Outcome[Unit]] = []
    with progress.task(f"mapping {mapping.raster.name}", done + sum(len(unit.tiles) for unit in missing)) as advance:
        advance(done, "resumed" if done else "")
        for outcome in outcomes:
            advance(len(outcome.unit.tiles))
            if outcome.error is not None:
                failed.append(outcome)
    if failed and len(failed) == len(planned):
        # Nothing of it can be mapped: what is wrong is not a unit's.
        raise failed[0].error or AssertionError
    if failed:
        raise UnfinishedError(_told(failed, len(planned), mapping.parts))


def _told(failed: Sequence[Outcome[Unit]], planned: int, parts: Parts) -> str:
    """Which units failed, and why."""
    reasons = [
        f"rows {outcome.unit.keep.row} to {outcome.unit.keep.row_stop}, cols {outcome.unit.keep.col} to "
        f"{outcome.unit.keep.col_stop}: {' '.join(str(outcome.error).split()) or type(outcome.error).__name__}"
        for outcome in failed[:_MOST_TOLD]
    ]
    more = "; …" if len(failed) > _MOST_TOLD else ""
    return (
        f"{parts.folder.stem} is not finished: {len(failed)} of {planned} units could not be mapped "
        f"({'; '.join(reasons)}{more}). The others are kept in {parts.folder.name}: mend what is named and repeat the "
        "same command; it does what is missing."
    )


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
