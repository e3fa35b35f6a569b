"""Predict the units of a map that are missing, here or on many machines, and tell which of them failed."""

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from landscribe import progress
from landscribe.errors import EngineError, ServerError, UnfinishedError
from landscribe.executor import Outcome, run_on_dask, run_units, share_of
from landscribe.geo.access import bounded_block_cache
from landscribe.geo.features import Features, rasterize_mask
from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.geo.tiling import Unit
from landscribe.inference.predictor import Predictor, processes
from landscribe.maps.layers import LayerArrays
from landscribe.maps.unit_store import Parts
from landscribe.prediction.spec import PredictSpec
from landscribe.prediction.unit import Way, predict_unit

log = logging.getLogger(__name__)

# Of the units that failed; more of them make no line that people read. Each is warned about as it fails.
_MOST_TOLD = 2
_MOST_IN_A_ROW = 3
"""Units that a server did not send until it is taken for lost: each has been waited for, for minutes."""

_Read = tuple[Pixels, Valid, Valid | None]
"""Of a unit: pixels, what of them is valid, and what of the kept part is wanted; None if all of it is."""


@dataclass(frozen=True)
class Mapping:
    """A unit's work: read it with its halo, run the network, put what it made."""

    predictor: Predictor
    raster: Raster
    parts: Parts
    way: Way
    area: Features | None
    """Polygons that alone are mapped, in the raster's CRS."""

    def read(self, unit: Unit) -> _Read | None:
        """See `engine.Stages`; None if nothing of the kept part lies in the area."""
        wanted = None if self.area is None else rasterize_mask(self.area, self.raster.grid[unit.keep])
        if wanted is not None and not wanted.any():
            return None
        # On a worker of Dask nobody else has bounded it.
        with bounded_block_cache(), _enough_memory(unit, self.way):
            pixels, valid = self.raster.read(unit.read)
        return pixels, valid, wanted

    def compute(self, unit: Unit, read: _Read | None) -> LayerArrays | None:
        """See `engine.Stages`."""
        if read is None:
            return None
        pixels, valid, wanted = read
        with torch.inference_mode(), _enough_memory(unit, self.way):
            return predict_unit(self.predictor, unit, pixels, valid, self.way, wanted)

    def write(self, unit: Unit, computed: LayerArrays | None) -> None:
        """See `engine.Stages`."""
        self.parts.put(unit, computed, self.way.layers, self.raster.grid)


@contextmanager
def _enough_memory(unit: Unit, way: Way) -> Iterator[None]:
    """Raise EngineError where memory does not suffice: what one unit needs, all do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On CPUs, torch has no error of its own for it.
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "can't allocate memory" not in str(error):
            raise
        rows, cols = unit.tiles[0].read.shape
        raise EngineError(
            f"memory does not suffice for {way.batch} x {rows} x {cols} pixels at once (tiles, rows, columns) in units "
            f"of {unit.read.height} x {unit.read.width}. Smaller ones were expected: pass --tile auto, or a smaller "
            "--tile, --batch or --unit."
        ) from error


def predict_missing(mapping: Mapping, planned: Sequence[Unit], spec: PredictSpec) -> None:
    """Map the units that are not done, or this shard's share of all.

    Raises:
        UnfinishedError: some of them could not be mapped; the others are done.
    """
    wanted = share_of(planned, spec.share)
    missing = [unit for unit in wanted if not mapping.parts.is_done(unit)]
    if len(missing) < len(wanted):
        log.info("resumed: %d of %d units are there", len(wanted) - len(missing), len(wanted))
    if not missing:
        return
    if spec.dask is None:
        outcomes = run_units(mapping, missing)
    else:
        mapping.predictor.leave_device()
        outcomes = run_on_dask(mapping, missing, spec.dask, processes=processes(mapping.predictor.device))
    with progress.task(_doing(mapping.raster), sum(len(unit.tiles) for unit in missing)) as advance:
        failed, is_lost = _failures(outcomes, advance)
    if failed and (len(failed) == len(planned) or (is_lost and spec.shard is None and not mapping.parts.count_done())):
        # Nothing of it can be mapped: what is wrong is not a unit's.
        raise failed[0].error or AssertionError
    if failed:
        raise UnfinishedError(_told(failed, len(planned), mapping.parts, is_lost=is_lost))


def _failures(
    outcomes: Generator[Outcome[Unit], None, None], advance: progress.Advance
) -> tuple[list[Outcome[Unit]], bool]:
    """See all units end: those that failed, and whether the server was lost, so that the rest was not tried."""
    failed: list[Outcome[Unit]] = []
    in_a_row = 0
    for outcome in outcomes:
        advance(len(outcome.unit.tiles))
        if outcome.error is None:
            in_a_row = 0
            continue
        log.warning("%s", _why(outcome))
        failed.append(outcome)
        in_a_row = in_a_row + 1 if isinstance(outcome.error, ServerError) else 0
        if in_a_row == _MOST_IN_A_ROW:
            outcomes.close()
            return failed, True
    return failed, False


def _doing(raster: Raster) -> str:
    others = 0 if raster.title else len(raster.paths) - 1
    return f"mapping {raster.name}" + (f" and {others} more" if others else "")


def _told(failed: Sequence[Outcome[Unit]], planned: int, parts: Parts, *, is_lost: bool) -> str:
    """Which units failed, and why."""
    # The first sentence of each: the rest was told when it failed.
    reasons = [_why(outcome).split(". ")[0] for outcome in failed[:_MOST_TOLD]]
    more = "; …" if len(failed) > _MOST_TOLD else ""
    told = f"{parts.folder.stem} is not finished: {len(failed)} of {planned} units could not be mapped"
    told += f" ({'; '.join(reasons)}{more})."
    if is_lost:
        return (
            f"{told} {_MOST_IN_A_ROW} came one after the other, so that no more was asked for; {parts.count_done()} "
            f"are kept in {parts.folder.name}. Repeat the same command when all of it can be read again."
        )
    return (
        f"{told} The others are kept in {parts.folder.name}: mend what is named and repeat the same command; it does "
        "what is missing. A file that is put in another's place must keep its time (cp -p, touch -r), or it is another "
        "raster."
    )


def _why(outcome: Outcome[Unit]) -> str:
    keep = outcome.unit.keep
    reason = " ".join(str(outcome.error).split()) or type(outcome.error).__name__
    return f"rows {keep.row} to {keep.row_stop}, cols {keep.col} to {keep.col_stop}: {reason}"
