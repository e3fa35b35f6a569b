"""The terminal: results on stdout; bars, remarks and one line of refusal on stderr.

All text passes `show` or `say`, which escape the control characters of foreign names.
"""

import _thread
import io
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from landscribe import progress
from landscribe.errors import LandscribeError, UnfinishedError, machine_errors, printable

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_UNTIL_FORESEEN = 60.0
_SECONDS_UNTIL_ASKED_AGAIN = 0.05


class _Remarks(logging.Handler):
    """Remarks of the library, as plain lines."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        say(f"{prefix}{record.getMessage()}")


def show_progress() -> None:
    """From now on, show on stderr how far things are: bars on a terminal, lines now and then elsewhere."""
    logger = logging.getLogger("landscribe")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Remarks())
    logger.propagate = False
    # What GDAL says to its log stands in our one line.
    logging.getLogger("rasterio").addHandler(logging.NullHandler())
    progress.reporter.set(_bar if sys.stderr.isatty() else _lines)


@contextmanager
def _bar(what: str, total: int) -> Iterator[progress.Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    # Of a line that is too short for all, the note gives way.
    note_column = TextColumn(
        "{task.fields[note]}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
    )
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=12), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), note_column,
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), expand=True) as bars:
        task = bars.add_task(printable(what), total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            bars.update(task, advance=steps)
            if note:
                bars.update(task, note=printable(note))

        yield advance


@contextmanager
def _lines(what: str, total: int) -> Iterator[progress.Advance]:
    started = last = time.monotonic()
    done = 0

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal last, done
        done += steps
        now = time.monotonic()
        if done and now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            spent = now - started
            # The first steps tell little: workers start, and the unit that ends first may be the smallest.
            is_known = spent >= _SECONDS_UNTIL_FORESEEN or done >= total / 20
            left = f", about {duration(spent / done * (total - done))} left" if is_known else ""
            say(f"{what}: {done} of {total}{left}{f' ({note})' if note else ''}")

    yield advance
    say(f"{what}: {done} of {total} in {duration(time.monotonic() - started)}")


def say(text: str) -> None:
    """One line on stderr."""
    print(printable(text), file=sys.stderr, flush=True)  # noqa: T201


def show(line: object) -> None:
    """One line of the result, on stdout."""
    print(printable(line))  # noqa: T201


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(75)
    '1 min 15 s'
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


# Typer brings click along under different names in different versions.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Click's error of a command line that it cannot read."""


def end_with_code_of(app: typer.Typer) -> NoReturn:
    """Run a command line and end the process: 0 done, 2 the user's mistake, 1 ours or work left, 130 interrupted."""
    show_progress()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding != "utf-8":
        # A pipe or file has the encoding of the system, on Windows often one of 256 characters. Its reader expects that
        # one, so it stays, and other characters are escaped, as Python does on stderr. JSON has escapes of its own.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _interruptible(), machine_errors():
            code = app(standalone_mode=False)
    except LandscribeError as error:
        code = _refused(str(error), 1 if isinstance(error, UnfinishedError) else 2)
    except UsageError as error:
        code = _misused(error)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    if code == 130:  # newer versions of typer return it, older ones let the interruption through
        _refused("interrupted; nothing half-written is left, and the same command goes on or begins again", 130)
    sys.exit(code or 0)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Tell SIGTERM, which ends jobs on clusters and in containers, like Ctrl-C, and let no interruption get lost."""
    handle, say_lost = signal.signal(signal.SIGTERM, signal.default_int_handler), sys.unraisablehook

    def ask_again(lost: Any) -> None:
        # Python drops an interruption that is raised while it clears an object away. It is raised again a little later.
        if issubclass(lost.exc_type, KeyboardInterrupt):
            again = threading.Timer(_SECONDS_UNTIL_ASKED_AGAIN, _thread.interrupt_main, [signal.SIGTERM])
            again.daemon = True
            again.start()
        else:
            say_lost(lost)

    sys.unraisablehook = ask_again
    try:
        yield
    finally:
        sys.unraisablehook = say_lost
        signal.signal(signal.SIGTERM, handle)


def _misused(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    # Typer lets pydantic check the choices of a flag.
    said = error.format_message().replace(": Value error, ", ": ")
    command = error.ctx.command_path if error.ctx else "landscribe"
    return _refused(f'{said}{"" if said.endswith((".", "?")) else "."} See "{command} --help".', 2)


def _refused(line: str, code: int) -> int:
    say(f"landscribe: {line}")
    return code
