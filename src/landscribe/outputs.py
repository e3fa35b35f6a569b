"""Atomic output: files and folders are written whole or not at all, by one process at a time.

Output is written under a temporary name beside the final path and renamed when complete. So a reader never meets half
a file, and a failed step leaves nothing behind, parent folders included. A verb claims its output before it starts.
"""

import errno
import glob
import logging
import os
import platform
import shutil
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from landscribe import locks
from landscribe.errors import OutputError, is_printable, is_utf8
from landscribe.texts import json_text

log = logging.getLogger(__name__)

_STATES = ("partial", "replaced", "abandoned")
"""Of a temporary file or folder: being written, moved aside for its successor, to be removed."""
_REPLACED_WHOLE = {
    "a chips folder": ("chips.json", "chips.parquet"),
    "a model folder": ("config.json", "model.safetensors"),
}
"""Folders that a command replaces with all that they hold, and the files by which they are known."""
_LONGEST_NAME = 215
"""Bytes of the name of an output: the names of its parts, with 8 digits and suffixes, are up to 40 bytes longer."""
_IN_USE = (5, 32, 33)
"""Errors of Windows about a file that a program has open: access denied, sharing violation, lock violation."""
# Locks belong to a process: a second claim within the process is found here.
_claims: dict[Path, bool] = {}
_claims_guard = threading.Lock()


@contextmanager
def claim(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Claim an output for this process, and remove what killed processes left half-written of it.

    The claim is a lock of the system on a hidden file beside the output. It ends with the process, however that ends.
    Where a network file system has no locks, a warning says so, the block runs without a claim, and nothing is removed.

    Args:
        path: the file or folder that the block writes.
        shared: other processes may claim it as well, as the shards of one map do.

    Raises:
        OutputError: another process writes the output, its folder cannot be written, or it lies in a chips or model
            folder.
    """
    if not is_utf8(str(path)):
        raise OutputError(f"{path} has a name that is not UTF-8, which GDAL cannot write. Choose another path.")
    if not is_printable(path.name):
        raise OutputError(f"{path} has a control character in its name. Choose another path.")
    real = path.resolve()
    if not real.name:
        raise OutputError(f"{path} is the root of a disk. Choose another path.")
    if (length := len(os.fsencode(real.name))) > _LONGEST_NAME:
        raise OutputError(
            f"the name of {real.name[:20]}… has {length} bytes. Expected at most {_LONGEST_NAME}: temporary files have "
            "longer names, and systems take 255. Choose a shorter one."
        )
    _refuse_replaced_folder(path, real)
    with _claims_guard:
        if real in _claims and not (shared and _claims[real]):
            raise OutputError(f"{path} is being written by this process. Wait until it ends, or choose another path.")
        is_first = real not in _claims
        _claims.setdefault(real, shared)
    if not is_first:
        yield
        return
    missing = [parent for parent in path.parents if not parent.exists()]
    lock = real.with_name(f".{real.name}.lock")
    try:
        with os_errors(path):
            _refuse_blocked(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            file = _acquired(lock, path, shared=shared)
        try:
            if file is not None and not shared:
                remove_stale(real)
            yield
        finally:
            if file is not None:
                locks.close_locked(file, lock)
    except BaseException:
        remove_empty(missing)
        raise
    finally:
        with _claims_guard:
            del _claims[real]


def _refuse_replaced_folder(path: Path, real: Path) -> None:
    """Raise OutputError for an output in a folder that --overwrite replaces, and the output with it."""
    for folder in real.parents:
        for kind, files in _REPLACED_WHOLE.items():
            if all((folder / name).exists() for name in files):
                raise OutputError(
                    f"{path} lies in {folder}, {kind}, which --overwrite replaces with all that it holds. Nothing was "
                    "changed. Choose another path."
                )


def _refuse_blocked(path: Path) -> None:
    """Raise OutputError if a folder of the path is a file, or a link to nothing."""
    for parent in path.parents:
        if parent.is_dir():
            return
        if parent.is_symlink():
            raise OutputError(f"cannot write {path}: {_broken_link(parent)}")
        if parent.exists():
            raise OutputError(f"cannot write {path}: {parent} is a file. Expected a folder. Choose another path.")


def _broken_link(path: Path) -> str:
    return f"{path} is a link to {path.readlink()}, which is not there. Make that folder, or choose another path."


def _acquired(lock: Path, path: Path, *, shared: bool) -> int | None:
    """Descriptor of a lock file that this process holds; None if files cannot be locked there."""
    while True:
        try:
            file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                return None  # writing the output says what is wrong, unless the output is a folder that exists
            raise
        try:
            locks.lock(file, shared=shared)
        except OSError as error:
            holder = os.read(file, 200).decode(errors="replace")
            os.close(file)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise OutputError(
                    f"{path} is being written by another command{holder}. Nothing was changed. Wait until it ends, or "
                    "choose another path."
                ) from None
            log.warning("%s cannot be locked: %s. Do not run two commands that write it at once", path, error.strerror)
            return None
        # The process that held the lock before removed its file at the end.
        if os.fstat(file).st_nlink:
            with suppress(OSError):  # on a full disk, the claim holds without the name of its process
                os.ftruncate(file, 0)
                os.write(file, f" (process {os.getpid()} on {platform.node()})".encode())
            return file
        os.close(file)


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
        _refuse_working_folder(path)
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


def require_absent(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError if `path` is a file or a folder that is not empty, unless `overwrite` and nothing edits it."""
    is_empty_folder = path.is_dir() and not any(path.iterdir())
    if path.exists() and not is_empty_folder and not overwrite:
        raise OutputError(f"{path} exists already. Nothing was changed. Choose another path, or pass --overwrite.")
    locks.require_unlocked(path)


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


def require_output_file(path: Path) -> None:
    """Raise OutputError if a file cannot be written, before hours of work are spent on its content."""
    _refuse_folder(path)
    require_writable(path)


def require_replaceable(path: Path, content: str, suffixes: Sequence[str], is_own: Callable[[str], bool]) -> None:
    """Raise OutputError if a text file cannot be written, or would replace a file of another kind.

    For outputs that replace earlier ones without --overwrite: a slip in a path must not cost a map, or labels that
    people made.

    Args:
        path: the output.
        content: of the output, in words.
        suffixes: that its name may have.
        is_own: True for the text of an earlier output.
    """
    _refuse_folder(path)
    if path.suffix.lower() not in suffixes:
        raise OutputError(
            f"{path} does not end in {' or '.join(suffixes)}, as a file of {content} does. Nothing was changed. Choose "
            "another name."
        )
    if path.exists() and not is_own(path.read_text(encoding="utf-8", errors="replace")):
        raise OutputError(
            f"{path} exists already, and does not hold {content}. Nothing was changed. Choose another path, or remove "
            "the file."
        )
    require_writable(path)


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise OutputError(f"{path} is a folder. Expected a file. Choose another path.")


def refuse_file(folder: Path) -> None:
    """Raise OutputError if `folder` is a file, or a link to nothing."""
    if folder.is_symlink() and not folder.exists():
        raise OutputError(_broken_link(folder))
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file. Expected a folder. Choose another path.")


def _refuse_working_folder(folder: Path) -> None:
    """Raise OutputError if `folder` holds the working folder, which would be replaced under the user's feet."""
    if Path.cwd().is_relative_to(folder.resolve()):
        raise OutputError(f"{folder} is or holds the working folder. Expected a folder in it. Choose another path.")


def require_output_folder(folder: Path, *, mark: str, overwrite: bool) -> None:
    """Raise OutputError if a folder cannot be written, before hours of work are spent on its content.

    Args:
        folder: the output folder of a command.
        mark: a file that each output folder of this command holds. A folder without it is never overwritten.
        overwrite: replace an output folder of the same command.
    """
    with os_errors(folder):
        refuse_file(folder)
        _refuse_working_folder(folder)
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
        with suppress(FileNotFoundError, FileExistsError):
            # Nothing changes, but Windows refuses to rename what a program has open, and would refuse to replace it.
            path.rename(path)
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
        remedy = "Free disk space, or choose another path that is writable."
        if getattr(error, "winerror", None) in _IN_USE and path.exists():
            remedy = (
                "Another program may have it open, such as QGIS, ArcGIS or a notebook. Close it and repeat the "
                "command, or choose another path."
            )
        raise OutputError(f"cannot write {path}: {reason}. Nothing half-written was left. {remedy}") from error


@contextmanager
def _with_parents(path: Path) -> Iterator[None]:
    """Create the missing parents of `path`; remove them again if the block fails."""
    with os_errors(path):
        _refuse_blocked(path)
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
