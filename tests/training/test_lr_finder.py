"""The learning rate range test."""

from itertools import count

import pytest
import torch

from landscribe import verbs
from landscribe.errors import NetworkError
from landscribe.training import lr_finder
from landscribe.training.lr_finder import LRFinderModule, suggest_learning_rate
from landscribe.training.segmenter import Segmenter

TINY = {"encoder": "plain", "weights": "none", "batch": 4, "options": {"encoder_widths": [4, 8]}}


@pytest.fixture
def few_rates(monkeypatch) -> None:
    """The range test tries 30 rates instead of 100."""
    monkeypatch.setattr(lr_finder, "_RATES", 30)


@pytest.mark.usefixtures("few_rates")
def test_a_suggested_rate_is_used_logged_and_recorded(tiny_chips, tmp_path, monkeypatch, caplog, capsys):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO"):
        found = verbs.train(tiny_chips, out="found", steps=4, learning_rate="auto", **TINY)
    rate = found.provenance["learning_rate"]
    assert 1e-6 < rate < 1
    assert found.provenance["settings"]["learning_rate"] == "auto"
    assert f"learning rate: {rate:.3g} (by the learning rate finder)" in caplog.text
    assert capsys.readouterr().err == ""
    # Looking for it changes nothing else: the same rate, given as a number, gives the same model.
    given = verbs.train(tiny_chips, out="given", steps=4, learning_rate=rate, **TINY)
    assert given.sha256 == found.sha256
    assert given.history == found.history
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found", "given"]


@pytest.mark.usefixtures("few_rates")
def test_the_same_seed_suggests_the_same_rate(tiny_chips, tmp_path):
    def rate(name: str, seed: int) -> float:
        model = verbs.train(tiny_chips, out=tmp_path / name, steps=1, learning_rate="auto", seed=seed, **TINY)
        return model.provenance["learning_rate"]

    assert rate("one", 3) == rate("two", 3)


@pytest.mark.usefixtures("few_rates")
def test_the_range_test_takes_the_steps_of_the_training(tiny_chips, tmp_path, monkeypatch):
    steps, clipped, batches = [], [], count()
    step, clip, loss = LRFinderModule.optimizer_step, Segmenter.configure_gradient_clipping, Segmenter.criterion

    def stepping(self, epoch, batch, optimizer, *arguments, **named):
        step(self, epoch, batch, optimizer, *arguments, **named)
        steps.append({group["lr"] for group in optimizer.param_groups})

    def clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        clipped.append(gradient_clip_val)
        clip(self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def counting(self, logits, labels):
        if isinstance(self, LRFinderModule):
            next(batches)
        return loss(self, logits, labels)

    monkeypatch.setattr(LRFinderModule, "optimizer_step", stepping)
    monkeypatch.setattr(Segmenter, "configure_gradient_clipping", clipping)
    monkeypatch.setattr(Segmenter, "criterion", counting)
    verbs.train(
        tiny_chips, out=tmp_path / "model", steps=1, learning_rate="auto", encoder_lr_factor=0.25, gradient_clip=0.5,
        accumulate=2, **TINY,
    )  # fmt: skip
    assert all(min(rates) == pytest.approx(0.25 * max(rates)) for rates in steps)
    assert [max(rates) for rates in steps] == sorted(max(rates) for rates in steps)
    assert 25 <= len(steps) <= 30
    assert next(batches) == 2 * len(steps)
    assert set(clipped) == {0.5}


def test_the_rate_is_that_of_the_steepest_smoothed_fall():
    rates = [10 ** (-6 + 6 * step / 99) for step in range(100)]
    # Falls from step 50 to 70, and grows from step 85.
    losses = [1 - 0.5 * min(max(step - 50, 0), 20) / 20 + max(0, step - 85) for step in range(100)]
    easy = [loss - 0.02 * (step == 30) for step, loss in enumerate(losses)]
    for some in (losses, easy):
        chosen = suggest_learning_rate(rates, some)
        assert chosen is not None
        assert rates[57] <= 3 * chosen <= rates[63]
    # What comes after a loss that is not finite says nothing, and neither do the first few.
    assert suggest_learning_rate(rates, [*losses[:75], float("nan"), *losses[76:]]) == suggest_learning_rate(
        rates, losses
    )
    assert suggest_learning_rate(rates, [*losses[:20], float("nan"), *losses[21:]]) is None


def test_the_range_test_may_diverge(tiny_chips, tmp_path, monkeypatch):
    whole, steps = Segmenter.criterion, count()

    def diverging(self, logits, labels):
        loss = whole(self, logits, labels)
        return loss * torch.nan if isinstance(self, LRFinderModule) and next(steps) > 50 else loss

    monkeypatch.setattr(Segmenter, "criterion", diverging)
    model = verbs.train(tiny_chips, out=tmp_path / "model", steps=1, learning_rate="auto", **TINY)
    # A third of what lies on the first half of the way from 1e-6 to 1.
    assert 1e-6 < model.provenance["learning_rate"] < 4e-4


@pytest.mark.usefixtures("few_rates")
def test_a_loss_that_is_never_finite_gives_no_rate(tiny_chips, tmp_path, monkeypatch):
    monkeypatch.setattr(Segmenter, "criterion", lambda self, logits, labels: logits.sum() * torch.nan)
    with pytest.raises(NetworkError, match="no learning rate from 1e-06 to 1 gave a finite loss"):
        verbs.train(tiny_chips, out=tmp_path / "model", steps=1, learning_rate="auto", **TINY)
    assert list(tmp_path.iterdir()) == []
