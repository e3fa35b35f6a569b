"""Refusals: paths that no output may have, and the errors of the system about one, in one line."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from landscribe import locks
from landscribe.errors import OutputError

_IN_USE = (5, 32, 33)
"""Errors of Windows about a file that a program has open: access denied, sharing violation, lock violation."""


def output_path(path: str | Path) -> Path:
    """The path of an output.

    Raises:
        OutputError: it is no path, or the name is empty, which would be the working folder.
    """
    if not isinstance(path, (str, Path)):
        raise OutputError(f"an output is {path!r}. Expected a path.")
    if not str(path):
        raise OutputError("the name of an output is empty, which would be the working folder. Give a path.")
    return Path(path)


def require_apart(outputs: Iterable[Path], inputs: Collection[Path]) -> None:
    """Raise OutputError if an output is an input (resolved)."""
    if path := next((path for path in outputs if path.resolve() in inputs), None):
        raise OutputError(f"{path} is an input. Nothing was changed. Choose another path.")


def require_absent(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError if `path` is a file or a folder that is not empty, unless `overwrite` and nothing edits it."""
    is_empty_folder = path.is_dir() and not any(path.iterdir())
    if path.exists() and not is_empty_folder and not overwrite:
        raise OutputError(f"{path} exists already. Nothing was changed. Choose another path, or pass --overwrite.")
    locks.require_unlocked(path)


def refuse_file(folder: Path) -> None:
    """Raise OutputError if `folder` is a file, or a link to nothing."""
    if folder.is_symlink() and not folder.exists():
        raise OutputError(broken_link(folder))
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file. Expected a folder. Choose another path.")


def refuse_folder(path: Path) -> None:
    """Raise OutputError if `path` is a folder."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder. Expected a file. Choose another path.")


def refuse_working_folder(folder: Path) -> None:
    """Raise OutputError if `folder` holds the working folder, which would be replaced under the user's feet."""
    if Path.cwd().is_relative_to(folder.resolve()):
        raise OutputError(f"{folder} is or holds the working folder. Expected a folder in it. Choose another path.")


def refuse_blocked(path: Path) -> None:
    """Raise OutputError if a folder of the path is a file, or a link to nothing."""
    for parent in path.parents:
        if parent.is_dir():
            return
        if parent.is_symlink():
            raise OutputError(f"cannot write {path}: {broken_link(parent)}")
        if parent.exists():
            raise OutputError(f"cannot write {path}: {parent} is a file. Expected a folder. Choose another path.")


def broken_link(path: Path) -> str:
    """What is wrong with a link to nothing, for messages."""
    return f"{path} is a link to {path.readlink()}, which is not there. Make that folder, or choose another path."


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turn an OSError (read-only, disk full, no such folder) into an OutputError of one line about `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "Free disk space, or choose another path that is writable."
        if getattr(error, "winerror", None) in _IN_USE and path.exists():
            remedy = (
                "Another program may have it open, such as QGIS, ArcGIS or a notebook. Close it and repeat the "
                "command, or choose another path."
            )
        raise OutputError(f"cannot write {path}: {reason}. Nothing half-written was left. {remedy}") from error
