"""UNet++ through every verb: trained, measured branch by branch, pruned, mapped."""

import json

import numpy as np
import pytest
import rasterio

import worlds
from landscribe import verbs
from landscribe.errors import LandscribeError, ModelError, NetworkError
from landscribe.inference import pruning
from landscribe.model import Model
from landscribe.nn import build


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run-like folder: an image, chips and a UNet++ trained for a few steps."""
    folder = tmp_path_factory.mktemp("nested")
    pixels = worlds.noise(3, 200, 230, "uint8")
    worlds.write_raster(folder / "scene.tif", pixels)
    labels = (pixels[:1] > 120).astype(np.uint8)
    worlds.write_raster(folder / "labels.tif", labels, descriptions=None)
    chips = verbs.chip(
        images=[folder / "scene.tif"], labels=folder / "labels.tif", out=folder / "chips", size=32, gap=1
    )
    verbs.train(
        chips, out=folder / "model", architecture="unetplusplus", encoder="plain", weights="none",
        options={"encoder_widths": [8, 12, 16, 20, 24]}, steps=3, batch=4,
    )  # fmt: skip
    return folder


def test_branches_are_measured_in_time_and_accuracy(trained, monkeypatch):
    monkeypatch.setattr(pruning, "_TRIAL_SIDE", 64)
    rows = verbs.branches(trained / "model")
    assert [row.branch for row in rows] == [1, 2, 3, 4, None]
    sizes = [row.parameters for row in rows]
    assert sizes[:4] == sorted(sizes[:4])
    assert all(row.seconds_per_megapixel > 0 and 0 <= row.mean_iou <= row.mean_f1 <= 1 for row in rows)


def test_the_map_of_a_pruned_model_equals_that_of_its_branch(trained, tmp_path):
    whole = Model.load(trained / "model")
    for branch in (1, 3):
        verbs.prune(trained / "model", branch=branch, out=tmp_path / f"branch{branch}")
        small = verbs.predict(
            tmp_path / f"branch{branch}", [trained / "scene.tif"], out=tmp_path / f"{branch}.tif",
            probabilities=tmp_path / f"{branch}p.tif", tile=96, margin=16, unit=128,
        )  # fmt: skip
        whole.network.branch = branch
        large = verbs.predict(
            whole, [trained / "scene.tif"], out=tmp_path / f"whole{branch}.tif",
            probabilities=tmp_path / f"whole{branch}p.tif", tile=96, margin=16, unit=128,
        )  # fmt: skip
        for one, other in ((small[0], large[0]), (tmp_path / f"{branch}p.tif", tmp_path / f"whole{branch}p.tif")):
            with rasterio.open(one) as a, rasterio.open(other) as b:
                assert (a.read() == b.read()).all()


def test_a_pruned_model_has_no_threshold_of_the_whole_network(trained, tmp_path):
    assert Model.load(trained / "model").val_threshold is not None
    assert verbs.prune(trained / "model", branch=2, out=tmp_path / "small").val_threshold is None


def test_a_pruned_model_is_smaller_and_states_its_origin(trained, tmp_path):
    small = verbs.prune(trained / "model", branch=2, out=tmp_path / "small")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "small", trained / "model")]
    assert sizes[0] < 0.5 * sizes[1]
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    assert config["provenance"]["branch"] == 2
    assert config["provenance"]["pruned_from"] == Model.load(trained / "model").sha256
    assert small.sha256 != Model.load(trained / "model").sha256
    assert small.sha256 == Model.load(tmp_path / "small").sha256


def test_models_and_branches_that_cannot_be_pruned_are_refused(trained, tmp_path):
    with pytest.raises(NetworkError, match="branch is 9"):
        verbs.prune(trained / "model", branch=9, out=tmp_path / "nine")
    verbs.prune(trained / "model", branch=1, out=tmp_path / "one")
    with pytest.raises(LandscribeError, match="no chips"):
        verbs.branches(tmp_path / "one")
    Model.wrap(build("fcn", encoder="resnet10t", bands=3, classes=2), bands=["r", "g", "b"], classes=["a", "b"]).save(
        tmp_path / "unet"
    )
    with pytest.raises(ModelError, match="no branches"):
        verbs.prune(tmp_path / "unet", branch=1, out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_single_branch_is_measured_once(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(pruning, "_TRIAL_SIDE", 64)
    verbs.prune(trained / "model", branch=2, out=tmp_path / "small")
    assert [row.branch for row in verbs.branches(tmp_path / "small", chips=trained / "chips")] == [2]
