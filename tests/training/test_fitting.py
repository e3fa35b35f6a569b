"""Training: seeded, honest about its best epoch, and able to learn."""

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine

from landscribe import verbs
from landscribe.data.chips import Chips
from landscribe.data.dataset import ChipDataset, loader
from landscribe.data.sampling import ChipSampler
from landscribe.errors import ChipError, NetworkError
from landscribe.model import Model
from landscribe.training.fitting import _scaling
from landscribe.training.segmenter import SCHEDULES, one_cycle
from landscribe.training.spec import TrainSpec


@pytest.fixture(scope="module")
def chips(tmp_path_factory) -> Chips:
    """Bright squares on dark ground, 64-pixel chips of a 320 x 320 scene with two bands of uint16."""
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    image = rng.integers(900, 1100, (2, 320, 320)).astype(np.uint16)
    corners = [(row, col) for row in range(10, 300, 64) for col in range(10, 300, 64)]
    for row, col in corners:
        image[:, row : row + 24, col : col + 24] += 3000
    transform = Affine(1, 0, 500_000, 0, -1, 4_000_000)
    layout = {"driver": "GTiff", "count": 2, "height": 320, "width": 320, "dtype": "uint16", "crs": "EPSG:32617"}
    with rasterio.open(folder / "scene.tif", "w", transform=transform, **layout) as target:
        target.write(image)
    boxes = [shapely.box(500_000 + c, 4_000_000 - r - 24, 500_000 + c + 24, 4_000_000 - r) for r, c in corners]
    gpd.GeoDataFrame(geometry=boxes, crs="EPSG:32617").to_file(folder / "squares.gpkg")
    return verbs.chip(
        images=[folder / "scene.tif"], labels=folder / "squares.gpkg", out=folder / "chips", size=64, gap=1
    )


QUICK = {"encoder": "resnet10t", "weights": "none", "batch": 4}


def test_a_network_learns_what_is_plain_to_see(chips, tmp_path):
    model = verbs.train(chips, out=tmp_path / "model", steps=25, **QUICK)
    assert model.measures["val_f1_squares"] > 0.9


def test_the_same_seed_gives_the_same_model(chips, tmp_path):
    bytes_of = []
    for name in ("one", "two"):
        verbs.train(chips, out=tmp_path / name, steps=4, seed=7, **QUICK)
        bytes_of.append((tmp_path / name / "model.safetensors").read_bytes())
    other = verbs.train(chips, out=tmp_path / "three", steps=4, seed=8, **QUICK)
    assert bytes_of[0] == bytes_of[1]
    assert other.sha256 != Model.load(tmp_path / "one").sha256


def test_the_weights_of_the_best_epoch_are_kept(chips, tmp_path):
    model = verbs.train(chips, out=tmp_path / "model", epochs=3, learning_rate=0.05, **QUICK)
    scores = [row["val_mean_f1"] for row in model.history]
    assert len(scores) == 3
    assert model.measures["val_mean_f1"] == max(scores)
    # The saved weights give the score that is stated for them.
    assert _mean_f1(Model.load(tmp_path / "model"), chips.of_split("val")) == pytest.approx(max(scores), abs=1e-6)


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


def test_the_steps_of_a_last_unfinished_epoch_are_validated_too(chips, tmp_path):
    order = ChipSampler(np.ones(len(chips.of_split("train"))), seed=0)
    an_epoch = len(loader(chips.of_split("train"), batch=4, workers=0, order=order))
    model = verbs.train(chips, out=tmp_path / "model", steps=an_epoch + 1, **QUICK)
    assert [row["step"] for row in model.history] == [an_epoch, an_epoch + 1]
    assert all(row["val_mean_f1"] is not None for row in model.history)


def test_wide_integers_are_standardised_by_the_training_chips(chips, tmp_path):
    model = verbs.train(chips, out=tmp_path / "model", steps=1, **QUICK)
    training = ChipDataset(chips.of_split("train"))
    batch = torch.stack([training[number]["image"] for number in range(len(training))])
    scaled = model.scaling.apply(batch, torch.ones(batch[:, 0].shape, dtype=torch.bool))
    assert scaled.mean((0, 2, 3)).abs().max() < 1e-3
    torch.testing.assert_close(scaled.std((0, 2, 3)), torch.ones(2), rtol=1e-3, atol=1e-3)


def test_without_validation_chips_the_last_epoch_is_kept(chips, tmp_path):
    only_train = Chips(chips.folder, chips.head, chips.table.assign(split="train"))
    model = verbs.train(only_train, out=tmp_path / "model", epochs=2, **QUICK)
    assert model.measures["epoch"] == 2
    assert model.measures["val_mean_f1"] is None


def test_without_training_chips_it_is_refused(chips, tmp_path):
    none = Chips(chips.folder, chips.head, chips.table.assign(split="val"))
    with pytest.raises(ChipError, match="no chip of split train"):
        verbs.train(none, out=tmp_path / "model", **QUICK)
    assert not (tmp_path / "model").exists()


def test_a_loss_that_is_not_finite_ends_the_training(chips, tmp_path):
    with pytest.raises(NetworkError, match="Lower the learning rate"):
        verbs.train(chips, out=tmp_path / "model", steps=30, learning_rate=1e30, **QUICK)
    assert not (tmp_path / "model").exists()


def test_a_budget_in_minutes_ends_by_the_clock(chips, tmp_path):
    model = verbs.train(chips, out=tmp_path / "model", minutes=0.02, **QUICK)
    assert model.history[-1]["step"] >= 1


@pytest.mark.parametrize(
    ("settings", "an_epoch", "steps"),
    [({}, 5, 200), ({}, 30, 600), ({"epochs": 3}, 5, 15), ({"steps": 7}, 5, 7), ({"minutes": 1}, 5, None)],
)
def test_the_budget_is_counted_in_steps(settings, an_epoch, steps):
    assert TrainSpec(**settings).total_steps(an_epoch) == steps


def test_the_rate_rises_once_and_falls_to_zero():
    rates = [one_cycle(share / 100) for share in range(101)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(1)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0)


def test_two_reading_processes_give_the_batches_of_one(chips):
    def batches(workers: int) -> list[torch.Tensor]:
        return [
            batch["image"]
            for batch in loader(chips, batch=4, workers=workers, order=ChipSampler(np.ones(len(chips)), seed=3))
        ]

    for one, two in zip(batches(0), batches(2), strict=True):
        assert torch.equal(one, two)


def test_pretrained_weights_see_the_contrast_that_they_were_trained_on(chips):
    coloured = replace(chips, head=chips.head.model_copy(update={"dtype": "uint8", "bands": ("green", "red", "blue")}))
    plain, pretrained = (_scaling(coloured, "resnet18", pretrained=known) for known in (False, True))
    assert plain.factor == pytest.approx((1 / 255,) * 3)
    # ImageNet: red, green and blue have means 0.485, 0.456, 0.406 and deviations 0.229, 0.224, 0.225.
    assert pretrained.offset == pytest.approx((255 * 0.456, 255 * 0.485, 255 * 0.406))
    assert pretrained.factor == pytest.approx((1 / 255 / 0.224, 1 / 255 / 0.229, 1 / 255 / 0.225))


def test_class_weights_reach_the_loss_and_must_match_the_classes(chips, tmp_path):
    def first_loss(name: str, weights) -> float:
        model = verbs.train(chips, out=tmp_path / name, steps=1, loss="ce", class_weights=weights, **QUICK)
        return model.history[0]["train_loss"]

    even = first_loss("even", "none")
    assert first_loss("ones", (2.0, 2.0)) == pytest.approx(even)
    assert first_loss("inverse", "inverse") != pytest.approx(even)
    with pytest.raises(ChipError, match="3 class weights were given for 2 classes"):
        first_loss("three", (1.0, 1.0, 1.0))


def test_a_network_trains_on_balanced_chips(chips, tmp_path):
    model = verbs.train(chips, out=tmp_path / "model", steps=2, sampling="balanced", background=0.1, **QUICK)
    assert model.provenance["settings"]["sampling"] == "balanced"


@pytest.mark.parametrize("settings", [{"optimizer": "sgd"}, {"schedule": "cosine"}, {"schedule": "constant"}])
def test_optimisers_and_schedules_train(chips, tmp_path, settings):
    model = verbs.train(chips, out=tmp_path / "model", steps=12, **(QUICK | settings))
    assert model.history[-1]["train_loss"] < model.history[0]["train_loss"]


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_stay_between_nothing_and_all(name):
    factors = [SCHEDULES[name](share / 100) for share in range(101)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) == pytest.approx(1)


def test_without_progress_training_stops(chips, tmp_path):
    # At a rate of nearly nothing, and without statistics that settle, no epoch is better than the first.
    still = {"encoder": "plain", "options": {"encoder_widths": [4, 8], "batch_norm": False}}
    settings = QUICK | still | {"learning_rate": 1e-12, "patience": 2}
    model = verbs.train(chips, out=tmp_path / "model", epochs=9, **settings)
    assert len(model.history) == 3
