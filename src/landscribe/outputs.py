"""Files and folders that are written whole or not at all.

Everything is made under a temporary name beside its place and renamed into it when complete, so that a
reader never meets half a file and a failed step leaves nothing behind, parent folders included.
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
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the same suffix; rename it to `path` when the block succeeds.

    Raises:
        OutputError: the place cannot be written (read-only, full, not a folder).
    """
    # The name keeps all suffixes: GDAL picks drivers and side files by them.
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.partial.{path.name}")
    with _in_made_parent(path):
        try:
            yield temporary
            _flush_to_disk(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder; rename it to `path` when the block succeeds.

    Args:
        path: the folder to make. It may exist when it is empty.
        overwrite: replace a folder that holds something.

    Raises:
        OutputError: `path` holds something, or the place cannot be written.
    """
    with explained(path):
        refuse_file(path)
        refuse_existing(path, overwrite=overwrite)
    mark = uuid.uuid4().hex[:8]
    names = (f".{mark}.{what}.{path.name}" for what in ("partial", "replaced", "given_up"))
    temporary, replaced, given_up = map(path.with_name, names)
    with _in_made_parent(path):
        try:
            temporary.mkdir()
            yield temporary
            if path.exists():
                # What stood there is moved aside first: at no moment are both lost.
                path.replace(replaced)
            temporary.replace(path)
            shutil.rmtree(replaced, ignore_errors=True)
        finally:
            if replaced.exists() and not path.exists():
                replaced.replace(path)
            # A process elsewhere that still writes into the folder does not find it any more under another name.
            with suppress(OSError):
                temporary.replace(given_up)
            for rest in (temporary, given_up):
                shutil.rmtree(rest, ignore_errors=True)


def sweep(path: Path) -> None:
    """Remove what attempts at `path` left beside it that were killed before they could clean up."""
    for stale in path.parent.glob(f".*.partial.{glob.escape(path.name)}"):
        stale.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError if something stands at `path` that was not given up for overwriting."""
    stands = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    if stands and not overwrite:
        raise OutputError(f"{path} exists already. Nothing was changed. Choose another place or pass --overwrite.")


def refuse_file(folder: Path) -> None:
    """Raise OutputError if a file stands where a folder is to be."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file. A folder was expected. Choose another place.")


def require_place(folder: Path, *, mark: str, overwrite: bool) -> None:
    """Raise OutputError if a folder cannot be made, before hours are spent on what is to go there.

    Args:
        folder: the place.
        mark: the file by which a folder is known as made by the same command: no other is overwritten.
        overwrite: replace such a folder.
    """
    with explained(folder):
        refuse_file(folder)
        refuse_existing(folder, overwrite=overwrite)
        if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).exists():
            raise OutputError(
                f"{folder} holds other files, and no {mark}. Nothing was changed: only what this command made is "
                "overwritten. Choose another place."
            )
    require_writable(folder)


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those folders that hold nothing."""
    for folder in folders:
        # Someone else may have put something there meanwhile: then the system refuses, and it stays.
        with suppress(OSError):
            folder.rmdir()


def require_writable(path: Path) -> None:
    """Raise OutputError if nothing can be made at `path`: before hours are spent on what is to go there."""
    with suppress(_Tried), whole_file(path) as temporary:
        temporary.touch()
        raise _Tried


class _Tried(Exception):  # noqa: N818
    """Ends a trial, so that it leaves nothing behind."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's refusals (read-only, full, no such folder) into one line about `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write {path}: {reason}. A writable place with enough room was expected. "
            "Nothing half-written was left; choose another place or make room."
        ) from error


@contextmanager
def _in_made_parent(path: Path) -> Iterator[None]:
    """Make the missing parents of `path`; remove those again if the block fails."""
    with explained(path):
        missing = [parent for parent in path.parents if not parent.exists()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield
        except BaseException:
            remove_empty(missing)
            raise


def _flush_to_disk(path: Path) -> None:
    """Make sure that the rename never names a file whose bytes are still on their way."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
