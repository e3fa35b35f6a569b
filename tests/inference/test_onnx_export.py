"""An export is kept beside the model, and taken only if it is that model's, as it was written."""

import pytest
import torch

import networks
from landscribe.errors import EngineError
from landscribe.inference import onnx_export
from landscribe.inference.onnx_export import FOLDER, MOST_SHAPES, onnx_of
from landscribe.model import Model
from landscribe.nn import build

SHAPE = (1, 3, 64, 64)


@pytest.fixture
def exports(monkeypatch) -> list[bytes]:
    """What is exported, in place of ONNX: the weights' sum and a number."""
    made: list[bytes] = []

    def export(network, shape) -> bytes:
        total = sum(float(value.sum()) for value in network.state_dict().values())
        made.append(f"{total} {shape} {len(made)}".encode())
        return made[-1]

    monkeypatch.setattr(onnx_export, "export", export)
    return made


def model(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    network = build("unet", bands=3, classes=4, encoder="plain", encoder_widths=(4, 8))
    return Model.wrap(network, bands=["r", "g", "b"], classes=["a", "b", "c", "d"])


def exported(of: Model, shape=SHAPE) -> bytes:
    return onnx_of(of, lambda: of.network, shape)


def files(of: Model) -> list[str]:
    assert of.folder is not None
    return sorted(path.name for path in (of.folder / FOLDER).glob("*"))


def test_a_network_is_exported_once_for_each_shape(tmp_path, exports):
    folder = model().save(tmp_path / "model")
    first = exported(Model.load(folder))
    assert exported(Model.load(folder)) == first
    assert len(exports) == 1
    assert exported(Model.load(folder), (1, 3, 32, 32)) != first
    assert len(exports) == 2


def test_other_weights_are_exported_again_and_leave_nothing_of_the_former(tmp_path, exports):
    kept = model()
    kept.save(tmp_path / "model")
    first = exported(kept)
    with torch.no_grad():
        next(kept.network.parameters()).add_(1)
    assert exported(kept) != first
    assert len(files(kept)) == 1


def test_what_another_version_exported_is_exported_again(tmp_path, exports, monkeypatch):
    kept = model()
    kept.save(tmp_path / "model")
    exported(kept)
    monkeypatch.setattr(onnx_export.importlib.metadata, "version", lambda package: "another")
    exported(kept)
    assert len(exports) == 2
    assert len(files(kept)) == 1


@pytest.mark.parametrize("damage", [b"", b"something else"])
def test_a_file_that_was_altered_is_exported_again(tmp_path, exports, damage):
    kept = model()
    kept.save(tmp_path / "model")
    exported(kept)
    (name,) = files(kept)
    (tmp_path / "model" / FOLDER / name).write_bytes(damage)
    assert exported(kept) == exports[1]


def test_of_many_shapes_the_last_ones_are_kept(tmp_path, exports):
    kept = model()
    kept.save(tmp_path / "model")
    for number in range(MOST_SHAPES + 2):
        exported(kept, (1, 3, 16 * (number + 1), 16))
    assert len(files(kept)) == MOST_SHAPES
    exported(kept, (1, 3, 16 * (MOST_SHAPES + 2), 16))
    assert len(exports) == MOST_SHAPES + 2


def test_a_class_of_the_users_is_exported_each_time_since_its_code_may_change(tmp_path, exports):
    network = networks.Striding(3, 4).eval()
    own = Model.wrap(network, bands=["r", "g", "b"], classes=["a", "b", "c", "d"])
    own.save(tmp_path / "model")
    exported(own), exported(own)
    assert len(exports) == 2
    assert not (tmp_path / "model" / FOLDER).exists()


def test_where_nothing_can_be_kept_it_is_exported_all_the_same(tmp_path, exports):
    kept = model()
    kept.save(tmp_path / "model")
    (tmp_path / "model" / FOLDER).write_text("in the way")
    assert exported(kept) == exports[0]
    assert exported(model()) == exports[1]


def test_what_cannot_be_exported_leaves_nothing(tmp_path):
    kept = model()
    kept.save(tmp_path / "model")

    def ready():
        raise EngineError("cannot be made ready")

    with pytest.raises(EngineError, match="made ready"):
        onnx_of(kept, ready, SHAPE)
    assert not (tmp_path / "model" / FOLDER).exists()
