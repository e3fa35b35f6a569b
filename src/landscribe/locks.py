"""Locks of the system on open files, shared or exclusive. They end with the process; nothing waits for one."""

import os
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Locks of Windows are exclusive, and keep others from reading what is locked. So they lie far behind the text of the
# file: a shared lock is any one of these bytes, an exclusive one is all of them.
_BYTES = range(2**30, 2**30 + 256)


def lock(file: int, *, shared: bool) -> None:
    """Lock an open file for this process.

    Args:
        file: its descriptor, open for reading and writing.
        shared: other processes may share the lock; on Windows up to 256 do.

    Raises:
        OSError: EACCES or EAGAIN if another process holds the lock; another one if files cannot be locked there.
    """
    if fcntl is not None:
        fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return
    if not shared:
        _lock_bytes(file, _BYTES.start, len(_BYTES))
        return
    for byte in _BYTES:
        try:
            _lock_bytes(file, byte, 1)
        except PermissionError:
            if byte == _BYTES[-1]:
                raise
        else:
            return


def _lock_bytes(file: int, first: int, count: int) -> None:
    import msvcrt

    os.lseek(file, first, os.SEEK_SET)
    try:
        msvcrt.locking(file, msvcrt.LK_NBLCK, count)  # type: ignore[attr-defined, unused-ignore]  # only on Windows
    finally:
        os.lseek(file, 0, os.SEEK_SET)


def close_locked(file: int, path: Path) -> None:
    """Close a locked file, and remove it unless another process shares the lock."""
    if fcntl is not None:
        with suppress(OSError):
            # Only the last of those that share a lock can have it alone.
            lock(file, shared=False)
            path.unlink()
    os.close(file)
    if fcntl is None:
        with suppress(OSError):  # Windows removes no file that a process has open
            path.unlink()
