"""Training: seeded, honest about its best epoch, and able to learn."""

import math
import os
import random
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_curve

from landscribe import verbs
from landscribe.data.batches.augment_spec import AugmentSpec
from landscribe.data.batches.dataset import loader
from landscribe.data.batches.sampling import ChipSampler
from landscribe.data.chips.chips import Chips
from landscribe.errors import ChipError, NetworkError, RecipeError
from landscribe.geo.classes import IGNORE
from landscribe.model import Model
from landscribe.training.checks import best_row
from landscribe.training.parallel import chip_sampler
from landscribe.training.segmenter import SCHEDULES, one_cycle
from landscribe.training.spec import TrainSpec
from landscribe.training.train_loop import _budget_label, train

QUICK = {"encoder": "test_resnet", "weights": "none", "batch": 4, "options": {"widths": [32, 16, 8]}}
SMALL = {"encoder": "plain", "weights": "none", "batch": 4, "options": {"encoder_widths": [4, 8]}}
"""For trainings that need not learn, and for chips of 32 pixels."""
EXPLODING = {
    "encoder": "plain", "options": {"encoder_widths": [4, 8], "batch_norm": False},
    "optimizer": "sgd", "learning_rate": 1000, "gradient_clip": 0, "schedule": "constant",
}  # fmt: skip
"""Without normalisation and clipping, weights grow until the loss is not finite."""


def test_a_network_learns_what_is_plain_to_see(chips, tmp_path):
    model = verbs.train(chips, out=tmp_path / "model", steps=50, **QUICK)
    assert model.measures["val_f1_squares"] > 0.9


def test_the_same_seed_gives_the_same_model(tiny_chips, tmp_path):
    bytes_of = []
    for name in ("one", "two"):
        verbs.train(tiny_chips, out=tmp_path / name, steps=2, seed=7, **QUICK)
        bytes_of.append((tmp_path / name / "model.safetensors").read_bytes())
    other = verbs.train(tiny_chips, out=tmp_path / "three", steps=2, seed=8, **QUICK)
    assert bytes_of[0] == bytes_of[1]
    assert other.sha256 != Model.load(tmp_path / "one").sha256


@pytest.mark.parametrize("variables", [{}, {"PL_GLOBAL_SEED": "5", "PL_SEED_WORKERS": "0"}], ids=["unset", "set"])
@pytest.mark.parametrize("settings", [SMALL, SMALL | EXPLODING], ids=["trained", "failed"])
def test_a_training_leaves_the_random_states_of_its_caller(tiny_chips, tmp_path, monkeypatch, settings, variables):
    def draws() -> list[float]:
        return [float(torch.rand(1)), float(np.random.rand()), random.random()]  # noqa: NPY002 the global states

    names = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(100)
    expected = draws()
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(100)
    with pytest.raises(NetworkError) if settings.get("learning_rate") else nullcontext():
        verbs.train(tiny_chips, out=tmp_path / "model", steps=20 if settings.get("learning_rate") else 2, **settings)
    assert draws() == expected
    assert {name: os.environ[name] for name in names if name in os.environ} == variables


def test_the_weights_of_the_best_epoch_are_kept(tiny_chips, tmp_path):
    # The score of the loaded model is computed in 32 bits below.
    model = verbs.train(tiny_chips, out=tmp_path / "model", epochs=3, learning_rate=0.05, precision="32", **SMALL)
    scores = [row["val_mean_f1"] for row in model.history]
    assert len(scores) == 3
    assert model.measures["val_mean_f1"] == max(scores)
    # The saved weights give the score that is stated for them.
    assert _mean_f1(Model.load(tmp_path / "model"), tiny_chips.of_split("val")) == pytest.approx(max(scores), abs=1e-6)


def test_validation_chips_of_one_class_do_not_choose_the_epoch(tiny_chips, tmp_path, caplog):
    is_val = tiny_chips.table["split"] == "val"
    table = tiny_chips.table.assign(count_1=tiny_chips.table["count_1"].where(~is_val, 0))
    one_class = Chips(tiny_chips.folder, tiny_chips.metadata, table)
    model = verbs.train(one_class, out=tmp_path / "model", epochs=3, learning_rate=1e-9, **SMALL)
    assert model.measures == model.history[-1]
    assert caplog.text.count("split val has no class but background, and cannot choose the best epoch") == 1
    # By the same chips with both classes, an earlier epoch is the best.
    assert max(model.history, key=lambda row: row["val_mean_f1"]) != model.history[-1]


@pytest.mark.parametrize(("rows", "best"), [
    # Mean F1 and validation loss of each epoch.
    ([(0.4, 0.5), (0.6, 0.9), (0.5, 0.1)], 2),
    ([(0.49, 0.7), (0.49, 0.3), (0.49, 0.5)], 2),
    ([(0.49, 0.3), (0.49, 0.3)], 2),
    ([(0.49, 0.7), (0.49, math.nan), (0.49, 0.5)], 3),
    ([(0.49, 0.3), (0.49, 0.5), (0.49, math.nan)], 1),
    ([(0.49, 0.3), (0.49, math.inf)], 1),
    ([(0.49, math.nan), (0.49, math.nan)], 2),
    ([(0.49, 0.3), (0.6, math.nan)], 2),
    ([(None, None), (None, None)], 2),
])  # fmt: skip
def test_of_epochs_with_equal_f1_the_one_with_the_lowest_loss_is_the_best(rows, best):
    history = [{"epoch": n + 1, "val_mean_f1": f1, "val_loss": loss} for n, (f1, loss) in enumerate(rows)]
    assert best_row(history)["epoch"] == best


def test_a_training_that_finds_background_alone_warns_once(tiny_chips, tmp_path, caplog):
    model = verbs.train(
        tiny_chips, out=tmp_path / "model", epochs=3, learning_rate=0.05, class_weights=[1, 1e-6], **SMALL
    )
    assert [row["val_f1_squares"] for row in model.history] == [0, 0, 0]
    lowest = min(model.history, key=lambda row: row["val_loss"])
    assert model.measures == lowest
    # Other processors may leave it a threshold, or none.
    said = model.config.collapse or model.config.threshold_advice
    assert "F1 of squares is 0" in said
    assert caplog.text.count(said) == 1


def test_the_threshold_of_a_model_has_the_highest_f1_on_the_validation_chips(tiny_chips, tmp_path):
    # The probabilities of the validation chips are computed in 32 bits below.
    trained = verbs.train(tiny_chips, out=tmp_path / "model", epochs=2, learning_rate=0.01, precision="32", **SMALL)
    model = Model.load(tmp_path / "model")
    reference, probability = _labelled_pixels(model, tiny_chips.of_split("val"))
    # Of all thresholds that separate the pixels; the model's is a multiple of 1 / 1024.
    precision, recall, _ = precision_recall_curve(reference, probability)
    highest = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
    by_step = [_f1(reference, probability >= k / 1024) for k in range(1, 1024)]
    measured = model.measures["val_threshold_f1"]
    assert measured == pytest.approx(max(by_step), abs=1e-5)
    assert highest - 0.01 < measured <= highest + 1e-5
    assert _f1(reference, probability >= model.val_threshold) == pytest.approx(measured, abs=1e-5)
    assert measured >= model.measures["val_f1_squares"]
    assert trained.val_threshold == model.val_threshold == model.measures["val_threshold"]


def _f1(reference: np.ndarray, predicted: np.ndarray) -> float:
    """Of class 1: 2 TP / (2 TP + FP + FN)."""
    return 2 * (reference & predicted).sum() / max(1, reference.sum() + predicted.sum())


def _labelled_pixels(model: Model, chips: Chips) -> tuple[np.ndarray, np.ndarray]:
    """Class indices of labelled pixels, and probabilities of the second class."""
    reference, probability = [], []
    for batch in loader(chips, batch=4, workers=0):
        with torch.inference_mode():
            probabilities = model.logits(batch["image"], batch["valid"]).softmax(1)[:, 1]
        is_labelled = batch["label"] != IGNORE
        reference.append(batch["label"][is_labelled].numpy())
        probability.append(probabilities[is_labelled].numpy())
    return np.concatenate(reference), np.concatenate(probability)


def test_without_pixels_of_the_second_class_in_val_there_is_no_threshold(tiny_chips, tmp_path):
    only_train = Chips(tiny_chips.folder, tiny_chips.metadata, tiny_chips.table.assign(split="train"))
    model = verbs.train(only_train, out=tmp_path / "model", steps=1, **SMALL)
    assert (model.val_threshold, model.measures["val_threshold"]) == (None, None)


def _mean_f1(model: Model, chips: Chips) -> float:
    from landscribe.confusion import Confusion

    confusion = Confusion.zeros(chips.classes)
    for batch in loader(chips, batch=4, workers=0):
        with torch.inference_mode():
            predicted = model.logits(batch["image"], batch["valid"]).argmax(1)
        confusion += Confusion.of(
            chips.classes, batch["label"].to(torch.uint8).numpy(), predicted.to(torch.uint8).numpy()
        )
    return confusion.mean_f1


def test_the_steps_of_a_last_unfinished_epoch_are_validated_too(tiny_chips, tmp_path):
    order = ChipSampler(np.ones(len(tiny_chips.of_split("train"))), seed=0)
    an_epoch = len(loader(tiny_chips.of_split("train"), batch=4, workers=0, order=order))
    model = verbs.train(tiny_chips, out=tmp_path / "model", steps=11, **SMALL)
    each = min(an_epoch, 3)  # at least five epochs
    assert each > 1
    assert [row["step"] for row in model.history] == [*range(each, 11, each), 11]
    assert all(row["val_mean_f1"] is not None for row in model.history)


def test_without_validation_chips_the_last_epoch_is_kept(tiny_chips, tmp_path):
    only_train = Chips(tiny_chips.folder, tiny_chips.metadata, tiny_chips.table.assign(split="train"))
    model = verbs.train(only_train, out=tmp_path / "model", epochs=2, **SMALL)
    assert model.measures["epoch"] == 2
    assert model.measures["val_mean_f1"] is None


def test_without_training_chips_it_is_refused(chips, tmp_path):
    none = Chips(chips.folder, chips.metadata, chips.table.assign(split="val"))
    with pytest.raises(ChipError, match="no chip in split train"):
        verbs.train(none, out=tmp_path / "model", **QUICK)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_without_training_chips_is_refused_by_name(chips, tmp_path, split):
    table = chips.table.copy()
    table.loc[table["split"] == "train", "count_1"] = 0
    table.loc[table["split"] != "train", "split"] = split
    pixels = int(table.loc[table["split"] == split, "count_1"].sum())
    unseen = Chips(chips.folder, chips.metadata, table)
    said = rf"class 'squares' \(value 1\) has {pixels} labelled pixels in split {split}, but none"
    with pytest.raises(ChipError, match=said):
        train(unseen, tmp_path / "model", spec=TrainSpec(**QUICK), augmentation=AugmentSpec())
    assert list(tmp_path.iterdir()) == []


def test_settings_that_the_chips_or_the_machine_cannot_serve_are_refused(chips, tmp_path):
    only_train = Chips(chips.folder, chips.metadata, chips.table.assign(split="train"))
    for setting, text in (({"schedule": "plateau"}, "schedule = plateau"), ({"patience": 2}, "patience = 2")):
        with pytest.raises(RecipeError, match=rf"{text} .* split val has no labelled pixels"):
            verbs.train(only_train, out=tmp_path / "model", **setting, **QUICK)
    if not torch.cuda.is_available():
        with pytest.raises(RecipeError, match="precision = 16 needs a CUDA GPU"):
            verbs.train(chips, out=tmp_path / "model", precision=16, **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_a_network_trains_in_bfloat16(tiny_chips, tmp_path):
    model = verbs.train(tiny_chips, out=tmp_path / "model", steps=1, precision="bf16", **SMALL)
    assert {value.dtype for value in model.network.parameters()} == {torch.float32}
    full = verbs.train(tiny_chips, out=tmp_path / "full", steps=1, precision="32", **SMALL)
    assert model.history[0]["train_loss"] != full.history[0]["train_loss"]
    assert model.history[0]["train_loss"] == pytest.approx(full.history[0]["train_loss"], rel=0.05)


def test_a_loss_that_is_not_finite_ends_the_training(tiny_chips, tmp_path):
    with pytest.raises(NetworkError, match="Lower the learning rate"):
        verbs.train(tiny_chips, out=tmp_path / "model", steps=30, **SMALL | EXPLODING)
    assert not (tmp_path / "model").exists()


def test_a_budget_in_minutes_ends_by_the_clock(tiny_chips, tmp_path):
    model = verbs.train(tiny_chips, out=tmp_path / "model", minutes=0.01, **SMALL)
    assert model.history[-1]["step"] >= 1


@pytest.mark.parametrize(
    ("settings", "an_epoch", "steps"),
    [
        ({"effort": "quick"}, 5, 200), ({"effort": "thorough"}, 30, 10_000), ({"epochs": 3}, 5, 15),
        ({"steps": 7}, 5, 7), ({"minutes": 1}, 5, None), ({"effort": "standard", "epochs": 3}, 5, 15),
    ],
)  # fmt: skip
def test_the_budget_is_counted_in_steps(settings, an_epoch, steps):
    assert TrainSpec(**settings).total_steps(an_epoch) == steps


@pytest.mark.parametrize(
    ("settings", "a_pass", "an_epoch"),
    [
        ({"effort": "quick"}, 8, 8), ({"effort": "quick"}, 1, 4), ({"effort": "quick"}, 100, 40),
        ({"epochs": 3}, 100, 100), ({"steps": 3}, 8, 1), ({"minutes": 1}, 100, 100),
    ],
)  # fmt: skip
def test_a_budget_in_steps_is_validated_5_to_50_times(settings, a_pass, an_epoch):
    assert TrainSpec(**settings).steps_an_epoch(a_pass) == an_epoch


@pytest.mark.parametrize(
    ("settings", "pass_length", "passes"),
    [
        ({"steps": 200, "batch": 64}, 21, 200 * 64 / 21),  # full batches, over a pass of less than one
        ({"steps": 200, "batch": 4, "accumulate": 2}, 1000, 200 * 8 / 1000),
        ({"epochs": 3}, 21, 3), ({"minutes": 1}, 21, None),
    ],
)  # fmt: skip
def test_the_passes_of_a_training_are_what_it_draws_over_what_a_pass_draws(settings, pass_length, passes):
    spec = TrainSpec(**settings)
    assert spec.passes(pass_length) == (passes and pytest.approx(passes))
    drawn = spec.drawn_an_epoch(pass_length)
    assert spec.steps_a_pass(drawn) == spec.steps_an_epoch(spec.steps_a_pass(pass_length))


@pytest.mark.parametrize(
    ("passes", "number"), [(0.04, "0.04"), (1.0, "1"), (9.44, "9.4"), (9.96, "10"), (609.5, "610")]
)
def test_the_passes_are_written_as_whole_numbers_from_ten_on(passes, number):
    line = _budget_label(TrainSpec(steps=200), "light", passes)
    assert (
        line
        == f"training: steps 200, in batches of 8; passes over the training ground: about {number}; augmentation light"
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch": 64}, "in batches of 64 (8 times the chips of the default, in as many steps); passes"),
        ({"batch": 12, "effort": "quick"}, "in batches of 12 (1.5 times the chips of the default, in as many steps);"),
        ({"batch": 64, "epochs": 3}, "in batches of 64; passes"),
        ({"batch": 4}, "in batches of 4; passes"),
    ],
)
def test_a_large_batch_of_a_budget_in_steps_is_said_to_take_more_chips(settings, said):
    assert said in _budget_label(TrainSpec(**{"effort": "standard"} | settings), "light", 1.0)


@pytest.mark.parametrize(("effort", "has_gpu", "expected"), [
    ("auto", False, "quick"), ("auto", True, "standard"), ("thorough", False, "thorough"), ("quick", True, "quick"),
])  # fmt: skip
def test_a_given_effort_is_that_of_any_machine(effort, has_gpu, expected):
    assert TrainSpec(effort=effort).resolved(has_gpu=has_gpu).effort == expected


def test_without_a_gpu_a_step_of_batch_auto_reads_eight_chips(tiny_chips, tmp_path):
    read = []

    def pipeline(*, image, masks):
        read.append(image)
        return {"image": image, "masks": masks}

    verbs.train(tiny_chips, out=tmp_path / "model", **SMALL | {"batch": "auto", "steps": 1, "augment": pipeline})
    assert len(read) == 8


def test_the_rate_rises_once_and_falls_to_zero():
    rates = [one_cycle(share / 100) for share in range(101)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(1)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0)


def test_two_reading_processes_give_the_batches_of_one(tiny_chips):
    def batches(workers: int) -> list[torch.Tensor]:
        order = ChipSampler(np.ones(len(tiny_chips)), seed=3)
        return [batch["image"] for batch in loader(tiny_chips, batch=4, workers=workers, order=order)]

    for one, two in zip(batches(0), batches(2), strict=True):
        assert torch.equal(one, two)


def test_class_weights_reach_the_loss_and_must_match_the_classes(tiny_chips, tmp_path):
    def first_loss(name: str, weights) -> float:
        model = verbs.train(tiny_chips, out=tmp_path / name, steps=1, loss="ce", class_weights=weights, **SMALL)
        return model.history[0]["train_loss"]

    even = first_loss("even", "none")
    assert first_loss("ones", (2.0, 2.0)) == pytest.approx(even)
    assert first_loss("inverse", "inverse") != pytest.approx(even)
    with pytest.raises(RecipeError, match="class_weights has 3 numbers for 2 classes"):
        first_loss("three", (1.0, 1.0, 1.0))
    with pytest.raises(RecipeError, match="class_weights are all 0"):
        first_loss("none", (0.0, 0.0))


def test_a_balanced_training_draws_rare_classes_more_often_and_background_less(tiny_chips):
    has_squares = np.arange(len(tiny_chips)) < 3
    table = tiny_chips.table.assign(count_1=has_squares * 9, positive=has_squares)
    rare = replace(tiny_chips, table=table)
    order = chip_sampler(rare, TrainSpec(epochs=1, sampling="balanced", background=0.5, **SMALL), 0)
    drawn = np.mean([np.bincount(list(order), minlength=len(rare)) for _ in range(200)], axis=0)
    assert drawn[:3].mean() > 1.5
    assert drawn[3:].sum() < 0.6 * drawn.sum()


@pytest.mark.parametrize("settings", [{"optimizer": "sgd"}, {"schedule": "cosine"}, {"schedule": "constant"}])
def test_optimisers_and_schedules_train(tiny_chips, tmp_path, settings):
    model = verbs.train(tiny_chips, out=tmp_path / "model", steps=12, **(SMALL | settings))
    assert model.history[-1]["train_loss"] < model.history[0]["train_loss"]


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_stay_between_nothing_and_all(name):
    factors = [SCHEDULES[name](share / 100) for share in range(101)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) == pytest.approx(1)


def test_one_cycle_rises_over_a_fifth_of_the_budget_and_falls_over_the_rest():
    """By hand: the first value, half-way up, the top, half-way down, the end."""
    assert [one_cycle(share) for share in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx([0.04, 0.52, 1, 0.5, 0])


def test_without_progress_training_stops_and_says_so(tiny_chips, tmp_path, caplog):
    # At a rate of nearly nothing, and without statistics that settle, no epoch is better than the first.
    still = {"options": {"encoder_widths": [4, 8], "batch_norm": False}}
    settings = SMALL | still | {"learning_rate": 1e-12, "patience": 2}
    with caplog.at_level("INFO"):
        model = verbs.train(tiny_chips, out=tmp_path / "model", epochs=9, **settings)
    assert len(model.history) == 3
    a_pass = model.history[0]["step"]
    stopped = f"stopped at step {3 * a_pass} of {9 * a_pass}: no better F1 for 2 epochs"
    assert caplog.text.count(f"training: {stopped}") == 1
    assert model.provenance["stopped"] == stopped


@pytest.mark.parametrize("settings", [{"sampling": "label_windows"}, {"augment": {"preset": "light", "mixup": 1.0}}])
def test_windows_and_mixed_chips_teach_the_same_every_time(tiny_chips, tmp_path, settings):
    first, second = (
        verbs.train(tiny_chips, out=tmp_path / name, steps=3, seed=1, **SMALL, **settings) for name in ("one", "two")
    )
    assert first.sha256 == second.sha256
    wider = {"options": {"encoder_widths": [8, 16]}, "learning_rate": 0.02}
    taught = verbs.train(tiny_chips, out=tmp_path / "taught", steps=40, seed=1, **SMALL | settings | wider)
    assert taught.measures["val_f1_squares"] > 0.9


def test_a_pipeline_without_masks_is_refused_before_chips_are_read(chips, tmp_path):
    with pytest.raises(RecipeError, match="augment cannot be called with image and masks"):
        verbs.train(chips, out=tmp_path / "model", steps=3, augment=lambda image, mask: (image, mask), **QUICK)


def test_a_pipeline_of_the_users_changes_the_training_chips_alone(tiny_chips, tmp_path, caplog):
    seen = []

    def pipeline(*, image, masks):
        seen.append(image.shape)
        return {"image": np.flipud(image), "masks": [np.flipud(mask) for mask in masks]}

    with caplog.at_level("INFO"):
        model = verbs.train(tiny_chips, out=tmp_path / "model", steps=3, augment=pipeline, **SMALL)
    assert len(seen) == 3 * SMALL["batch"]
    assert set(seen) == {(32, 32, 2)}
    assert "pipeline" in model.provenance["changed_by"]
    assert "augmentation by the user's pipeline" in caplog.text
