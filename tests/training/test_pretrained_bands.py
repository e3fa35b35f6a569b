"""Training that starts from a file of weights for other bands than red, green and blue: its scaling, and end to end."""

import json

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from landscribe import verbs
from landscribe.errors import NetworkError, OutputError, RecipeError
from landscribe.geo.rasters.encoding import Encoding
from landscribe.model import Model
from landscribe.nn.encoders.weights import Weights
from landscribe.training.scaling import scaling_of
from landscribe.training.spec import TrainSpec
from worlds import write_raster

SIDE = 64
BANDS = ["B02", "B03", "B04", "B08"]


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    """Chips of four bands of Sentinel-2, as its integers; the last is bright where the class is 2."""
    folder = tmp_path_factory.mktemp("chips")
    labels = np.kron(np.tile([[1, 2], [2, 1]], (2, 2)), np.ones((16, 16))).astype(np.uint8)
    array = np.random.default_rng(0).integers(300, 900, (4, SIDE, SIDE)).astype(np.uint16)
    array[3] += 2000 * (labels == 2).astype(np.uint16)
    image = write_raster(folder / "scene.tif", array, descriptions=BANDS)
    return verbs.chip(
        images=[image], labels=write_raster(folder / "labels.tif", labels), out=folder / "chips", size=32, val=0, test=0
    )


@pytest.fixture(scope="module")
def sentinel2(tmp_path_factory):
    """A file of weights of 13 bands, in Lightning's layout."""
    torch.manual_seed(0)
    state = timm.create_model("resnet10t", pretrained=False, in_chans=13).state_dict()
    path = tmp_path_factory.mktemp("weights") / "sentinel2.safetensors"
    safetensors.torch.save_file({f"model.backbone.{name}": value for name, value in state.items()}, path)
    return path


def scaled(chips, table, *, bands=BANDS, dtype="uint16", encoding=(), means=None):
    changed = chips.metadata.model_copy(update={"bands": tuple(bands), "dtype": dtype, "encoding": tuple(encoding)})
    rows = chips.table.copy()
    for number, mean in enumerate(means or [], 1):
        rows[f"mean_{number}"] = float(mean)
    training = type(chips)(chips.folder, changed, rows)
    return scaling_of(training, "auto", encoder="resnet18", weights=Weights("w.pth", tuple(table.split(","))))


# ---- scaling


def test_integers_of_sentinel_2_are_divided_by_10000(chips):
    scaling = scaled(chips, "sentinel2-13")
    assert scaling.offset == (0,) * 4
    assert scaling.factor == pytest.approx((1e-4,) * 4)


def test_reflectance_in_floating_point_is_not_divided(chips):
    assert scaled(chips, "sentinel2-13", dtype="float32", means=[0.1] * 4).factor == pytest.approx((1,) * 4)
    assert scaled(chips, "sentinel2-13", dtype="float32", means=[900] * 4).factor == pytest.approx((1e-4,) * 4)


def test_tags_decide_what_stored_numbers_mean(chips):
    # Sentinel-2 since baseline 04.00: reflectance = stored / 10000 - 0.1.
    scaling = scaled(chips, "sentinel2-13", encoding=[Encoding(scale=1e-4, offset=-0.1)] * 4)
    assert scaling.offset == pytest.approx((1000,) * 4)
    assert scaling.factor == pytest.approx((1e-4,) * 4)
    percent = scaled(chips, "sentinel2-13", dtype="float32", encoding=[Encoding(unit="%")] * 4)
    assert percent.factor == pytest.approx((0.01,) * 4)


def test_each_band_has_the_mean_and_deviation_of_its_name(chips):
    # BigEarthNet v2.0: infrared has mean 2193.3 and deviation 1369.4, blue 438.4 and 607.0.
    for table in ("bigearthnet-s2-v0.2.0", "bigearthnet-s2-v0.1.1"):
        scaling = scaled(chips, table, bands=["nir", "blue", "green", "red"])
        assert scaling.offset[:2] == pytest.approx((2193.292, 438.372))
        assert scaling.factor[:2] == pytest.approx((1 / 1369.372, 1 / 607.027))


def test_a_band_between_those_of_the_file_has_the_mean_of_their_statistics(chips):
    # Yellow lies between green, of mean 614.1, and red, of mean 588.4; coastal has blue alone beside it.
    scaling = scaled(chips, "bigearthnet-s2-v0.2.0", bands=["coastal", "blue", "yellow", "nir"])
    assert scaling.offset[0] == pytest.approx(438.372)
    assert scaling.offset[2] == pytest.approx((614.056 + 588.410) / 2)


def test_backscatter_in_decibel_has_the_statistics_of_the_weights(chips):
    scaling = scaled(chips, "sentinel1", bands=["VH", "VV", "HH", "HV"], dtype="float32", means=[-19, -12, -11, -18])
    assert scaling.offset == pytest.approx((-20.26, -12.59, -12.59, -20.26))
    assert scaling.factor == pytest.approx((1 / 5.91, 1 / 5.26, 1 / 5.26, 1 / 5.91))


def test_bands_of_unknown_meaning_are_scaled_by_the_training_chips(chips):
    own = scaling_of(chips, "auto", encoder="resnet18", weights=None)
    mixed = scaled(chips, "sentinel2-13", bands=["elevation", "B03", "B04", "B08"])
    assert (mixed.offset[0], mixed.factor[0]) == (own.offset[0], own.factor[0])
    assert mixed.factor[1:] == pytest.approx((1e-4,) * 3)
    assert scaled(chips, "sentinel1", bands=["VV", "VH", "HH", "HV"]) == own  # integers are no dB
    linear = scaled(chips, "sentinel1", bands=["VV", "VH", "HH", "HV"], dtype="float32", means=[0.1] * 4)
    assert 5.26 not in [round(1 / factor, 2) for factor in linear.factor]
    assert scaled(chips, "landsat8-oli-sr", bands=["SR_B2", "SR_B3", "SR_B4", "SR_B5"]) == own  # made for 8 bits
    assert scaled(chips, "B02,B03,B04,B08") == own  # no table


def test_8_bit_images_fit_weights_of_8_bit_images(chips):
    for table in ("landsat8-oli-sr", "sentinel2-13"):
        scaling = scaled(chips, table, bands=["blue", "green", "red", "nir"], dtype="uint8")
        assert scaling.factor == pytest.approx((1 / 255,) * 4)


def test_a_chosen_scaling_stays(chips):
    weights = Weights("w.pth", ("sentinel2-13",))
    chosen = scaling_of(chips, "standardise", encoder="resnet18", weights=weights)
    assert chosen == scaling_of(chips, "standardise", encoder="resnet18", weights=None)


# ---- end to end


def test_a_training_from_a_file_of_13_bands_keeps_its_scaling_and_source(chips, sentinel2, tmp_path):
    model = verbs.train(
        chips, out=tmp_path / "model", architecture="fcn", encoder="resnet10t", weights=sentinel2,
        weights_bands="sentinel2-13", steps=3, batch=2, learning_rate=1e-4,
    )  # fmt: skip
    saved = Model.load(tmp_path / "model")
    assert saved.scaling.factor == pytest.approx((1e-4,) * 4)
    source = json.loads((tmp_path / "model" / "config.json").read_text())["provenance"]["encoder_weights"]
    assert (source["source"], source["bands"]) == ("sentinel2.safetensors", ["sentinel2-13"])
    assert "sentinel2-13" in saved.provenance["weights"]
    image = torch.rand(1, 4, 32, 32)
    with torch.inference_mode():
        assert torch.isfinite(model.network(image)).all()
        torch.testing.assert_close(saved.network(image), model.network(image))


def test_a_file_of_weights_with_another_content_is_not_that_of_the_same_call(chips, sentinel2, tmp_path):
    moved, settings = tmp_path / "other" / sentinel2.name, {"architecture": "fcn", "encoder": "resnet10t", "steps": 1}
    settings |= {"weights_bands": "sentinel2-13", "batch": 2, "out": tmp_path / "model"}
    whole = verbs.train(chips, weights=sentinel2, **settings)
    moved.parent.mkdir()
    moved.write_bytes(sentinel2.read_bytes())
    assert verbs.train(chips, weights=moved, **settings).sha256 == whole.sha256
    assert verbs.train(chips, weights=tmp_path / "gone" / moved.name, **settings).sha256 == whole.sha256
    tensors = {name: value + 1 for name, value in safetensors.torch.load_file(moved).items()}
    safetensors.torch.save_file(tensors, moved)
    with pytest.raises(OutputError, match=r"another train\.weights \(.*sentinel2\.safetensors, sha256 .*, now .*\)"):
        verbs.train(chips, weights=moved, **settings)


def test_a_file_whose_bands_are_not_named_is_refused_before_training(chips, sentinel2, tmp_path):
    with pytest.raises(NetworkError, match="13 input channels, and their bands are not named"):
        verbs.train(chips, out=tmp_path / "m", architecture="fcn", encoder="resnet10t", weights=sentinel2, steps=1)
    assert list(tmp_path.iterdir()) == []


def test_the_check_before_a_run_reports_bands_that_do_not_fit_a_file_of_weights(chips, sentinel2):
    image, labels = chips.metadata.sources[0].image, chips.metadata.sources[0].labels
    settings = {"architecture": "fcn", "encoder": "resnet10t", "weights": str(sentinel2), "size": 32}

    def errors(**more):
        found = verbs.check(images=list(image), labels=labels, trial=False, **settings, **more).findings
        return [finding.text for finding in found if finding.severity == "error" and "weights" in finding.text]

    assert "their bands are not named" in errors()[0]
    assert errors(weights_bands=["sentinel2-13"]) == []
    assert (
        "none of the bands w, x, y, z resembles"
        in errors(weights_bands=["sentinel2-13"], scenes={"bands": ["w", "x", "y", "z"]})[0]
    )


@pytest.mark.parametrize("weights", ["auto", "imagenet", "none"])
def test_bands_are_named_of_files_alone(weights):
    with pytest.raises(
        RecipeError, match=f"weights_bands names the bands of a file of weights, but weights is '{weights}'"
    ):
        TrainSpec.of({"weights": weights, "weights_bands": "sentinel2-13"})


def test_the_help_lists_every_table():
    from landscribe.nn.encoders.sensors import TABLES

    described = TrainSpec.model_fields["weights_bands"].description
    short = {name for name in TABLES if not name.startswith("bigearthnet")}
    assert all(name in described for name in [*short, "bigearthnet-s2-v0.2.0"])
