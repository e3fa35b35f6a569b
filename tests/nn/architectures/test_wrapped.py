"""Networks of other libraries are wrapped: lists and dicts of logits, one logit, and no downloads."""

import socket
from collections import OrderedDict

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from landscribe.errors import NetworkError
from landscribe.model import Model

BANDS, CLASSES = ["r", "g", "b"], ["rest", "house"]
SHAPES = {
    "dict": lambda x: OrderedDict(out=x, aux=x + 1), "other key": lambda x: {"mask": x, "score": x.mean((2, 3))},
    "tuple": lambda x: (x, x.mean((2, 3))), "list": lambda x: [x],
}  # fmt: skip


class Returning(nn.Module):
    """Returns its logits in a list or dict."""

    def __init__(self, kind: str = "dict", classes: int = 2) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, classes, 1)
        self.kind = kind

    def forward(self, x: torch.Tensor):
        return SHAPES[self.kind](self.layer(x))


class Pretrained(nn.Module):
    """Downloads its weights unless it is asked not to."""

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()
        if pretrained:
            socket.socket()
        self.layer = nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class OneLogit(nn.Module):
    """The binary network of the lecture: one logit, for a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.fixture
def no_sockets(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a network connection was asked for")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


class Ending(nn.Module):
    """A convolution, and a function of its output."""

    def __init__(self, function, classes: int = 2) -> None:
        super().__init__()
        self.layer, self.function = nn.Conv2d(3, classes, 1), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.layer(x))


def images():
    return torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)


@pytest.mark.parametrize("kind", SHAPES)
def test_a_network_that_returns_a_list_or_dict_gives_its_logits(kind):
    network = Returning(kind).eval()
    model = Model.wrap(network, bands=BANDS, classes=CLASSES)
    given = images()
    with torch.inference_mode():
        torch.testing.assert_close(model(given), network.layer(given.float()), rtol=1e-4, atol=1e-4)


def test_a_network_that_returns_a_dict_is_saved_and_loaded(tmp_path):
    model = Model.wrap(Returning().eval(), bands=BANDS, classes=CLASSES)
    loaded = Model.load(model.save(tmp_path / "model"), trust="test_wrapped:Returning")
    given = images()
    with torch.inference_mode():
        assert torch.equal(loaded(given), model(given))


def test_several_tensors_of_which_none_is_called_out_are_refused(monkeypatch):
    monkeypatch.setitem(SHAPES, "deep", lambda x: [x, x])
    with pytest.raises(NetworkError, match=r"returned a list with 2 tensors \(B, K, H, W\)"):
        Model.wrap(Returning("deep"), bands=BANDS, classes=CLASSES)


@pytest.mark.parametrize("training", [True, False])
def test_wrapping_leaves_every_part_in_its_mode(training):
    network = nn.Sequential(nn.BatchNorm2d(3), Returning()).train(training)
    network[0].train(not training)
    Model.wrap(network, bands=BANDS, classes=CLASSES)
    assert [module.training for module in network.modules()] == [training, not training, training, training]
    assert network[0].num_batches_tracked == 0


def test_a_wrapped_network_with_one_logit_has_two_classes_and_is_loaded_again(tmp_path):
    network = OneLogit().eval()
    model = Model.wrap(network, bands=BANDS, classes=CLASSES)
    loaded = Model.load(model.save(tmp_path / "model"), trust="test_wrapped:OneLogit")
    given = images()
    with torch.inference_mode():
        logit = network(given.float())
        for each in (model, loaded):
            torch.testing.assert_close(
                each(given), torch.cat([torch.zeros_like(logit), logit], dim=1), rtol=1e-4, atol=1e-4
            )
            torch.testing.assert_close(each(given).softmax(1)[:, 1:], logit.sigmoid(), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("no_sockets")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Unet", {"encoder_name": "resnet18", "decoder_channels": [32, 16, 16, 8, 8]}),
        ("FPN", {"encoder_name": "tu-resnet18"}), ("Unet", {"encoder_name": "resnet18", "classes": 1}),
        ("Unet", {"encoder_name": "resnet18", "aux_params": {"classes": 3}}),
    ],
)  # fmt: skip
def test_a_wrapped_network_of_smp_is_loaded_without_code_and_without_a_connection(tmp_path, kind, options):
    torch.manual_seed(0)
    network = getattr(smp, kind)(encoder_weights=None, **({"classes": 2} | options)).eval()
    model = Model.wrap(network, bands=BANDS, classes=CLASSES)
    loaded = Model.load(model.save(tmp_path / "model"))
    assert loaded.architecture == f"smp:{kind}"
    assert "encoder_weights" not in loaded.arguments
    given = images()
    with torch.inference_mode():
        torch.testing.assert_close(loaded(given), model(given), rtol=0, atol=0)
    assert loaded.sha256 == model.sha256


@pytest.mark.usefixtures("no_sockets")
def test_a_trusted_class_is_loaded_without_its_pretrained_weights(tmp_path):
    saved = Model.wrap(Pretrained(pretrained=False), bands=BANDS, classes=CLASSES).save(tmp_path / "model")
    assert Model.load(saved, trust="test_wrapped:Pretrained").classes.names == tuple(CLASSES)


@pytest.mark.usefixtures("no_sockets")
@pytest.mark.parametrize("encoder", ["tu-hf-hub:someone/model", "hf-hub:someone/model", "tu-hf_hub:a/b", "local-dir:/"])
def test_an_encoder_on_a_hub_is_refused_without_a_connection(encoder):
    from landscribe.nn import build

    for architecture in ("smp:Unet", "unet"):
        with pytest.raises(NetworkError, match="unknown encoder"):
            build(architecture, encoder=encoder, bands=3, classes=2)


def test_a_model_called_without_valid_takes_all_pixels_as_valid():
    model, given = Model.wrap(OneLogit(), bands=BANDS, classes=CLASSES), images()
    with torch.inference_mode():
        assert torch.equal(model(given), model.logits(given, torch.ones(1, 64, 96, dtype=torch.bool)))
        assert not torch.equal(model(given), model(given, torch.zeros(1, 64, 96, dtype=torch.bool)))


@pytest.mark.parametrize(("activation", "classes"), [("sigmoid", 1), ("softmax2d", 3), (nn.Sigmoid, 2)])
@pytest.mark.parametrize("kind", ["Unet", "FPN"])
def test_the_probabilities_of_a_network_of_smp_are_those_of_its_activation(tmp_path, kind, activation, classes):
    torch.manual_seed(0)
    network = getattr(smp, kind)("resnet18", encoder_weights=None, classes=classes).eval()
    given = images()
    with torch.inference_mode():
        logits = network(given.float())
    ending = getattr(smp, kind)("resnet18", encoder_weights=None, classes=classes, activation=activation).eval()
    ending.load_state_dict(network.state_dict())
    names = CLASSES if classes < 3 else [*CLASSES, "road"]
    model = Model.wrap(ending, bands=BANDS, classes=names)
    loaded = Model.load(model.save(tmp_path / "model"))
    expected = logits.softmax(1) if classes > 1 else torch.cat([1 - logits.sigmoid(), logits.sigmoid()], dim=1)
    with torch.inference_mode():
        for each in (model, loaded):
            torch.testing.assert_close(each(given).softmax(1), expected, rtol=1e-3, atol=1e-3)
        # The network itself keeps its activation, and shares its weights.
        assert not torch.equal(ending(given.float()), logits)
    assert model.network.network.segmentation_head[0].weight is ending.segmentation_head[0].weight


@pytest.mark.parametrize("activation", ["tanh", "argmax2d", nn.ReLU])
def test_an_activation_of_smp_whose_input_is_not_logits_is_refused(activation):
    network = smp.Unet("resnet18", encoder_weights=None, classes=2, activation=activation)
    with pytest.raises(NetworkError, match=r"has the activation (Tanh|ArgMax|ReLU)\. Expected none"):
        Model.wrap(network, bands=BANDS, classes=CLASSES)


@pytest.mark.parametrize(
    ("function", "name", "classes"),
    [
        (nn.Softmax(1), "softmax", 2), (nn.Sigmoid(), "sigmoid", 1),
        (lambda x: x.softmax(1)[..., :40, :40], "softmax", 2),
        (lambda x: x.half().softmax(1).float(), "softmax", 2),
        (lambda x: [nn.functional.interpolate(x.sigmoid(), scale_factor=2.0, mode="bilinear")], "sigmoid", 1),
    ],
)  # fmt: skip
def test_a_network_that_ends_with_probabilities_is_refused_by_the_name_of_its_last_function(function, name, classes):
    with pytest.raises(NetworkError, match=rf"Ending ends with a {name}, .*Expected logits"):
        Model.wrap(Ending(function, classes), bands=BANDS, classes=CLASSES)


def test_the_last_function_of_a_frozen_network_is_known_too():
    network = Ending(nn.Softmax(1)).requires_grad_(requires_grad=False)
    with pytest.raises(NetworkError, match="Ending ends with a softmax"):
        Model.wrap(network, bands=BANDS, classes=CLASSES)


def test_a_network_that_changes_its_image_is_tried_as_well():
    network = Ending(lambda x: [x])
    network.layer = nn.Sequential(nn.ReLU(inplace=True), network.layer)
    assert Model.wrap(network, bands=BANDS, classes=CLASSES)(images()).shape == (1, 2, 64, 96)


@pytest.mark.parametrize("function", [nn.LogSoftmax(1), lambda x: x.sigmoid() * 4 - 2, lambda x: x.sigmoid() + x])
def test_logits_by_a_sigmoid_or_softmax_are_logits(function):
    assert Model.wrap(Ending(function), bands=BANDS, classes=CLASSES)(images()).shape == (1, 2, 64, 96)
