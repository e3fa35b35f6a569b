"""The margin that tiles need, measured on networks that see a known distance."""

import numpy as np
import pytest
import torch
from test_mapping import model_of, read, write

from landscribe.geo.rasters.raster import Raster
from landscribe.inference import cache
from landscribe.inference.cache import TUNING
from landscribe.inference.receptive_field import (
    ReceptiveField,
    cached_receptive_field,
    measure_receptive_field,
)
from landscribe.model import Model
from landscribe.nn import build
from landscribe.prediction.spec import PredictSpec
from networks import AboveTheMean, Blur, Decaying, Identity, predict


@pytest.fixture
def raster(tmp_path) -> Raster:
    """Noise that is brighter from left to right, its last rows nodata."""
    slope = np.linspace(0, 100, 160)[None] + np.random.default_rng(0).integers(0, 80, (160, 160))
    slope[150:] = 255
    return write(tmp_path / "image.tif", slope.astype(np.uint8), nodata=255)


def noise(path, shape=(160, 160), classes=2) -> Raster:
    return write(path, np.random.default_rng(3).integers(0, classes, shape).astype(np.uint8))


def measured(model, raster, tolerance=1e-3):
    return measure_receptive_field(model, raster, tolerance=tolerance, largest=1024, threshold=None)


def cached(model, raster, tolerance=1e-3):
    return cached_receptive_field(model, raster, tolerance=tolerance, largest=1024, threshold=None)


@pytest.fixture
def saved(tmp_path) -> Model:
    """A network of 3 x 3 convolutions in a folder."""
    torch.manual_seed(0)
    network = build("fcn", bands=1, classes=2, encoder="plain", weights=None).eval()
    model = Model.wrap(network, bands=["v"], classes=["a", "b"])
    model.save(tmp_path / "model")
    return model


@pytest.mark.parametrize("radius", [1, 5, 12])
def test_classes_differ_no_farther_from_a_cut_than_the_receptive_field(tmp_path, radius):
    field = measured(model_of(Blur(radius), 2), noise(tmp_path / "image.tif"))
    assert len(field.mismatch) == 80
    assert (field.mismatch[radius:] == 0).all()
    assert field.mismatch[:radius].sum() > 0
    assert not field.is_global
    assert field.is_settled
    assert 0 < field.margin(64) <= -(-radius // 8) * 8
    assert field.mismatch_of(field.margin(64), 64) < 1e-3 <= field.mismatch_of(0, 64)


def test_in_a_narrow_raster_distances_are_measured_along_it(tmp_path):
    field = measured(model_of(Blur(12), 2), noise(tmp_path / "image.tif", (24, 400)))
    assert len(field.mismatch) == 200
    assert (field.mismatch[12:] == 0).all()
    assert field.mismatch[:12].sum() > 0


def test_a_network_that_sees_one_pixel_needs_no_margin(tmp_path):
    assert measured(model_of(Identity(), 4), noise(tmp_path / "image.tif", classes=4)).margin(64) == 0


def test_a_network_that_averages_over_the_tile_has_a_global_field(raster):
    field = measured(model_of(AboveTheMean(), 2), raster)
    assert field.is_global
    assert field.floor > 1e-3
    assert field.mismatch_of(16, 64) >= field.floor / 2


def test_a_raster_of_one_class_gives_no_receptive_field(tmp_path):
    plain = write(tmp_path / "image.tif", np.full((160, 160), 7, np.uint8))
    varied = noise(tmp_path / "noise.tif")
    always = model_of(Identity(1), 1)
    assert measured(model_of(Blur(3), 2), plain) is None
    assert measured(always, varied) is None


def test_the_mismatch_is_that_of_the_kept_rings():
    # A tile of 10 pixels has rings of 36, 28, 20, 12 and 4 pixels; without the first, 64 remain.
    field = ReceptiveField(np.array([1.0, 0.5, 0, 0, 0, 0, 0, 0]), tolerance=1e-3)
    assert field.mismatch_of(0, 10) == pytest.approx((36 + 28 * 0.5) / 100)
    assert field.mismatch_of(1, 10) == pytest.approx(28 * 0.5 / 64)
    assert field.mismatch_of(2, 10) == 0
    # Of 3 pixels, 8 and the middle.
    assert field.mismatch_of(0, 3) == pytest.approx((8 + 0.5) / 9)


def test_a_mismatch_at_all_distances_needs_no_margin():
    # In the outer 16 pixels of a cut every other pixel differs, farther in always one in a hundred.
    field = ReceptiveField(np.array([0.5] * 16 + [0.01] * 112), tolerance=1e-3)
    assert field.floor == pytest.approx(0.01)
    assert field.mismatch_of(16, 512) == pytest.approx(0.01)
    assert field.margin(512) == 16
    local = ReceptiveField(np.where(np.arange(128) < 16, 0.5, 0.0), tolerance=1e-3)
    assert local.margin(512) == 16


def test_margins_are_multiples_of_half_the_stride():
    field = ReceptiveField(np.where(np.arange(128) < 17, 0.5, 0.0), tolerance=1e-3)
    assert [field.margin(448, align=align) for align in (1, 14, 16, 32)] == [24, 28, 24, 32]
    assert field.margin(32, align=32) is None


def test_an_ensemble_has_the_largest_field_of_its_networks():
    near, far = (
        ReceptiveField(np.array(mismatch), 1e-3) for mismatch in ([0.9, 0, 0, 0], [0.5, 0.5, 0, 0, 0, 0, 0, 0])
    )
    assert ReceptiveField.largest([near, far]).mismatch.tolist() == [0.9, 0.5, 0, 0, 0, 0, 0, 0]


def test_beyond_the_measured_distances_the_mismatch_falls_no_further():
    # At 256 pixels it is 8e-5, and has not stopped falling.
    mismatch = 0.2 * np.exp(-np.arange(256) / 33)
    assert ReceptiveField(mismatch, tolerance=1e-3).margin(1024) is not None
    assert ReceptiveField(mismatch, tolerance=1e-5).margin(1024) is None


def test_windows_grow_until_the_mismatch_is_below_the_tolerance(tmp_path):
    raster, model = noise(tmp_path / "image.tif", (1024, 1024)), model_of(Decaying(), 2)
    assert [len(measured(model, raster, tolerance).mismatch) for tolerance in (1e-3, 1e-5)] == [256, 512]


def test_a_map_differs_from_a_single_pass_by_less_than_a_small_tolerance(tmp_path):
    raster = noise(tmp_path / "image.tif", (400, 4000))
    spec = PredictSpec(tile=1024, engine="torch", tolerance=1e-5)
    predict(model_of(Decaying(), 2), raster, tmp_path / "map.tif", spec=spec)
    single = Decaying()(torch.from_numpy(read(tmp_path / "image.tif"))[None, None]).argmax(1)[0].numpy()
    assert (read(tmp_path / "map.tif") != single).mean() < 1e-5


def test_a_receptive_field_is_measured_once_and_cached(tmp_path, saved):
    first = cached(saved, noise(tmp_path / "first.tif", (256, 256), classes=200))
    again = cached(Model.load(saved.folder), noise(tmp_path / "second.tif", (256, 256), classes=100))
    assert (first.raster, again.raster) == ("first", "first")
    assert again.day == first.day
    assert again.mismatch == pytest.approx(first.mismatch, rel=1e-4)


def test_a_receptive_field_is_measured_again_only_where_larger_windows_are_compared(tmp_path, monkeypatch):
    # That of a tolerance of 1e-5 is not settled: it is not cached.
    entries, model = {}, model_of(Decaying(), 2)
    monkeypatch.setattr(cache, "load", lambda model, key: entries.get(key))
    monkeypatch.setattr(cache, "store", lambda model, key, value: entries.update({key: value}))
    large, small = (noise(tmp_path / f"{side}.tif", (side, side)) for side in (1024, 256))
    fields = [
        cached(model, raster, tolerance)
        for raster, tolerance in ((large, 1e-3), (small, 1e-2), (small, 1e-5), (large, 1e-5), (small, 1e-3))
    ]
    assert [(field.raster, len(field.mismatch), field.tolerance) for field in fields] == [
        ("1024", 256, 1e-3), ("1024", 256, 1e-2), ("1024", 256, 1e-5), ("1024", 512, 1e-5), ("1024", 256, 1e-3)
    ]  # fmt: skip


def test_a_slow_tail_below_a_thousandth_is_no_global_receptive_field():
    # Otherwise it would not count, and a margin would claim a tolerance of 1e-4.
    tail = np.concatenate([np.full(192, 3e-4), np.full(64, 2e-4)])
    assert not ReceptiveField(tail, tolerance=1e-4).is_global
    assert ReceptiveField(tail, tolerance=1e-4).margin(1024) is None


def test_without_its_cache_or_with_other_weights_it_is_measured_again(tmp_path, saved):
    cached(saved, noise(tmp_path / "first.tif", (256, 256), classes=200))
    second = noise(tmp_path / "second.tif", (256, 256), classes=200)
    (cache.folder_of(saved) / TUNING).unlink()
    assert cached(saved, second).raster == "second"
    with torch.no_grad():
        next(saved.network.parameters()).mul_(1.5)
    third = noise(tmp_path / "third.tif", (256, 256), classes=200)
    assert cached(saved, third).raster == "third"
    (cache.folder_of(saved) / TUNING).write_text('{"receptive field": {"raster": "?", "mismatch": 3}}')
    assert cached(saved, second).raster == "second"


def test_a_map_with_a_measured_margin_is_that_of_a_single_pass(tmp_path, caplog):
    raster = noise(tmp_path / "image.tif", (150, 170))
    with caplog.at_level("INFO", logger="landscribe"):
        predict(model_of(Blur(5), 2), raster, tmp_path / "map.tif", spec=PredictSpec(tile=64, margin="auto", unit=64))
    binary = torch.from_numpy(read(tmp_path / "image.tif"))[None, None].float()
    single = Blur(5)(binary).argmax(1)[0].numpy()
    assert (read(tmp_path / "map.tif") != single).mean() < 1e-3
    assert "tile 64, margin 8 px" in caplog.text
    # 3 times 4 tiles of 64 for 150 times 170 pixels.
    assert "1.93x overlap overhead" in caplog.text
    assert "measured on image, " in caplog.text


def test_a_network_with_global_context_is_mapped_at_its_training_size(tmp_path, raster, caplog):
    model = Model.wrap(AboveTheMean(), bands=["v"], classes=["a", "b"], chip_size=48)
    with caplog.at_level("INFO", logger="landscribe"):
        predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(tile="auto", margin="auto", unit=96))
    assert "tile 48, margin" in caplog.text
    assert "so tiles have the training size" in caplog.text


def test_a_raster_of_one_tile_needs_no_margin(tmp_path, raster, caplog):
    with caplog.at_level("DEBUG", logger="landscribe"):
        predict(model_of(AboveTheMean(), 2), raster, tmp_path / "map.tif", spec=PredictSpec())
    assert "tile 160, margin 0 px" in caplog.text
    assert all(record.levelname == "DEBUG" for record in caplog.records if "margin" in record.message)
    with pytest.raises(ValueError, match="margin"):
        PredictSpec(margin="wide")
