"""A model folder from a stranger runs no code, and takes no more memory than its weights need."""

import hashlib
import json
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import forked
import worlds
from landscribe import verbs
from landscribe.errors import ModelError, NetworkError
from landscribe.model import Model
from landscribe.model import folder as model_folder
from landscribe.nn import build
from landscribe.nn.encoders import encoder
from networks import OneLayer

SMALL = {"encoder": "plain", "encoder_widths": [4, 8]}


@pytest.fixture
def folder(tmp_path):
    network = build("unet", bands=1, classes=2, **SMALL)
    return Model.wrap(network, bands=["v"], classes=["no", "yes"]).save(tmp_path / "model")


@pytest.fixture
def wrapped(tmp_path):
    return Model.wrap(OneLayer(), bands=["v"], classes=["no", "yes"]).save(tmp_path / "wrapped")


def change(folder, **values):
    """Change values of a folder's config; those of a dict are changed one by one."""
    config = json.loads((folder / "config.json").read_text())
    for name, value in values.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))


# ---- earlier versions


@pytest.fixture
def earlier(tmp_path, monkeypatch):
    """A folder with the tensors of all stages of an EfficientNet of depth 2, and the model that was saved."""
    monkeypatch.setattr(encoder, "_remove_unread", lambda *_: None)
    network = build("unet", bands=1, classes=2, encoder="test_efficientnet", depth=2, widths=[8])
    model = Model.wrap(network.eval(), bands=["v"], classes=["no", "yes"])
    model.save(tmp_path / "earlier")
    monkeypatch.undo()
    return tmp_path / "earlier", model


def test_a_folder_with_stages_behind_the_depth_keeps_its_logits(earlier):
    folder, model = earlier
    loaded, image = Model.load(folder), torch.rand(1, 1, 64, 64)
    assert len(loaded.network.state_dict()) < len(model.network.state_dict())
    with torch.inference_mode():
        assert torch.equal(loaded(image), model(image))


def test_tensors_behind_the_depth_have_the_shapes_of_the_encoder(earlier):
    folder, model = earlier
    name = "features.encoder.body.blocks.4.0.conv_pw.weight"
    state = model.network.state_dict()
    assert name in state
    for odd in ({name: torch.zeros(2)}, {f"{name}s": torch.zeros(2)}):
        weights = safetensors.torch.save(state | odd)
        (folder / "model.safetensors").write_bytes(weights)
        change(folder, weights_sha256=hashlib.sha256(weights).hexdigest())
        with pytest.raises(ModelError, match="1 tensors differ"):
            Model.load(folder)


@pytest.mark.parametrize(
    ("architecture", "options", "ignored"),
    [
        ("unet", {"encoder": "test_resnet", "widths": [8]}, {"depth": 7}),
        ("unet", {"encoder": "test_resnet", "depth": 2, "widths": [8, 6]}, {"widths": [8, 6, 4, 2]}),
        ("unet", {"encoder": "test_resnet", "widths": [8] * 5}, {"depth": 6, "widths": [8] * 6}),
        ("unet", {**SMALL, "full_resolution": 0}, {"full_resolution": 8}),
        ("unetplusplus", {"encoder": "test_resnet", "depth": 2, "widths": [8, 6]}, {"widths": [8, 6, 4]}),
    ],
)
def test_a_folder_with_settings_without_effect_keeps_its_logits(tmp_path, architecture, options, ignored):
    network = build(architecture, bands=1, classes=2, **options).eval()
    model = Model.wrap(network, bands=["v"], classes=["no", "yes"])
    change(model.save(tmp_path / "earlier"), arguments=ignored)
    loaded, image = Model.load(tmp_path / "earlier"), torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded(image), model(image))
    with pytest.raises(NetworkError):
        build(architecture, bands=1, classes=2, **options | ignored)


# ---- code


@pytest.mark.parametrize(
    "architecture",
    ["this:x", "antigravity:x", "unittest.__main__:x", "idlelib.__main__:x", "torch.nn:Linear", ":", "a:"],
)
def test_a_module_that_a_folder_names_is_not_imported(folder, architecture):
    change(folder, architecture=architecture)
    before = set(sys.modules)
    with pytest.raises(ModelError, match=r"runs the code of that module.*--trust-code") as refused:
        Model.load(folder)
    assert set(sys.modules) == before
    assert repr(architecture) in str(refused.value)


def test_a_trusted_class_is_loaded_and_no_other(wrapped, folder):
    assert Model.load(wrapped, trust="networks:OneLayer").classes.names == ("no", "yes")
    assert Model.load(folder, trust=["networks:OneLayer"]).architecture == "unet"
    with pytest.raises(ModelError, match="networks:OneLayer"):
        Model.load(wrapped, trust=["networks:Identity", "networks"])


def test_every_verb_takes_the_trusted_class(wrapped, tmp_path):
    scene = worlds.write_raster(tmp_path / "scene.tif", np.eye(64, dtype=np.uint8), descriptions=["v"])
    trust = {"trust_code": ["networks:OneLayer"]}
    calls = {
        "predict": lambda **trust: verbs.predict(wrapped, [scene], out=tmp_path / "map.tif", tile=32, **trust),
        "summary": lambda **trust: verbs.summary(wrapped, size=32, **trust),
        "bench": lambda **trust: verbs.bench(wrapped, tile=32, seconds=0, **trust),
    }
    for verb, call in calls.items():
        with pytest.raises(ModelError, match="--trust-code networks:OneLayer"):
            call()
        assert call(**trust), verb


def test_a_folder_is_described_without_its_network(wrapped, monkeypatch):
    model = Model.load(wrapped, trust="networks:OneLayer")
    monkeypatch.setattr(model_folder, "rebuild", lambda *_: pytest.fail("the network was built"))
    saved = model_folder.read_saved(wrapped)
    assert (saved.config, saved.sha256) == (model.config, model.sha256)


@pytest.mark.parametrize(
    "arguments",
    [{"weights": "imagenet"}, {"weights": "/etc/passwd"}, {"band_names": ["v"]}],
)
def test_arguments_that_load_other_weights_are_refused(folder, arguments):
    change(folder, arguments=arguments)
    with pytest.raises(ModelError, match=f"its arguments have '{next(iter(arguments))}'"):
        Model.load(folder)


# ---- other versions, other paths


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"landscribe_model": 2, "new_field": 1}, "has the layout 2 .*, of a newer version .* reads layout 1. Update"),
        ({"new_field": 1}, r"new_field: Extra inputs .*Update landscribe if a newer version wrote the folder"),
        ({"arguments": {"new_option": 1}}, r"'new_option'.*Update landscribe if a newer version wrote the folder"),
        ({"landscribe_model": 0}, "landscribe_model: Input should be 1.*Copy the model folder again"),
    ],
)
def test_a_folder_of_a_newer_version_asks_for_an_update(folder, values, words):
    change(folder, **values)
    with pytest.raises(ModelError, match=words):
        Model.load(folder)


def test_a_path_that_is_no_folder_is_named_as_what_it_is(folder, tmp_path):
    for file in ("config.json", "model.safetensors"):
        with pytest.raises(ModelError, match=rf"{file} is a file\. .*Give the folder {folder}"):
            Model.load(folder / file)
    with pytest.raises(ModelError, match=r"nowhere has no config\.json: there is no such folder"):
        Model.load(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"has no config\.json\. Expected a model folder"):
        Model.load(tmp_path)


# ---- sizes


def load_and_measure(folder: Path) -> tuple[str, int]:
    """The refusal of a model folder, and the megabytes by which the memory of this process grew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError) as refused:
        Model.load(folder)
    return str(refused.value), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024


def test_a_network_of_other_shapes_than_the_file_is_refused_before_memory_is_allocated(folder):
    change(folder, arguments={"encoder_widths": [88_888, 88_888]})
    message, growth = forked.call(load_and_measure, folder)
    assert "does not fit unet" in message
    assert "(4, 1, 3, 3) in the file, (88888, 1, 3, 3) in the network" in message
    assert growth < 300


def test_a_file_of_holes_is_refused_before_it_is_read(folder):
    with (folder / "model.safetensors").open("rb+") as weights:
        weights.truncate(12 * 2**30)
    message, growth = forked.call(load_and_measure, folder)
    assert "has 12884901888 bytes, but the" in message
    assert growth < 300


def test_weights_that_need_more_memory_than_the_machine_has_are_refused_with_both_numbers(folder, monkeypatch):
    monkeypatch.setattr(model_folder, "total_memory", lambda: 20_000)
    with pytest.raises(ModelError, match=r"needs \S+ kB of memory to load, but this machine has 20 kB"):
        Model.load(folder)


def test_a_config_of_many_bytes_is_refused_before_it_is_read(folder):
    with (folder / "config.json").open("rb+") as config:
        config.truncate(2**35)
    with pytest.raises(ModelError, match=r"has 34359738368 bytes\. Expected at most 33554432"):
        Model.load(folder)


@pytest.mark.parametrize("levels", [40, 190, 100_000])
@pytest.mark.parametrize("name", ["measures", "provenance"])
def test_a_config_of_many_levels_is_refused(folder, name, levels):
    text = (folder / "config.json").read_text()
    empty = f'"{name}": {{}}'
    assert empty in text
    (folder / "config.json").write_text(text.replace(empty, f'"{name}": {{"a": {"[" * levels}{"]" * levels}}}'))
    with pytest.raises(ModelError, match=r"nested|recursion"):
        Model.load(folder)


@pytest.mark.parametrize("field", ["bands", "classes"])
@pytest.mark.parametrize("name", ["re\x1b[31md", "a\nb", "nul\x00"])
def test_names_with_control_characters_are_refused(folder, field, name):
    config = json.loads((folder / "config.json").read_text())
    names = [name] if field == "bands" else [config["classes"][0], config["classes"][1] | {"name": name}]
    change(folder, **{field: names})
    with pytest.raises(ModelError, match="control character") as refused:
        Model.load(folder)
    assert name not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"chip_size": 0}, "chip_size: Input should be"), ({"pixel_size": "Infinity"}, "pixel_size: Input should be"),
        ({"arguments": {"bands": [1]}}, "input channels"), ({"val_threshold": 1.5}, "val_threshold: Input should be"),
        ({"val_threshold": "NaN"}, "val_threshold: Input should be"),
    ],
)  # fmt: skip
def test_impossible_numbers_of_a_config_are_refused(folder, values, words):
    change(folder, **values)
    with pytest.raises(ModelError, match=words):
        Model.load(folder)


class Doubled(nn.Module):
    """Its buffers are not stored: they are those of its constructor."""

    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.layer = nn.Conv2d(in_channels, num_classes, 1)
        self.register_buffer("factor", torch.full((1,), 2.0), persistent=False)

    def forward(self, x):
        return self.factor * self.layer(x)


def test_buffers_that_are_not_stored_have_their_values_after_loading(tmp_path):
    network = build("test_folder:Doubled", bands=1, classes=2).eval()
    saved = Model.wrap(network, bands=["v"], classes=["no", "yes"]).save(tmp_path / "model")
    loaded = Model.load(saved, trust="test_folder:Doubled").network
    images = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded(images), network(images))


@pytest.mark.parametrize(("encoder", "bands"), [("mit_b0", 3), ("resnet18", 1), ("resnet18", 5)])
def test_networks_of_smp_with_tensors_on_the_cpu_while_they_are_built_are_loaded(tmp_path, encoder, bands):
    network = build("smp:Unet", encoder=encoder, bands=bands, classes=2)
    names = [f"band {index}" for index in range(bands)]
    saved = Model.wrap(network, bands=names, classes=["no", "yes"]).save(tmp_path / "model")
    assert Model.load(saved).arguments["encoder"] == encoder


def test_more_bands_than_any_raster_has_are_refused(folder):
    change(folder, bands=[f"b{index}" for index in range(10_001)])
    with pytest.raises(ModelError, match="it has 10001 bands; expected at most 10000"):
        Model.load(folder)


@pytest.mark.parametrize(
    ("architecture", "option"),
    [("unet", "aspp"), ("unet", "encoder_widths"), ("deeplabv3plus", "rates"), ("fcn", "encoder_widths")],
)
def test_lists_of_thousands_of_layers_are_refused_before_they_are_built(folder, architecture, option):
    change(folder, architecture=architecture, arguments={option: [1] * 20_000})
    with pytest.raises(ModelError, match=f"'{option}' is .*…; expected at most \\d+ of them"):
        Model.load(folder)
