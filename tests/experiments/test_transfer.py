"""Transfer: models of groups of scenes, assessed on every group."""

import json

import numpy as np
import pytest

from landscribe import verbs
from landscribe.errors import ChipError, OutputError
from landscribe.experiments.transfer import transfer
from landscribe.model import Model
from landscribe.recipe import Recipe
from worlds import METRE, noise, write_raster

SIDE, CHIP = 64, 32
SETTINGS = {
    "encoder": "plain", "options": {"encoder_widths": [8, 16]}, "weights": "none", "epochs": None, "steps": 30,
    "batch": 4, "learning_rate": 0.02, "augment": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    """Class 1 is bright in the scenes of day, dark in those of night. Dusk is like day and has only test chips."""
    folder = tmp_path_factory.mktemp("transfer")
    scenes = []
    for index, (group, split) in enumerate(
        [("day", "train"), ("day", "val"), ("night", "train"), ("night", "val"), ("dusk", "test")]
    ):
        rows, cols = np.indices((SIDE, SIDE)) // 8
        classes = ((rows + cols + index) % 2).astype(np.uint8)
        shown = 1 - classes if group == "night" else classes
        image = (60 + 120 * shown + noise(1, SIDE, SIDE) % 20).astype(np.uint8)
        transform = METRE @ METRE.translation(500 * index, 0)
        name = f"{group}{index}.tif"
        (folder / "images").mkdir(exist_ok=True)
        (folder / "labels").mkdir(exist_ok=True)
        write_raster(folder / "images" / name, image, transform=transform)
        write_raster(folder / "labels" / name, classes, transform=transform)
        files = {"image": [str(folder / "images" / name)], "labels": str(folder / "labels" / name)}
        scenes.append(files | {"group": group, "split": split})
    recipe = Recipe.of({"scenes": scenes, "chips": {"size": CHIP}, "split": {"by": "scene"}})
    return verbs.chip_scenes(recipe, folder / "chips")


@pytest.fixture(scope="module")
def table(chips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "transfer"
    return transfer(chips, out=folder, **SETTINGS), folder


def test_a_model_is_good_in_its_own_group_and_wrong_where_the_classes_look_reversed(table):
    result, _ = table
    day, night, together = result.models
    assert (day.groups, night.groups, together.groups) == (("day",), ("night",), ("day", "night"))
    assert day.confusions["day"].mean_f1 > 0.9
    assert day.confusions["dusk"].mean_f1 > 0.9
    assert day.confusions["night"].mean_f1 < 0.1
    assert night.confusions["night"].mean_f1 > 0.9
    assert night.confusions["day"].mean_f1 < 0.1


def test_every_model_is_assessed_on_the_same_pixels_of_a_group(table):
    result, _ = table
    assert result.splits == {"day": "val", "dusk": "test", "night": "val"}
    for group in result.splits:
        assert {model.confusions[group].total for model in result.models} == {SIDE * SIDE}


def test_the_model_of_all_groups_is_the_one_that_train_gives(table, chips, tmp_path):
    result, _ = table
    alone = verbs.train(chips, out=tmp_path / "model", **SETTINGS)
    together = Model.load(result.models[-1].model)
    for name, weights in alone.network.state_dict().items():
        assert weights.equal(together.network.state_dict()[name]), name


def test_the_table_is_kept_as_json_and_the_same_call_trains_nothing_again(table, chips):
    result, folder = table
    assert json.loads((folder / "transfer.json").read_text()) == json.loads(json.dumps(result.as_dict()))
    trained = {path: path.stat().st_mtime_ns for path in folder.glob("group_*/model.safetensors")}
    assert transfer(chips, out=folder, **SETTINGS).as_dict() == result.as_dict()
    assert {path: path.stat().st_mtime_ns for path in folder.glob("group_*/model.safetensors")} == trained
    with pytest.raises(OutputError, match="steps"):
        transfer(chips, out=folder, **SETTINGS | {"steps": 3})


def test_chips_without_groups_are_refused(chips, tmp_path):
    alone = chips.take(chips.group_names == "day")
    with pytest.raises(ChipError, match=r"all are of group day\. Expected at least two groups"):
        transfer(alone, out=tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out").exists()
