"""A killed training resumes to the same model; one with other settings does not."""

import json
import random
import re
import resource
import shutil
import signal
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch

import forked
from landscribe import progress, verbs
from landscribe.data.chips.chips import Chips
from landscribe.errors import EngineError, LandscribeError, NetworkError, OutputError, UnfinishedError
from landscribe.fingerprint import Fingerprint
from landscribe.model import Model
from landscribe.training import checkpoint, lr_finder, train_loop
from landscribe.training.checkpoint import CHIPS, AtomicCheckpointIO
from landscribe.training.parallel import Processes, report_on_rank_zero

# Dropout draws from torch's own chance, augmentation from ours.
TINY = {
    "encoder": "plain",
    "weights": "none",
    "batch": 4,
    "augment": "strong",
    "options": {"encoder_widths": [4, 8], "dropout": 0.2},
}
SETTINGS = {
    "default settings": {"epochs": 3},
    "a budget that ends within an epoch": {"steps": 11},
    "a plateau, and the last epoch": {"epochs": 4, "schedule": "plateau", "checkpoint": "last"},
    "a running average and accumulation": {"epochs": 2, "ema_decay": 0.9, "accumulate": 2, "optimizer": "sgd"},
    "an encoder that thaws": {"epochs": 4, "freeze": ("encoder",), "freeze_until": 0.5},
    "two readers": {"epochs": 2, "workers": 2, "sampling": "balanced"},
    "a suggested learning rate": {"epochs": 2, "learning_rate": "auto"},
    "patience": {"epochs": 9, "patience": 1, "learning_rate": 1e-9},
}


@pytest.fixture(scope="module")
def chips(tiny_chips) -> Chips:
    return tiny_chips


@pytest.fixture(autouse=True)
def _every_epoch_is_saved(monkeypatch):
    """A checkpoint of each epoch, however short the epoch."""
    monkeypatch.setattr(checkpoint, "_TRAIN_TO_SAVE_RATIO", 0)


@pytest.fixture(autouse=True)
def _few_rates(monkeypatch):
    """The range test tries 30 rates instead of 100."""
    monkeypatch.setattr(lr_finder, "_RATES", 30)


class Killed(BaseException):
    """Ends a training at once."""


@contextmanager
def killed_after(steps: int):
    """A training that reports this many steps is ended."""

    @contextmanager
    def counting(what: str, total: int):
        left = steps

        def advance(steps: int = 1, note: str = "") -> None:
            nonlocal left
            left -= steps if note else 0  # those before the training went on come without a note
            if left <= 0:
                raise Killed

        yield advance

    token = progress.reporter.set(counting)
    try:
        with pytest.raises(Killed):
            yield
    finally:
        progress.reporter.reset(token)


def assert_same(one: Model, other: Model) -> None:
    assert one.history == other.history
    assert one.measures == other.measures
    other_weights = other.network.state_dict()
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other_weights[name]), name


def steps_an_epoch(model: Model) -> int:
    return model.history[0]["step"]


@pytest.mark.parametrize("name", [*SETTINGS, "no validation"])
def test_a_resumed_training_gives_the_weights_of_an_uninterrupted_one(chips, tmp_path, name, caplog):
    settings = SETTINGS.get(name, SETTINGS["default settings"])
    chips = chips.of_split("train") if name == "no validation" else chips
    whole = verbs.train(chips, out=tmp_path / "whole", **TINY | settings)
    epoch = steps_an_epoch(whole)
    out = tmp_path / "ended"
    with killed_after(epoch + 1):
        verbs.train(chips, out=out, **TINY | settings)
    if len(whole.history) > 2:
        with killed_after(epoch + 1):
            verbs.train(chips, out=out, **TINY | settings)
    assert not out.exists()
    with caplog.at_level("INFO"):
        assert_same(verbs.train(chips, out=out, **TINY | settings), whole)
    # A slow disk may have left out the second checkpoint.
    assert re.findall(r"resuming at step (\d+),", caplog.text)[-1] in {str(epoch), str(2 * epoch)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ended", "whole"]


def flipped(*, image, masks):
    return {"image": image[:, ::-1], "masks": [mask[:, ::-1] for mask in masks]}


class Flip:
    def __call__(self, *, image, masks):
        return flipped(image=image, masks=masks)


@pytest.mark.parametrize(
    "pipeline", [Flip, lambda: lambda image, masks: flipped(image=image, masks=masks), lambda: partial(Flip())]
)
def test_a_training_with_a_users_pipeline_resumes_in_another_process(chips, tmp_path, caplog, pipeline):
    # In another process, the same pipeline has another address.
    first, second = pipeline(), pipeline()
    settings = TINY | {"epochs": 2}
    with killed_after(7):
        verbs.train(chips, out=tmp_path / "model", **settings | {"augment": first})
    with caplog.at_level("INFO"):
        model = verbs.train(chips, out=tmp_path / "model", **settings | {"augment": second})
    assert "resuming at step" in caplog.text
    assert " at 0x" not in model.provenance["changed_by"]


def test_short_epochs_are_not_all_saved(chips, tmp_path, monkeypatch):
    def saves(pause: float) -> int:
        saved = []

        def save(state, path) -> None:
            saved.append(time.sleep(0.01))
            path.write_bytes(b"")

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "_TRAIN_TO_SAVE_RATIO", pause)
            patch.setattr(checkpoint.torch, "save", save)
            verbs.train(chips, out=tmp_path / str(pause), epochs=4, **TINY)
        return len(saved)

    assert saves(0) == 4
    # Four of these epochs are far from taking a hundred seconds.
    assert saves(10_000) == 1


def test_a_kill_in_the_first_epoch_leaves_no_checkpoint(chips, tmp_path):
    with killed_after(1):
        verbs.train(chips, out=tmp_path / "new" / "model", epochs=2, **TINY)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def ended_once(chips, tmp_path_factory) -> Path:
    """What a training leaves that was ended in its second epoch."""
    folder = tmp_path_factory.mktemp("ended")
    with pytest.MonkeyPatch.context() as patch, killed_after(7):
        patch.setattr(checkpoint, "_TRAIN_TO_SAVE_RATIO", 0)
        verbs.train(chips, out=folder / "model", epochs=3, **TINY)
    assert (folder / "model.training" / "last.ckpt").exists()
    return folder / "model.training"


@pytest.fixture
def ended(ended_once, tmp_path) -> Path:
    """Path of a model whose training was ended in its second epoch."""
    shutil.copytree(ended_once, tmp_path / "model.training")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def whole(chips, tmp_path_factory) -> Model:
    """The model of the same training without interruption."""
    return verbs.train(chips, out=tmp_path_factory.mktemp("whole") / "model", epochs=3, **TINY)


def test_an_unfinished_training_with_other_settings_is_not_touched(chips, ended):
    before = {path: path.read_bytes() for path in ended.with_name("model.training").iterdir()}
    with pytest.raises(OutputError, match=r"another train\.batch \(4, now 2\)\. .*--overwrite"):
        verbs.train(chips, out=ended, epochs=3, **TINY | {"batch": 2})
    only_train = Chips(chips.folder, chips.metadata, chips.table.assign(split="train"))
    with pytest.raises(OutputError, match=r"unfinished training with other splits\."):
        verbs.train(only_train, out=ended, epochs=3, **TINY)
    assert {path: path.read_bytes() for path in ended.with_name("model.training").iterdir()} == before


GLOO = "[third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:5760."


@pytest.mark.parametrize("error", [RuntimeError(GLOO), torch.distributed.DistBackendError("NCCL error: remote")])
def test_the_end_of_another_process_keeps_the_last_epoch(ended, tmp_path, error):
    checkpoints, two = checkpoint.Checkpoints(ended, Fingerprint.of({})), Processes(2)
    said = "another of the 2 processes .* The state of the last epoch is kept in model.training"
    with pytest.raises(UnfinishedError, match=said), checkpoints.kept(ended, two):
        raise error
    assert checkpoints.last.exists()
    checkpoints.remove()
    with pytest.raises(EngineError, match="another of the 2 processes") as raised, checkpoints.kept(ended, two):
        raise error
    assert "is kept" not in str(raised.value)


def test_only_rank_zero_reports_the_end_of_another_process_and_a_loss_of_all(tmp_path):
    second, out = Processes(2, 1), tmp_path / "model"
    checkpoints = checkpoint.Checkpoints(out, Fingerprint.of({}))
    for error, code in ((RuntimeError(GLOO), 1), (NetworkError("the loss is nan"), 2)):
        with pytest.raises(SystemExit) as ended, report_on_rank_zero(second), checkpoints.kept(out, second):
            raise error
        assert ended.value.code == code


@pytest.mark.parametrize("group", [Processes(), Processes(2), Processes(2, 1)])
def test_a_mistake_of_ours_passes_as_it_is(tmp_path, group):
    checkpoints = checkpoint.Checkpoints(tmp_path / "model", Fingerprint.of({}))
    with (
        pytest.raises(RuntimeError, match="shapes"),
        report_on_rank_zero(group),
        checkpoints.kept(tmp_path / "model", group),
    ):
        raise RuntimeError("mat1 and mat2 shapes")


def test_a_checkpoint_with_the_score_of_its_best_epoch_keeps_the_weights_of_that_epoch(chips, ended):
    path = ended.with_name("model.training") / "last.ckpt"
    state = torch.load(path, weights_only=True)
    saved = state["landscribe"]
    # No later epoch is better.
    saved["history"][0]["val_mean_f1"] = 1.0
    weights, saved["best"] = saved["best"], (1.0, saved["best"])
    torch.save(state, path)
    model = verbs.train(chips, out=ended, epochs=3, **TINY)
    assert len(model.history) == 3
    trained = model.network.state_dict()
    assert trained.keys() == weights.keys()
    assert all(torch.equal(trained[name], weight) for name, weight in weights.items())


def test_overwrite_starts_again_if_settings_differ(chips, ended):
    model = verbs.train(chips, out=ended, epochs=2, overwrite=True, **TINY | {"batch": 2})
    assert_same(verbs.train(chips, out=ended.with_name("other"), epochs=2, **TINY | {"batch": 2}), model)
    assert not ended.with_name("model.training").exists()


def test_a_finished_training_is_loaded_by_the_same_call(chips, whole, caplog):
    before = {path: path.stat().st_mtime_ns for path in whole.folder.iterdir()}
    with caplog.at_level("INFO"):
        again = verbs.train(chips, out=whole.folder, epochs=3, workers=1, **TINY)
    assert "is trained already with these settings. Nothing was done" in caplog.text
    assert_same(whole, again)
    assert {path: path.stat().st_mtime_ns for path in whole.folder.iterdir()} == before
    with pytest.raises(OutputError, match=r"as a model trained with another train\.batch \(4, now 2\)\. Nothing was"):
        verbs.train(chips, out=whole.folder, epochs=3, **TINY | {"batch": 2})
    other_chips = Chips(chips.folder, chips.metadata, chips.table.assign(split="train"))
    with pytest.raises(OutputError, match=r"as a model trained with other splits\. "):
        verbs.train(other_chips, out=whole.folder, epochs=3, **TINY)


def test_a_model_that_its_settings_do_not_decide_is_not_taken_for_that_of_the_same_call(chips, tmp_path):
    settings = TINY | {"steps": 1}
    model = verbs.train(chips, out=tmp_path / "changed", **settings)
    next(model.network.parameters()).data += 1
    model.save(tmp_path / "changed", overwrite=True)
    with pytest.raises(OutputError, match="changed exists already, as a model that was changed after its training"):
        verbs.train(chips, out=tmp_path / "changed", **settings)
    # The code of a function of the user may have changed.
    settings["augment"] = flipped
    verbs.train(chips, out=tmp_path / "own", **settings)
    with pytest.raises(OutputError, match="own exists already, as a model that was trained with code of your own"):
        verbs.train(chips, out=tmp_path / "own", **settings)
    (tmp_path / "own" / "config.json").write_text("{")
    with pytest.raises(OutputError, match=r"own exists already, as a model that cannot be read: .*config\.json"):
        verbs.train(chips, out=tmp_path / "own", **settings)


def test_other_chips_and_splits_are_named_without_hashes():
    now = Fingerprint.of({"chips": "ab", "table": "12", "seed": 0, "train": {"weights": "none"}})
    names = {
        table: now.other_than({"chips": chips, "table": table, "seed": 7, "train": {"weights": "none"}}, CHIPS)
        for chips, table in (("cd", "34"), ("ab", "56"))
    }
    assert names == {
        "34": "other chips and another seed (7, now 0)",
        "56": "other splits and another seed (7, now 0)",
    }


def test_settings_that_auto_stood_for_are_those_of_the_same_call(chips, ended, tmp_path, caplog):
    # timm has no weights for the plain encoder, and windows are possible.
    auto = TINY | {"epochs": 3, "weights": "auto", "sampling": "auto"}
    model = verbs.train(chips, out=tmp_path / "auto", **auto)
    chosen = auto | {"weights": "none", "sampling": "windows"}
    with caplog.at_level("INFO"):
        assert_same(model, verbs.train(chips, out=tmp_path / "auto", **chosen))
    # That auto found no weights at first is said.
    assert caplog.messages[-2:] == [
        f"{tmp_path / 'auto'} is trained already with these settings. Nothing was done",
        "weights: none (timm has none for 'plain')",
    ]
    # The unfinished training began with weights = none and sampling = auto.
    with caplog.at_level("INFO"):
        verbs.train(chips, out=ended, **chosen)
    assert "training: resuming at step" in caplog.text


def test_what_a_kill_left_beside_a_saved_model_is_removed_by_the_same_call(chips, ended, tmp_path):
    left = ended.with_name("model.training")
    shutil.copytree(left, tmp_path / "copy")
    verbs.train(chips, out=ended, epochs=3, **TINY)
    shutil.copytree(tmp_path / "copy", left)
    # The checkpoint of a training with other settings is not for this call to remove.
    verbs.train(chips, out=tmp_path / "other", steps=1, **TINY)
    shutil.copytree(left, tmp_path / "other.training")
    verbs.train(chips, out=tmp_path / "other", steps=1, **TINY)
    verbs.train(chips, out=ended, epochs=3, **TINY)
    assert sorted(path.name for path in tmp_path.glob("*.training")) == ["other.training"]


def test_settings_without_effect_on_the_weights_may_differ(chips, ended, whole, tmp_path):
    model = verbs.train(chips, out=ended, epochs=3, workers=1, log=str(tmp_path / "log"), **TINY)
    assert_same(whole, model)


def test_the_record_of_a_checkpoint_identifies_its_training(chips, ended):
    record = json.loads((ended.with_name("model.training") / "training.json").read_text())
    assert record["fingerprint"]["chips"] == chips.sha256
    assert record["fingerprint"]["train"]["batch"] == 4
    assert record["start"]["weights"].startswith("weights: none")


def test_a_training_that_fails_leaves_no_checkpoint(chips, tmp_path):
    without = {"options": {"encoder_widths": [4, 8], "batch_norm": False}, "optimizer": "sgd", "gradient_clip": 0}
    settings = TINY | without | {"learning_rate": 1000, "schedule": "constant"}
    with pytest.raises(NetworkError, match="Lower the learning rate"):
        verbs.train(chips, out=tmp_path / "new" / "model", epochs=50, **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_refused_in_one_line(chips, ended):
    last = ended.with_name("model.training") / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(OutputError, match=r"last\.ckpt cannot be read .*Remove .*model\.training to start again"):
        verbs.train(chips, out=ended, epochs=3, **TINY)


def test_a_half_written_checkpoint_is_ignored(chips, ended, whole):
    partial = ended.with_name("model.training") / ".0123abcd.partial.last.ckpt"
    partial.write_bytes(b"half")
    with killed_after(1):
        verbs.train(chips, out=ended, epochs=3, **TINY)
    assert not partial.exists()
    assert_same(whole, verbs.train(chips, out=ended, epochs=3, **TINY))


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Mine:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"a": Mine()}, tmp_path / "last.ckpt")
    with pytest.raises(OutputError, match="cannot be read"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "executed").exists()


def test_time_before_a_kill_counts_in_a_budget_of_minutes(chips, tmp_path):
    out = tmp_path / "model"
    with killed_after(2):  # seconds
        verbs.train(chips, out=out, minutes=0.05, **TINY)
    before, after = [], []

    @contextmanager
    def counting(what: str, total: int):
        # Seconds before the training went on come without a note.
        seconds = (after, before) if what == "training" else ([], [])
        yield lambda steps=1, note="": seconds[not note].append(steps)

    token = progress.reporter.set(counting)
    try:
        verbs.train(chips, out=out, minutes=0.05, **TINY)
    finally:
        progress.reporter.reset(token)
    assert 1 <= sum(before) <= 2
    # The whole budget is three seconds.
    assert sum(after) <= 3 - sum(before)


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_weights(chips, tmp_path):
    # More epochs than end in three tenths of a second.
    settings = TINY | {"epochs": 30, "ema_decay": 0.9}
    out, last = tmp_path / "model", tmp_path / "model.training" / "last.ckpt"
    chance, stamps = random.Random(0), [0]
    for _ in range(3):
        process = forked.start(forked.train, chips.folder, out=out, **settings)
        # Killed at any moment once it has written something new.
        while process.is_alive() and (not last.exists() or last.stat().st_mtime_ns == stamps[-1]):
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not out.exists()
        stamps.append(last.stat().st_mtime_ns)
    verbs.train(chips, out=out, **settings)
    whole = verbs.train(chips, out=tmp_path / "whole", **settings)
    assert_same(Model.load(out), whole)
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "whole"]


@pytest.fixture
def small_files():
    """Files of at most 2 kB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.usefixtures("small_files")
def test_a_disk_that_fills_while_a_checkpoint_is_written_is_one_line_and_leaves_nothing(tmp_path):
    path = tmp_path / "model.training" / "last.ckpt"
    with pytest.raises(OutputError, match=r"cannot write .*last\.ckpt: torch cannot write .* MB are free.*Free disk"):
        AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(10_000)}, path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_files")
def test_a_disk_that_fills_while_a_model_is_written_is_one_line_and_leaves_nothing(tmp_path):
    model = Model.wrap(torch.nn.Conv2d(3, 2, 21), bands=["a", "b", "c"], classes=["x", "y"])
    with pytest.raises(LandscribeError, match="cannot write"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_a_thread_writes_checkpoints_only_where_threads_may_share_the_device(tmp_path, chips, monkeypatch, device):
    """Defect: on Apple's GPUs, the tensors were copied by a thread beside the training, which may end the process."""
    monkeypatch.setattr(train_loop, "resolve_device", lambda: torch.device(device))
    threads, save = [], AtomicCheckpointIO.save_checkpoint

    def recorded(*given, **named):
        threads.append(threading.current_thread())
        save(*given, **named)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", recorded)
    verbs.train(chips, out=tmp_path / "model", epochs=1, **TINY)
    assert threads
    assert (threading.main_thread() in threads) is (device == "mps")
