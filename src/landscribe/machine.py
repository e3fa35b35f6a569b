"""This machine: processor cores, memory, processor name. Torch is not imported."""

import ctypes
import os
import platform
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from landscribe.errors import ResourceError

# For systems that do not report their memory.
_DEFAULT_MEMORY = 8 * 2**30
_DEFAULT_OPEN_FILES = 1024
_BYTE_UNITS = {"GB": 1e9, "MB": 1e6, "kB": 1e3}
_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_CPUINFO = Path("/proc/cpuinfo")


def cores() -> int:
    """Count the processor cores that this process may use; a cluster's job may use fewer than its machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total_memory() -> int:
    """Bytes of this machine, or of the container that limits them; 8 GiB if the system does not report it."""
    total = _DEFAULT_MEMORY
    with suppress(AttributeError, ValueError, OSError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(AttributeError, OSError):
        total = _memory_of_windows()
    for path in _CONTAINER_LIMITS:
        # A container without a limit holds "max", or a number larger than the memory.
        with suppress(OSError, ValueError):
            total = min(total, int(Path(path).read_text(encoding="ascii")))
    return total


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of Windows, as its documentation has it."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 6),
    )


def _memory_of_windows() -> int:
    """Bytes of a machine with Windows; other systems lack what it calls, an AttributeError."""
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    if not getattr(ctypes, "windll").kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):  # noqa: B009  for mypy
        raise OSError("the memory is not known")
    return status.total


def most_open_files() -> int:
    """Count the files that this process may have open; 1024 if the system does not report it, as Windows."""
    try:
        import resource
    except ImportError:
        return _DEFAULT_OPEN_FILES
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _DEFAULT_OPEN_FILES if limit == resource.RLIM_INFINITY else limit


def bytes_text(count: float) -> str:
    """Bytes as text, without an exponent.

    >>> [bytes_text(count) for count in (300_000, 2.5e9, 999.9e9, 20)]
    ['300 kB', '2.5 GB', '1,000 GB', '20 bytes']
    """
    unit, size = next(((unit, size) for unit, size in _BYTE_UNITS.items() if count >= size), ("bytes", 1))
    return f"{count / size:,.0f} {unit}" if count >= 100 * size else f"{count / size:.3g} {unit}"


def require_memory(needed: float, purpose: str, remedy: str) -> None:
    """Raise ResourceError if this machine has less memory than `needed` bytes.

    Args:
        needed: a lower bound, in bytes.
        purpose: what needs them, with values.
        remedy: a sentence that says what to do.
    """
    total = total_memory()
    if needed > total:
        raise ResourceError(
            f"{purpose} needs at least {bytes_text(needed)} of memory, but this machine has {bytes_text(total)}. "
            f"{remedy}"
        )


def free_disk(folder: Path) -> tuple[Path, int]:
    """The nearest parent of a folder that exists, which need not be the folder itself, and the free bytes there."""
    folder = folder.absolute()
    disk = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return disk, shutil.disk_usage(disk).free


def require_disk(folder: Path, needed: float, purpose: str, remedy: str) -> None:
    """Raise ResourceError if the disk of a folder, which need not exist yet, has less free space than `needed` bytes.

    Args:
        folder: that is to be written.
        needed: a lower bound, in bytes.
        purpose: what needs them, with values.
        remedy: a sentence that says what to do.
    """
    disk, free = free_disk(folder)
    if needed > free:
        raise ResourceError(
            f"{purpose} needs at least {bytes_text(needed)} of disk, but {disk} has {bytes_text(free)} free. {remedy}"
        )


class Heap:
    """The memory that glibc's heaps hold for this process; other C libraries are left alone.

    Small blocks that live long, as those of GDAL's cache, lie between large arrays in these heaps, so that freed arrays
    are not used again, and pile up.
    """

    _GROWTH = 2**28
    """Bytes after which freed memory is given back: sooner, the next arrays would only wait for it again."""

    def __init__(self) -> None:
        self._kept = 0

    def trim(self) -> None:
        """Give freed memory back to the system, if the process has grown much since the last time."""
        with suppress(AttributeError, OSError, TypeError, ValueError):
            if _resident() > self._kept + self._GROWTH:
                ctypes.CDLL(None).malloc_trim(0)
                self._kept = _resident()


HEAP = Heap()


def _resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_has_bfloat16() -> bool:
    """True if the processor multiplies numbers in bfloat16, as far as Linux says so; others emulate it slowly."""
    flags = _CPUINFO.read_text(encoding="utf-8").split() if _CPUINFO.exists() else []
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def peak_memory() -> int | None:
    """Bytes of the most memory that this process has held; None on Windows, which does not report it."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kilobytes, macOS bytes.
    return peak if sys.platform == "darwin" else peak * 1024


def processor_name() -> str:
    """Name of the processor, such as "AMD EPYC 7763"; its architecture if the system has no name for it."""
    # On Linux the platform module does not know the name.
    lines = _CPUINFO.read_text(encoding="utf-8").splitlines() if _CPUINFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
