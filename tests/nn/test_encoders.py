"""Weights come through timm's own loading; these files are made here."""

import pytest
import safetensors.torch
import timm
import torch

from landscribe.errors import NetworkError
from landscribe.nn.encoders import Encoder, choose_weights

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


def test_the_stem_of_one_band_answers_grey_images_as_that_of_three(weight_file):
    path, state = weight_file
    body = Encoder(NAME, bands=1, weights=str(path)).body.state_dict()
    stem = next(name for name, value in body.items() if value.ndim == 4)
    torch.testing.assert_close(body[stem].sum(1), state[stem].sum(1), rtol=1e-4, atol=1e-5)


def test_the_stem_of_four_bands_is_made_from_the_weights(weight_file):
    path, state = weight_file
    body = Encoder(NAME, bands=4, weights=str(path)).body.state_dict()
    stem = next(name for name, value in body.items() if value.ndim == 4)
    torch.testing.assert_close(body[stem][:, :3], 0.75 * state[stem], rtol=1e-4, atol=1e-5)


def test_weights_of_another_encoder_are_refused(weight_file):
    path, _ = weight_file
    with pytest.raises(NetworkError, match=r"encoder\.safetensors.*could not be loaded"):
        Encoder("resnet18", bands=3, weights=str(path))


def test_a_missing_weight_file_is_refused():
    with pytest.raises(NetworkError, match="neither 'auto', 'imagenet', 'none' nor a file"):
        Encoder(NAME, bands=3, weights="nowhere.safetensors")


def test_without_the_hub_auto_goes_on_without_weights_and_says_so():
    weights, said = choose_weights("auto", NAME)
    assert weights is None
    assert "none" in said


def test_without_the_hub_imagenet_is_refused_at_once():
    with pytest.raises(NetworkError, match="hub does not answer"):
        Encoder(NAME, bands=3, weights="imagenet")


def test_reductions_say_how_large_the_features_are():
    encoder = Encoder(NAME, bands=3).eval()
    with torch.inference_mode():
        features = encoder(torch.rand(1, 3, 128, 64))
    assert [tuple(feature.shape[1:]) for feature in features] == [
        (channels, 128 // reduction, 64 // reduction)
        for channels, reduction in zip(encoder.channels, encoder.reductions, strict=True)
    ]
