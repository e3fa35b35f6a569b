"""The notebooks of the examples, run cell by cell on small data sets."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from landscribe.inference import pruning

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "examples"
PARAMETERS = {
    "topodl": {"SIZE": 32, "STRIDE": 32},
    "inria": {"SIZE": 48, "STRIDE": 48, "STEPS": 4},
    "landcoverai": {"SIZE": 128, "STRIDE": 128, "WIDTHS": [4, 8, 8, 8, 8]},
    "wvlcdl": {"SIZE": 32, "STRIDE": 32},
}
QUICK = {"ENCODER": "test_resnet", "STEPS": 2}


def cells(name):
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(name, data, monkeypatch, folder):
    """The variables of a notebook after its last cell."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    # Speed is not tested here.
    monkeypatch.setattr(pruning, "_TRIAL_SIDE", 64)
    plt.switch_backend("agg")
    variables = {}
    for index, cell in enumerate(cells(name)):
        exec(compile("".join(cell["source"]), f"{name}.ipynb, code cell {index}", "exec"), variables)
        if "parameters" in cell["metadata"].get("tags", ()):
            variables |= {"DATA": data, "WORK": folder / "work"} | QUICK | PARAMETERS[name]
    return variables


@pytest.fixture
def variables(request, drawn, monkeypatch, tmp_path):
    name = request.param
    return run(name, drawn(name, tmp_path / "data"), monkeypatch, tmp_path)


def test_there_is_a_notebook_for_every_example():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(PARAMETERS)


@pytest.mark.slow
def test_a_notebook_that_runs_again_loads_its_trained_model(drawn, monkeypatch, tmp_path, caplog):
    data = drawn("landcoverai", tmp_path / "data")
    first = run("landcoverai", data, monkeypatch, tmp_path)["model"]
    with caplog.at_level("INFO"):
        second = run("landcoverai", data, monkeypatch, tmp_path)["model"]
    assert "model is trained already with these settings. Nothing was done" in caplog.text
    assert second.sha256 == first.sha256


@pytest.mark.slow
@pytest.mark.parametrize("variables", ["topodl"], indirect=True)
def test_the_notebook_of_topodl_maps_a_quadrangle_that_was_held_out(variables):
    assert len(variables["losses"]) == 2
    values, is_mapped = variables["values"], variables["is_mapped"]
    assert is_mapped[16:112, 16:112].all()
    assert is_mapped.sum() == 96 * 96
    assert set(values[0][is_mapped]) <= {0, 1}
    assert variables["assessment"].pixels == 96 * 96
    assert variables["held_out"] not in set(variables["train_chips"].scene_names)


@pytest.mark.slow
@pytest.mark.parametrize("variables", ["inria"], indirect=True)
def test_the_notebook_of_inria_has_a_row_for_each_training_city_and_tiles_of_0_and_255(variables):
    table = variables["table"]
    assert [row.groups for row in table.models] == [("austin",), ("vienna",), ("austin", "vienna")]
    assert dict(table.splits) == {"austin": "val", "tyrol-w": "test", "vienna": "val"}
    assert sorted(path.name for path in variables["tiles"].glob("*.tif")) == ["bellingham1.tif", "bellingham2.tif"]
    assert set(variables["values"].ravel()) <= {0, 255}
    assert variables["assessment"].pixels == 7 * 96 * 96


@pytest.mark.slow
@pytest.mark.parametrize("variables", ["landcoverai"], indirect=True)
def test_the_notebook_of_landcoverai_measures_its_branches_and_keeps_the_splits_of_the_lists(variables):
    lists = {name: len((variables["DATA"] / f"{name}.txt").read_text().split()) for name in ("train", "val", "test")}
    assert variables["chips"].table["split"].value_counts().to_dict() == lists
    assert variables["assessment"].split == "test"
    assert variables["assessment"].pixels == lists["test"] * 128 * 128
    assert variables["small"].network.deepest == 2


@pytest.mark.slow
@pytest.mark.parametrize("variables", ["wvlcdl"], indirect=True)
def test_the_notebook_of_wvlcdl_has_class_values_from_1_and_counts_points(variables):
    assert set(variables["values"].ravel()) <= set(range(1, 8))
    assert 0 < variables["labelled"] < 0.7
    assert variables["assessment"].reference == "validation_points.shp"
    assert 130 < variables["assessment"].pixels <= 168
