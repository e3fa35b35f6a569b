"""Processes that are forked from one that has imported the package: the import takes most of a short command's time."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["landscribe.commands.app", "landscribe.prediction.mapping", "landscribe.training.train_loop"]
)


def run_command(arguments: list[str], stderr: Path, modules: Path | None, environment: dict[str, str]) -> None:
    """Run the command line as a process of its own does, with modules from a folder; stderr goes to a file."""
    from landscribe.commands.app import main

    os.setsid()
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.environ.update(environment)
    sys.path.insert(0, str(modules))
    sys.argv = ["landscribe", *arguments]
    try:
        main()
    except Exception:  # noqa: BLE001
        # Python's own end of a program.
        sys.excepthook(*sys.exc_info())
        sys.exit(1)


def command(
    *arguments: object,
    folder: Path,
    modules: Path | None = None,
    begun: Callable[[str], bool] = lambda stderr: False,
    by: signal.Signals = signal.SIGINT,
    **environment: str,
) -> tuple[int, str]:
    """The exit code and stderr of a command; a signal interrupts it once it has `begun`.

    `begun` is asked with the stderr so far; `folder` gets the file of stderr.
    """
    stderr = folder / "stderr.txt"
    stderr.touch()
    process = CONTEXT.Process(target=run_command, args=([*map(str, arguments)], stderr, modules, environment))
    process.start()
    while process.is_alive() and not begun(stderr.read_text()):
        time.sleep(0.02)
    if process.is_alive():
        os.kill(process.pid, by)
    process.join(120)
    process.kill()
    process.join()
    return process.exitcode, stderr.read_text()
