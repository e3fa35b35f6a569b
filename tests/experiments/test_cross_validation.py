"""Cross-validation: trained folds, counted pixels, and the printed table."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine
from test_app import landscribe

from landscribe import synthetic as world
from landscribe.confusion import Confusion
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.data.splits.folds import fold_splits
from landscribe.errors import OutputError, RecipeError
from landscribe.experiments.cross_validation import CrossValidation, Fold, cross_validate
from landscribe.geo.classes import Classes
from landscribe.model import Model
from landscribe.recipe import Recipe
from landscribe.training import train_loop
from landscribe.verbs import chip
from landscribe.verbs.chips import chip_scenes
from worlds import METRE, noise, write_raster

QUICK = {"encoder": "test_efficientnet", "weights": "none", "steps": 2, "batch": 2, "workers": 0}


@pytest.fixture(scope="module")
def chips(tmp_path_factory) -> Chips:
    folder = tmp_path_factory.mktemp("world")
    scene, labels, _ = world.write(world.draw(192, 192, seed=1), folder / "world")
    # Without a class column the polygons are one class, which every fold has.
    return chip(images=[scene], labels=labels, out=folder / "chips", size=32)


@pytest.fixture(scope="module")
def measured(chips, tmp_path_factory):
    out = tmp_path_factory.mktemp("cv") / "CV"
    return out, cross_validate(chips, out=out, folds=3, **QUICK)


def test_every_labelled_pixel_is_assessed_once(chips, measured):
    _, result = measured
    assert result.pooled.counts.sum(axis=1).tolist() == chips.counts.sum(axis=0).tolist()
    assert sum(fold.chips["test"] for fold in result.folds) == len(chips)


def test_each_fold_leaves_a_model_and_all_of_them_their_measures(measured):
    out, result = measured
    assert sorted(path.name for path in out.iterdir()) == ["fold_1", "fold_2", "fold_3", "folds.json", "settings.json"]
    assert json.loads((out / "folds.json").read_text()) == json.loads(json.dumps(result.as_dict()))


def test_a_fold_is_scored_by_its_own_model_on_its_test_chips(chips, measured):
    out, result = measured
    names = np.array(fold_splits(chips, 3, gap=None, seed=0)[1])
    model, reader = Model.load(out / "fold_2"), ChipReader(chips)
    counted = Confusion.zeros(chips.classes)
    for number in np.flatnonzero(names == "test").tolist():
        pixels, valid, mask = reader.read(number)
        with torch.inference_mode():
            logits = model.logits(torch.from_numpy(pixels)[None], torch.from_numpy(valid)[None])
        counted += Confusion.of(chips.classes, chips.classes.to_indices(mask), logits[0].argmax(0).byte().numpy())
    # Batches of other sizes may round otherwise.
    assert np.abs(counted.counts - result.folds[1].confusion.counts).sum() <= 0.001 * counted.total


def test_the_same_call_trains_nothing_again(chips, measured):
    out, result = measured
    before = {path: path.stat().st_mtime_ns for path in out.glob("fold_*/*")}
    (out / "fold_1.training").mkdir()  # a kill between saving a model and removing its checkpoint
    again = cross_validate(chips, out=out, folds=3, **QUICK)
    assert not (out / "fold_1.training").exists()
    assert {path: path.stat().st_mtime_ns for path in out.glob("fold_*/*")} == before
    assert again.as_dict() == result.as_dict()


def test_a_fold_that_is_missing_is_trained_to_the_same_model(chips, measured, tmp_path):
    out, result = measured
    shutil.copytree(out, tmp_path / "CV")
    shutil.rmtree(tmp_path / "CV" / "fold_2")
    again = cross_validate(chips, out=tmp_path / "CV", folds=3, **QUICK)
    assert again.as_dict() == result.as_dict()


def test_all_folds_start_from_the_weights_of_the_first_whatever_the_hub_answers_later(chips, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(train_loop, "resolve_weights", lambda *given: asked.append(given[0]) or (None, "weights: none"))
    cross_validate(chips, out=tmp_path / "CV", folds=3, **(QUICK | {"weights": "auto", "steps": 1}))
    assert asked == ["auto", "none", "none"]


def test_overwriting_leaves_nothing_of_the_old_folds(chips, measured, tmp_path):
    out, _ = measured
    shutil.copytree(out, tmp_path / "CV")
    shutil.copytree(out / "fold_1", tmp_path / "CV" / "fold_9")
    cross_validate(chips, out=tmp_path / "CV", folds=3, overwrite=True, **(QUICK | {"steps": 1}))
    models = {path.name: Model.load(path) for path in (tmp_path / "CV").glob("fold_*")}
    assert sorted(models) == ["fold_1", "fold_2", "fold_3"]
    assert {model.provenance["settings"]["steps"] for model in models.values()} == {1}


def test_other_settings_are_refused_and_nothing_is_changed(chips, measured):
    out, _ = measured
    before = (out / "settings.json").read_bytes()
    with pytest.raises(OutputError, match=r"with another seed \(\d, now \d\) and train\.batch \(\d, now 3\)\."):
        cross_validate(chips, out=out, folds=3, seed=1, **(QUICK | {"batch": 3}))
    other_chips = Chips(chips.folder, chips.metadata, chips.table.assign(split="train"))
    with pytest.raises(OutputError, match=r"holds models trained with other splits\. "):
        cross_validate(other_chips, out=out, folds=3, **QUICK)
    assert (out / "settings.json").read_bytes() == before


def test_a_folder_of_other_files_is_kept_even_with_overwrite(chips, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        cross_validate(chips, out=tmp_path, folds=3, overwrite=True, **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_spread_is_that_of_the_folds():
    classes = Classes.from_labels(["a", "b"], background=False)
    # F1 of a: 1, 0.5 and none; of b: 1, 0.5 and 1.
    tables = ([[4, 0], [0, 4]], [[1, 1], [1, 1]], [[0, 0], [0, 3]])
    folds = (Fold(Path("fold"), {}, Confusion(classes, np.array(counts))) for counts in tables)
    result = CrossValidation(tuple(folds))
    spread = {name: (row["mean"], row["standard_deviation"]) for name, row in result.as_dict()["f1"].items()}
    assert spread == {
        "a": (0.75, pytest.approx(0.125**0.5)),
        "b": (pytest.approx(2.5 / 3), pytest.approx((1 / 12) ** 0.5)),
    }
    assert result.pooled.counts.tolist() == [[5, 1], [1, 8]]


def test_regions_are_left_out_one_by_one_under_their_names(tmp_path):
    scenes, rng = [], np.random.default_rng(0)
    for index, region in enumerate(("Ohio", "Kentucky", "Virginia", "Ohio")):
        transform, truth = METRE @ Affine.translation(1000 * index, 0), rng.integers(1, 3, (64, 64), np.uint8)
        image = write_raster(tmp_path / f"scene{index}.tif", noise(3, 64, 64), transform=transform)
        labels = write_raster(tmp_path / f"labels{index}.tif", truth, transform=transform)
        scenes.append({"image": [str(image)], "labels": str(labels), "group": region})
    recipe = Recipe.of({"scenes": scenes, "chips": {"size": 32, "virtual": True}})
    chips = chip_scenes(recipe, tmp_path / "chips")
    result = cross_validate(chips, out=tmp_path / "CV", folds="groups", **(QUICK | {"steps": 1}))
    pixels = {name: int(chips.counts[chips.group_names == name].sum()) for name in ("Kentucky", "Ohio", "Virginia")}
    assert {fold.held_out: fold.confusion.total for fold in result.folds} == pixels


def test_the_command_line_prints_a_table_or_json(chips, tmp_path):
    command = ("train", chips.folder, "--folds", 3, "--out", tmp_path / "CV", "--encoder", "test_efficientnet")
    command = (*command, "--weights", "none", "--steps", 1, "--batch", 2, "--workers", 0)
    table = landscribe(*command)
    assert table.code == 0, table.err
    first, *rows = table.out.splitlines()
    assert first.split()[:5] == ["fold", "train", "test", "mean", "F1"]
    assert [row.split()[0] for row in rows] == ["fold_1", "fold_2", "fold_3", "all", "mean", "standard"]
    summary = json.loads(landscribe(*command, "--json").out)
    assert list(summary) == ["folds", "mean_f1", "f1", "pooled"]


@pytest.mark.parametrize(
    ("folds", "message"), [("many", "--folds is 'many'; expected a number"), ("2", "Expected at least 3")]
)
def test_impossible_folds_are_refused_before_anything_is_written(chips, tmp_path, folds, message):
    said = landscribe("train", chips.folder, "--folds", folds, "--out", tmp_path / "CV")
    assert said.code == 2
    assert message in said.err
    assert not (tmp_path / "CV").exists()


@pytest.mark.parametrize("devices", [2, "2"])
def test_several_processes_are_refused(chips, tmp_path, devices):
    with pytest.raises(RecipeError, match="one after the other in one process, but 2 were asked for"):
        cross_validate(chips, out=tmp_path / "CV", folds=3, devices=devices, **QUICK)
    assert not (tmp_path / "CV").exists()


def test_settings_that_are_given_as_text_are_those_of_the_numbers(chips, measured, monkeypatch):
    out, _ = measured
    monkeypatch.setattr(train_loop, "train", None)  # no model is trained again
    result = cross_validate(chips, out=out, folds="3", devices="1", **QUICK | {"steps": "2"})
    assert len(result.folds) == 3


def test_a_setting_that_follows_validation_chips_needs_them_in_every_fold_before_any_training(chips, tmp_path):
    one_class = replace(chips, table=chips.table.assign(count_1=0))
    with pytest.raises(RecipeError, match=r"patience = 2 follows .* but split val has no class but background"):
        cross_validate(one_class, out=tmp_path / "CV", folds=3, patience=2, **QUICK)
    assert not (tmp_path / "CV").exists()
