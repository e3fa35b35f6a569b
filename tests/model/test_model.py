"""The model folder: a loaded model equals the saved one."""

import json
import re

import numpy as np
import pytest
import torch

from landscribe import nn
from landscribe.errors import ModelError, NetworkError, RasterError, RecipeError
from landscribe.model import Model, Scaling
from networks import Identity, OneLayer


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = nn.build("unet", encoder="resnet10t", bands=4, classes=3).eval()
    scaling = Scaling(offset=(1.0, 2.0, 3.0, 4.0), factor=(0.1, 0.2, 0.3, 0.4))
    return Model.wrap(
        network, bands=["a", "b", "c", "d"], classes=["x", "y", "z"], scale=scaling, pixel_size=0.5, dtype="uint16"
    )


def test_a_model_is_one_line_in_python(model):
    assert repr(model) == (
        "Model(architecture='unet', encoder='resnet10t', bands=('a', 'b', 'c', 'd'), classes=('x', 'y', 'z'), "
        "pixel_size=0.5, folder=None)"
    )


def test_a_model_takes_arrays_of_stored_pixels():
    model = Model.wrap(torch.nn.Conv2d(2, 3, 1).eval(), bands=["a", "b"], classes=["x", "y", "z"], scale=0.1)
    images = np.arange(2 * 2 * 8 * 8, dtype=np.uint8).reshape(2, 2, 8, 8)
    assert torch.equal(model(images), model(torch.from_numpy(images)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "uint7"}, "'uint7' is no data type of pixels"),
        ({"nodata": 300}, "nodata is 300, but the imagery of the model holds uint8"),
        ({"nodata": (0, 0, 0)}, "3 nodata values were given"),
    ],
    ids=str,
)
def test_pixels_that_no_raster_holds_are_refused(settings, message):
    with pytest.raises((RecipeError, RasterError), match=message):
        Model.wrap(torch.nn.Conv2d(2, 3, 1), bands=["a", "b"], classes=["x", "y", "z"], **settings)


def test_a_loaded_model_gives_the_same_logits(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    images, valid = torch.randint(0, 4000, (1, 4, 64, 96), dtype=torch.int32), torch.rand(1, 64, 96) > 0.1
    with torch.inference_mode():
        torch.testing.assert_close(loaded.logits(images, valid), model.logits(images, valid), rtol=0, atol=0)


def test_loading_a_model_leaves_the_random_state_of_the_caller(model, tmp_path):
    model.save(tmp_path / "model")
    state = torch.get_rng_state()
    Model.load(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_loaded_model_has_all_saved_fields(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    for name in ("bands", "classes", "scaling", "pixel_size", "dtype", "architecture", "arguments", "sha256"):
        assert getattr(loaded, name) == getattr(model, name), name


def test_saving_twice_gives_the_same_bytes(model, tmp_path):
    one, two = model.save(tmp_path / "one"), model.save(tmp_path / "two")
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


def test_the_config_without_a_checksum_of_the_weights_is_refused(model, tmp_path):
    path = model.save(tmp_path / "model") / "config.json"
    config = json.loads(path.read_text())
    del config["weights_sha256"]
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"weights_sha256: Field required"):
        Model.load(tmp_path / "model")


def test_a_loaded_model_has_every_wrapped_setting(model, tmp_path):
    assert Model.load(model.save(tmp_path / "model")).config == model.config


def test_model_of_returns_a_model_unchanged_and_loads_a_folder(model, tmp_path):
    assert Model.of(model) is model
    assert Model.of(model.save(tmp_path / "model")).sha256 == model.sha256


def test_a_threshold_of_other_than_two_classes_is_refused():
    with pytest.raises(RecipeError, match="val_threshold is of two classes, but there are 3"):
        Model.wrap(Identity(3), bands=["v"], classes=["a", "b", "c"], val_threshold=0.5)


def test_a_folder_of_an_earlier_version_has_no_threshold(model, tmp_path):
    model.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    del config["val_threshold"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert Model.load(tmp_path / "model").val_threshold is None


def test_an_unknown_setting_of_wrap_offers_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'nodata'"):
        Model.wrap(OneLayer(), bands=["v"], classes=["no", "yes"], nodatta=0)


def test_a_model_gives_the_logits_of_every_head_by_its_name():
    network = nn.build("unet_id", encoder="plain", bands=1, classes=2, encoder_widths=[4, 8]).eval()
    instances = Model.wrap(network, bands=["v"], classes=["no", "yes"])
    plain = Model.wrap(OneLayer(), bands=["v"], classes=["no", "yes"])
    images, valid = torch.rand(1, 1, 30, 41), torch.ones(1, 30, 41, dtype=torch.bool)
    assert instances.heads == ("segment", "border", "inner")
    assert plain.heads == ("classes",)
    with torch.inference_mode():
        for model, channels in ((instances, (2, 1, 1)), (plain, (2,))):
            logits = model.head_logits(images, valid)
            assert torch.equal(logits[model.heads[0]], model.logits(images, valid))
            assert {name: tuple(x.shape) for name, x in logits.items()} == {
                name: (1, count, 30, 41) for name, count in zip(model.heads, channels, strict=True)
            }


class Choosing(torch.nn.Module):
    """Its constructor needs an argument."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Choosing(2), r"cannot be built: Choosing.__init__\(\) missing 1 required .*give its constructor defaults"),
        (OneLayer(3), r"does not fit networks:OneLayer: 1 tensors differ, .*give its constructor defaults"),
    ],
)
def test_a_warning_names_what_the_constructor_of_a_wrapped_class_lacks(tmp_path, caplog, network, words):
    bands = ["a", "b", "c"] if isinstance(network, OneLayer) else ["v"]
    state = torch.random.get_rng_state()
    saved = Model.wrap(network, bands=bands, classes=["no", "yes"]).save(tmp_path / "model")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert re.search(words, caplog.text)
    with pytest.raises(ModelError, match=words):
        Model.load(saved, trust=["test_model:Choosing", "networks:OneLayer"])


def test_a_class_that_is_built_as_it_was_wrapped_is_saved_without_a_warning(tmp_path, caplog):
    Model.wrap(OneLayer(), bands=["v"], classes=["no", "yes"]).save(tmp_path / "model")
    built = nn.build("test_model:Choosing", bands=1, classes=2)
    Model.wrap(built, bands=["v"], classes=["no", "yes"]).save(tmp_path / "built")
    assert caplog.text == ""
    assert Model.load(tmp_path / "built", trust="test_model:Choosing").arguments["classes"] == 2


@pytest.mark.parametrize(
    ("bands", "classes", "words"),
    [
        ("abcd", "xy", "the network has 3 output channels, but the number of classes is 2"),
        ("abc", "xyz", "it has 3 bands, 3 offsets, 3 factors, 4 input channels; expected one number"),
    ],
)
def test_other_numbers_of_names_than_the_network_has_channels_are_refused(model, bands, classes, words):
    with pytest.raises(NetworkError, match=words):
        Model.wrap(model.network, bands=list(bands), classes=list(classes))
    with pytest.raises(NetworkError, match="2 output channels, but the number of classes is 3"):
        Model.wrap(OneLayer(), bands=["v"], classes=["no", "yes", "maybe"])


@pytest.mark.parametrize("scale", [[0.5, 0.25], np.array([0.5, 0.25]), torch.tensor([0.5, 0.25]), (0.5, 0.25)])
def test_scale_may_have_a_factor_for_each_band(scale):
    model = Model.wrap(OneLayer(2), bands=["a", "b"], classes=["no", "yes"], scale=scale)
    assert model.scaling == Scaling(offset=(0.0, 0.0), factor=(0.5, 0.25))


@pytest.mark.parametrize("scale", [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5)])
def test_one_factor_is_that_of_all_bands(scale):
    model = Model.wrap(OneLayer(2), bands=["a", "b"], classes=["no", "yes"], scale=scale)
    assert model.scaling == Scaling(offset=(0.0, 0.0), factor=(0.5, 0.5))


@pytest.mark.parametrize("scale", [[0.5], 0, float("nan"), [0.5, float("inf")], "wide", None, [[1], 2]])
def test_a_scale_that_is_no_factor_of_each_band_is_refused(scale):
    with pytest.raises(RecipeError, match=r"scale is .*\. Expected a factor of the pixels, not 0.*each of 2 bands"):
        Model.wrap(OneLayer(2), bands=["a", "b"], classes=["no", "yes"], scale=scale)


def test_any_importable_module_can_be_wrapped_and_loaded(tmp_path):
    network = OneLayer()
    Model.wrap(network, bands=["v"], classes=["no", "yes"]).save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model", trust="networks:OneLayer")
    assert torch.equal(loaded.network.layer.weight, network.layer.weight)


def test_a_trusted_class_that_is_not_a_torch_module_is_refused(model, tmp_path):
    path = model.save(tmp_path / "model") / "config.json"
    config = json.loads(path.read_text())
    config |= {"architecture": "subprocess:Popen", "arguments": {"args": ["touch", str(tmp_path / "ran")]}}
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="not a torch module"):
        Model.load(tmp_path / "model", trust=["subprocess:Popen"])
    assert not (tmp_path / "ran").exists()


def test_pixels_that_are_not_valid_reach_the_network_as_zero():
    scaling = Scaling(offset=(5.0,), factor=(2.0,))
    images = torch.tensor([[[[7, 9]]]], dtype=torch.uint8)
    scaled = scaling.apply(images, torch.tensor([[[True, False]]]))
    assert scaled.flatten().tolist() == [4.0, 0.0]


def test_the_card_names_bands_classes_and_how_to_use_it(model, tmp_path):
    card = (model.save(tmp_path / "model") / "README.md").read_text()
    assert all(text in card for text in ("a, b, c, d", "| 2 | z |", "landscribe predict", "0.5 m"))


def test_the_model_card_has_the_names_and_digits_of_the_report(tmp_path):
    measures = {
        "epoch": 4,
        "train_loss": 1.9756418466567993,
        "val_mean_f1": 0.45649,
        "val_f1_val_f1": 1.0,
        "mine": "good",
    }
    model = Model.wrap(
        torch.nn.Conv2d(3, 2, 1), bands=list("abc"), classes=["a", "b"], measures=measures | {"val_loss": None}
    )
    card = (model.save(tmp_path / "model") / "README.md").read_text()
    lines = "- epoch: 4\n- training loss: 1.976\n- mean F1: 0.456\n- F1 of val_f1: 1.000\n- mine: good\n"
    assert f"{lines}- validation loss: undefined\n" in card


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_with_their_layer(tmp_path, value):
    network = OneLayer()
    with torch.no_grad():
        network.layer.weight[1] = value
    Model.wrap(network, bands=["b"], classes=["x", "y"]).save(tmp_path / "model")
    with pytest.raises(
        ModelError, match=r"holds 1 weights .* NaN or infinite, in 1 tensors: first in layer\.weight \(1 of 2\)"
    ):
        Model.load(tmp_path / "model", trust="networks:OneLayer")
