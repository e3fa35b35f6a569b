"""Run many independent units of work, here or on many machines.

A unit is done once its task returns; what it made lies in files of its own. So units may run in any order,
anywhere, and again.
"""

import logging
import os
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from landscribe.errors import EngineError, LandscribeError, ReadError, UnfinishedError
from landscribe.machine import cores

U = TypeVar("U")
"""A unit."""
U_contra = TypeVar("U_contra", contravariant=True)

_PATIENCE = 20
"""Seconds for a scheduler to answer."""
_UNWATCHED = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s"}
"""Settings of a cluster that nobody watches: each process looks after itself a hundred times a second otherwise, which
takes a twentieth of each core."""
_OWN_WORKER = "LANDSCRIBE_OWN_WORKER"
_OURS = f"import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); os.environ['{_OWN_WORKER}'] = 'yes'"
"""Run in each process of our own cluster, which knows itself by it. A terminal sends Ctrl-C to them, too, and who
pressed it hears it from us."""
_DIED = (
    "several workers of dask died one after the other of the same unit, most often for want of memory. Workers that "
    "live were expected. Look into their logs, give each more memory, or let fewer of them share a machine."
)
_LOST = (
    "the scheduler of dask does not answer any more. One that lives to the end was expected. What is done is kept: "
    "repeat the same command when it runs again, or without --dask."
)


class Stages(Protocol[U_contra]):
    """A unit's work in three steps, so that one unit is read and another written while a third is computed."""

    def read(self, unit: U_contra) -> Any:
        """What the unit needs; runs in a thread of its own."""

    def compute(self, unit: U_contra, read: Any) -> Any:
        """What becomes of it."""

    def write(self, unit: U_contra, computed: Any) -> Any:
        """Put it where it stays; runs in a thread of its own. What this returns comes back with the outcome."""


@dataclass(frozen=True)
class Outcome(Generic[U]):
    """How a unit ended."""

    unit: U
    error: Exception | None = None
    """What was wrong with this unit alone."""
    made: Any = None
    """What its writing returned."""


def run_units(stages: Stages[U], units: Iterable[U]) -> Generator[Outcome[U], None, None]:
    """Run units here; yields each when it has ended, in order.

    A unit that fails does not stop the others, unless what it met would meet all of them.
    """
    # One worker each: what is read waits for the computing, and what is computed for the writing.
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead: tuple[U, Future[Any]] | None = None
        behind: tuple[U, Future[Any]] | None = None
        for unit in chain(units, [None]):
            following = None if unit is None else (unit, reader.submit(stages.read, unit))
            written = None if ahead is None else (ahead[0], _computed(stages, *ahead, writer))
            if behind is not None:
                yield _outcome(*behind)
            ahead, behind = following, written
        if behind is not None:
            yield _outcome(*behind)


def _computed(stages: Stages[U], unit: U, read: Future[Any], writer: ThreadPoolExecutor) -> Future[Any]:
    """Compute a unit here, and have it written."""
    try:
        computed = stages.compute(unit, read.result())
    except Exception as error:
        if _stops_all(error):
            raise
        failed: Future[Any] = Future()
        failed.set_exception(error)
        return failed
    return writer.submit(stages.write, unit, computed)


def _outcome(unit: U, written: Future[Any]) -> Outcome[U]:
    error = written.exception()
    if error is not None and _stops_all(error):
        raise error
    assert error is None or isinstance(error, Exception)
    return Outcome(unit, error, written.result() if error is None else None)


def _stops_all(error: BaseException) -> bool:
    """True for what would meet every other unit, too: no room left, a setting that is wrong, an interruption."""
    ours = isinstance(error, LandscribeError) and not isinstance(error, ReadError)
    return ours or isinstance(error, MemoryError) or not isinstance(error, Exception)


def run_on_dask(
    stages: Stages[U], units: Sequence[U], where: str, *, processes: int | None = None
) -> Generator[Outcome[U], None, None]:
    """Run units on the workers of dask.distributed; yields each when it has ended, in any order.

    A worker that dies costs the units that it was at: others do these again.

    Args:
        stages: sent to each worker once; what it writes must lie where this process sees it.
        units: what there is to do.
        where: "auto" for processes of this machine, the address of a scheduler, or its file.
        processes: how many there are where it is auto; one for each core if None.

    Raises:
        EngineError: dask is not installed, or no scheduler answers there.
        UnfinishedError: it does not answer any more.
    """
    with _client(where, processes) as client:
        from dask.distributed import KilledWorker, as_completed

        # As the result of a task, not as scattered data: that is lost for good with the worker that holds it.
        sent = _sent(client, stages)
        tasks = {client.submit(run_whole, sent, unit, pure=False): unit for unit in units}
        for task in as_completed(list(tasks)):
            if task.cancelled():
                raise UnfinishedError(_LOST)
            error = task.exception()
            if error is not None and _stops_all(error):
                raise error
            if isinstance(error, KilledWorker):
                error = EngineError(_DIED)
            made = task.result() if error is None else None
            unit = tasks.pop(task)
            # What nobody holds any more is not done again when the worker that did it dies later.
            del task
            yield Outcome(unit, error, made)


def _sent(client: Any, stages: Stages[U]) -> Any:
    """The stages where the workers are; dask need not warn that a network is large."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sending large graph")
        return client.submit(_itself, stages, pure=False)


def _itself(stages: Stages[U]) -> Stages[U]:
    return stages


@contextmanager
def _client(where: str, processes: int | None) -> Iterator[Any]:
    """A client of the scheduler at `where`, or of a cluster that lasts as long as this."""
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise EngineError("--dask needs dask.distributed. Install it with: pip install 'landscribe[dask]'") from error
    if where == "auto":
        with own_cluster(processes or cores()) as cluster, Client(cluster) as client:
            yield client
        return
    is_file = Path(where).is_file()
    if not is_file and ":" not in where:
        raise EngineError(
            f"{where} is no file, nor the address of a scheduler of dask. The file that one writes, an address such as "
            "tcp://10.0.0.1:8786, or auto was expected. Check the path."
        )
    place = {"scheduler_file": where} if is_file else {"address": where}
    try:
        client = Client(**place, timeout=_PATIENCE)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"no scheduler of dask answers at {where} within {_PATIENCE} s ({error}). The address that dask-scheduler "
            "prints, such as tcp://10.0.0.1:8786, its file, or auto was expected."
        ) from error
    with client:
        yield client


@contextmanager
def own_cluster(processes: int) -> Iterator[Any]:
    """A cluster of dask on this machine, one thread to a process."""
    from dask import config
    from dask.distributed import LocalCluster

    settings = {
        "n_workers": processes,
        "threads_per_worker": 1,
        # Any free port: that of another cluster on this machine would be warned about.
        "dashboard_address": "127.0.0.1:0",
        # What fails comes back to who asked, who says so.
        "silence_logs": logging.CRITICAL,
        "preload": [_OURS],
    }
    with config.set(_UNWATCHED), LocalCluster(**settings) as cluster:
        yield cluster


def is_own_worker() -> bool:
    """True in a process of our own cluster."""
    return _OWN_WORKER in os.environ


def run_whole(stages: Stages[U], unit: U) -> Any:
    """Read, compute and write one unit, one after the other: the task of a worker elsewhere."""
    try:
        return stages.write(unit, stages.compute(unit, stages.read(unit)))
    except LandscribeError as error:
        # What GDAL raised does not travel, and the error would arrive as mere words; ours has said all of it.
        error.__cause__ = error.__context__ = None
        raise


def share_of(units: Sequence[U], shard: tuple[int, int] | None) -> Sequence[U]:
    """Every n-th unit, from the i-th (from 1), for shard (i, n); all of them without one."""
    return units if shard is None else units[shard[0] - 1 :: shard[1]]
