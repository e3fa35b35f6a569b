"""An export is stored in the user's cache, and used only if model, versions and content are the same."""

from pathlib import Path

import pytest
import torch

import networks
from landscribe.errors import BackendError
from landscribe.inference import cache
from landscribe.inference.backends import onnx_export
from landscribe.inference.backends.onnx_export import FOLDER, MAX_SHAPES, export, load_or_export
from landscribe.inference.backends.torch_backend import SelectedHeads
from landscribe.model import Model
from landscribe.nn import build

SHAPE = (1, 3, 64, 64)


@pytest.fixture
def exports(monkeypatch) -> list[bytes]:
    """Exports, with the sum of the weights and a count in place of ONNX."""
    exports: list[bytes] = []

    def export(network, shape, outputs) -> bytes:
        total = sum(float(value.sum()) for value in network.state_dict().values())
        exports.append(f"{total} {shape} {outputs} {len(exports)}".encode())
        return exports[-1]

    monkeypatch.setattr(onnx_export, "export", export)
    return exports


def model(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    network = build("unet", bands=3, classes=4, encoder="plain", encoder_widths=(4, 8))
    return Model.wrap(network, bands=["r", "g", "b"], classes=["a", "b", "c", "d"])


def exported(of: Model, shape=SHAPE, heads=("classes",)) -> bytes:
    return load_or_export(of, lambda: of.network, shape, heads)


def files(of: Model) -> list[str]:
    return sorted(path.name for path in stored_in(of).glob("*"))


def stored_in(of: Model) -> Path:
    folder = cache.folder_of(of)
    assert folder is not None
    return folder / FOLDER


def test_a_network_is_exported_once_for_each_shape(tmp_path, exports):
    folder = model().save(tmp_path / "model")
    first = exported(Model.load(folder))
    assert exported(Model.load(folder)) == first
    assert len(exports) == 1
    assert exported(Model.load(folder), (1, 3, 32, 32)) != first
    assert len(exports) == 2


def test_exports_of_other_heads_are_stored_under_other_names(tmp_path, exports):
    network = build("unet_id", bands=3, classes=4, encoder="plain", encoder_widths=(4, 8))
    stored = Model.wrap(network, bands=["r", "g", "b"], classes=["a", "b", "c", "d"])
    stored.save(tmp_path / "model")
    selections = [("segment",), ("inner",), ("segment", "inner")]
    found = [exported(stored, heads=heads) for heads in selections]
    assert [exported(stored, heads=heads) for heads in selections] == found == exports
    assert sorted(name.split("-")[0] for name in files(stored)) == [
        "1x3x64x64", "1x3x64x64+inner", "1x3x64x64+segment+inner",
    ]  # fmt: skip


@pytest.mark.usefixtures("onnx_functions")
def test_an_export_has_one_output_for_each_head_with_its_name():
    import onnx

    network = build("unet_id", bands=3, classes=4, encoder="plain", encoder_widths=(4, 8)).eval()
    heads = ("inner", "segment")
    exported_heads = onnx.load_from_string(export(SelectedHeads(network, heads).eval(), SHAPE, heads))
    assert [output.name for output in exported_heads.graph.output] == list(heads)


def test_other_weights_are_exported_again(tmp_path, exports):
    stored = model()
    stored.save(tmp_path / "model")
    first = exported(stored)
    with torch.no_grad():
        next(stored.network.parameters()).add_(1)
    assert exported(stored) != first
    assert len(files(stored)) == 1


def test_another_package_version_is_exported_again(tmp_path, exports, monkeypatch):
    stored = model()
    stored.save(tmp_path / "model")
    exported(stored)
    monkeypatch.setattr(onnx_export.importlib.metadata, "version", lambda package: "another")
    exported(stored)
    assert len(exports) == 2
    assert len(files(stored)) == 1


@pytest.mark.parametrize("damage", [b"", b"something else"])
def test_an_altered_file_is_exported_again(tmp_path, exports, damage):
    stored = model()
    stored.save(tmp_path / "model")
    exported(stored)
    (name,) = files(stored)
    (stored_in(stored) / name).write_bytes(damage)
    assert exported(stored) == exports[1]


def test_the_exports_of_the_latest_shapes_are_stored(tmp_path, exports):
    stored = model()
    stored.save(tmp_path / "model")
    for index in range(MAX_SHAPES + 2):
        exported(stored, (1, 3, 16 * (index + 1), 16))
    assert len(files(stored)) == MAX_SHAPES
    exported(stored, (1, 3, 16 * (MAX_SHAPES + 2), 16))
    assert len(exports) == MAX_SHAPES + 2


def test_a_users_class_is_exported_each_time_because_its_code_may_change(tmp_path, exports):
    network = networks.Striding(3, 4).eval()
    own = Model.wrap(network, bands=["r", "g", "b"], classes=["a", "b", "c", "d"])
    own.save(tmp_path / "model")
    exported(own), exported(own)
    assert len(exports) == 2
    assert not stored_in(own).exists()


def test_a_folder_that_cannot_be_written_does_not_prevent_an_export(tmp_path, exports):
    stored = model()
    stored.save(tmp_path / "model")
    stored_in(stored).parent.mkdir(parents=True)
    stored_in(stored).write_text("in the way")
    assert exported(stored) == exports[0]
    assert exported(model()) == exports[1]


def test_a_failed_export_leaves_no_file(tmp_path):
    stored = model()
    stored.save(tmp_path / "model")

    def network():
        raise BackendError("cannot be placed")

    with pytest.raises(BackendError, match="cannot be placed"):
        load_or_export(stored, network, SHAPE, ("classes",))
    assert not stored_in(stored).exists()
