"""Weights come through timm's own loading, from files that the tests write."""

import pytest
import safetensors.torch
import timm
import torch

from landscribe.errors import NetworkError
from landscribe.nn.encoders.encoder import Encoder
from landscribe.nn.encoders.stems import normalisation
from landscribe.nn.encoders.weights import license_terms, pretraining_statistics, resolve_weights

NAME = "resnet10t"


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
    torch.manual_seed(3)
    network = timm.create_model(NAME, pretrained=False)
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    return path, network.state_dict()


def test_a_weight_file_reaches_the_encoder(weight_file):
    path, state = weight_file
    body = Encoder(NAME, bands=3, weights=str(path)).body.state_dict()
    shared = [name for name in body if name in state]
    assert len(shared) > 20
    assert all(torch.equal(body[name], state[name]) for name in shared)


def test_a_stem_of_any_bands_has_the_features_of_three_on_grey_images(weight_file):
    path, state = weight_file
    stem = next(name for name, value in state.items() if value.ndim == 4)
    for names in (("pan",), ("red", "green", "blue", "nir"), ("nir", "red"), ("b", "g", "r", "re1", "nir", "swir16")):
        body = Encoder(NAME, bands=len(names), weights=str(path), band_names=names).body.state_dict()
        torch.testing.assert_close(body[stem].sum(1), state[stem].sum(1), rtol=1e-4, atol=1e-5)


def test_the_stem_follows_the_names_of_the_bands(weight_file):
    path, state = weight_file
    stem = next(name for name, value in state.items() if value.ndim == 4)
    names = ("nir", "blue", "green", "red")
    kernels = Encoder(NAME, bands=4, weights=str(path), band_names=names).body.state_dict()[stem]
    torch.testing.assert_close(kernels[:, 0], state[stem][:, 0] / 2)
    torch.testing.assert_close(kernels[:, 1], state[stem][:, 2])
    torch.testing.assert_close(kernels[:, 2], state[stem][:, 1])


def test_a_file_that_lacks_layers_is_refused_with_their_names(weight_file, tmp_path):
    _, state = weight_file
    part = {name: value for name, value in state.items() if not name.startswith("layer4")}
    safetensors.torch.save_file(part, tmp_path / "part.safetensors")
    with pytest.raises(NetworkError, match=r"part\.safetensors.*lacks.*layer4"):
        Encoder(NAME, bands=3, weights=str(tmp_path / "part.safetensors"))


def test_a_file_of_other_shapes_is_refused_with_the_layers(weight_file, tmp_path):
    _, state = weight_file
    odd = dict(state) | {"layer1.0.conv1.weight": torch.zeros(64, 64, 5, 5)}
    safetensors.torch.save_file(odd, tmp_path / "odd.safetensors")
    with pytest.raises(NetworkError, match=r"layer1\.0\.conv1\.weight is \(64, 64, 5, 5\), not \(64, 64, 3, 3\)"):
        Encoder(NAME, bands=3, weights=str(tmp_path / "odd.safetensors"))


def test_a_checkpoint_of_torch_is_read_without_running_it(weight_file, tmp_path):
    _, state = weight_file
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    body = Encoder(NAME, bands=3, weights=str(tmp_path / "weights.pth")).body.state_dict()
    assert all(torch.equal(body[name], state[name]) for name in body if name in state)

    class Harm:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"state_dict": Harm()}, tmp_path / "harm.pth")
    with pytest.raises(NetworkError, match=r"harm\.pth"):
        Encoder(NAME, bands=3, weights=str(tmp_path / "harm.pth"))


def test_weights_state_their_license():
    assert license_terms(NAME, None) == {"source": "none"}
    known = license_terms("resnet18", "imagenet")
    assert known["license"] == "apache-2.0"
    assert known["tag"]
    assert "file" in license_terms(NAME, "some/weights.safetensors")["license"]


def test_weights_of_another_encoder_are_refused(weight_file):
    path, _ = weight_file
    with pytest.raises(NetworkError, match=r"encoder\.safetensors.*could not be loaded"):
        Encoder("resnet18", bands=3, weights=str(path))


def test_a_missing_weight_file_is_refused():
    with pytest.raises(NetworkError, match="neither 'auto', 'imagenet', 'none' nor a file"):
        Encoder(NAME, bands=3, weights="nowhere.safetensors")


def test_auto_without_the_hub_starts_without_weights_and_says_so():
    weights, said = resolve_weights("auto", NAME)
    assert weights is None
    assert "none" in said


def test_without_the_hub_imagenet_is_refused_at_once():
    with pytest.raises(NetworkError, match="hub does not respond"):
        Encoder(NAME, bands=3, weights="imagenet")


def test_averaged_weights_are_preferred_as_timm_does(weight_file, tmp_path):
    _, state = weight_file
    other = {name: value + 1 for name, value in state.items()}
    torch.save({"state_dict": other, "state_dict_ema": state}, tmp_path / "c.pth")
    body = Encoder(NAME, bands=3, weights=str(tmp_path / "c.pth")).body.state_dict()
    assert all(torch.equal(body[name], state[name]) for name in body if name in state)


def test_a_file_of_the_encoder_in_another_library_is_refused_with_that_reason(tmp_path):
    state = timm.create_model("test_efficientnet").state_dict()
    renamed = {f"features.{index}": value.clone() for index, value in enumerate(state.values())}
    safetensors.torch.save_file(renamed, tmp_path / "renamed.safetensors")
    with pytest.raises(NetworkError, match="other names than timm's, but the same shapes"):
        Encoder("test_efficientnet", bands=3, weights=str(tmp_path / "renamed.safetensors"))


def test_a_text_file_is_refused_as_no_checkpoint(tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(NetworkError, match=r"torch\.save did not write it\. Expected a safetensors file or"):
        Encoder(NAME, bands=3, weights=str(tmp_path / "text.pth"))


@pytest.mark.parametrize("name", ["empty.pth", "text.pth", "damaged.safetensors"])
def test_files_that_are_no_weights_are_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"" if "empty" in name else b"elevation,10\n")
    with pytest.raises(NetworkError, match=rf"{name}.*could not be loaded"):
        Encoder(NAME, bands=3, weights=str(tmp_path / name))


def test_weights_that_timm_does_not_know_are_none():
    assert resolve_weights("auto", "resnet18.bogus")[0] is None
    assert "unknown" in license_terms("mit_b0", "imagenet")["license"]


def test_bands_are_normalised_as_the_colours_that_their_kernels_are_from():
    mean, deviation = pretraining_statistics("resnet18")
    assert mean == (0.485, 0.456, 0.406)
    assert normalisation(["nir", "green", "blue"], mean, deviation)[0] == pytest.approx(mean)
    assert normalisation(["red", "green", "blue"], mean, deviation)[0] == pytest.approx(mean)
