"""The benchmark of GPUs runs on a CPU, at a small size."""

import io
import os
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_the_benchmark_of_mapping_prints_a_row_for_each_method(tmp_path, monkeypatch, capsys):
    pytest.importorskip("segmentation_models_pytorch")
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import gpu

    def in_this_process(command, **_):
        with redirect_stdout(io.StringIO()) as printed:
            gpu.one_map(*map(str, command[3:]))
        return SimpleNamespace(returncode=0, stdout=printed.getvalue())

    monkeypatch.setattr(gpu, "subprocess", SimpleNamespace(run=in_this_process))
    monkeypatch.setattr(gpu, "cores", lambda: 2)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    sizes = ["--side", "96", "--tile", "64", "--batch", "1", "--rounds", "1", "--cores", "1"]
    gpu.main(["mapping", *sizes, "--device", "cpu", "--work", str(tmp_path)])
    said = capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in said.splitlines() if line.startswith("| ")][1:]
    predicted = [f"predict --precision {precision}" for precision in ("32", "bf16", "auto", "bf16, 1 cores")]
    assert rows == ["bare float32", "bare bfloat16", *predicted]
    differing = dict(re.findall(r"--precision (\w+): ([\d.]+)% of the pixels", said))
    # A map of few pixels is computed in 32 bits; random weights decide by little.
    assert float(differing["auto"]) == 0
    assert float(differing["bf16"]) < 50


@pytest.mark.slow
def test_the_benchmark_of_training_prints_steps_beside_the_bare_network(tmp_path, monkeypatch, capsys):
    pytest.importorskip("segmentation_models_pytorch")
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import gpu

    sizes = ["--world", "256", "--chip", "32", "--steps", "3", "--rounds", "1"]
    gpu.main(["training", *sizes, "--device", "cpu", "--work", str(tmp_path)])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[1].strip() for row in rows[1:]] == ["bare", "landscribe train, no validation", "landscribe train"]
    assert float(rows[1][3]) == 1
