"""Claims: one process at a time writes an output. A verb claims its output before it starts."""

import errno
import logging
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from landscribe import locks
from landscribe.errors import OutputError, is_printable, is_utf8
from landscribe.outputs.atomic import remove_empty, remove_stale
from landscribe.outputs.refusals import os_errors, refuse_blocked

log = logging.getLogger(__name__)

_REPLACED_WHOLE = {
    "a chips folder": ("chips.json", "chips.parquet"),
    "a model folder": ("config.json", "model.safetensors"),
}
"""Folders that a command replaces with all that they hold, and the files by which they are known."""
_LONGEST_NAME = 215
"""Bytes of the name of an output: the names of its parts, with 8 digits and suffixes, are up to 40 bytes longer."""
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
            refuse_blocked(path)
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
