"""Units run in threads, on Dask workers and by shards; a unit that fails does not stop the others.

No torch here: every worker imports this module.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from dask import config
from dask.distributed import LocalCluster
from distributed.comm.core import CommClosedError
from hypothesis import given, settings
from hypothesis import strategies as st

from landscribe import executor
from landscribe.errors import EngineError, OutputError, ReadError, UnfinishedError
from landscribe.executor import Outcome, run_on_dask, run_units, select_shard


class Doubling:
    """Reads n, computes 2n and writes it into a folder; a stage fails at the unit that is named for it."""

    def __init__(self, folder: Path, **failing: int) -> None:
        self.folder = folder
        self.failing = failing

    def _fail(self, stage: str, unit: int) -> None:
        if self.failing.get(stage) == unit:
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


class Counted:
    """Stages that sleep and fail as they are asked to, and count the units between reading and writing."""

    def __init__(self, sleeps: dict[tuple[str, int], float], failing: set[tuple[str, int]]) -> None:
        self.sleeps = sleeps
        self.failing = failing
        self.lock = threading.Lock()
        self.ended: Counter[int] = Counter()
        self.in_flight: set[int] = set()
        self.most_in_flight = 0

    def _run(self, stage: str, unit: int) -> None:
        if stage == "read":
            with self.lock:
                self.in_flight.add(unit)
                self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        time.sleep(self.sleeps.get((stage, unit), 0))
        if (stage, unit) in self.failing or stage == "write":
            with self.lock:
                self.in_flight.remove(unit)
                self.ended[unit] += 1
        if (stage, unit) in self.failing:
            raise ReadError(f"{stage} {unit}")

    def read(self, unit: int) -> int:
        self._run("read", unit)
        return unit

    def compute(self, unit: int, read: int) -> int:
        self._run("compute", unit)
        return 2 * read

    def write(self, unit: int, computed: int) -> int:
        self._run("write", unit)
        return computed


STAGES = st.tuples(st.sampled_from(["read", "compute", "write"]), st.integers(0, 11))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 12),
    readers=st.integers(1, 4),
    writers=st.integers(1, 4),
    sleeps=st.dictionaries(STAGES, st.sampled_from([0.001, 0.003]), max_size=12),
    failing=st.sets(STAGES, max_size=4),
)
def test_each_unit_ends_once_and_in_order_and_few_are_in_flight(count, readers, writers, sleeps, failing):
    stages = Counted(sleeps, failing)
    outcomes = list(run_units(stages, range(count), readers=readers, writers=writers))
    assert [outcome.unit for outcome in outcomes] == list(range(count))
    assert stages.ended == dict.fromkeys(range(count), 1)
    assert stages.most_in_flight <= readers + writers + 1
    for outcome in outcomes:
        errors = [f"{stage} {outcome.unit}" for stage in ("read", "compute", "write")]
        errors = [error for error in errors if (error.split()[0], outcome.unit) in failing]
        assert str(outcome.error) == (errors[0] if errors else "None")
        assert outcome.result == (None if errors else 2 * outcome.unit)


def test_every_unit_runs_once_and_outcomes_come_in_order(tmp_path):
    outcomes = list(run_units(Doubling(tmp_path), range(7)))
    assert outcomes == [Outcome(unit) for unit in range(7)]
    assert written(tmp_path) == {unit: 2 * unit for unit in range(7)}
    assert list(run_units(Doubling(tmp_path), [])) == []


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
@pytest.mark.parametrize("failing", [0, 3, 6])
def test_a_unit_that_fails_is_reported_and_does_not_stop_the_others(tmp_path, stage, failing):
    outcomes = list(run_units(Doubling(tmp_path, **{stage: failing}), range(7)))
    assert [outcome.unit for outcome in outcomes] == list(range(7))
    assert [outcome.unit for outcome in outcomes if outcome.error] == [failing]
    assert str(outcomes[failing].error) == f"{stage} {failing}"
    assert set(written(tmp_path)) == set(range(7)) - {failing}


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_fatal_error_stops_at_once(tmp_path, stage, workers):
    class Full(Doubling):
        def _fail(self, asked: str, unit: int) -> None:
            if asked == stage and unit == 2:
                raise OutputError("no room")

    before = threading.active_count()
    with pytest.raises(OutputError, match="no room"):
        list(run_units(Full(tmp_path), range(100), readers=workers, writers=workers))
    assert len(written(tmp_path)) < 6 * workers
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [1, 3])
def test_an_interruption_ends_the_threads_and_keeps_computed_units(tmp_path, workers):
    class Interrupted(Doubling):
        reads = 0

        def read(self, unit: int) -> int:
            self.reads += 1
            return unit

        def compute(self, unit: int, read: int) -> int:
            if unit == 5:
                raise KeyboardInterrupt
            return 2 * read

        def write(self, unit: int, computed: int) -> None:
            time.sleep(0.02)
            super().write(unit, computed)

    stages, before = Interrupted(tmp_path), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        list(run_units(stages, range(100), readers=workers, writers=workers))
    assert written(tmp_path) == {unit: 2 * unit for unit in range(5)}
    assert stages.reads <= 6 + workers
    assert threading.active_count() == before


def test_closing_early_stops_the_threads_and_takes_no_further_unit(tmp_path):
    taken, before = [], threading.active_count()

    def endless() -> Iterator[int]:
        for unit in count():
            taken.append(unit)
            yield unit

    outcomes = run_units(Doubling(tmp_path), endless(), readers=2, writers=2)
    assert next(outcomes).unit == 0
    outcomes.close()
    assert threading.active_count() == before
    # At most two computed units, one to be computed and one ahead for each reader.
    assert len(taken) <= 5 + 1


def test_a_unit_is_read_while_another_is_computed(tmp_path):
    is_read = threading.Event()

    class Meeting(Doubling):
        def read(self, unit: int) -> int:
            if unit == 1:
                is_read.set()
            return unit

        def compute(self, unit: int, read: int) -> int:
            # The first unit waits until the second is read: forever, if one came after the other.
            assert is_read.wait(20)
            return 2 * read

    assert all(outcome.error is None for outcome in run_units(Meeting(tmp_path), range(3)))


@pytest.mark.parametrize("stage", ["read", "write"])
def test_three_readers_or_writers_work_at_the_same_time(tmp_path, stage):
    meeting = threading.Barrier(3)

    class Meeting(Doubling):
        def _fail(self, asked: str, unit: int) -> None:
            # Three units wait for one another: forever, if fewer than three threads ran them.
            if asked == stage:
                meeting.wait(20)

    workers = {"readers": 3} if stage == "read" else {"writers": 3}
    assert all(outcome.error is None for outcome in run_units(Meeting(tmp_path), range(6), **workers))


@pytest.mark.parametrize("workers", [{"readers": 0}, {"writers": 0}])
def test_fewer_than_one_worker_is_refused(tmp_path, workers):
    with pytest.raises(ValueError, match="Expected 1 or more each"):
        list(run_units(Doubling(tmp_path), range(3), **workers))


@pytest.mark.parametrize(("count", "of"), [(7, 1), (7, 3), (2, 5)])
def test_shards_cover_the_units_without_overlap(count, of):
    shards = [select_shard(range(count), (index, of)) for index in range(1, of + 1)]
    assert sorted(unit for shard in shards for unit in shard) == list(range(count))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


# ---- dask


class Killing(Doubling):
    """The first worker that computes this unit dies."""

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
    with executor.own_cluster(1) as cluster:
        yield cluster.scheduler_address


@pytest.mark.slow
def test_dask_runs_every_unit_and_reports_the_failed_one(tmp_path, scheduler):
    outcomes = list(run_on_dask(Doubling(tmp_path, compute=3), range(12), scheduler))
    assert sorted(outcome.unit for outcome in outcomes) == list(range(12))
    assert [(outcome.unit, str(outcome.error)) for outcome in outcomes if outcome.error] == [(3, "compute 3")]
    assert written(tmp_path) == {unit: 2 * unit for unit in range(12) if unit != 3}


@pytest.mark.slow
def test_two_clusters_on_one_machine_do_not_collide(tmp_path, scheduler):
    first = run_on_dask(Doubling(tmp_path), range(3), scheduler)
    next(first)
    # Warnings are errors in tests.
    assert len(list(run_on_dask(Doubling(tmp_path), range(3), "auto", processes=1))) == 3
    assert len(list(first)) == 2


@pytest.mark.slow
def test_a_killed_scheduler_ends_with_one_line_and_finished_units_stay(tmp_path):
    (tmp_path / "out").mkdir()
    address = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    quiet["env"] = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # the worker imports this module
    options = ("--port", "0", "--no-dashboard", "--scheduler-file", str(address))
    scheduler = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", *options], **quiet)
    worker = ("-m", "distributed.cli.dask_worker", "--no-nanny", "--nthreads", "1", "--scheduler-file", str(address))
    working = subprocess.Popen([sys.executable, *worker], **quiet)
    try:
        deadline = time.monotonic() + 60
        while not address.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        with config.set({"distributed.comm.timeouts.connect": "1s"}):
            outcomes = run_on_dask(Slow(tmp_path / "out"), range(40), str(address))
            assert next(outcomes).error is None
            scheduler.kill()
            with pytest.raises(UnfinishedError, match="Dask scheduler no longer answers"):
                list(outcomes)
        assert 0 < len(written(tmp_path / "out")) < 40
    finally:
        for process in (scheduler, working):
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("error", [asyncio.TimeoutError, CommClosedError])
def test_a_cluster_that_closes_late_costs_no_unit(tmp_path, monkeypatch, error):
    closed = LocalCluster.__exit__

    def late(self, *raised):
        closed(self, *raised)
        raise error

    monkeypatch.setattr(LocalCluster, "__exit__", late)
    outcomes = list(run_on_dask(Doubling(tmp_path, compute=1), range(3), "auto", processes=1))
    assert sorted((outcome.unit, str(outcome.error)) for outcome in outcomes) == [
        (0, "None"),
        (1, "compute 1"),
        (2, "None"),
    ]


@pytest.mark.parametrize("error", [asyncio.TimeoutError, CommClosedError, ConnectionResetError])
def test_a_connection_that_is_lost_at_the_start_is_no_error_of_a_file(tmp_path, monkeypatch, error):
    def lost(*_, **__):
        raise error

    monkeypatch.setattr("dask.distributed.LocalCluster", lost)
    with pytest.raises(UnfinishedError, match="Dask scheduler no longer answers"):
        list(run_on_dask(Doubling(tmp_path), range(3), "auto", processes=1))


class RootedError(Exception):
    def __reduce__(self):
        raise TypeError("it stays here")


class Damaged(Doubling):
    def read(self, unit: int) -> int:
        raise ReadError("a block is damaged") from RootedError()


@pytest.mark.slow
def test_an_error_arrives_from_a_worker_with_its_type_and_message(tmp_path, scheduler):
    (outcome,) = run_on_dask(Damaged(tmp_path), [0], scheduler)
    assert isinstance(outcome.error, ReadError)
    assert str(outcome.error) == "a block is damaged"


class Slow(Doubling):
    def compute(self, unit: int, read: int) -> int:
        time.sleep(0.3)
        return super().compute(unit, read)


@pytest.mark.slow
def test_a_killed_worker_costs_no_unit(tmp_path):
    (tmp_path / "out").mkdir()
    outcomes = list(run_on_dask(Killing(tmp_path / "out", tmp_path, 5), range(12), "auto"))
    assert (tmp_path / "killed").exists()
    assert sorted(outcome.unit for outcome in outcomes) == list(range(12))
    assert all(outcome.error is None for outcome in outcomes)
    assert written(tmp_path / "out") == {unit: 2 * unit for unit in range(12)}


def test_a_missing_scheduler_file_is_named(tmp_path):
    with pytest.raises(EngineError, match=r"none\.json is neither a scheduler file nor an address"):
        list(run_on_dask(Doubling(tmp_path), range(2), "none.json"))


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "_TIMEOUT_S", 1)
    with pytest.raises(EngineError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 within 1 s"):
        list(run_on_dask(Doubling(tmp_path), range(2), "tcp://127.0.0.1:9"))
