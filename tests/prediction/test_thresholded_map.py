"""Maps of two classes with a threshold of the second one's probability."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_app import landscribe
from test_mapping import model_of, read, write
from test_one_logit import OneLogit, TwoLogits
from test_receptive_field import noise
from torch import nn

from landscribe.errors import ModelError, OutputError, RecipeError
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.tiling import units
from landscribe.inference.predictor import Predictor
from landscribe.inference.receptive_field import cached_receptive_field, measure_receptive_field
from landscribe.maps.class_map import fingerprint_in, read_tags
from landscribe.maps.layers import CLASS, EXACT_PROBABILITY, UNCERTAINTY, class_layer
from landscribe.maps.output_paths import OutputPaths
from landscribe.model import Model
from landscribe.prediction.seams import check_seams
from landscribe.prediction.spec import PredictSpec
from landscribe.prediction.tiling import Tiling
from landscribe.prediction.unit import UnitOptions, predict_unit
from networks import Blur, Identity, plan_map, predict


class Sloping(nn.Module):
    """Logits (0, x) for pixels x in tenths: their probability is that of a sigmoid."""

    reduction = 1

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), x / 10], dim=1)


@pytest.fixture
def raster(tmp_path):
    array = np.random.default_rng(0).integers(-60, 60, (90, 70)).astype(np.int16)
    return write(tmp_path / "image.tif", array)


def sloping(threshold=None):
    return model_of(Sloping(), 2, dtype="int16", val_threshold=threshold)


def of_unit(predictor, values, layers, *, is_blended=False):
    """The layers of a raster of one unit, in tiles that overlap."""
    height, width = values.shape
    (unit,) = units(height, width, size=32, margin=4, align=1, side=200, overlapping=is_blended)
    read, row, col = unit.read, max(0, -unit.read.row), max(0, -unit.read.col)
    pixels = np.zeros((1, read.height, read.width), values.dtype)
    pixels[0, row : row + height, col : col + width] = values
    with torch.inference_mode():
        return predict_unit(predictor, unit, pixels, np.ones(read.shape, bool), UnitOptions(layers, 2, is_blended))


# ---- the law


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**16),
    threshold=st.floats(0.001, 0.999),
    is_blended=st.booleans(),
    tta=st.booleans(),
    models=st.integers(1, 2),
)
def test_the_map_is_where_the_exact_probability_is_at_least_the_threshold(seed, threshold, is_blended, tta, models):
    torch.manual_seed(seed)
    networks = [TwoLogits().eval() for _ in range(models)]
    predictor = Predictor([model_of(network, 2, scale=1 / 64, dtype="int16") for network in networks], tta=tta)
    values = np.random.default_rng(seed).integers(-200, 200, (50, 60)).astype(np.int16)
    layers = (class_layer(threshold), EXACT_PROBABILITY, UNCERTAINTY)
    arrays = of_unit(predictor, values, layers, is_blended=is_blended)
    np.testing.assert_array_equal(arrays["class"][0], arrays["probability"][1] >= np.float32(threshold))
    plain = of_unit(predictor, values, (CLASS, EXACT_PROBABILITY, UNCERTAINTY), is_blended=is_blended)
    for kind in ("probability", "uncertainty"):
        np.testing.assert_array_equal(arrays[kind], plain[kind])


@given(seed=st.integers(0, 2**16))
def test_a_threshold_of_a_half_gives_the_class_with_the_higher_probability(seed):
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (2, 40, 40)).astype(np.float32))
    probability = EXACT_PROBABILITY.reduce(logits)[1:]
    is_tie = probability == 0.5
    assert torch.equal(class_layer(0.5).reduce(logits)[~is_tie], CLASS.reduce(logits)[~is_tie])
    assert (class_layer(0.5).reduce(logits)[is_tie] == 1).all()


@pytest.mark.usefixtures("shared_exports")
@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_one_logit_and_two_with_the_same_weights_give_one_thresholded_map(tmp_path, engine):
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    one, two = OneLogit().eval(), TwoLogits().eval()
    two.load_state_dict(one.state_dict())
    image = noise(tmp_path / "image.tif", (70, 90), classes=200)
    spec = PredictSpec(tile=64, margin=8, threshold=0.7, engine=engine)
    maps = []
    for name, network in (("one", one), ("two", two)):
        model = Model.wrap(network, bands=["v"], classes=["rest", "house"], scale=1 / 100)
        paths = {"probabilities": tmp_path / f"{name}_p.tif"}
        exact = spec.model_copy(update={"probabilities_as": "float32"})
        maps.append(read(predict(model, image, tmp_path / f"{name}.tif", spec=exact, **paths)))
        probabilities = Raster.open([tmp_path / f"{name}_p.tif"]).read(Window(0, 0, 70, 90))[0]
        np.testing.assert_array_equal(maps[-1], probabilities[1] >= np.float32(0.7))
        assert set(np.unique(maps[-1])) == {0, 1}
        assert (maps[-1] != (probabilities[1] > 0.5)).any()
    np.testing.assert_array_equal(*maps)


# ---- which threshold


def test_more_classes_are_refused_before_a_file_is_written(tmp_path):
    image = noise(tmp_path / "image.tif", classes=3)
    model_of(Identity(), 4).save(tmp_path / "model")
    with pytest.raises(ModelError, match=r"--threshold 0\.3 is for two classes, but there are 3 \(class 0, class 1"):
        predict(model_of(Identity(3), 3), image, tmp_path / "map.tif", spec=PredictSpec(threshold=0.3))
    said = landscribe(
        "predict", tmp_path / "model", tmp_path / "image.tif", "-o", tmp_path / "map.tif", "--threshold", "val",
        "--trust-code", "networks:Identity",
    )  # fmt: skip
    assert said.code == 2
    assert "--threshold val is for two classes" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tif", "model"]


@pytest.mark.parametrize("value", [0, 1, -0.5, 30, "mean", float("nan")])
def test_other_values_are_refused(value):
    with pytest.raises(RecipeError, match="threshold"):
        PredictSpec.of({"threshold": value})


def test_val_is_the_threshold_of_the_model(tmp_path, raster):
    spec = PredictSpec(threshold="val")
    val = predict(sloping(0.25), raster, tmp_path / "val.tif", spec=spec)
    number = predict(sloping(), raster, tmp_path / "number.tif", spec=PredictSpec(threshold=0.25))
    assert (read(val) == read(number)).all()
    assert fingerprint_in(read_tags(val))["threshold"] == 0.25
    with pytest.raises(ModelError, match="the model has no threshold from validation chips"):
        predict(sloping(), raster, tmp_path / "none.tif", spec=spec)


def test_an_ensemble_takes_the_mean_threshold_of_its_models(tmp_path, raster):
    spec, paths = PredictSpec(threshold="val"), OutputPaths(tmp_path / "map.tif")
    plan = plan_map(sloping(0.25), raster, spec, paths, ensemble=[sloping(0.75), sloping(0.125)])
    assert plan.fingerprint.fields["threshold"] == 0.375
    with pytest.raises(ModelError, match="1 of 2 models has no threshold"):
        plan_map(sloping(0.25), raster, spec, paths, ensemble=[sloping()])


# ---- the same map, or another


def test_another_threshold_is_another_map_and_the_same_is_up_to_date(tmp_path, raster):
    out = tmp_path / "map.tif"
    predict(sloping(0.25), raster, out, spec=PredictSpec(threshold=0.25))
    before = out.stat().st_mtime_ns
    for same in (0.25, "val"):
        predict(sloping(0.25), raster, out, spec=PredictSpec(threshold=same))
        assert out.stat().st_mtime_ns == before
    for other, said in ((0.5, r"threshold \(0\.25, now 0\.5\)"), (None, r"threshold \(0\.25, now not set\)")):
        with pytest.raises(OutputError, match=f"a map with another {said}"):
            predict(sloping(0.25), raster, out, spec=PredictSpec(threshold=other))


def test_a_map_without_a_threshold_keeps_its_fingerprint(tmp_path, raster):
    plan = plan_map(sloping(0.25), raster, PredictSpec(), OutputPaths(tmp_path / "map.tif"))
    assert "threshold" not in plan.fingerprint.fields
    assert plan.fingerprint.fields["layers"] == [["class", "uint8", None]]


def test_the_choices_of_a_map_with_a_threshold_are_not_those_of_one_without(tmp_path, raster):
    with_threshold = PredictSpec(threshold=0.25, tile=64, margin=8, batch=2)
    predict(sloping(), raster, tmp_path / "map.tif", spec=with_threshold)
    plan = plan_map(sloping(), raster, PredictSpec(tile=64, margin=8), OutputPaths(tmp_path / "map.tif"))
    assert plan.tiling.batch == 1


def test_the_minimum_mapping_unit_is_of_the_thresholded_classes(tmp_path):
    values = np.full((60, 60), -60, np.int16)
    values[10:20, 10:20], values[40, 40] = -10, -10  # probability 0.27: a patch of 100 pixels, and one pixel
    image = write(tmp_path / "image.tif", values)
    spec = PredictSpec(threshold=0.2, minimum_area=20)
    mapped = read(predict(sloping(), image, tmp_path / "map.tif", spec=spec))
    assert mapped[10:20, 10:20].all()
    assert mapped.sum() == 100


# ---- what is measured of the map


def test_seams_are_counted_in_the_classes_of_the_map(tmp_path):
    raster, predictor = noise(tmp_path / "image.tif", (200, 200)), Predictor([model_of(Blur(4), 2)])
    tiling = Tiling(64, 0, 1, 1.0)
    assert check_seams(predictor, raster, tiling).differ_at_seams > 0
    # The logits of a blurred picture differ by at most one: no probability is as high.
    assert check_seams(predictor, raster, tiling, layer=class_layer(0.99)).differ_at_seams == 0


def test_the_receptive_field_is_that_of_the_thresholded_classes(tmp_path):
    raster = noise(tmp_path / "image.tif")
    model = model_of(Blur(5), 2)
    model.network.register_forward_hook(lambda _, __, logits: logits - torch.tensor([[[0.0]], [[3.0]]]))
    model.save(tmp_path / "model")
    assert measure_receptive_field(model, raster, tolerance=1e-3, largest=1024, threshold=None) is None
    field = cached_receptive_field(model, raster, tolerance=1e-3, largest=1024, threshold=0.045)
    assert field.mismatch[:5].sum() > 0
    assert (field.mismatch[5:] == 0).all()
    assert cached_receptive_field(model, raster, tolerance=1e-3, largest=1024, threshold=None) is None


def test_a_threshold_of_val_is_in_the_model_card_and_the_loaded_model(tmp_path):
    sloping(0.25).save(tmp_path / "model")
    assert Model.load(tmp_path / "model", trust="test_thresholded_map:Sloping").val_threshold == 0.25
    assert "--threshold val    # 0.25, the highest F1-score of class 1" in (tmp_path / "model/README.md").read_text()
