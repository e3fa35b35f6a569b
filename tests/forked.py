"""Processes that are forked from one that has imported the package: the import takes most of a short command's time."""

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import pytest

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["landscribe.commands.app", "landscribe.prediction.mapping", "landscribe.training.train_loop", "distributed"]
)


def start(function: Callable[..., Any], *arguments: Any, **settings: Any) -> ForkServerProcess:
    """A process that calls a function."""
    ensure_server()
    process = _CONTEXT.Process(target=function, args=arguments, kwargs=settings)
    process.start()
    return process


def train(chips: Path, **settings: Any) -> None:
    """`verbs.train` by a name that can be pickled: the verb is wrapped."""
    from landscribe import verbs

    verbs.train(chips, **settings)


def ensure_server() -> None:
    """Start the fork server, if it does not run, with this process's modules rather than an installed package's."""
    paths = os.pathsep.join(filter(None, sys.path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", paths)
        ensure_running()


@dataclass(frozen=True)
class Surroundings:
    """Of a process that runs a command. Limits are set the Linux way."""

    modules: Path | None = None
    """A folder of modules that it can import."""
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None
    """Its working folder."""
    largest_file: int | None = None
    """Bytes: files cannot grow beyond this size, as on a full disk."""
    forks_workers: bool = False
    """Dask workers on this machine are forked from this process: they stay in its session, as on a terminal."""
    obeys_modes: bool = False
    """The superuser, too, writes only where the modes of files allow it."""

    def enter(self) -> None:
        """Let this process have them, in a session of its own."""
        os.setsid()
        os.environ.update(self.environment)
        if self.modules is not None:
            sys.path.insert(0, str(self.modules))
        if self.folder is not None:
            os.chdir(self.folder)
        if self.forks_workers:
            import dask

            dask.config.set({"distributed.worker.multiprocessing-method": "fork"})
        if self.largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.largest_file,) * 2)
        if self.obeys_modes:
            _obey_modes()


def _obey_modes() -> None:
    """Give up the superuser's right to write anywhere; without it, it is its own files' owner and no more."""
    libc = ctypes.CDLL(None, use_errno=True)
    head, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(head, data) == 0
    data[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(head, data) == 0


def run_command(arguments: list[str], out: Connection, err: Connection, surroundings: Surroundings) -> None:
    """Run the command line as `python -m landscribe` does."""
    import landscribe
    from landscribe.commands.app import main

    for number, pipe in ((1, out), (2, err)):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    surroundings.enter()
    sys.argv = [str(Path(landscribe.__file__).with_name("__main__.py")), *arguments]
    try:
        main()
    except Exception:  # noqa: BLE001
        # Python's own end of a program.
        sys.excepthook(*sys.exc_info())
        sys.exit(1)


def command(
    *arguments: object,
    surroundings: Surroundings,
    begun: Callable[[], bool] | None = None,
    by: signal.Signals = signal.SIGINT,
    on_a_terminal: bool = False,
) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command; a signal interrupts it once it has `begun`.

    Ctrl-C on a terminal interrupts all processes of the command. A command prints less than a pipe holds, 64 kB.
    """
    (out, out_end), (err, err_end) = _CONTEXT.Pipe(duplex=False), _CONTEXT.Pipe(duplex=False)
    process = start(run_command, [*map(str, arguments)], out_end, err_end, surroundings)
    out_end.close()
    err_end.close()
    if begun is not None:
        while process.is_alive() and not begun():
            time.sleep(0.02)
        if process.is_alive():
            (os.killpg if on_a_terminal else os.kill)(process.pid, by)
    process.join(120)
    process.kill()
    process.join()
    return process.exitcode, _all_of(out), _all_of(err)


def _all_of(pipe: Connection) -> str:
    with os.fdopen(os.dup(pipe.fileno())) as file:
        pipe.close()
        return file.read()


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a process of its own."""
    ensure_server()
    with ProcessPoolExecutor(1, mp_context=_CONTEXT) as pool:
        return pool.submit(function, *arguments).result()
