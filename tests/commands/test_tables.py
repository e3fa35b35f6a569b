"""Tables: columns are as wide as their text."""

import re
from types import SimpleNamespace

import pytest

from landscribe.commands.tables import print_branches, print_measures


@pytest.mark.parametrize("name", ["field", "greenhouses with plastic roofs", "[bold] roofs"])
def test_columns_line_up_under_class_names_of_any_length(name, capsys):
    rows = [
        SimpleNamespace(
            branch=branch, parameters=12_000, seconds_per_megapixel=0.5, mean_f1=0.5, mean_iou=0.4,
            f1={name: 0.25, "water": float("nan")},
        )
        for branch in (1, None)
    ]  # fmt: skip
    print_branches(rows)
    head, *lines = capsys.readouterr().out.splitlines()
    end = head.index(f"F1 {name}") + len(f"F1 {name}")
    assert all(line[:end].endswith("  0.250") for line in lines)
    assert all(line.rstrip().endswith(" -") for line in lines)


def test_tables_are_not_truncated_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    measures = {"users_accuracy": 1.0, "producers_accuracy": None, "f1": 0.5, "iou": 0.25}
    overall = {"overall_accuracy": 1.0, "mean_f1": 0.5, "mean_iou": 0.5}
    name = "a class name of many letters"
    print_measures(
        {"maps": ["map.tif"], "reference": "r.gpkg", "split": None, "pixels": 7, "unmapped_pixels": 3, **overall}
        | {"classes": [{"name": name, "reference_pixels": 7, **measures}]}
    )
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.split(r"  +", last.strip()) == [name, "1.000", "-", "0.500", "0.250", "7"]
