"""What was found out about a model stays with its folder."""

from landscribe.inference.cache import TUNING, remember, remembered
from landscribe.model import Model
from landscribe.nn import build


def model() -> Model:
    network = build("fcn", bands=1, classes=2, encoder="plain", weights=None)
    return Model.wrap(network, bands=["v"], classes=["a", "b"])


def test_what_is_noted_is_there_when_the_folder_is_loaded_again(tmp_path):
    saved = model()
    folder = saved.save(tmp_path / "model")
    remember(saved, "margin", {"tile": 512, "pixels": 64})
    remember(saved, "engine", "onnx")
    again = Model.load(folder)
    assert remembered(again, "margin") == {"tile": 512, "pixels": 64}
    assert remembered(again, "engine") == "onnx"
    assert remembered(again, "other") is None
    assert again.sha256 == saved.sha256


def test_a_model_without_a_folder_and_damaged_notes_remember_nothing(tmp_path):
    alone = model()
    remember(alone, "engine", "onnx")
    assert remembered(alone, "engine") is None
    alone.save(tmp_path / "model")
    (tmp_path / "model" / TUNING).write_text("{")
    assert remembered(alone, "engine") is None
