"""Checks before a training: settings that this machine cannot hold are refused."""

import pytest

from landscribe import machine, verbs
from landscribe.errors import RecipeError, ResourceError
from landscribe.training import checks

TINY = {"encoder": "plain", "weights": "none", "batch": 4, "steps": 1, "options": {"encoder_widths": [4, 8]}}
WIDE = TINY | {"options": {"encoder_widths": [4, 600]}}


@pytest.mark.parametrize(
    ("settings", "copies"),
    [(WIDE, 4), (WIDE | {"optimizer": "sgd"}, 3), (WIDE | {"ema_decay": 0.9}, 5), (TINY, 4)],
)
def test_training_needs_weights_gradients_and_moments(tiny_chips, tmp_path, monkeypatch, settings, copies):
    weights = []
    monkeypatch.setattr(checks.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(checks, "_require_memory", lambda *_: None)
    for module in (machine, checks):
        monkeypatch.setattr(module, "require_memory", lambda needed, *_: weights.append(needed), raising=False)
    monkeypatch.setattr("landscribe.nn.meta_device.require_memory", lambda needed, *_: weights.append(needed))
    model = verbs.train(tiny_chips, out=tmp_path / "model", **settings)
    count = sum(value.numel() for value in model.network.state_dict().values())
    assert max(weights) == 4 * copies * count


def test_a_network_that_fits_without_its_gradients_is_refused_before_it_is_built(tiny_chips, tmp_path, monkeypatch):
    monkeypatch.setattr(checks.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "total_memory", lambda: 5 * 10**9)
    monkeypatch.setattr("landscribe.training.train_loop.build", lambda *_, **__: pytest.fail("built"))
    wide = TINY | {"options": {"encoder_widths": [8, 7_000]}}
    with pytest.raises(ResourceError, match=r"training unet with 44\d,.* weights needs at least 7\.\d+ GB .* 5 GB"):
        verbs.train(tiny_chips, out=tmp_path / "model", **wide)
    assert not (tmp_path / "model").exists()


def test_more_readers_than_the_cores_can_serve_are_refused(tiny_chips, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "cores", lambda: 2)
    with pytest.raises(RecipeError, match=r"workers is 1024, but this machine has 2 cores .*at most 32"):
        verbs.train(tiny_chips, out=tmp_path / "model", workers=1024, **TINY)
