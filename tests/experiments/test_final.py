"""The final model of a run: trained on all labelled ground, while the assessment stays that of the first model."""

import json
import shutil
from dataclasses import replace

import pytest

from landscribe import pipeline, verbs
from landscribe import synthetic as world
from landscribe.commands.tables import print_run
from landscribe.data.chips.chips import Chips
from landscribe.errors import OutputError, RecipeError
from landscribe.experiments.final import final_chips, final_spec, has_final
from landscribe.model import Model
from landscribe.recipe import Recipe
from landscribe.reports.inputs import ReportInputs
from landscribe.runs import Run
from landscribe.training.parallel import chip_sampler
from landscribe.training.spec import TrainSpec

TWO_CLASSES = {
    "encoder": "plain", "weights": "none", "options": {"encoder_widths": [8, 16]}, "size": 64, "tile": 128,
    "margin": 16, "steps": 6, "threshold": "val",
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A world of 320 x 256 pixels; its settings, and the run of one model."""
    scene, labels, _ = world.write(world.draw(320, 256, seed=5), tmp_path_factory.mktemp("world"))
    return {"images": [scene], "labels": labels, **TWO_CLASSES}


@pytest.fixture(scope="module")
def run(drawn, tmp_path_factory):
    return pipeline.run(**drawn, final="all", out=tmp_path_factory.mktemp("final") / "run")


def test_the_final_training_has_as_many_passes_whatever_the_first_one_stopped_at(run):
    chips, recipe = Chips.open(run / "chips"), Recipe.load(run / "recipe.toml")
    everything = final_chips(chips, recipe)
    assessed = Model.load(run / "assessed" / "model")

    def passes(part, steps):
        return steps * 8 / chip_sampler(part, recipe.train, 0).pass_length

    rows = [{"step": 100}, {"step": 1000}]
    stopped = replace(assessed, config=assessed.config.model_copy(update={"history": rows}))
    final = final_spec(TrainSpec(minutes=3, patience=2, weights="auto"), chips, everything, stopped)
    assert passes(everything, final.steps) == pytest.approx(passes(chips.of_split("train"), 1000), rel=1e-3)
    assert (final.minutes, final.patience, final.checkpoint) == (None, None, "last")
    # What auto stood for in the first training.
    assert (final.weights, final.learning_rate) == ("none", assessed.provenance["learning_rate"])


def test_chips_in_no_list_are_not_of_the_final_ground(run):
    chips, recipe = Chips.open(run / "chips"), Recipe.load(run / "recipe.toml")
    chips = replace(chips, table=chips.table.assign(split=(["gap", "train", "val", "test"] * len(chips))[: len(chips)]))
    by_list = recipe.with_settings({"split": {"by": "list", "train_list": "train.txt"}})
    assert set(final_chips(chips, recipe).ids) == set(chips.ids)
    assert set(final_chips(chips, by_list).ids) == set(chips.ids) - set(chips.of_split("gap").ids)


def test_the_final_model_learns_from_all_chips_and_keeps_the_threshold_of_val(run):
    assessed, final = Model.load(run / "assessed" / "model"), Model.load(run / "model")
    assert assessed.history[-1]["step"] == 6
    assert final.history[-1]["step"] > 6
    assert final.provenance["trained_splits"] == ["gap", "train", "val"]
    assert final.history[-1]["val_mean_f1"] is None
    assert final.val_threshold == assessed.val_threshold is not None
    assert not (run / "final").exists()


def test_the_report_lists_apart_what_differs_between_the_two_models(run):
    inputs = ReportInputs.of_run(Run(run))
    of_both = {name: texts for name, *texts in inputs.of_both}
    final = Model.load(run / "model").history[-1]
    assert of_both["budget"] == ["steps 6", f"steps {final['step']}"]
    assert of_both["epochs"][1] == f"{final['epoch']}; weights of epoch {final['epoch']}"
    assert of_both["trained on"][0].startswith("split train (")
    assert of_both["trained on"][1] == f"splits gap, train, val ({len(Chips.open(run / 'chips'))} chips)"
    assert not {"budget", "epochs", "trained on"} & {name for name, _ in inputs.facts}
    assert {"encoder", "batch", "threshold from val"} <= {name for name, _ in inputs.facts}


def test_the_assessment_is_that_of_the_same_run_without_a_final_model(drawn, run, tmp_path):
    single = pipeline.run(**drawn, out=tmp_path / "run")
    first, second = (json.loads((folder / "assessment.json").read_text()) for folder in (run, single))
    assert first["confusion"] == second["confusion"]
    assert (run / "assessed" / "map.tif").exists()
    assert (run / "map.tif").read_bytes() != (single / "map.tif").read_bytes()


def test_an_assessment_of_the_final_map_on_chips_warns_that_its_model_has_seen_them(run, tmp_path, caplog):
    for path, warnings, caveat in (("map.tif", 1, "training accuracy"), ("assessed/map.tif", 0, "epoch was chosen")):
        caplog.clear()
        summary = verbs.assess(run / path, reference=run / "chips", split="val").as_dict()
        assert caveat in summary["caveat"]
        assert caplog.text.count("was trained on split val of") == warnings


def test_auto_is_a_final_model_where_a_long_training_often_shows_the_same_ground():
    recipe = Recipe.of({"scenes": [{"image": "a.tif", "labels": "a.gpkg"}], "train": {"batch": 8}})

    def is_final(recipe=recipe, *, pass_length=100, holds_out=True, **train):
        spec = TrainSpec(**train).resolved(has_gpu=False)
        return recipe.has_final(spec, pass_length=pass_length, holds_out=holds_out)

    assert is_final(effort="standard")
    assert is_final(steps=1001, batch=4)  # 40 passes of 25 steps
    assert is_final(epochs=100)  # of 13 steps
    assert not is_final(effort="quick")
    assert not is_final(steps=1000, batch=4)
    assert not is_final(effort="standard", pass_length=1000)  # 16 passes
    assert not is_final(minutes=60)
    assert not is_final(effort="standard", schedule="plateau")
    assert not is_final(effort="standard", devices=2)
    assert not is_final(effort="standard", holds_out=False)
    for settings in ({"models": {"folds": 3}}, {"models": {"final": "none"}}, {"scenes": {"split": "train"}}):
        assert not is_final(recipe.with_settings(settings), effort="standard")
    assert is_final(recipe.with_settings({"models": {"final": "all"}}), effort="quick")


def test_a_run_that_has_begun_keeps_its_kind_whatever_auto_is_on_another_machine(run, tmp_path):
    recipe, chips = Recipe.load(run / "recipe.toml"), Chips.open(run / "chips")
    long, short = (recipe.with_settings({"models": {"final": "auto"}, "train": {"steps": s}}) for s in (1001, 1000))
    new, single = Run(tmp_path / "new"), Run(tmp_path / "single")
    single.model_folder.mkdir(parents=True)
    assert [has_final(long, chips, folder) for folder in (new, single, Run(run))] == [True, False, True]
    assert [has_final(short, chips, folder) for folder in (new, single, Run(run))] == [False, False, True]


def test_auto_counts_the_passes_over_the_ground_and_not_over_the_chips(drawn, tmp_path):
    cut = {name: drawn[name] for name in ("images", "labels", "size")} | {"stride": 16}
    chips = verbs.chip(**cut, out=tmp_path / "chips")
    training = chips.of_split("train")
    recipe = Recipe.of({"scenes": [{"image": "a.tif", "labels": "a.gpkg"}], "train": {"batch": 2, "steps": 1001}})
    assert 1001 * 2 / len(training) < 30 < 1001 * 2 / chip_sampler(training, recipe.train, 0).pass_length
    assert has_final(recipe, chips, Run(tmp_path / "run"))


def test_the_report_says_which_model_is_assessed(run):
    page = (run / "report.html").read_text()
    assert page.count("the measures are those of the model that was trained on the train chips alone") == 1
    assert "The predictions are those of the assessed model." in page
    assert "F1 on the validation chips, by epoch" in page


def test_the_terminal_names_the_assessed_map(run, capsys):
    print_run(run, as_json=False)
    first, *_ = capsys.readouterr().out.splitlines()
    assert first == "assessed/map.tif against chips (val)"


def test_a_stopped_final_training_goes_on(drawn, run):
    weights = (run / "model" / "model.safetensors").read_bytes()
    first = (run / "assessed" / "model" / "model.safetensors").stat().st_mtime_ns
    # As if the run had stopped after the final training, before it was the run's model.
    (run / "model").rename(run / "final")
    (run / "map.tif").unlink()
    leftovers = [run / "final.training", run / "assessed" / "model.training"]
    for folder in leftovers:  # of a kill between saving a model and removing its checkpoint
        folder.mkdir()
    pipeline.run(**drawn, final="all", out=run)
    assert not any(folder.exists() for folder in leftovers)
    assert (run / "model" / "model.safetensors").read_bytes() == weights
    assert (run / "assessed" / "model" / "model.safetensors").stat().st_mtime_ns == first
    assert (run / "map.tif").exists()
    assert not (run / "final").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "plateau"}, "schedule = plateau follows validation chips, and the final training has none"),
        ({"folds": 5}, "folds is 5 and final is all"),
    ],
)
def test_settings_that_a_final_training_cannot_follow_are_refused_before_anything_is_written(
    drawn, tmp_path, settings, message
):
    with pytest.raises(RecipeError, match=message):
        pipeline.run(**drawn | settings, final="all", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "training", "model"),
    [
        ({}, "model.training", "model"),
        ({"final": "all"}, "final.training", "model"),
        ({"folds": 3, "size": 32}, "folds/fold_1.training", "folds/fold_1"),
    ],
)
def test_overwrite_starts_an_unfinished_training_of_a_run_again(drawn, tmp_path, settings, training, model):
    given = drawn | {"steps": 1, "threshold": 0.5} | settings
    run = pipeline.run(**given, out=tmp_path / "run")
    shutil.rmtree(run / model)
    for name in ("last.ckpt", "training.json"):
        (run / training).mkdir(exist_ok=True)
        (run / training / name).write_text("of another version")
    with pytest.raises(OutputError, match="pass --overwrite to start again"):
        pipeline.run(**given, out=run)
    pipeline.run(**given, out=run, overwrite=True)
    assert Model.load(run / model).history[-1]["step"] >= 1
    assert not (run / training).exists()
