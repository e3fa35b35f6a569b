"""A network with one logit gives the map of the network with two logits and the same weights, in every step."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import networks
import worlds
from landscribe import verbs
from landscribe.errors import RecipeError
from landscribe.geo.rasters.raster import Raster
from landscribe.inference.backends import BACKENDS
from landscribe.inference.backends.choice import build_backend
from landscribe.model import Model
from landscribe.prediction.spec import PredictSpec
from landscribe.training.spec import TrainSpec

TRUST = {"trust_code": "test_one_logit:OneLogit"}


class OneLogit(nn.Module):
    """The lecture's binary network: positive logits are the class."""

    reduction = 1

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class TwoLogits(OneLogit):
    """The same with a logit of 0 for the background."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logit = self.layer(x)
        return torch.cat([0 * logit, logit], dim=1)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    one, two = OneLogit().eval(), TwoLogits().eval()
    two.load_state_dict(one.state_dict())
    with torch.no_grad():
        for network in (one, two):
            network.layer.bias -= network.layer.weight.sum() / 2
    return [Model.wrap(network, bands=["v"], classes=["rest", "house"], scale=1 / 255) for network in (one, two)]


@pytest.fixture
def raster(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (150, 170)).astype(np.uint8)
    return Raster.open([worlds.write_raster(tmp_path / "image.tif", array, descriptions=["v"])])


@pytest.mark.parametrize("settings", [{}, {"tta": True}, {"blend": "gaussian"}], ids=str)
def test_map_probabilities_and_uncertainty_are_those_of_two_logits(tmp_path, pair, raster, settings):
    spec = PredictSpec(tile=64, margin=8, unit=64, **settings)
    layers = ("map", "probabilities", "uncertainty")
    for name, model in zip(("one", "two"), pair, strict=True):
        paths = {layer: tmp_path / f"{name}_{layer}.tif" for layer in layers[1:]}
        networks.predict(model, raster, tmp_path / f"{name}_map.tif", spec=spec, **paths)
    for layer in layers:
        one, two = (Raster.open([tmp_path / f"{name}_{layer}.tif"]) for name in ("one", "two"))
        np.testing.assert_array_equal(*(each.read(each.grid.window)[0] for each in (one, two)))
        if layer == "map":
            assert set(np.unique(one.read(one.grid.window)[0])) == {0, 1}
        if layer == "probabilities":
            assert len(one.bands) == 2


@pytest.mark.usefixtures("shared_exports")
@pytest.mark.parametrize("backend", [name for name, kind in BACKENDS.items() if kind.precision == "32"])
def test_every_backend_gives_two_logits(pair, backend):
    if BACKENDS[backend].missing_packages:
        pytest.skip(f"{backend} is not installed")
    one, two = pair
    images = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        logits = build_backend(backend, one, torch.device("cpu"))(images)["classes"]
        torch.testing.assert_close(logits, two.network(images), rtol=1e-4, atol=1e-4)


def test_a_network_with_one_logit_is_trained_mapped_and_assessed(tmp_path):
    array = np.zeros((3, 128, 128), np.uint8)
    array[:, 32:96, 40:110] = 200
    scene = worlds.write_raster(tmp_path / "scene.tif", array, descriptions=["red", "green", "blue"])
    truth = worlds.write_raster(tmp_path / "truth.tif", (array[0] > 0).astype(np.uint8))
    chips = verbs.chip(images=[scene], labels=truth, size=32, out=tmp_path / "chips")
    network = {"architecture": "unet", "encoder": "plain", "options": {"encoder_widths": [8, 16], "classes": 1}}
    model = verbs.train(
        chips, **network, steps=40, batch=4, class_weights=[1.0, 2.0], learning_rate=0.01, out=tmp_path / "model"
    )
    assert model.arguments["classes"] == 1
    assert model.head_channels == {"classes": 2}
    (mapped,) = verbs.predict(tmp_path / "model", [scene], out=tmp_path / "map.tif", tile=64, margin=8)
    assessment = verbs.assess(mapped, reference=truth, out=tmp_path / "assessment.json")
    assert assessment.mean_f1 > 0.9
    measures = json.loads((tmp_path / "assessment.json").read_text())
    names = [name for name, value in measures.items() if isinstance(value, float)]
    assert "mean_users_accuracy" in names
    assert {name: getattr(assessment.confusion, name) for name in names} == {name: measures[name] for name in names}
    assert len(repr(assessment)) < 300


def test_other_numbers_of_classes_are_no_option():
    assert TrainSpec(options={"classes": 1}).options == {"classes": 1}
    with pytest.raises(RecipeError, match="classes = 1 is one logit for two classes"):
        TrainSpec.of({"options": {"classes": 2}})
