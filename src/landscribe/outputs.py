"""Atomic output: files and folders are written whole or not at all.

Output is written under a temporary name beside the final path and renamed when complete. So a reader never meets half
a file, and a failed step leaves nothing behind, parent folders included.
"""

import glob
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from landscribe.errors import OutputError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the same suffix; rename it to `path` when the block succeeds.

    Raises:
        OutputError: `path` cannot be written (read-only, disk full, not in a folder).
    """
    # The name keeps all suffixes: GDAL picks drivers and side files by them.
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.partial.{path.name}")
    with _with_parents(path):
        try:
            yield temporary
            _flush_to_disk(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder; rename it to `path` when the block succeeds.

    Args:
        path: the folder. It may exist if it is empty.
        overwrite: replace a folder that is not empty.

    Raises:
        OutputError: `path` is not empty, or cannot be written.
    """
    with os_errors(path):
        refuse_file(path)
        require_absent(path, overwrite=overwrite)
    mark = uuid.uuid4().hex[:8]
    names = (f".{mark}.{state}.{path.name}" for state in ("partial", "replaced", "abandoned"))
    temporary, replaced, abandoned = map(path.with_name, names)
    with _with_parents(path):
        try:
            temporary.mkdir()
            yield temporary
            if path.exists():
                # The old folder is moved aside first, so that at no moment both are lost.
                path.replace(replaced)
            temporary.replace(path)
            shutil.rmtree(replaced, ignore_errors=True)
        finally:
            if replaced.exists() and not path.exists():
                replaced.replace(path)
            # A process elsewhere may still write into the folder: after the rename, it cannot find it.
            with suppress(OSError):
                temporary.replace(abandoned)
            for leftover in (temporary, abandoned):
                shutil.rmtree(leftover, ignore_errors=True)


def remove_stale(path: Path) -> None:
    """Remove temporary files of `path` that killed processes left beside it."""
    for stale in path.parent.glob(f".*.partial.{glob.escape(path.name)}"):
        stale.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def require_absent(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError if `path` is a file or a folder that is not empty, unless `overwrite`."""
    is_empty_folder = path.is_dir() and not any(path.iterdir())
    if path.exists() and not is_empty_folder and not overwrite:
        raise OutputError(f"{path} exists already. Nothing was changed. Choose another path, or pass --overwrite.")


def refuse_file(folder: Path) -> None:
    """Raise OutputError if `folder` is a file."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file. Expected a folder. Choose another path.")


def require_output_folder(folder: Path, *, mark: str, overwrite: bool) -> None:
    """Raise OutputError if a folder cannot be written, before hours of work are spent on its content.

    Args:
        folder: the output folder of a command.
        mark: a file that each output folder of this command holds. A folder without it is never overwritten.
        overwrite: replace an output folder of the same command.
    """
    with os_errors(folder):
        refuse_file(folder)
        require_absent(folder, overwrite=overwrite)
        if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).exists():
            raise OutputError(
                f"{folder} holds other files, and no {mark}. Nothing was changed: --overwrite replaces only output of "
                "the same command. Choose another path."
            )
    require_writable(folder)


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove the folders that are empty."""
    for folder in folders:
        # The system refuses to remove a folder that is not empty.
        with suppress(OSError):
            folder.rmdir()


def require_writable(path: Path) -> None:
    """Raise OutputError if `path` cannot be written, before hours of work are spent on its content."""
    with suppress(_TrialEnd), atomic_file(path) as temporary:
        temporary.touch()
        raise _TrialEnd


class _TrialEnd(Exception):  # noqa: N818
    """Leaves the block of a trial write, so that its file is removed."""


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turn an OSError (read-only, disk full, no such folder) into an OutputError of one line about `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write {path}: {reason}. No partial output was left. Free disk space, or choose another path that "
            "is writable."
        ) from error


@contextmanager
def _with_parents(path: Path) -> Iterator[None]:
    """Create the missing parents of `path`; remove them again if the block fails."""
    with os_errors(path):
        missing = [parent for parent in path.parents if not parent.exists()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield
        except BaseException:
            remove_empty(missing)
            raise


def _flush_to_disk(path: Path) -> None:
    """Write the file's bytes to the disk, so that a crash after the rename leaves no empty file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
