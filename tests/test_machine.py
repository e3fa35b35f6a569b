"""Cores, memory and processor are read from the system, also in a container."""

import ctypes
import os
import platform
import struct
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import forked
from landscribe import machine
from landscribe.errors import ResourceError


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 4}, raising=False)
    assert machine.cores() == 3


def test_a_container_limits_the_memory(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "_CONTAINER_LIMITS", (str(limit),))
    unlimited = machine.total_memory()
    limit.write_text("max\n")
    assert machine.total_memory() == unlimited
    limit.write_text(f"{unlimited // 2}\n")
    assert machine.total_memory() == unlimited // 2


@pytest.mark.parametrize(("answer", "total"), [(1, 24 * 2**30), (0, 8 * 2**30)])
def test_windows_reports_its_memory_in_a_structure_of_64_bytes(monkeypatch, answer, total):
    # MEMORYSTATUSEX: DWORD length and load; DWORDLONG total and available of memory, page file and address space, and
    # one more that is available. The caller fills in the length.
    def status(reference):
        address = ctypes.addressof(reference._obj)
        assert ctypes.c_uint32.from_address(address).value == ctypes.sizeof(reference._obj) == 64
        ctypes.memmove(address, struct.pack("<II7Q", 64, 37, 24 * 2**30, 15 * 2**30, 5, 4, 3, 2, 1), 64)
        return answer

    kernel32 = SimpleNamespace(GlobalMemoryStatusEx=status)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel32), raising=False)
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(machine, "_CONTAINER_LIMITS", ())
    assert machine.total_memory() == total


def test_the_processor_name_is_that_of_the_first_core(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_CPUINFO", info)
    assert machine.processor_name() == (platform.processor() or platform.machine())
    info.write_text("processor\t: 0\nmodel name\t: Fast 9000\n\nprocessor\t: 1\nmodel name\t: Slow 1\n")
    assert machine.processor_name() == "Fast 9000"


def test_the_peak_memory_is_in_bytes():
    peak = machine.peak_memory()
    assert peak is None or 10 * 2**20 < peak < 2**44


def test_torch_is_not_imported():
    code = "import sys, landscribe.machine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_memory_has_no_exponent(monkeypatch):
    monkeypatch.setattr(machine, "total_memory", lambda: 8 * 10**9)
    with pytest.raises(ResourceError, match="at least 2,627 GB of memory"):
        machine.require_memory(2.627e12, "a network", "Choose a smaller one.")


def test_memory_and_disk_that_do_not_suffice_are_refused_with_both_numbers(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "total_memory", lambda: 8 * 10**9)
    machine.require_memory(8e9, "a batch", "Choose a smaller one.")
    with pytest.raises(ResourceError, match=r"a batch needs at least 9 GB of memory, .* has 8 GB\. Choose a smaller"):
        machine.require_memory(9e9, "a batch", "Choose a smaller one.")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 10**9))
    machine.require_disk(tmp_path / "new" / "out", 5e9, "chips", "Choose another disk.")
    with pytest.raises(ResourceError, match=r"chips needs at least 6 GB of disk, but .* has 5 GB free\. Choose"):
        machine.require_disk(tmp_path / "new" / "out", 6e9, "chips", "Choose another disk.")


def resident_before_and_after_trimming() -> tuple[int, int]:
    """Bytes in memory of a process that has freed a gigabyte between small blocks, before and after a trim."""
    # Once an array of this size is freed, larger than any free part of a heap, glibc takes smaller ones from its heaps.
    np.ones(31 * 2**20, np.uint8).sum()
    large, small = [], []
    for _ in range(2**11):
        large.append(np.ones(2**19, np.uint8))
        small.append(np.ones(2**16, np.uint8))  # as blocks of GDAL's cache: few free parts of a heap hold them
    large.clear()
    before = machine._resident()
    machine.Heap().trim()
    return before, machine._resident()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's heaps are trimmed")
def test_freed_memory_between_small_blocks_goes_back_to_the_system():
    before, after = forked.call(resident_before_and_after_trimming)
    assert after < before - 2**29, (before, after)
