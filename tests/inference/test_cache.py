"""Results of trials on a model stay in its folder."""

from landscribe.inference import cache
from landscribe.inference.cache import TUNING
from landscribe.model import Model
from landscribe.nn import build


def model() -> Model:
    network = build("fcn", bands=1, classes=2, encoder="plain", weights=None)
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


def test_without_a_folder_or_with_a_damaged_file_nothing_is_stored(tmp_path):
    alone = model()
    cache.store(alone, "engine", "onnx")
    assert cache.load(alone, "engine") is None
    alone.save(tmp_path / "model")
    (tmp_path / "model" / TUNING).write_text("{")
    assert cache.load(alone, "engine") is None
