"""Run: predict the missing units of a planned map, here or on many machines."""

import logging
import math
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch

from landscribe import progress
from landscribe.errors import (
    EngineError,
    OutsideError,
    RasterError,
    ReadError,
    ServerError,
    UnfinishedError,
    counted,
    is_out_of_memory,
)
from landscribe.executor import Outcome, run_on_dask, run_units, select_shard
from landscribe.geo.access import BLOCK_CACHE, bounded_block_cache, decoding_threads, is_remote
from landscribe.geo.features import Features
from landscribe.geo.grid import size_label
from landscribe.geo.rasters.nodata import nodata_label
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.source_files import require_unchanged
from landscribe.geo.tiling import Unit
from landscribe.geo.vectors.burning import rasterize_mask
from landscribe.inference.memory import budget
from landscribe.inference.predictor import Predictor, mapping_processes
from landscribe.machine import bytes_text, cores, free_disk, require_disk, total_memory
from landscribe.maps.assembly.beside import compressed_beside
from landscribe.maps.assembly.blocks import Blocks
from landscribe.maps.layers import Layer
from landscribe.maps.unit_store import SAME_FILE, UnitStore
from landscribe.prediction.plan import MapPlan
from landscribe.prediction.tiling import unit_bytes_per_pixel
from landscribe.prediction.unit import UnitInput, UnitOptions, UnitOutput, compute_unit, read_unit, send_unit

log = logging.getLogger(__name__)

_SMALL = 2**24
"""Pixels of a map up to which the backends stay in memory for the next one."""
_MOST_REASONS = 2
"""Failed units whose reasons the last line repeats."""
_MOST_WARNINGS = 5
"""Failed units that are warned about when they fail; a truncated file has thousands."""
_MOST_IN_A_ROW = 3
"""Consecutive units that a server may fail to send before it counts as lost: each was waited for, for minutes."""

_BEST_COMPRESSION = {"uint8": 1000, "float32": 20}
"""Uncompressed bytes per byte on disk at most. DEFLATE reaches 1032 where one class, or nodata, is all there is;
probabilities in float32 vary. On the synthetic world: classes 23, probabilities in uint8 2.8 and in float32 1.1,
uncertainty 1.4."""
_HEADED_PER_HOUR = 3e12
"""Bytes of all layers that GDAL goes through in an hour to write the heads of files, whether they are mapped or not."""
_LONG = 0.2
"""Hours to assemble a map that are worth a warning."""

_REMOTE_READERS = 8
"""Threads that read from a server at least: they wait for it longer than they decode (LOG.md, "Readers over HTTP")."""

_CACHE_OF_A_READER = 2**26
"""Bytes of GDAL's cache of decoded blocks for each thread that reads, twice what a unit of RGB holds."""


_COMPUTING: dict[torch.device, threading.Lock] = {}
"""By GPU, held while a unit is given to it. They are the module's, because locks cannot be pickled."""


@bounded_block_cache()
def run(plan: MapPlan, *, overwrite: bool = False) -> UnitStore:
    """Predict the units of a plan that are not done yet, or those of one shard.

    Units are independent and written one by one, so that an interrupted run resumes.

    Args:
        plan: by `Planner.plan`.
        overwrite: drop the unfinished units of another map.

    Returns:
        The store that holds the units; `finish` assembles them.

    Raises:
        RasterError: the raster cannot be read, changed meanwhile, or has no valid pixel.
        OutsideError: no centre of a pixel lies in the area of interest.
        OutputError: the store holds another map, or cannot be written.
        UnfinishedError: some units failed; the others are kept for the same call.
    """
    store, units, is_shard = plan.store, plan.units, plan.spec.shard is not None
    with store.session(overwrite=overwrite, is_shard=is_shard):
        _predict_missing(plan, store, units)
        require_unchanged(plan.raster.paths, plan.fingerprint.fields["raster"])
        if not is_shard:
            _require_any_pixel(plan, store, units)
    if math.prod(plan.raster.grid.shape) > _SMALL:
        # Assembly of a large map needs the memory; after a small one, the next map uses the backends.
        plan.predictor.release()
    return store


@dataclass(frozen=True)
class Workers:
    """Threads of this process that share a map. The bytes of the map do not depend on them."""

    readers: int = 1
    writers: int = 1
    decoding: int = 1
    """Threads in which GDAL decodes the blocks of one read."""

    @classmethod
    def of(cls, device: torch.device, unit_bytes: int, processes: int = 1, *, is_remote: bool = False) -> "Workers":
        """As many as feed the device within its memory and that of the machine, for units that take so many bytes.

        On a CPU the network takes all cores, so one thread reads the next unit and one writes the last one.

        Args:
            device: where the network runs.
            unit_bytes: of a unit while it is read and written.
            processes: that share cores and memory, each with a device of its own.
            is_remote: True if the raster is read from a server, whose answers take time.
        """
        if device.type != "cuda":
            return cls()
        own = max(1, cores() // processes)
        # Besides the units that are read and written, one is computed and one is read ahead.
        most = min(budget(device), total_memory() // 4 // processes) // unit_bytes - 2
        readers = min(max(own, _REMOTE_READERS if is_remote else 1), max(1, most * 2 // 3))
        return cls(readers, min(-(-own // 2), max(1, most - readers)), own)

    @property
    def block_cache(self) -> int:
        """Bytes of GDAL's cache of decoded blocks."""
        return max(BLOCK_CACHE, self.readers * _CACHE_OF_A_READER)


@dataclass(frozen=True)
class MapUnitTask:
    """The work on one unit: read it with its halo, predict it, write its layers. See `executor.Stages`."""

    predictor: Predictor
    raster: Raster
    store: UnitStore
    options: UnitOptions
    area: Features | None
    """Area of interest, in the raster's CRS."""
    workers: Workers = Workers()

    def read(self, unit: Unit) -> UnitInput | None:
        """Pixels of the unit and its halo, on their way to the device; None if nothing of it is to be mapped."""
        aoi = None if self.area is None else rasterize_mask(self.area, self.raster.grid[unit.keep])
        if aoi is not None and not aoi.any():
            return None
        # A Dask worker has not bounded GDAL's cache yet.
        with bounded_block_cache(self.workers.block_cache), _enough_memory(unit, self.options):
            with decoding_threads(self.workers.decoding):
                pixels, valid = read_unit(self.raster, unit)
            return send_unit(self.predictor, unit, pixels, valid, aoi)

    def compute(self, unit: Unit, read: UnitInput | None) -> UnitOutput | None:
        """Layers of the unit, maybe still on their way from the device; None if nothing of it is to be mapped."""
        if read is None:
            return None
        with _turn(self.predictor.local_device), torch.inference_mode(), _enough_memory(unit, self.options):
            return compute_unit(self.predictor, unit, read, self.options)

    def write(self, unit: Unit, computed: UnitOutput | None) -> None:
        """Write the layers to the store."""
        arrays, counts = (None, None) if computed is None else computed.arrays()
        self.store.write(unit, arrays, self.options.layers, self.raster.grid, counts)


def _turn(device: torch.device) -> AbstractContextManager[object]:
    """Hold back the other threads of a Dask worker: a GPU computes units in turn, in the memory of one of them."""
    return nullcontext() if device.type == "cpu" else _COMPUTING.setdefault(device, threading.Lock())


@contextmanager
def _enough_memory(unit: Unit, options: UnitOptions) -> Iterator[None]:
    """Raise EngineError if memory runs out: all units need as much."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        rows, cols = unit.tiles[0].read.shape
        raise EngineError(
            f"out of memory with batches of {counted(options.batch, 'tile')} of {cols} x {rows} pixels in units of "
            f"{size_label(unit.read.shape)}. Pass --tile auto, or a smaller --tile, --batch or --unit."
        ) from error


def _predict_missing(plan: MapPlan, store: UnitStore, planned: Sequence[Unit]) -> None:
    """Predict the units that are not done, or this shard's part of all.

    Raises:
        UnfinishedError: some failed; the others are done.
    """
    selected = select_shard(planned, plan.spec.shard_index)
    missing = [unit for unit in selected if not store.is_done(unit)]
    if len(missing) < len(selected):
        log.info("resuming: %d of %d units done", len(selected) - len(missing), len(selected))
    _require_disk(plan, missing)
    _foresee_assembly(plan)
    if not missing:
        return
    outcomes, workers = _outcomes(plan, store, missing)
    # Patches that are merged change the units first; a shard does not see all of them.
    is_final = plan.sieve is None and plan.spec.shard is None
    layers = [
        Blocks(store.folder, layer, plan.raster.grid.shape, len(layer.band_names(plan.classes)))
        for layer in plan.layers
    ]
    with (
        progress.task(_title(plan.raster), sum(len(unit.tiles) for unit in missing)) as advance,
        compressed_beside(store, planned, layers if is_final else (), workers.writers) as finished,
    ):
        failed, is_lost = _failures(outcomes, advance, finished)
    if failed:
        _raise_failures(failed, plan, store, len(planned), is_lost=is_lost)


def _outcomes(
    plan: MapPlan, store: UnitStore, missing: Sequence[Unit]
) -> tuple[Generator[Outcome[Unit], None, None], Workers]:
    """Predicts units, in threads of this process or with Dask, as the outcomes are taken; and those threads."""
    device, dask = plan.predictor.device, plan.spec.dask
    processes = 1 if dask is None else mapping_processes(device)
    remote = any(is_remote(path) for path in plan.raster.paths)
    # A GPU's Dask worker has as many threads as read for it: while one computes, the others read and write.
    workers = Workers.of(device, _unit_bytes(plan, missing), processes, is_remote=remote)
    # Machines of another scheduler may have other cores.
    own = workers if dask in (None, "auto") else Workers()
    task = MapUnitTask(plan.predictor, plan.raster, store, plan.unit_options, plan.area, own)
    if dask is None:
        return run_units(task, missing, readers=workers.readers, writers=workers.writers), workers
    plan.predictor.leave_device()
    return run_on_dask(task, missing, dask, processes=processes, threads=workers.readers), workers


def _unit_bytes(plan: MapPlan, units: Sequence[Unit]) -> int:
    """Bytes of the largest of some units while it is read and written."""
    return max(math.prod(unit.read.shape) for unit in units) * unit_bytes_per_pixel(plan.predictor, plan.spec)


def _require_disk(plan: MapPlan, missing: Sequence[Unit]) -> None:
    """Raise ResourceError if a disk is too small for the files of a map, however well they compress.

    A disk that is too small for the uncompressed files gives a warning.
    """
    written, mapped = (sum(math.prod(unit.keep.shape) for unit in units) for units in (missing, plan.units))
    assembled = mapped if plan.spec.shard is None else 0
    # Units, compressed blocks and assembled files lie beside the map; then each layer moves to its own path, maybe on
    # another disk.
    files = [(plan.paths.map, plan.layers, written + 2 * assembled)]
    files += [(path, (layer,), assembled) for layer in plan.layers[1:] if (path := plan.paths.of(layer.output))]
    for path, layers, pixels in files:
        sizes = {layer: pixels * _bytes_per_pixel(plan, layer) for layer in layers}
        least = sum(size / _BEST_COMPRESSION[layer.dtype] for layer, size in sizes.items())
        remedy = "Free some space, write to another disk, or map a part of the raster (--area)."
        require_disk(path.parent, least, f"{path} of {mapped:,} pixels", remedy)
        disk, free = free_disk(path.parent)
        if sum(sizes.values()) > free:
            log.warning(
                "%s of %s pixels needs up to %s of disk, before compression, but %s has %s free. If it fills, the "
                "finished units are kept",
                path, f"{mapped:,}", bytes_text(sum(sizes.values())), disk, bytes_text(free),
            )  # fmt: skip


def _foresee_assembly(plan: MapPlan) -> None:
    """Warn of a map that takes long to assemble although little of it is mapped."""
    height, width = plan.raster.grid.shape
    hours = height * width * sum(_bytes_per_pixel(plan, layer) for layer in plan.layers) / _HEADED_PER_HOUR
    mapped = sum(math.prod(unit.keep.shape) for unit in plan.units)
    if plan.spec.shard is None and hours > _LONG and 0 < mapped < height * width / 2:
        log.warning(
            "assembling a map of %d x %d pixels takes about %.1f h, though at most %.2g%% of them are mapped. Crop the "
            "raster to save that time (gdal_translate -projwin)",
            height, width, hours, 100 * mapped / (height * width),
        )  # fmt: skip


def _bytes_per_pixel(plan: MapPlan, layer: Layer) -> int:
    return np.dtype(layer.dtype).itemsize * len(layer.band_names(plan.classes))


def _failures(
    outcomes: Generator[Outcome[Unit], None, None], advance: progress.Advance, finished: Callable[[Unit], None]
) -> tuple[list[Outcome[Unit]], bool]:
    """The units that failed, once all ended; and whether the server was lost, so that the rest was not tried.

    `finished` is called with each unit that did not fail.
    """
    failed: list[Outcome[Unit]] = []
    in_a_row = 0
    for outcome in outcomes:
        advance(len(outcome.unit.tiles))
        if outcome.error is None:
            in_a_row = 0
            finished(outcome.unit)
            continue
        failed.append(outcome)
        if len(failed) <= _MOST_WARNINGS:
            log.warning("%s", _reason(outcome))
        in_a_row = in_a_row + 1 if isinstance(outcome.error, ServerError) else 0
        if in_a_row == _MOST_IN_A_ROW:
            outcomes.close()
            return failed, True
    return failed, False


def _raise_failures(
    failed: Sequence[Outcome[Unit]], plan: MapPlan, store: UnitStore, planned: int, *, is_lost: bool
) -> NoReturn:
    """Raise UnfinishedError for some of the planned units; where none could be mapped, the error of the first one."""
    if len(failed) > _MOST_WARNINGS:
        log.warning("%d more units failed", len(failed) - _MOST_WARNINGS)
    is_none_done = is_lost and plan.spec.shard is None and not store.count_done()
    if len(failed) == planned or is_none_done:
        # The cause is not a unit's own.
        assert failed[0].error is not None
        raise failed[0].error
    raise UnfinishedError(_summary(failed, planned, store, is_lost=is_lost)) from failed[-1].error


def _require_any_pixel(plan: MapPlan, store: UnitStore, units: Sequence[Unit]) -> None:
    """Raise RasterError if no pixel was mapped; OutsideError if the polygons of the area of interest are the cause."""
    if not any(store.areas(unit).pixels for unit in units):
        if plan.spec.area and units and not any(_holds_centre(plan, unit) for unit in units):
            raise OutsideError(
                f"no polygon of {plan.spec.area} holds the centre of a pixel of {plan.raster.paths[0]}, so there is "
                "nothing to map. Check that the files belong together, and widen polygons that are narrower than a "
                "pixel."
            )
        raise RasterError(
            f"{plan.raster.paths[0]} has no valid pixel{' in ' + plan.spec.area if plan.spec.area else ''}: all are "
            f"nodata ({nodata_label(plan.raster.nodata)}). Check the file, or override its nodata value with --nodata."
        )


def _holds_centre(plan: MapPlan, unit: Unit) -> bool:
    """True if the area of interest holds the centre of a pixel of the unit."""
    return plan.area is None or bool(rasterize_mask(plan.area, plan.raster.grid[unit.keep]).any())


def _title(raster: Raster) -> str:
    others = 0 if raster.title else len(raster.paths) - 1
    return f"mapping {raster.name}" + (f" and {counted(others, 'more file')}" if others else "")


def _summary(failed: Sequence[Outcome[Unit]], planned: int, store: UnitStore, *, is_lost: bool) -> str:
    """How many units failed, and the first reasons."""
    # The first sentence of each: the rest was logged when it failed.
    reasons = [_reason(outcome).split(". ")[0] for outcome in failed[:_MOST_REASONS]]
    more = "; …" if len(failed) > _MOST_REASONS else ""
    summary = f"{store.folder.stem} is not finished: {len(failed)} of {planned} units failed"
    summary += f" ({'; '.join(reasons)}{more})."
    if is_lost:
        return (
            f"{summary} {_MOST_IN_A_ROW} failed in a row, so the rest was not tried. Of all units, "
            f"{store.count_done()} are kept in {store.folder.name}. Repeat the same command when the raster can be "
            "read again."
        )
    summary += (
        f" The others are kept in {store.folder.name}: fix the cause and repeat the same command; it predicts the "
        "missing units."
    )
    is_damaged = any(isinstance(each.error, ReadError) and not isinstance(each.error, ServerError) for each in failed)
    return f"{summary} {SAME_FILE} Otherwise begin again with --overwrite." if is_damaged else summary


def _reason(outcome: Outcome[Unit]) -> str:
    keep = outcome.unit.keep
    reason = " ".join(str(outcome.error).split()) or type(outcome.error).__name__
    return f"rows {keep.row} to {keep.row_stop}, cols {keep.col} to {keep.col_stop}: {reason}"
