"""A run with folds: a map by all models, and the accuracy of each chip by the model that has not seen it."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_app import landscribe

from landscribe import pipeline, verbs
from landscribe import synthetic as world
from landscribe.commands.tables import print_run
from landscribe.data.chips.chips import Chips
from landscribe.data.splits.folds import fold_splits
from landscribe.errors import ChipError, LandscribeError, RecipeError
from landscribe.experiments import out_of_fold
from landscribe.experiments.cross_validation import HeldOut
from landscribe.geo.classes import IGNORE
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.class_map import fingerprint_in, read_tags
from landscribe.model import Model
from landscribe.recipe import Recipe
from landscribe.runs import Run, fold_models
from worlds import noise, pixel_box, write_polygons, write_raster

NETWORK = {"encoder": "plain", "weights": "none", "options": {"encoder_widths": [8, 16]}, "steps": 30}
MAP = {"tile": 96, "margin": 8}
# Without a class column the polygons are one class, which every fold has.
SETTINGS = NETWORK | MAP | {"size": 32, "folds": 3, "learning_rate": 0.01, "block_size": 32}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    scene, labels, _ = world.write(world.draw(192, 192, seed=1), tmp_path_factory.mktemp("world"))
    return {"images": [scene], "labels": labels}


@pytest.fixture(scope="module")
def run(drawn, tmp_path_factory) -> Path:
    return pipeline.run(**drawn, **SETTINGS, threshold="val", out=tmp_path_factory.mktemp("folds") / "run")


def values(path: Path) -> np.ndarray:
    """Class values (rows, cols), 255 for nodata."""
    raster = Raster.open([path])
    pixels, valid = raster.read(raster.grid.window)
    return np.where(valid, pixels[0], IGNORE)


def fold_of_chip(run: Path) -> dict[str, int]:
    with (run / "folds" / "chips.csv").open() as file:
        return {row["chip"]: int(row["fold"]) for row in csv.DictReader(file)}


def test_each_chip_is_assessed_by_the_model_whose_training_leaves_it_out(run, drawn, tmp_path):
    chips, mapped = Chips.open(run / "chips"), values(run / "folds" / "map.tif")
    by_model = [
        values(*verbs.predict(run / "folds" / f"fold_{number}", drawn["images"], out=tmp_path / f"{number}.tif",
                              threshold="val", **MAP))
        for number in (1, 2, 3)
    ]  # fmt: skip
    numbers, splits = fold_of_chip(run), np.array(fold_splits(chips, 3, gap=None, seed=0))
    differs = 0
    for index, (chip, window) in enumerate(zip(chips.ids, chips.windows, strict=True)):
        # Train and val of a fold are the chips that its model has seen.
        assert [split == "test" for split in splits[:, index]] == [number == numbers[chip] for number in (1, 2, 3)]
        own, *others = (by_model[(numbers[chip] - 1 + turn) % 3][window.slices] for turn in range(3))
        assert (mapped[window.slices] == own).all()
        differs += any((own != other).any() for other in others)
    assert differs > len(chips) / 2  # or any model would do


def test_every_labelled_pixel_is_assessed_once_with_intervals(run):
    chips, measures, folds = Chips.open(run / "chips"), Run(run).read_assessment(), Run(run).read_folds()
    assert measures["split"] == "folds"
    assert [row["reference_pixels"] for row in measures["classes"]] == chips.counts.sum(axis=0).tolist()
    assert measures["confusion"] == folds["pooled"]["confusion"]
    assert sum(fold["chips"]["test"] for fold in folds["folds"]) == len(chips)
    lower, upper = measures["intervals"]["overall_accuracy"]
    assert lower < measures["overall_accuracy"] < upper


def test_pixels_of_overlapping_chips_are_counted_once(drawn, tmp_path):
    run = pipeline.run(**drawn, **SETTINGS | {"steps": 2, "stride": 24}, out=tmp_path / "run")
    chips, folds = Chips.open(run / "chips"), Run(run).read_folds()
    scene = Raster.open(drawn["images"])
    labelled = scene.read(scene.grid.window)[1].sum()  # polygons are one class, and the rest is background
    assert labelled < chips.counts.sum()  # or no chip overlaps another
    assert sum(row["reference_pixels"] for row in folds["pooled"]["classes"]) == labelled
    assert folds["pooled"]["confusion"] == Run(run).read_assessment()["confusion"]


def test_the_map_is_that_of_all_models_together_and_their_folder_is_an_ensemble(run, drawn, tmp_path):
    (again,) = verbs.predict(run / "folds", drawn["images"], out=tmp_path / "again.tif", threshold="val", **MAP)
    assert (values(again) == values(run / "map.tif")).all()
    fields, models = fingerprint_in(read_tags(again)), [Model.load(path) for path in fold_models(run / "folds")]
    assert fields["model"] == [model.sha256 for model in models]
    assert len(set(fields["model"])) == 3
    assert fields["threshold"] == np.mean([model.val_threshold for model in models])
    assert not (run / "model").exists()


def test_a_stopped_run_goes_on_and_trains_no_fold_again(run, drawn, tmp_path):
    half = tmp_path / "run"
    shutil.copytree(run, half)
    shutil.rmtree(half / "folds" / "fold_2")
    for name in ("folds/map.tif", "folds/folds.json", "map.tif", "assessment.json", "report.html"):
        (half / name).unlink()
    kept = {path: path.stat().st_mtime_ns for path in half.glob("folds/fold_[13]/*")}
    pipeline.run(**drawn, **SETTINGS, threshold="val", out=half)
    assert {path: path.stat().st_mtime_ns for path in half.glob("folds/fold_[13]/*")} == kept
    for name in ("folds/map.tif", "folds/folds.json", "folds/fold_2/model.safetensors", "map.tif", "assessment.json"):
        assert (half / name).read_bytes() == (run / name).read_bytes(), name
    assert not list((half / "folds").glob("*parts*"))


def test_the_report_and_the_terminal_show_the_folds(run, capsys):
    page = (run / "report.html").read_text()
    assert "by the model of the fold that holds it out" in page
    assert "is the mean of all 3 models" in page
    rows = page.partition('aria-label="Accuracy by fold"')[2].partition("</table>")[0]
    rows = re.sub("</?span[^>]*>", "", rows)
    for number, fold in enumerate(Run(run).read_folds()["folds"], 1):
        assert f"fold {number}</th><td>{fold['chips']['test']}</td><td>{fold['chips']['train']}</td>" in rows
    assert "Mean F1 on the validation chips of each fold, by epoch" in page
    assert "final model" not in page
    print_run(run, as_json=False)
    first, *_, assessed, models, mapped, polygons, report = capsys.readouterr().out.splitlines()
    assert first == "folds/map.tif against chips (folds)"
    assert [line.split()[0] for line in (assessed, models, mapped, polygons, report)] == [
        "assessed", "models", "map", "polygons", "report",
    ]  # fmt: skip
    print_run(run, as_json=True)
    assert len(json.loads(capsys.readouterr().out)["folds"]["folds"]) == 3


def test_scenes_without_a_crs_are_held_out_one_by_one(tmp_path):
    scenes = []
    for index in range(3):
        truth = np.random.default_rng(index).integers(1, 3, (40, 48), np.uint8)
        (tmp_path / str(index)).mkdir()
        image = write_raster(
            tmp_path / str(index) / "scene.tif", noise(3, 40, 48, seed=index), crs=None, transform=None
        )
        labels = write_raster(tmp_path / str(index) / "labels.tif", truth, crs=None, transform=None)
        scenes.append({"image": [str(image)], "labels": str(labels)})
    recipe = Recipe.of({
        "scenes": scenes, "chips": {"size": 16}, "train": NETWORK | {"steps": 1}, "predict": MAP,
        "models": {"folds": "scenes"},
    })  # fmt: skip
    run = pipeline.run(recipe, out=tmp_path / "run")
    folds = Run(run).read_folds()["folds"]
    assert [(fold["held_out"], fold["pixels"]) for fold in folds] == [(f"scene_{index}", 40 * 48) for index in range(3)]
    for index, (fold, path) in enumerate(zip(folds, Run(run).assessed.map_files, strict=True)):
        model, image = run / "folds" / fold["model"], scenes[index]["image"][0]
        (alone,) = verbs.predict(model, [image], out=tmp_path / f"{index}.tif", **MAP)
        assert (values(alone) == values(path)).all()


def test_a_held_out_scene_without_a_class_is_assessed_for_the_others(tmp_path):
    scenes = []
    for index in range(4):
        truth = np.random.default_rng(index).integers(1, 3 if index == 2 else 4, (32, 32), np.uint8)
        image = write_raster(tmp_path / f"{index}.tif", noise(3, 32, 32, seed=index), crs=None, transform=None)
        labels = write_raster(tmp_path / f"labels_{index}.tif", truth, crs=None, transform=None)
        scenes.append({"image": [str(image)], "labels": str(labels)})
    recipe = Recipe.of({
        "scenes": scenes, "chips": {"size": 16}, "train": NETWORK | {"steps": 1}, "predict": MAP,
        "models": {"folds": "scenes"},
    })  # fmt: skip
    result = Run(pipeline.run(recipe, out=tmp_path / "run"))
    folds = result.read_folds()
    f1 = [{entry["name"]: entry["f1"] for entry in fold["classes"]}["3"] for fold in folds["folds"]]
    assert [value is None for value in f1] == [False, False, True, False]
    assert folds["f1"]["3"]["mean"] is not None
    assert result.report_file.exists()


def test_chips_that_cannot_form_the_folds_leave_nothing_behind(tmp_path):
    image = write_raster(tmp_path / "scene.tif", noise(3, 96, 96))
    labels = write_polygons(tmp_path / "labels.gpkg", [pixel_box(2, 2, 12, 12)])
    with pytest.raises(ChipError, match=r"fold \d of 3 has no (test|train) chip with class 'labels'"):
        pipeline.run(images=[image], labels=labels, **SETTINGS | {"size": 16}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 100}, r"folds is 100, but the chips \(36\) form only 36 spatial blocks"),
        ({"folds": "scenes"}, "the chips have 1 scene. Expected at least 3"),
        ({"folds": "groups"}, r"no group is named for scene \(1 of 1 scene\)"),
        ({"devices": 2}, "one after the other in one process, but 2 were asked for"),
    ],
)
def test_impossible_folds_are_refused_before_chips_are_cut(drawn, tmp_path, settings, message):
    with pytest.raises(LandscribeError, match=message):
        pipeline.run(**drawn, **SETTINGS | settings, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_fold_whose_validation_chips_give_no_threshold_is_refused_before_the_training(run, monkeypatch):
    chips = Chips.open(run / "chips")
    recipe = Recipe.load(run / "recipe.toml")
    without = np.where(chips.counts[:, 1] > 0, "train", "val").tolist()
    plan = (HeldOut(1, "", tuple(fold_splits(chips, 3, gap=None, seed=0)[0])), HeldOut(2, "", tuple(without)))
    monkeypatch.setattr(out_of_fold, "plan_folds", lambda *_, **__: plan)
    with pytest.raises(ChipError, match=r"no validation chip of fold 2 of 2 has a labelled pixel of 'labels'"):
        out_of_fold.folds_of_run(recipe, chips)


def test_predefined_splits_are_ignored_with_a_warning(drawn):
    scenes = [{"image": [str(drawn["images"][0])], "labels": str(drawn["labels"]), "split": "test"}]
    recipe = Recipe.of({"scenes": scenes, "chips": {"size": 32}, "models": {"folds": 3}})
    found = [finding.text for finding in verbs.check(recipe, trial=False).findings if finding.severity == "warning"]
    assert any("models are trained on test chips" in text for text in found)


def test_the_forecast_counts_the_trainings_of_all_folds(drawn):
    settings = {name: value for name, value in SETTINGS.items() if name != "folds"}
    one, three = (verbs.check(**drawn, **settings, folds=folds, trial=False).forecast for folds in (None, 3))
    assert three.steps == 3 * one.steps == 90
    assert three.disk_bytes > one.disk_bytes


def test_a_cross_validation_of_chips_alone_is_an_ensemble_but_no_run(run, tmp_path):
    folder = tmp_path / "cv"
    shutil.copytree(run / "folds", folder)
    (folder / "fold_1").rename(folder / "fold_10")
    assert [path.name for path in fold_models(folder)] == ["fold_2", "fold_3", "fold_10"]
    with pytest.raises(RecipeError, match=r"cv holds a cross-validation, .* landscribe run with --folds"):
        verbs.report(folder)
    (folder / "folds.json").unlink()
    assert fold_models(folder) == []


def test_the_command_line_takes_folds(drawn, tmp_path):
    done = landscribe(
        "run", "--image", drawn["images"][0], "--labels", drawn["labels"], "--out", tmp_path / "run", "--folds", "many"
    )
    assert done.code == 2
    assert "folds" in done.err
