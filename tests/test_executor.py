"""Units run here, on processes of dask, by shards, and past units that fail."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from dask import config
from test_mapping import model_of, write

from landscribe import executor as engine
from landscribe.errors import EngineError, OutputError, RasterError, ReadError, UnfinishedError
from landscribe.executor import Outcome, run_on_dask, run_units, share_of
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.tiling import units
from landscribe.prediction.spec import PredictSpec
from networks import Identity, predict

SMALL = {"tile": 32, "margin": 4, "unit": 64}


class Doubling:
    """Reads n, computes 2n and writes it into a folder; what is poisoned fails in its stage."""

    def __init__(self, folder: Path, **poisoned: int) -> None:
        self.folder = folder
        self.poisoned = poisoned

    def _fail(self, stage: str, unit: int) -> None:
        if self.poisoned.get(stage) == unit:
            raise ValueError(f"{stage} {unit}")

    def read(self, unit: int) -> int:
        self._fail("read", unit)
        return unit

    def compute(self, unit: int, read: int) -> int:
        self._fail("compute", unit)
        return 2 * read

    def write(self, unit: int, computed: int) -> None:
        self._fail("write", unit)
        (self.folder / str(unit)).write_text(str(computed))


def written(folder: Path) -> dict[int, int]:
    return {int(path.name): int(path.read_text()) for path in folder.iterdir()}


def test_every_unit_is_done_once_and_told_in_order(tmp_path):
    outcomes = list(run_units(Doubling(tmp_path), range(7)))
    assert outcomes == [Outcome(unit) for unit in range(7)]
    assert written(tmp_path) == {unit: 2 * unit for unit in range(7)}
    assert list(run_units(Doubling(tmp_path), [])) == []


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
@pytest.mark.parametrize("poisoned", [0, 3, 6])
def test_a_poisoned_unit_is_told_and_does_not_stop_the_others(tmp_path, stage, poisoned):
    outcomes = list(run_units(Doubling(tmp_path, **{stage: poisoned}), range(7)))
    assert [outcome.unit for outcome in outcomes] == list(range(7))
    assert [outcome.unit for outcome in outcomes if outcome.error] == [poisoned]
    assert str(outcomes[poisoned].error) == f"{stage} {poisoned}"
    assert set(written(tmp_path)) == set(range(7)) - {poisoned}


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_what_would_meet_every_unit_stops_at_once(tmp_path, stage):
    class Full(Doubling):
        def _fail(self, asked: str, unit: int) -> None:
            if asked == stage and unit == 2:
                raise OutputError("no room")

    with pytest.raises(OutputError, match="no room"):
        list(run_units(Full(tmp_path), range(100)))
    assert len(written(tmp_path)) < 6


def test_a_unit_is_read_while_another_is_computed(tmp_path):
    ahead = threading.Event()

    class Meeting(Doubling):
        def read(self, unit: int) -> int:
            if unit == 1:
                ahead.set()
            return unit

        def compute(self, unit: int, read: int) -> int:
            # The first unit waits until the second is read: that would never be if one came after the other.
            assert ahead.wait(20)
            return 2 * read

    assert all(outcome.error is None for outcome in run_units(Meeting(tmp_path), range(3)))


@pytest.mark.parametrize(("count", "of"), [(7, 1), (7, 3), (2, 5)])
def test_shards_share_the_units_without_rest_or_overlap(count, of):
    shares = [share_of(range(count), (number, of)) for number in range(1, of + 1)]
    assert sorted(unit for share in shares for unit in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


# ---- maps


@pytest.fixture
def numbers() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, (150, 217)).astype(np.uint8)


@pytest.fixture
def raster(tmp_path, numbers) -> Raster:
    return write(tmp_path / "image.tif", numbers)


@pytest.fixture
def whole(tmp_path, raster) -> bytes:
    """The map of one process."""
    return predict(model_of(Identity(), 4), raster, tmp_path / "whole.tif", spec=PredictSpec(**SMALL)).read_bytes()


def test_a_unit_that_cannot_be_read_is_named_and_later_done_alone(tmp_path, raster, whole, monkeypatch):
    model, spec = model_of(Identity(), 4), PredictSpec(**SMALL)
    planned = list(units(150, 217, size=32, margin=4, side=64))
    asked, poison = [], planned[4].read
    real = Raster.read

    def read(self: Raster, window):
        asked.append(window)
        if window == poison:
            raise ReadError("a block is damaged")
        return real(self, window)

    monkeypatch.setattr(Raster, "read", read)
    keep = planned[4].keep
    place = f"rows {keep.row} to {keep.row_stop}, cols {keep.col} to {keep.col_stop}: a block is damaged"
    with pytest.raises(
        UnfinishedError, match=rf"^map\.tif is not finished: 1 of {len(planned)} units failed \({place}\)"
    ):
        predict(model, raster, tmp_path / "map.tif", spec=spec)
    assert not (tmp_path / "map.tif").exists()
    assert len(asked) == len(planned)
    poison = None
    asked.clear()
    predict(model, raster, tmp_path / "map.tif", spec=spec)
    assert asked == [planned[4].read]
    assert (tmp_path / "map.tif").read_bytes() == whole


def test_where_nothing_can_be_mapped_its_reason_is_told_and_nothing_is_left(tmp_path, raster, monkeypatch):
    def read(_, window):
        raise RasterError(f"no block {window.row}")

    monkeypatch.setattr(Raster, "read", read)
    with pytest.raises(RasterError, match="no block 0"):
        predict(model_of(Identity(), 4), raster, tmp_path / "new" / "map.tif", spec=PredictSpec(**SMALL))
    assert not (tmp_path / "new").exists()


class Hungry(Identity):
    """Wants more memory than there is, as torch says it on a device or the CPU."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_where_memory_does_not_suffice_it_ends_in_a_line(tmp_path, raster, error):
    with pytest.raises(
        EngineError, match=r"memory does not suffice for 1 x 32 x 32 pixels at once .* a smaller --tile"
    ):
        predict(model_of(Hungry(error), 4), raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL))
    assert not list(tmp_path.glob("map*"))


def test_shards_in_any_order_make_the_map_of_one_process(tmp_path, raster, whole):
    model = model_of(Identity(), 4)
    for shard in ("3/3", "1/3", "2/3"):
        predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL, shard=shard))
        assert not (tmp_path / "map.tif").exists() or shard == "2/3"
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL))
    assert (tmp_path / "map.tif").read_bytes() == whole


def test_a_shard_leaves_alone_what_another_is_writing(tmp_path, raster, whole):
    model = model_of(Identity(), 4)
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL, shard="1/2"))
    half_written = tmp_path / "map.tif.parts" / ".0a1b2c3d.partial.00000_00001.class.tif"
    half_written.touch()
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL, shard="2/2"))
    assert half_written.exists()
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL))
    assert (tmp_path / "map.tif").read_bytes() == whole
    assert not (tmp_path / "map.tif.parts").exists()


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_a_shard_that_is_none_of_its_number_is_refused(shard):
    with pytest.raises(ValueError, match="shard"):
        PredictSpec(shard=shard)


# ---- dask


class Killing(Doubling):
    """The worker that computes this unit first dies of it."""

    def __init__(self, folder: Path, marks: Path, killing: int) -> None:
        super().__init__(folder)
        self.marks = marks
        self.killing = killing

    def compute(self, unit: int, read: int) -> int:
        mark = self.marks / "killed"
        if unit == self.killing and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().compute(unit, read)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a cluster of one worker."""
    with engine.own_cluster(1) as cluster:
        yield cluster.scheduler_address


@pytest.mark.slow
def test_dask_does_every_unit_and_tells_of_one_that_fails(tmp_path, scheduler):
    outcomes = list(run_on_dask(Doubling(tmp_path, compute=3), range(12), scheduler))
    assert sorted(outcome.unit for outcome in outcomes) == list(range(12))
    assert [(outcome.unit, str(outcome.error)) for outcome in outcomes if outcome.error] == [(3, "compute 3")]
    assert written(tmp_path) == {unit: 2 * unit for unit in range(12) if unit != 3}


@pytest.mark.slow
def test_two_clusters_of_one_machine_do_not_meet(tmp_path, scheduler):
    first = run_on_dask(Doubling(tmp_path), range(3), scheduler)
    next(first)
    # What would be warned about is an error here.
    assert len(list(run_on_dask(Doubling(tmp_path), range(3), "auto", processes=1))) == 3
    assert len(list(first)) == 2


@pytest.mark.slow
def test_a_scheduler_that_is_killed_ends_it_in_a_line_and_what_is_done_stays(tmp_path):
    (tmp_path / "out").mkdir()
    place = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    quiet["env"] = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # the worker imports this module
    options = ("--port", "0", "--no-dashboard", "--scheduler-file", str(place))
    scheduler = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", *options], **quiet)
    worker = ("-m", "distributed.cli.dask_worker", "--no-nanny", "--nthreads", "1", "--scheduler-file", str(place))
    working = subprocess.Popen([sys.executable, *worker], **quiet)
    try:
        deadline = time.monotonic() + 60
        while not place.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        with config.set({"distributed.comm.timeouts.connect": "1s"}):
            outcomes = run_on_dask(Slow(tmp_path / "out"), range(40), str(place))
            assert next(outcomes).error is None
            scheduler.kill()
            with pytest.raises(UnfinishedError, match="scheduler of dask does not answer any more"):
                list(outcomes)
        assert 0 < len(written(tmp_path / "out")) < 40
    finally:
        for process in (scheduler, working):
            process.kill()
            process.wait()


class RootedError(Exception):
    def __reduce__(self):
        raise TypeError("it stays here")


class Damaged(Doubling):
    def read(self, unit: int) -> int:
        raise ReadError("a block is damaged") from RootedError()


@pytest.mark.slow
def test_what_is_wrong_arrives_from_a_worker_as_it_was_raised(tmp_path, scheduler):
    (outcome,) = run_on_dask(Damaged(tmp_path), [0], scheduler)
    assert isinstance(outcome.error, ReadError)
    assert str(outcome.error) == "a block is damaged"


class Slow(Doubling):
    def compute(self, unit: int, read: int) -> int:
        time.sleep(0.3)
        return super().compute(unit, read)


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_unit_and_no_more(tmp_path):
    (tmp_path / "out").mkdir()
    outcomes = list(run_on_dask(Killing(tmp_path / "out", tmp_path, 5), range(12), "auto"))
    assert (tmp_path / "killed").exists()
    assert sorted(outcome.unit for outcome in outcomes) == list(range(12))
    assert all(outcome.error is None for outcome in outcomes)
    assert written(tmp_path / "out") == {unit: 2 * unit for unit in range(12)}


@pytest.mark.slow
def test_the_map_of_dasks_workers_is_that_of_one_process(tmp_path, raster, whole):
    spec = PredictSpec(**SMALL, dask="auto")
    assert predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec).read_bytes() == whole


def test_a_schedulers_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EngineError, match=r"none\.json is no file, nor the address of a scheduler"):
        list(run_on_dask(Doubling(tmp_path), range(2), "none.json"))


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "_PATIENCE", 1)
    with pytest.raises(EngineError, match=r"no scheduler of dask answers at tcp://127\.0\.0\.1:9 within 1 s"):
        list(run_on_dask(Doubling(tmp_path), range(2), "tcp://127.0.0.1:9"))
