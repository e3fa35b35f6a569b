"""Results of trials on a model stay in the user's cache, under the hash of the model."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from landscribe.inference import cache
from landscribe.inference.backends.onnx_export import load_or_export
from landscribe.inference.cache import MAX_MODELS, TUNING
from landscribe.model import Model
from landscribe.nn import build


def model(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    network = build("fcn", bands=1, classes=2, encoder="plain", encoder_widths=[4, 8])
    return Model.wrap(network, bands=["v"], classes=["a", "b"])


def test_stored_values_are_there_when_the_folder_is_loaded_again(tmp_path):
    saved = model()
    folder = saved.save(tmp_path / "model")
    cache.store(saved, "margin", {"tile": 512, "pixels": 64})
    cache.store(saved, "engine", "onnx")
    again = Model.load(folder)
    assert cache.load(again, "margin") == {"tile": 512, "pixels": 64}
    assert cache.load(again, "engine") == "onnx"
    assert cache.load(again, "other") is None
    assert again.sha256 == saved.sha256


def test_the_model_folder_gets_no_file_and_a_copy_of_it_has_the_same_results(tmp_path, user_cache):
    saved = model()
    saved.save(tmp_path / "model")
    files = sorted(path.name for path in (tmp_path / "model").iterdir())
    cache.store(saved, "engine", "onnx")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == files
    assert (user_cache / "models" / saved.sha256[:32] / TUNING).is_file()
    (tmp_path / "model").rename(tmp_path / "moved")
    assert cache.load(Model.load(tmp_path / "moved"), "engine") == "onnx"


def test_a_model_of_other_weights_has_no_results(tmp_path):
    one, two = model(1), model(2)
    one.save(tmp_path / "one"), two.save(tmp_path / "two")
    cache.store(one, "engine", "onnx")
    assert cache.load(two, "engine") is None


@pytest.mark.usefixtures("shared_exports")
@pytest.mark.parametrize("planted", ["file", "fifo", "endless", "deep"])
def test_nothing_beside_the_weights_is_read_from_a_model_folder(tmp_path, planted):
    saved = model()
    folder = saved.save(tmp_path / "model")
    (folder / "exported").mkdir()
    for path in (folder / TUNING, folder / "exported" / "1x1x32x32-0123456789abcdef-0123456789abcdef.onnx"):
        if planted == "fifo":
            os.mkfifo(path)
        elif planted == "endless":
            path.symlink_to("/dev/zero")
        else:
            path.write_text('{"engine": "evil"}' if planted == "file" else "[" * 10**6)
    loaded = Model.load(folder)
    assert cache.load(loaded, "engine") is None
    with torch.inference_mode(mode=False):
        assert b"evil" not in load_or_export(loaded, lambda: loaded.network, (1, 1, 32, 32), ("classes",))


def test_without_a_folder_or_with_a_damaged_file_nothing_is_stored(tmp_path, user_cache):
    alone = model()
    cache.store(alone, "engine", "onnx")
    assert cache.load(alone, "engine") is None
    alone.save(tmp_path / "model")
    cache.store(alone, "engine", "onnx")
    for damaged in ("{", "[" * 10**5, "[]"):
        (user_cache / "models" / alone.sha256[:32] / TUNING).write_text(damaged)
        assert cache.load(alone, "engine") is None


def test_a_cache_that_cannot_be_written_costs_only_new_trials(tmp_path, user_cache):
    saved = model()
    saved.save(tmp_path / "model")
    user_cache.write_text("no folder")
    cache.store(saved, "engine", "onnx")
    assert cache.load(saved, "engine") is None


def test_the_results_of_the_models_that_were_used_last_are_kept(tmp_path, user_cache):
    models = user_cache / "models"
    for index in range(MAX_MODELS + 3):
        (models / f"{index:032x}").mkdir(parents=True)
        os.utime(models / f"{index:032x}", (index, index))
    saved = model()
    saved.save(tmp_path / "model")
    cache.store(saved, "engine", "onnx")
    kept = sorted(path.name for path in models.iterdir())
    assert kept == sorted([saved.sha256[:32], *(f"{index:032x}" for index in range(4, MAX_MODELS + 3))])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/landscribe"),
        ({"LANDSCRIBE_CACHE": "mine", "XDG_CACHE_HOME": "/xdg"}, "mine"),
    ],
)
def test_the_cache_lies_where_the_system_keeps_caches_or_where_the_user_says(monkeypatch, variables, expected):
    monkeypatch.delenv("LANDSCRIBE_CACHE", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache._root() == Path(expected)


def test_what_is_stored_is_readable_json(tmp_path, user_cache):
    saved = model()
    saved.save(tmp_path / "model")
    cache.store(saved, "engine", "onnx")
    assert json.loads((user_cache / "models" / saved.sha256[:32] / TUNING).read_text()) == {"engine": "onnx"}
