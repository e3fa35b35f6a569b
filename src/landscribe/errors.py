"""Errors that the user can correct. Each message says what is wrong, with values, what is expected and what to do.

The command line prints the message as one line and exits with 2. Any other exception is a bug of ours.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Control characters, line separators, overrides of the writing direction, lone surrogates (bytes of a file name that
# are not UTF-8) and two code points that no XML may hold. Joiners of Persian or Indic names are not among them.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
LONGEST_VALUE = 90
"""Characters of a value in a message; longer values are cut."""
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "DefaultCPUAllocator: not enough memory",  # on Windows
    "CUDA error: out of memory",
    "MPS backend out of memory",
)
_NO_GUARD = 'In a script, write the calls of landscribe below the line: if __name__ == "__main__":.'
_NO_MEMORY = "Memory may be short; in a container, also its shared memory (docker run --shm-size)."
_LINE_ENDS = re.compile(r"\s*[\r\n]\s*")


def printable(text: object) -> str:
    r"""The text with its control characters escaped, so that a terminal prints them and does not obey them.

    >>> printable("house\x1b[31m")
    'house\\x1b[31m'
    """
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], str(text))


def is_printable(text: str) -> bool:
    """True if `printable` leaves the text as it is."""
    return _CONTROL.search(text) is None


def is_utf8(name: str) -> bool:
    """True for a file name whose bytes are UTF-8; Python holds other bytes as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def first_line(error: BaseException) -> str:
    """The first line of an error's message without its full stop, or the error's type: a part of a longer message.

    >>> first_line(ValueError("no such name. Expected another."))
    'no such name. Expected another'
    """
    message = str(error).strip()
    return message.splitlines()[0].rstrip(".") if message else type(error).__name__


def counted(count: int, noun: str) -> str:
    """A number of things for a message.

    >>> counted(1, "mask"), counted(2000, "mask")
    ('1 mask', '2,000 masks')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def per_cent(share: float) -> str:
    """A share in per cent, with as many digits as measures have; only 0 and 1 are printed as 0 and 100.

    >>> [per_cent(share) for share in (0.0, 0.0001, 0.345, 0.9999, 1.0)]
    ['0 %', '<0.1 %', '34.5 %', '>99.9 %', '100 %']
    """
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    if 0 < share < 0.0005:
        return "<0.1 %"
    return ">99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def listed(names: Iterable[object], most: int = 3) -> str:
    """Names for a message: the first ones, and how many more there are.

    >>> listed(["a.tif", "b.tif", "c.tif", "d.tif", "e.tif"])
    'a.tif, b.tif, c.tif and 2 more'
    """
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def shortened(text: str) -> str:
    """The text of a value for a message, cut if it is long."""
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


class LandscribeError(Exception):
    """An error in the input, the settings or the machine that the user can correct."""

    def __str__(self) -> str:
        """The message in one line; control characters of names and values in it are escaped."""
        return printable(_LINE_ENDS.sub(" ", super().__str__()))


class GridError(LandscribeError):
    """Rasters on different grids, or a grid that cannot be used."""


class RasterError(LandscribeError):
    """A raster that cannot be opened or read, or whose pixels cannot be used."""


class UnreachableError(RasterError):
    """A raster that cannot be opened: it is missing or damaged, or its server does not answer."""


class ReadError(RasterError):
    """A window of a raster that cannot be read now: it is damaged, or its server does not answer."""


class ServerError(ReadError):
    """A window of a raster that its server does not send now: it is down, busy, or refuses."""


class LabelError(LandscribeError):
    """Labels that cannot be read, located on the image or used."""


class OutsideError(LabelError):
    """No polygon of a file lies on a raster."""


class EmptyError(LabelError):
    """A vector file that holds no features."""


class ClassError(LandscribeError):
    """An inconsistent class table, or a value that it does not list."""

    labels: tuple[int | str, ...] = ()
    """The labels that a class table does not list, if that is the error."""


class TilingError(LandscribeError):
    """A size, stride or margin that cannot cover a raster."""


class SampleError(LandscribeError):
    """A reference sample that cannot be drawn, or from which nothing can be estimated."""


class ChipError(LandscribeError):
    """Chips that cannot be cut, read or split."""


class RecipeError(LandscribeError):
    """A recipe or setting that is not valid."""


class MissingPartsError(RecipeError):
    """The folder of an example of the lecture lacks files; the message is the first of its lines."""

    def __init__(self, lines: Sequence[str]) -> None:
        more = f' ({len(lines) - 1} more: "landscribe check" lists them.)' if len(lines) > 1 else ""
        super().__init__(lines[0] + more)
        self.lines = tuple(lines)
        """A line for each missing part."""


class NetworkError(LandscribeError):
    """An unknown architecture, encoder, loss or weight file."""


class WithoutEffectError(NetworkError):
    """An option of a network that would change nothing."""

    def __init__(self, message: str, **same: Any) -> None:
        super().__init__(message)
        self.same = same
        """The option, with the value that builds the same network."""


class ModelError(LandscribeError):
    """A model folder that is incomplete, altered, unsafe, or does not fit the raster."""


class OutputError(LandscribeError):
    """An output that cannot be written, or that exists already."""


class DamagedPartError(OutputError):
    """A part of a map that we wrote and cannot read again. Without its file, the same command writes it anew."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}, a part of the map, {reason}")
        self.path = path


class EngineError(LandscribeError):
    """Workers that cannot be reached or lack memory, or a wrong division of the work."""


class BackendError(LandscribeError):
    """A backend that is not installed, or does not run this network or on this device."""


class ResourceError(LandscribeError):
    """More memory or disk than this machine has, or a file that the system cannot read or write."""


class UnfinishedError(LandscribeError):
    """Work is left: the finished part is kept, and the same command resumes it. The command line exits with 1."""


def root_cause(error: BaseException) -> str:
    """The first error of a chain, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}{': ' + lines[0][:160].rstrip('. ') if lines else ''}"


def is_out_of_memory(error: Exception) -> bool:
    """True for MemoryError, and for torch's errors about the memory of a GPU or CPU, or pinned for a GPU."""
    # torch is not imported for its class; on CPUs, on MPS and for pinned memory it has none of its own.
    is_torchs = any(text in str(error) for text in _OUT_OF_MEMORY)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or is_torchs


@contextmanager
def machine_errors() -> Iterator[None]:
    """Turn MemoryError, RecursionError, OSError, torch's errors of memory and loader workers into a ResourceError."""
    try:
        yield
    except (MemoryError, RecursionError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            files = " and ".join(os.fsdecode(name) for name in (error.filename, error.filename2) if name is not None)
            if not files and isinstance(error, (TimeoutError, ConnectionError)):
                raise ResourceError(
                    f"another process or machine does not answer ({error.strerror or first_line(error)}). Repeat the "
                    "same command; if it fails again, start fewer processes or check the network."
                ) from error
            raise ResourceError(
                f"{files or 'a file'} cannot be read or written: {error.strerror or error}. Check the path, its "
                "permissions and the free disk space."
            ) from error
        if is_out_of_memory(error):
            raise ResourceError(
                f"out of memory ({error or type(error).__name__}). Use smaller sizes, such as --batch or --tile, or a "
                "machine with more memory."
            ) from error
        if "DataLoader worker (pid" in str(error):  # a RuntimeError of torch
            likely = _NO_GUARD if "exited unexpectedly" in str(error) else _NO_MEMORY
            raise ResourceError(
                f"a process that reads chips ended ({first_line(error).partition('. ')[0]}). {likely} With workers=0 "
                "(--workers 0), there is no such process."
            ) from error
        if isinstance(error, RecursionError):
            raise ResourceError("an input is nested too deeply to be read. Check its JSON, XML or VRT.") from error
        raise
