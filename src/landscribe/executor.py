"""Run independent units of work: in threads of this process, or on the workers of dask.distributed.

A unit is done when its `write` returns; its results lie in files of its own. So units may run in any order, on any
machine, and more than once.
"""

import logging
import os
import sys
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from landscribe.errors import EngineError, LandscribeError, ReadError, UnfinishedError
from landscribe.machine import HEAP, cores

log = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")
"""A unit."""
U_contra = TypeVar("U_contra", contravariant=True)

_TIMEOUT_S = 20
"""Seconds to wait for the answer of a Dask scheduler."""
_SETTINGS = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.nanny.pre-spawn-environ": dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), 1
    ),
}
"""Settings of our own cluster, which has no dashboard: the profiler and the default tick of 20 ms take a twentieth of
each core. Dask's default MALLOC_TRIM_THRESHOLD_ is left out: with it, each large array asks the system for new pages,
which takes more than half as long again."""
_OWN_WORKER = "LANDSCRIBE_OWN_WORKER"
_PRELOAD = f"import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); os.environ['{_OWN_WORKER}'] = 'yes'"
"""Runs in each worker of our own cluster. It sets the mark that `is_own_worker` reads, and ignores Ctrl-C, which a
terminal sends to child processes too: the main process stops the workers."""
_WORKERS_DIED = (
    "several Dask workers died while running the same unit, usually for lack of memory. Read the workers' logs, give "
    "each worker more memory, or start fewer workers per machine."
)
_SCHEDULER_LOST = (
    "the Dask scheduler no longer answers. Finished units are kept: repeat the same command when the scheduler runs "
    "again, or without --dask."
)


class Stages(Protocol[U_contra]):
    """The three stages of a unit's work. While one unit is computed, others are read and written."""

    def read(self, unit: U_contra) -> Any:
        """Read the input of a unit. Runs in one of the reader threads."""

    def compute(self, unit: U_contra, read: Any) -> Any:
        """Compute the output from the input.

        Runs in the calling thread, one unit at a time, in the order of the units; on a Dask worker of several threads,
        in all of them. A device may still be busy when this returns: `write` may wait for it.
        """

    def write(self, unit: U_contra, computed: Any) -> Any:
        """Write the output. Runs in one of the writer threads; the return value becomes `Outcome.result`."""


@dataclass(frozen=True)
class Outcome(Generic[U]):
    """How a unit ended."""

    unit: U
    error: Exception | None = None
    """Why this unit failed; None if it is done."""
    result: Any = None
    """Return value of `Stages.write`."""


def run_units(
    stages: Stages[U], units: Iterable[U], *, readers: int = 1, writers: int = 1
) -> Generator[Outcome[U], None, None]:
    """Run units in this process: threads read and write, the calling thread computes.

    Law: each unit ends exactly once, outcomes come in the order of the units, and at no time are more than one for
    each reader and writer, and one to compute, between the start of their reading and the end of their writing.

    A unit that fails does not stop the others, unless the error is fatal (see `is_fatal`). On a fatal error, on an
    interruption, and when the generator is closed, no further unit is read, and the units computed by then are written.

    Args:
        stages: what to do with a unit.
        units: taken one by one, when there is room for another.
        readers: threads that read.
        writers: threads that write.

    Raises:
        ValueError: readers or writers is below 1.
        LandscribeError: a unit met a fatal error.
    """
    if min(readers, writers) < 1:
        raise ValueError(f"readers = {readers}, writers = {writers}. Expected 1 or more each.")
    remaining = iter(units)
    reads: deque[tuple[U, Future[Any]]] = deque()
    writes: deque[tuple[U, Future[Any]]] = deque()
    # Left in reverse order: first the readers stop, then the writers finish.
    with ThreadPoolExecutor(writers) as writing, stopped_at_exit(ThreadPoolExecutor(readers)) as reading:
        while True:
            # The next unit to compute, and one ahead for each reader: more would fill memory and save no time.
            room = min(readers + 1, readers + writers + 1 - len(writes)) - len(reads)
            reads.extend((unit, reading.submit(stages.read, unit)) for unit in islice(remaining, room))
            first = [queue[0][1] for queue in (reads, writes) if queue]
            if not first:
                return
            wait(first, return_when=FIRST_COMPLETED)
            if writes and writes[0][1].done():
                yield _outcome(*writes.popleft())
            else:
                writes.append(_compute(stages, *reads.popleft(), writing))


@contextmanager
def stopped_at_exit(threads: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """Threads that, at the end of the block, finish the task at hand and drop those that wait."""
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


def _compute(stages: Stages[U], unit: U, read: Future[Any], writing: ThreadPoolExecutor) -> tuple[U, Future[Any]]:
    """Compute a unit here and submit its writing; a future that holds the error, if it failed."""
    try:
        computed = stages.compute(unit, read.result())
    except Exception as error:
        if is_fatal(error):
            raise
        failed: Future[Any] = Future()
        failed.set_exception(error)
        return unit, failed
    return unit, writing.submit(_written, stages, unit, computed)


def _written(stages: Stages[U], unit: U, computed: Any) -> Any:
    """Write a unit, and give the memory that it no longer needs back to the system."""
    result = stages.write(unit, computed)
    HEAP.trim()
    return result


def _outcome(unit: U, task: Any) -> Outcome[U]:
    """Wait for a unit's last task, a future of a thread or of Dask; raise its error if that is fatal."""
    error = task.exception()
    if error is not None and is_fatal(error):
        raise error
    return Outcome(unit, error, task.result() if error is None else None)


def is_fatal(error: BaseException) -> bool:
    """True if an error of one unit would meet all others too: no room left, a wrong setting, an interruption.

    >>> is_fatal(ReadError("a block is damaged")), is_fatal(MemoryError())
    (False, True)
    """
    is_ours = isinstance(error, LandscribeError) and not isinstance(error, ReadError)
    return is_ours or isinstance(error, MemoryError) or not isinstance(error, Exception)


def run_on_dask(
    stages: Stages[U], units: Sequence[U], where: str, *, processes: int | None = None, threads: int = 1
) -> Generator[Outcome[U], None, None]:
    """Run units on the workers of dask.distributed, each by `run_unit`; outcomes come as units end, in any order.

    A worker that dies costs the units that it was running: other workers repeat them.

    Args:
        stages: sent to each worker once. Its `write` must write where this process can read.
        units: what to run.
        where: "auto" for processes of this machine, the address of a scheduler, or its scheduler file.
        processes: number of processes for "auto"; if None, one for each core.
        threads: of each process for "auto"; each runs units of its own.

    Raises:
        EngineError: dask.distributed is not installed, or no scheduler answers.
        UnfinishedError: the scheduler no longer answers.
        LandscribeError: a unit met a fatal error.
    """
    _require_dask()
    from dask.distributed import KilledWorker, as_completed

    with _lost_scheduler_named(), _client(where, processes, threads) as client:
        # As the result of a task: scattered data would be lost for good with the worker that holds it.
        sent = _sent(client, stages)
        tasks = {client.submit(run_unit, sent, unit, pure=False): unit for unit in units}
        for task in as_completed(list(tasks)):
            if task.cancelled():
                raise UnfinishedError(_SCHEDULER_LOST)
            outcome = _outcome(tasks.pop(task), task)
            # Without a reference to it, Dask does not repeat the task when the worker that ran it dies later.
            del task
            is_killed = isinstance(outcome.error, KilledWorker)
            yield replace(outcome, error=EngineError(_WORKERS_DIED)) if is_killed else outcome


@contextmanager
def _lost_scheduler_named() -> Iterator[None]:
    """Turn the errors of a connection to Dask, which count as errors of files, into an UnfinishedError."""
    from distributed.comm.core import CommClosedError

    try:
        yield
    except (TimeoutError, ConnectionError, CommClosedError) as error:
        raise UnfinishedError(_SCHEDULER_LOST) from error


def _sent(client: Any, stages: Stages[U]) -> Any:
    """A Dask future of the stages; without Dask's warning that a network is large."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sending large graph")
        return client.submit(_identity, stages, pure=False)


def _identity(stages: Stages[U]) -> Stages[U]:
    return stages


def require_scheduler(where: str) -> None:
    """Raise EngineError if no units could run on Dask at `where`, as of `run_on_dask`."""
    if where == "auto":
        _require_dask()
        return
    with _client(where, None, 1):
        pass


def _require_dask() -> None:
    try:
        import dask.distributed  # noqa: F401
    except ImportError as error:
        raise EngineError("--dask needs dask.distributed. Install it with: pip install 'landscribe[dask]'") from error


@contextmanager
def _client(where: str, processes: int | None, threads: int) -> Iterator[Any]:
    """A client of the scheduler at `where`, or of a cluster that lives as long as the block."""
    _require_dask()
    from dask.distributed import Client

    if where == "auto":
        with own_cluster(processes or cores(), threads) as cluster, _closed(Client(cluster)) as client:
            yield client
        return
    is_file = Path(where).is_file()
    if not is_file and ":" not in where:
        raise EngineError(
            f"--dask {where} is neither a scheduler file nor an address. Expected a file that exists, an address such "
            "as tcp://10.0.0.1:8786, or auto. Check the path."
        )
    scheduler = {"scheduler_file": where} if is_file else {"address": where}
    try:
        client = Client(**scheduler, timeout=_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"no Dask scheduler answers at {where} within {_TIMEOUT_S} s ({error}). Start one with dask-scheduler and "
            "pass the address that it prints or its scheduler file, or pass --dask auto."
        ) from error
    with _closed(client):
        yield client


@contextmanager
def _closed(opened: AbstractContextManager[T]) -> Iterator[T]:
    """Close a client or cluster at the end of the block; if it is closed late, the block's outcome stays the same.

    On a loaded machine, workers may not answer in time; Dask ends them with this process.
    """
    entered = opened.__enter__()
    try:
        yield entered
    finally:
        try:
            opened.__exit__(*sys.exc_info())
        except OSError as error:
            log.debug("Dask is closed late: %r", error)


@contextmanager
def own_cluster(processes: int, threads: int = 1) -> Iterator[Any]:
    """A Dask cluster on this machine: so many worker processes of so many threads each."""
    from dask import config
    from dask.distributed import LocalCluster

    settings = {
        "n_workers": processes,
        "threads_per_worker": threads,
        # Any free port: with the default, a second cluster on this machine would warn.
        "dashboard_address": "127.0.0.1:0",
        # Errors come back with the outcome, and the caller reports them.
        "silence_logs": logging.CRITICAL,
        "preload": [_PRELOAD],
    }
    with config.set(_SETTINGS), _closed(LocalCluster(**settings)) as cluster:
        yield cluster


def is_own_worker() -> bool:
    """True in a worker process of our own cluster."""
    return _OWN_WORKER in os.environ


def run_unit(stages: Stages[U], unit: U) -> Any:
    """Read, compute and write one unit; returns what `write` returns. This is the task of a Dask worker."""
    try:
        return _written(stages, unit, stages.compute(unit, stages.read(unit)))
    except LandscribeError as error:
        # GDAL's errors cannot be pickled: with one as its cause, ours would arrive as another type.
        error.__cause__ = error.__context__ = None
        raise


def select_shard(units: Sequence[U], shard: tuple[int, int] | None) -> Sequence[U]:
    """Every n-th unit from the i-th on, for shard (i, n) with i from 1 to n; all units if None.

    >>> select_shard([10, 11, 12, 13, 14], (2, 3))
    [11, 14]
    """
    return units if shard is None else units[shard[0] - 1 :: shard[1]]
