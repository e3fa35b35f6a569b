"""Layers of other heads than the main one: their logits leave the network, merged like those of the classes."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from test_mapping import write
from torch import Tensor

from landscribe.errors import ModelError, OutputError
from landscribe.geo.grid import Window
from landscribe.geo.tiling import Unit, units
from landscribe.inference.predictor import Predictor
from landscribe.maps.layers import CLASS, EXACT_PROBABILITY, STEPS, UNCERTAINTY, Layer
from landscribe.model import Model
from landscribe.nn import build
from landscribe.nn.architectures.unet_id import UNetID
from landscribe.prediction import plan as planning
from landscribe.prediction.spec import PredictSpec
from landscribe.prediction.unit import UnitOptions, predict_unit
from networks import OneLayer, predict

HEADS = (None, "inner")


def one_band(logits: Tensor) -> Tensor:
    return logits.float().sigmoid()


def in_steps(logits: Tensor) -> Tensor:
    return (one_band(logits) * STEPS).round().to(torch.uint8)


INNER = Layer("inner", "inner", one_band, "float32", float("nan"), heads=("inner",))
LAYERS = (CLASS, EXACT_PROBABILITY, INNER)


def instances(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    network = build("unet_id", bands=3, classes=2, encoder="plain", encoder_widths=(4, 8)).eval()
    return Model.wrap(network, bands=["r", "g", "b"], classes=["no", "yes"], scale=1 / 255)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 64, 96)).astype(np.uint8)


def heads_of(model: Model, pixels: np.ndarray) -> dict[str, Tensor]:
    """(channels, rows, cols) logits of each head, from one pass of the network itself."""
    images = torch.from_numpy(np.ascontiguousarray(pixels))[None]
    with torch.inference_mode():
        logits = model.network.forward_heads(model.scaled(images, torch.ones(1, *images.shape[-2:]) > 0))
    return {head: of_batch[0] for head, of_batch in logits.items()}


def mapped(predictor: Predictor, unit: Unit, pixels: np.ndarray, **options) -> dict[str, np.ndarray]:
    read = pixels[(slice(None), *unit.read.slices)]
    valid = np.ones(unit.read.shape, bool)
    with torch.inference_mode():
        return predict_unit(predictor, unit, read, valid, UnitOptions(LAYERS, **options))


def one_unit(pixels: np.ndarray, **layout) -> Unit:
    (unit,) = units(*pixels.shape[-2:], align=2, side=200, **layout)
    return unit


@pytest.mark.parametrize("is_blended", [False, True])
def test_a_layer_of_a_head_is_what_the_network_gives_for_the_same_pixels(image, is_blended):
    model = instances()
    unit = one_unit(image, size=96, margin=0, overlapping=is_blended)
    layers = mapped(Predictor([model], heads=HEADS), unit, image, is_blended=is_blended)
    expected = heads_of(model, image)
    np.testing.assert_allclose(layers["inner"], expected["inner"].sigmoid(), atol=1e-5)
    np.testing.assert_allclose(layers["probability"], expected["segment"].softmax(0), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_each_pixel_of_a_head_comes_from_the_tile_that_keeps_it(image, batch):
    model, unit = instances(), one_unit(image, size=32, margin=4)
    layers = mapped(Predictor([model], heads=HEADS), unit, image, batch=batch)
    for tile in unit.tiles:
        logits = heads_of(model, image[(slice(None), *tile.read.slices)])["inner"]
        core = logits[(slice(None), *tile.keep.relative_to(tile.read).slices)].sigmoid()
        np.testing.assert_allclose(layers["inner"][(slice(None), *tile.keep.slices)], core, atol=1e-5)


def test_blended_tiles_of_a_head_are_averaged_by_their_sigmoid(image):
    model, unit = instances(), one_unit(image, size=32, margin=4, overlapping=True)
    layers = mapped(Predictor([model], heads=HEADS), unit, image, is_blended=True)
    total, weights = np.zeros((64, 96)), np.zeros((64, 96))
    importance = np.exp(-(((np.arange(32) - 15.5) / 4) ** 2) / 2)
    for tile in unit.tiles:
        kept = (tile.read & Window(0, 0, 64, 96)).relative_to(tile.read).slices
        weight = np.outer(importance, importance)
        inner = heads_of(model, image[(slice(None), *tile.read.slices)])["inner"][0].sigmoid().numpy()
        total[tile.read.slices] += (inner * weight)[kept]
        weights[tile.read.slices] += weight[kept]
    np.testing.assert_allclose(layers["inner"][0], total / weights, atol=1e-5)


def test_augmented_models_of_an_ensemble_average_each_head_by_its_probabilities(image):
    models = [instances(0), instances(1)]
    images, valid = torch.from_numpy(image)[None], torch.ones(1, 64, 96, dtype=torch.bool)
    with torch.inference_mode():
        logits = Predictor(models, tta=True, heads=HEADS).logits(images, valid)
    inner, segment = torch.zeros(1, 64, 96), torch.zeros(2, 64, 96)
    for model in models:
        for turns in range(4):
            for is_flipped in (False, True):
                turned = np.rot90(image, turns, (1, 2))
                heads = heads_of(model, turned[..., ::-1] if is_flipped else turned)
                restored = {name: each.flip(-1) if is_flipped else each for name, each in heads.items()}
                inner += torch.rot90(restored["inner"], -turns, (-2, -1)).sigmoid() / 16
                segment += torch.rot90(restored["segment"], -turns, (-2, -1)).softmax(0) / 16
    torch.testing.assert_close(logits["inner"][0].sigmoid(), inner, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits[None][0].softmax(0), segment, rtol=0, atol=1e-5)


def test_the_mean_of_certain_heads_is_finite():
    class Certain(UNetID):
        def forward_heads_padded(self, images: Tensor) -> dict[str, Tensor]:
            ones = torch.ones(len(images), 1, *images.shape[-2:])
            return {"segment": torch.cat([ones, -ones], 1), "border": -200 * ones, "inner": 200 * ones}

    network = Certain(bands=3, classes=2, encoder="plain", encoder_widths=(4, 8)).eval()
    model = Model.wrap(network, bands=["r", "g", "b"], classes=["no", "yes"])
    predictor = Predictor([model, model], heads=("border", "inner"))
    with torch.inference_mode():
        logits = predictor.logits(torch.zeros(1, 3, 8, 8), torch.ones(1, 8, 8) > 0)
    assert all(each.isfinite().all() for each in logits.values())
    assert logits["border"].sigmoid().max() < 1e-6
    assert logits["inner"].sigmoid().min() > 1 - 1e-6


def test_several_heads_take_one_pass_of_the_network(image, monkeypatch):
    model, passes = instances(), []
    forward = UNetID.forward_heads_padded
    monkeypatch.setattr(UNetID, "forward_heads_padded", lambda *given: passes.append(1) or forward(*given))
    predictor = Predictor([model], heads=(None, "segment", "inner", "border"))
    images, valid = torch.from_numpy(image)[None], torch.ones(1, 64, 96) > 0
    with torch.inference_mode():
        predictor.logits(images, valid)
        passes.clear()
        logits = predictor.logits(images, valid)
    assert len(passes) == 1
    assert torch.equal(logits[None], logits["segment"])


def test_a_head_that_the_model_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(ModelError, match=r"no head 'edge'. Its heads are segment, border, inner"):
        Predictor([instances()], heads=(None, "edge"))
    plain = Model.wrap(OneLayer(3), bands=["r", "g", "b"], classes=["no", "yes"])
    with pytest.raises(ModelError, match=r"no head 'inner'. Its heads are classes"):
        Predictor([instances(), plain], heads=(None, "inner"))


def test_models_with_other_main_heads_are_averaged_by_their_classes(image):
    torch.manual_seed(2)
    plain = Model.wrap(OneLayer(3), bands=["r", "g", "b"], classes=["no", "yes"], scale=1 / 255)
    images, valid = torch.from_numpy(image)[None], torch.ones(1, 64, 96) > 0
    with torch.inference_mode():
        logits = Predictor([instances(), plain]).logits(images, valid)[None]
        expected = (instances().logits(images, valid).softmax(1) + plain.logits(images, valid).softmax(1)) / 2
    torch.testing.assert_close(logits.softmax(1), expected, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("shared_exports")
@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_a_map_has_a_layer_of_another_head(tmp_path, image, monkeypatch, engine):
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
    monkeypatch.setattr(planning, "UNCERTAINTY", replace(UNCERTAINTY, reduce=in_steps, heads=("inner",)))
    model, spec = instances(), PredictSpec(tile=96, margin=0, engine=engine)
    outputs = {"probabilities": tmp_path / "p.tif", "uncertainty": tmp_path / "inner.tif"}
    predict(model, write(tmp_path / "image.tif", image), tmp_path / "map.tif", spec=spec, **outputs)
    expected = heads_of(model, image)
    with rasterio.open(tmp_path / "inner.tif") as source:
        np.testing.assert_allclose(source.read(), in_steps(expected["inner"]).numpy(), atol=1)
    with rasterio.open(tmp_path / "map.tif") as source:
        assert (source.read(1) != expected["segment"].argmax(0).numpy()).mean() < 1e-3


# ---- object probabilities


def object_layer(model: Model, pixels: np.ndarray) -> np.ndarray:
    heads = heads_of(model, pixels)
    segment = 1 - heads["segment"].softmax(0)[:1]
    return (torch.cat([segment, heads["border"].sigmoid(), heads["inner"].sigmoid()]) * STEPS).numpy()


def test_object_probabilities_are_three_bands_of_the_same_pass(tmp_path, image):
    model, valid = instances(), np.ones((64, 96), bool)
    valid[:, :20] = False
    source = write(tmp_path / "image.tif", np.where(valid, np.maximum(image, 1), 0).astype(np.uint8), nodata=0)
    layer, plain = tmp_path / "objects.tif", tmp_path / "plain.tif"
    spec = PredictSpec(tile=96, margin=0)
    predict(model, source, tmp_path / "map.tif", spec=spec, object_probabilities=layer)
    predict(model, source, plain, spec=spec)
    with rasterio.open(layer) as stored, rasterio.open(tmp_path / "map.tif") as mapped, rasterio.open(plain) as alone:
        assert stored.descriptions == ("segment", "border", "inner")
        assert stored.dtypes == ("uint8",) * 3
        assert (stored.nodata, stored.scales) == (255, (1 / 254,) * 3)
        assert stored.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        probabilities, classes = stored.read(), mapped.read(1)
        np.testing.assert_array_equal(classes, alone.read(1))
    assert (probabilities[:, :, :20] == 255).all()
    # The network sees nodata as zeros, as it is in `write`.
    assert (probabilities[0, :, 20:] >= 127)[classes[:, 20:] == 1].all()
    assert (probabilities[0, :, 20:] <= 127)[classes[:, 20:] == 0].all()
    assert probabilities[:, :, 20:].max() <= STEPS


def test_object_probabilities_are_those_of_the_heads(tmp_path, image):
    model, layer = instances(), tmp_path / "objects.tif"
    source = write(tmp_path / "image.tif", image)
    predict(model, source, tmp_path / "map.tif", spec=PredictSpec(tile=96, margin=0), object_probabilities=layer)
    with rasterio.open(layer) as stored:
        np.testing.assert_allclose(stored.read(), object_layer(model, image), atol=0.51)


def test_a_map_without_object_probabilities_is_another_plan(tmp_path, image):
    model, source = instances(), write(tmp_path / "image.tif", image)
    spec = PredictSpec(tile=96, margin=0)
    predict(model, source, tmp_path / "map.tif", spec=spec)
    with pytest.raises(OutputError, match="as a map with another layers"):
        predict(model, source, tmp_path / "map.tif", spec=spec, object_probabilities=tmp_path / "objects.tif")


def test_object_probabilities_of_a_plain_network_are_refused_in_one_line(tmp_path, image):
    plain = Model.wrap(OneLayer(3), bands=["r", "g", "b"], classes=["no", "yes"])
    with pytest.raises(ModelError, match=r"has no head border and no head inner: its heads are classes. Object") as no:
        predict(plain, write(tmp_path / "i.tif", image), tmp_path / "m.tif", spec=PredictSpec(),
                object_probabilities=tmp_path / "o.tif")  # fmt: skip
    assert "\n" not in str(no.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i.tif"]
