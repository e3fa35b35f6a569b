"""Locks of the system on open files, shared or exclusive, and those of SQLite; nothing waits for one.

A lock of the system ends with the process.
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from landscribe.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Locks of Windows are exclusive, and keep others from reading what is locked. So they lie far behind the text of the
# file: a shared lock is any one of these bytes, an exclusive one is all of them.
_BYTES = range(2**30, 2**30 + 256)
_LOGS = ("-wal", "-shm", "-journal")
"""Added to the name of a SQLite file in those of its log: changes that are not in the file yet, or to be undone."""

_SECONDS = 10
"""How long a finished file waits for a program that saves its changes to the old one."""


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


def require_unlocked(path: Path, *, seconds: float = 0) -> None:
    """Raise OutputError if another program is changing a GeoPackage. The changes of its log move into the file.

    A killed program leaves the log; when its changes are in the file, the file is whole without it. Other files, and
    those that SQLite cannot read or change, are left as they are.

    Args:
        path: the file.
        seconds: how long to wait for the other program.
    """
    if path.suffix.lower() != ".gpkg" or not path.is_file():
        return
    absolute = quote(path.absolute().as_posix())
    # Without a server, which SQLite refuses: //server/share/a.gpkg of Windows is a path here.
    uri = f"file://{absolute if absolute.startswith('/') else f'/{absolute}'}?mode=rw"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None)) as database:
            # An exclusive lock would refuse programs that only read.
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        # The upper bits say why.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            raise OutputError(
                f"{path} is being changed by another program, such as QGIS. Nothing was changed. Save the edits and "
                "close it there, or choose another path."
            ) from None


def remove_log(path: Path) -> None:
    """Remove the log of a GeoPackage that is about to be replaced: SQLite would replay it into the new file.

    Raises:
        OutputError: as `require_unlocked`.
    """
    require_unlocked(path, seconds=_SECONDS)
    if path.suffix.lower() == ".gpkg":
        for suffix in _LOGS:
            path.with_name(path.name + suffix).unlink(missing_ok=True)
