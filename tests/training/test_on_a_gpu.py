"""Training on a GPU: Lightning and torch take other paths there than on a CPU."""

import pytest
import torch
from test_checkpoint import killed_after
from torch._dynamo.utils import counters

from landscribe import verbs
from landscribe.model import Model
from landscribe.training import checkpoint

pytestmark = pytest.mark.gpu

LEARNING = {"encoder": "test_resnet", "weights": "none", "batch": 4, "options": {"widths": [32, 16, 8]}}
EVEN = {"optimizer": "sgd", "learning_rate": 0.02, "precision": "32", "checkpoint": "last"}
"""With these, rounding hardly grows from step to step."""
SMALL = {"encoder": "plain", "weights": "none", "batch": 4, "options": {"encoder_widths": [4, 8]}}


@pytest.mark.parametrize("precision", ["auto", "32", "bf16", "16"])
def test_a_network_learns_in_each_precision(chips, tmp_path, precision):
    model = verbs.train(chips, out=tmp_path / "model", steps=50, precision=precision, **LEARNING)
    assert model.measures["val_f1_squares"] > 0.9


@pytest.mark.parametrize(
    "settings",
    [
        {"augment": "strong"},
        {"batch": "auto"},
        {"ema_decay": 0.9, "accumulate": 2},
        {"freeze": ("encoder",), "freeze_until": 0.5},
        {"learning_rate": "auto"},
        {"loss": "focal + lovasz", "class_weights": "inverse"},
        {"optimizer": "sgd", "schedule": "plateau"},
        {"workers": 2},
    ],
    ids=str,
)
def test_settings_train_there(tiny_chips, tmp_path, settings):
    model = verbs.train(tiny_chips, out=tmp_path / "model", epochs=2, **(SMALL | settings))
    assert len(model.history) == 2
    assert all(torch.isfinite(weight).all() for weight in model.network.state_dict().values())


def test_a_network_is_compiled_into_cuda_graphs(tiny_chips, tmp_path):
    torch._dynamo.reset()
    counters.clear()
    model = verbs.train(tiny_chips, out=tmp_path / "model", epochs=2, compile=True, **SMALL)
    assert len(model.history) == 2
    assert counters["stats"]["unique_graphs"] > 0
    assert counters["inductor"]["cudagraph_skips"] == 0


def assert_close(one: Model, other: Model) -> None:
    """The weights differ by rounding alone: kernels add in changing order."""
    theirs = other.network.state_dict()
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("settings", [{"augment": {"preset": "light", "mixup": 1.0}}, {"accumulate": 2}], ids=str)
def test_a_compiled_network_learns_what_the_network_itself_does(tiny_chips, tmp_path, monkeypatch, settings):
    # Mixup runs the network twice before the gradients of either are computed.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    settings = SMALL | EVEN | {"steps": 4} | settings
    eager = verbs.train(tiny_chips, out=tmp_path / "eager", **settings)
    torch._dynamo.reset()
    counters.clear()
    compiled = verbs.train(tiny_chips, out=tmp_path / "compiled", compile=True, **settings)
    assert counters["stats"]["unique_graphs"] > 0
    assert_close(compiled, eager)


def test_an_interrupted_training_goes_on_to_the_same_weights_if_compiled(tiny_chips, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(checkpoint, "_TRAIN_TO_SAVE_RATIO", 0)
    settings = SMALL | EVEN | {"epochs": 3, "compile": True}
    whole = verbs.train(tiny_chips, out=tmp_path / "whole", **settings)
    with killed_after(6):
        verbs.train(tiny_chips, out=tmp_path / "model", **settings)
    with caplog.at_level("INFO", "landscribe"):
        resumed = verbs.train(tiny_chips, out=tmp_path / "model", **settings)
    assert "resuming at step" in caplog.text
    assert_close(resumed, whole)


def test_an_interrupted_training_goes_on_there(tiny_chips, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(checkpoint, "_TRAIN_TO_SAVE_RATIO", 0)
    with killed_after(6):
        verbs.train(tiny_chips, out=tmp_path / "model", epochs=3, **SMALL)
    with caplog.at_level("INFO", "landscribe"):
        model = verbs.train(tiny_chips, out=tmp_path / "model", epochs=3, **SMALL)
    assert "resuming at step" in caplog.text
    assert len(model.history) == 3
