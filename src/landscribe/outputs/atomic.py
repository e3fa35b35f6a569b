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
from typing import Any

from landscribe import locks
from landscribe.outputs.refusals import os_errors, refuse_blocked, refuse_file, refuse_working_folder, require_absent
from landscribe.texts import json_text

_STATES = ("partial", "replaced", "abandoned")
"""Of a temporary file or folder: being written, moved aside for its successor, to be removed."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the same suffix; rename it to `path` when the block succeeds.

    Raises:
        OutputError: `path` cannot be written (read-only, disk full, not in a folder).
    """
    # The name keeps all suffixes: GDAL picks drivers and side files by them.
    temporary = _beside(path, f".{uuid.uuid4().hex[:8]}.partial.")
    with _with_parents(path):
        try:
            yield temporary
            _flush_to_disk(temporary)
            locks.remove_log(path)
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
        refuse_working_folder(path)
        require_absent(path, overwrite=overwrite)
    mark = uuid.uuid4().hex[:8]
    temporary, replaced, abandoned = (_beside(path, f".{mark}.{state}.") for state in _STATES)
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


@contextmanager
def atomic_files(path: Path) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder; move the folder's files to that of `path` at success.

    For formats of several files. `path` itself moves last: where it exists, the others do.

    Raises:
        OutputError: `path` cannot be written.
    """
    folder = _beside(path, f".{uuid.uuid4().hex[:8]}.partial.")
    with _with_parents(path):
        try:
            folder.mkdir()
            yield folder / path.name
            for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
                _flush_to_disk(file)
                locks.remove_log(path)
                file.replace(path.with_name(file.name))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path` for temporary files. If the process is killed, the next claim of `path` removes it.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = _beside(path, f".{uuid.uuid4().hex[:8]}.partial.")
    with os_errors(path):
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _beside(path: Path, prefix: str) -> Path:
    """A path in the same folder, with a prefix before the name."""
    path = Path(os.path.abspath(path)) if path.name in ("", "..") else path  # noqa: PTH100  keeps links
    return path.with_name(f"{prefix}{path.name}")


def remove_stale(path: Path) -> None:
    """Remove temporary files and folders of `path` that killed processes left beside it.

    Where a process was killed after it had moved the old folder aside, and before the new one was there, the old one
    comes back.
    """
    for state in _STATES:
        for stale in path.parent.glob(f".{'[0-9a-f]' * 8}.{state}.{glob.escape(path.name)}"):
            if state == "replaced" and not path.exists():
                stale.replace(path)
            elif stale.is_dir() and not stale.is_symlink():
                shutil.rmtree(stale, ignore_errors=True)
            else:
                stale.unlink(missing_ok=True)


def remove_whole(path: Path) -> None:
    """Remove a file or folder, if there is one. A killed process leaves no part of a folder under its name."""
    if path.is_dir() and not path.is_symlink():
        abandoned = _beside(path, f".{uuid.uuid4().hex[:8]}.abandoned.")
        path.replace(abandoned)
        shutil.rmtree(abandoned, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON, whole or not at all; see `json_text`."""
    write_text(path, json_text(value) + "\n")


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove the folders that are empty."""
    for folder in folders:
        # The system refuses to remove a folder that is not empty.
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _with_parents(path: Path) -> Iterator[None]:
    """Create the missing parents of `path`; remove them again if the block fails."""
    with os_errors(path):
        refuse_blocked(path)
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
