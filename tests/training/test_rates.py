"""A learning rate that is found by trying many."""

from itertools import count

import pytest
import torch

from landscribe import verbs
from landscribe.errors import NetworkError
from landscribe.training.rates import Trial
from landscribe.training.segmenter import Segmenter

TINY = {"encoder": "plain", "weights": "none", "batch": 4, "options": {"encoder_widths": [4, 8]}}


def test_a_found_rate_is_used_said_and_recorded(chips, tmp_path, monkeypatch, caplog, capsys):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO"):
        found = verbs.train(chips, out="found", steps=4, learning_rate="auto", **TINY)
    rate = found.provenance["learning_rate"]
    assert 1e-6 < rate < 1
    assert found.provenance["settings"]["learning_rate"] == "auto"
    assert f"learning rate: {rate:.3g} (found by trying)" in caplog.text
    assert capsys.readouterr().err == ""
    # Looking for it changes nothing else: the same rate, given as a number, gives the same model.
    given = verbs.train(chips, out="given", steps=4, learning_rate=rate, **TINY)
    assert given.sha256 == found.sha256
    assert given.history == found.history
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found", "given"]


def test_the_same_seed_finds_the_same_rate(chips, tmp_path):
    def rate(name: str, seed: int) -> float:
        model = verbs.train(chips, out=tmp_path / name, steps=1, learning_rate="auto", seed=seed, **TINY)
        return model.provenance["learning_rate"]

    assert rate("one", 3) == rate("two", 3)


def test_a_trial_may_diverge(chips, tmp_path, monkeypatch):
    whole, steps = Segmenter.criterion, count()

    def diverging(self, logits, labels):
        loss = whole(self, logits, labels)
        return loss * torch.nan if isinstance(self, Trial) and next(steps) > 50 else loss

    monkeypatch.setattr(Segmenter, "criterion", diverging)
    model = verbs.train(chips, out=tmp_path / "model", steps=1, learning_rate="auto", **TINY)
    # Half of the way from 1e-6 to 1, of which each step is a hundredth.
    assert 1e-6 < model.provenance["learning_rate"] < 1.2e-3


def test_a_loss_that_is_never_finite_gives_no_rate(chips, tmp_path, monkeypatch):
    monkeypatch.setattr(Segmenter, "criterion", lambda self, logits, labels: logits.sum() * torch.nan)
    with pytest.raises(NetworkError, match="no learning rate from 1e-06 to 1 gave a finite loss"):
        verbs.train(chips, out=tmp_path / "model", steps=1, learning_rate="auto", **TINY)
    assert list(tmp_path.iterdir()) == []
