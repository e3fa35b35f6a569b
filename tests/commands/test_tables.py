"""Tables: columns are as wide as their text."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from landscribe.assessment.accuracy import Assessment
from landscribe.assessment.blocks import Bootstrap
from landscribe.commands.numbers import number
from landscribe.commands.tables import (
    print_bench,
    print_branches,
    print_estimates,
    print_folds,
    print_measures,
    print_object_measures,
)
from landscribe.confusion import Confusion
from landscribe.experiments.cross_validation import CrossValidation, Fold
from landscribe.geo.classes import Classes
from landscribe.inference.benchmark import Benchmark, Timing


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


def test_an_interval_has_the_digits_of_its_measure_and_zero_has_no_minus(capsys):
    row = {
        "name": "field",
        "reference_pixels": 7,
        "users_accuracy": 0.951,
        "producers_accuracy": None,
        "f1": 0.5,
        "iou": 0.4,
    }
    ends = {
        "users_accuracy": [0.9501, 0.9519],
        "producers_accuracy": [None, None],
        "f1": [0.41, 0.6],
        "iou": [0.3, 0.5],
    }
    overall = {"overall_accuracy": 0.9, "mean_f1": 0.5, "mean_iou": 0.4}
    intervals = {"confidence": 0.9, "blocks": 12, "block_side": 64, "classes": [ends], "overall_accuracy": [0.8, 1.0]}
    print_measures(
        {"maps": ["map.tif"], "reference": "r.gpkg", "split": None, "pixels": 7, **overall}
        | {"classes": [row], "intervals": intervals}
    )
    _, head, _, line, note = capsys.readouterr().out.splitlines()
    assert "overall accuracy 0.900 (0.800 to 1.000), mean F1 0.500," in head
    assert re.split(r"  +", line)[1:4] == ["0.951 (0.950 to 0.952)", "-", "0.500 (0.410 to 0.600)"]
    assert number(-0.0001) == "0.000"
    assert note == "intervals: 90 %, from resamples of 12 blocks of 64 x 64 pixels"


def test_each_group_of_scenes_has_a_row_in_the_table_of_measures(capsys):
    classes = Classes.from_labels(["field", "house"], background=False)
    groups = {
        "Ohio": Confusion(classes, np.array([[3, 1], [0, 4]])),
        "West Virginia": Confusion(classes, np.array([[2, 0], [0, 0]])),
    }
    both = sum(groups.values(), start=Confusion.zeros(classes))
    print_measures(Assessment(both, ("map.tif",), "chips", "test", groups).as_dict())
    head, *rows = [re.split(r"  +", line.strip()) for line in capsys.readouterr().out.splitlines()[-3:]]
    assert head == ["region or group", "pixels", "overall accuracy", "mean F1", "F1 field", "F1 house"]
    # F1 of field: 6 / 7; of house: 8 / 9.
    assert rows == [
        ["Ohio", "8", "0.875", "0.873", "0.857", "0.889"],
        ["West Virginia", "2", "1.000", "1.000", "1.000", "-"],
    ]


def test_training_accuracy_and_chips_of_one_scene_are_said(capsys):
    confusion = Confusion(Classes.from_labels(["field", "house"], background=False), np.array([[3000, 1], [0, 4]]))
    ends = dict.fromkeys(("overall_accuracy", "mean_f1", "mean_iou"), (0.9, 1.0))
    ends |= {name: ([0.9] * 2, [1.0] * 2) for name in ("users_accuracy", "producers_accuracy", "f1", "iou")}
    bootstrap = Bootstrap(ends, 0.95, 12, 64, 0)
    measured = Assessment(confusion, ("map.tif",), "chips", "train", bootstrap=bootstrap, scenes=1)
    for trained, said in ((("train",), "The network was trained on these chips: "), ((), "These are train chips: if ")):
        assessment = replace(measured, trained_splits=trained)
        summary = assessment.as_dict()
        assert assessment.caveat == summary["caveat"]
        assert repr(assessment).endswith(f", caveat={assessment.caveat!r})")
        print_measures(summary)
        lines = capsys.readouterr().out.splitlines()
        assert lines[1] == summary["caveat"]
        assert lines[1].startswith(said)
        assert lines[2].startswith("3,005 pixels, ")
        assert lines[-1].endswith("All these chips are of one scene: the intervals hold for this scene, not for others")
    summary = replace(measured, split="test", trained_splits=("train",), scenes=2).as_dict()
    print_measures(summary)
    said = capsys.readouterr().out
    assert (summary["caveat"], summary["trained_splits"]) == ("", ["train"])
    assert "training accuracy" not in said
    assert "of one scene" not in said


@pytest.mark.parametrize(
    ("left_out", "said"), [((0, 0), ""), ((2, 1), "left out: 2 objects, 1 reference object more (outside ")]
)
def test_objects_that_are_left_out_are_named_by_side(left_out, said, capsys):
    summary = {"objects": "a.gpkg", "reference": "b.gpkg", "predicted_objects": 4, "reference_objects": 3}
    summary |= {name: [] for name in ("thresholds", "precision", "recall", "f1", "classes")}
    summary |= {
        "score_field": None,
        "tolerance": None,
        "left_out": dict(zip(("predicted", "reference"), left_out, strict=True)),
    }
    print_object_measures(summary)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "4 objects, 3 reference objects"
    assert lines[2].startswith(said or "matched at IoU")


def test_a_faster_backend_that_is_not_chosen_has_its_reason(capsys):
    timings = (Timing("torch", 2.0, 1.0, 0.0, 0.0), Timing("torch-bf16", 2.74, 0.9983, 0.01, 0.0, 1e-3))
    print_bench(Benchmark((1, 3, 64, 64), "cpu", timings))
    *_, row, last = (re.split(r"  +", line.strip()) for line in capsys.readouterr().out.splitlines())
    assert row[:5] == ["torch-bf16", "2.740", "1.37", "99.830 %", "99.900 %"]
    assert last == ["auto: torch (torch-bf16: faster, but too few pixels have the same class)"]


def test_points_are_called_points(capsys):
    confusion = Confusion(Classes.from_labels(["field", "house"], background=False), np.array([[3, 1], [0, 4]]))
    print_measures(Assessment(confusion, ("map.tif",), "crew.csv").as_dict())
    said = capsys.readouterr().out
    assert "8 points, overall accuracy" in said
    assert "reference points" in said
    assert "pixel" not in said


def test_folds_are_named_by_the_group_that_each_holds_out(capsys):
    classes = Classes.from_labels(["field", "house"], background=False)
    counts = {"train": 1, "val": 1, "test": 2, "gap": 0}
    folds = [
        Fold(Path(f"fold_{index}"), counts, Confusion(classes, np.eye(2, dtype=np.int64)), name)
        for index, name in enumerate(("Kentucky", "Ohio", ""), 1)
    ]
    summary = CrossValidation(tuple(folds)).as_dict()
    assert [fold.get("held_out") for fold in summary["folds"]] == ["Kentucky", "Ohio", None]
    print_folds(summary)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:4]] == ["Kentucky", "Ohio", "fold_3"]


def test_a_standard_error_that_is_not_known_is_a_dash(capsys):
    known = {"value": 0.8, "se": 0.05, "lower": 0.702, "upper": 0.898}
    alike = {"value": 1.0, "se": 0.0, "lower": 0.929, "upper": 1.0}
    absent = dict.fromkeys(("value", "se", "lower", "upper"))
    summary = {
        "map": "map.tif", "reference": "points.gpkg", "estimator": "stratified sample", "units": 100, "unit": 1,
        "area_file": None, "area_unit": "ha", "confidence": 0.95, "overall": known,
        "users": {"a": alike, "b": absent}, "producers": {"a": known, "b": known}, "f1": {"a": known, "b": known},
        "areas": {"a": known, "b": known}, "map_counts": {"a": {"area": 1.0}, "b": {"area": 0.0}},
        "matrix": {"classes": ["a", "b"], "shares": [[0.8, 0.2], [0.0, 0.0]]},
    }  # fmt: skip
    print_estimates(summary)
    out = capsys.readouterr().out
    assert "overall accuracy 0.800 (0.702 to 0.898), standard error (se) 0.050; intervals of 95 %" in out
    rows = {line.split()[0]: line.split() for line in reversed(out.splitlines()) if line[:2] in ("a ", "b ")}
    assert rows["a"][1:6] == ["1.000", "(0.929", "to", "1.000)", "-"]
    assert rows["b"][1:3] == ["-", "-"]
