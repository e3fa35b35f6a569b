"""Progress and logs of a training: the bar counts optimiser steps, the log has the rows of the history."""

import csv
import importlib.util
import logging
from contextlib import contextmanager

import pytest

from landscribe import progress, verbs
from landscribe.errors import OutputError
from landscribe.training.callbacks import quiet_lightning

TINY = {"encoder": "plain", "weights": "none", "batch": 4, "options": {"encoder_widths": [4, 8]}}
HAS_TENSORBOARD = importlib.util.find_spec("tensorboard") is not None


@pytest.fixture
def reported():
    """Totals, steps and notes of the tasks that are opened."""
    seen: list = []

    @contextmanager
    def keeping(what: str, total: int):
        seen.append((what, total))
        yield lambda steps=1, note="": seen.append((steps, note))

    token = progress.reporter.set(keeping)
    yield seen
    progress.reporter.reset(token)


def test_the_compiler_does_not_warn_of_a_machine_without_a_gpu(caplog):
    log = logging.getLogger("torch.utils.cpp_extension")
    with quiet_lightning():
        log.warning("No CUDA runtime is found")
    log.warning("of another caller")
    assert caplog.messages == ["of another caller"]


def test_the_bar_counts_optimiser_steps_and_shows_the_last_epoch(tiny_chips, tmp_path, reported):
    model = verbs.train(tiny_chips, out=tmp_path / "model", epochs=3, accumulate=2, ema_decay=0.5, **TINY)
    begun = next(place for place, (what, _) in enumerate(reported) if what == "training")
    (_, total), *updates = reported[begun:]
    assert total == model.history[-1]["step"]
    assert sum(steps for steps, _ in updates) == total
    last = next(note for _, note in reversed(updates) if note)
    assert last.startswith("epoch 3, loss ")
    row = model.history[1]
    assert f", F1 {row['val_mean_f1']:.2f}: " in last
    assert f"squares {row['val_f1_squares'] or 0:.2f}" in last


def rows(folder) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_log_holds_each_step_and_the_rows_of_the_history(tiny_chips, tmp_path, caplog):
    folder = tmp_path / "log"
    with caplog.at_level("INFO"):
        model = verbs.train(tiny_chips, out=tmp_path / "model", steps=6, log=str(folder), **TINY)
    written = rows(folder / "version_0")
    steps = [row for row in written if row["learning_rate"]]
    assert [int(row["step"]) for row in steps] == list(range(1, 7))
    assert all(float(row["train_loss"]) > 0 for row in steps)
    epochs = [row for row in written if row["epoch"]]
    assert [int(row["step"]) for row in epochs] == [row["step"] for row in model.history]
    for row, known in zip(epochs, model.history, strict=True):
        for name in ("val_loss", "val_mean_f1", "val_f1_background"):
            assert float(row[name]) == pytest.approx(known[name])
    kind = "and for TensorBoard" if HAS_TENSORBOARD else "as CSV only"
    assert f"log: {folder / 'version_0'}, " in caplog.text
    assert kind in caplog.text
    assert bool(list((folder / "version_0").glob("events.out.tfevents.*"))) == HAS_TENSORBOARD


def test_each_training_has_its_own_log(tiny_chips, tmp_path):
    for name in ("one", "two"):
        verbs.train(tiny_chips, out=tmp_path / name, steps=1, log=str(tmp_path / "log"), **TINY)
    assert len(rows(tmp_path / "log" / "version_0")) == len(rows(tmp_path / "log" / "version_1"))


def test_a_log_that_cannot_be_written_is_refused(tiny_chips, tmp_path):
    (tmp_path / "log").write_text("a file")
    with pytest.raises(OutputError, match="log is a file"):
        verbs.train(tiny_chips, out=tmp_path / "model", steps=1, log=str(tmp_path / "log"), **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_log_does_not_change_the_weights(tiny_chips, tmp_path):
    logged = verbs.train(tiny_chips, out=tmp_path / "logged", steps=5, log=str(tmp_path / "log"), **TINY)
    assert verbs.train(tiny_chips, out=tmp_path / "plain", steps=5, **TINY).sha256 == logged.sha256
