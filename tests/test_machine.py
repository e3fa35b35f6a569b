"""Cores, memory and processor are read from the system, also in a container."""

import os
import platform
import subprocess
import sys

from landscribe import machine


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
