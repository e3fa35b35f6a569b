"""Locks of files as Windows has them, made of those of this system: the module stands for msvcrt."""

import fcntl
import os
import sys
from pathlib import Path

import pytest

from landscribe import locks

LK_NBLCK = 2
_unlink = Path.unlink


def locking(file: int, mode: int, count: int) -> None:
    """Lock bytes from the position of a file for this process alone."""
    assert mode == LK_NBLCK
    assert os.lseek(file, 0, os.SEEK_CUR) > os.fstat(file).st_size, "others cannot read the text of the file"
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, count, 0, os.SEEK_CUR)
    except BlockingIOError:
        raise PermissionError(13, "Permission denied") from None


def _unlink_closed(path: Path, **how: bool) -> None:
    """Remove a file; a lock file only if no process has it open, which each does that has locked it."""
    if path.suffix == ".lock":
        with path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _unlink(path, **how)


def install(patch: pytest.MonkeyPatch) -> None:
    """Let this process lock files as on Windows."""
    patch.setattr(locks, "fcntl", None)
    patch.setitem(sys.modules, "msvcrt", sys.modules[__name__])
    patch.setattr(Path, "unlink", _unlink_closed)
