"""Backbones whose sizes halve exactly, and that are dilated instead of strided."""

import copy
import pickle
import warnings

import pytest
import torch
from timm.models.inception_v3 import InceptionB, InceptionD
from torch import nn

from landscribe.inference.memory import step_memory
from landscribe.nn import build
from landscribe.nn.encoders.dilation import _dilate_layer, dilate, pad_valid
from landscribe.nn.encoders.encoder import Encoder


@pytest.mark.parametrize("block_class", [InceptionB, InceptionD])
def test_a_reduction_block_of_inception_pools_by_a_call_without_a_layer(block_class):
    # The reason for replacing `forward`: once timm has a layer here, padding that layer is enough.
    assert not any(isinstance(module, nn.MaxPool2d) for module in block_class(8).modules())


@pytest.mark.parametrize("block_class", [InceptionB, InceptionD])
def test_a_padded_reduction_block_halves_exactly_and_can_be_copied_and_pickled(block_class):
    block = block_class(8).eval()
    pad_valid(block)
    images = torch.rand(1, 8, 16, 16)
    with torch.inference_mode():
        expected = block(images)
        assert expected.shape[-2:] == (8, 8)
        for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
            assert torch.equal(other(images), expected)
            # The copy uses its own weights.
            for parameter in block.parameters():
                assert all(parameter is not copied for copied in other.parameters())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rate", [1, 2, 3])
@pytest.mark.parametrize("side", [2, 4])
def test_even_kernels_are_dilated_as_torch_pads_them_and_without_its_warning(side, rate):
    layer = nn.Conv2d(3, 5, side, stride=2, padding=side // 2 - 1)
    image = torch.rand(1, 3, 16, 12)
    _dilate_layer(layer, 16 * rate, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = nn.functional.conv2d(image, layer.weight, layer.bias, padding="same", dilation=rate)
    torch.testing.assert_close(pickle.loads(pickle.dumps(layer))(image), expected)


@pytest.mark.parametrize("stride", [8, 16])
def test_a_dilated_attention_has_the_keys_that_it_was_trained_with(stride):
    torch.manual_seed(0)
    whole = Encoder("pvt_v2_b0", bands=3).eval()
    dilated = Encoder("pvt_v2_b0", bands=3, output_stride=stride).eval()
    dilated.load_state_dict(whole.state_dict())
    keys: dict[str, list[torch.Tensor]] = {}
    for encoder in (whole, dilated):
        for name, module in encoder.body.named_modules():
            if name.endswith("attn.sr"):
                module.register_forward_hook(lambda _, __, output, name=name: keys.setdefault(name, []).append(output))
    images = torch.rand(1, 3, 128, 128)
    with torch.inference_mode():
        features, finer = whole(images)[-1], dilated(images)[-1]
    assert len(keys) == 6
    for one, other in keys.values():
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)
    # The deepest attention has no fewer keys than queries, and sees all the new pixels, too.
    steps = 32 // stride
    error = (finer[..., ::steps, ::steps] - features).abs().mean() / features.abs().mean()
    assert error < 0.05


def test_a_dilated_attention_takes_little_more_memory_than_the_backbone():
    networks = [build(name, bands=3, classes=2, encoder="pvt_v2_b0") for name in ("deeplabv3plus", "unet")]
    dilated, plain = (step_memory(network, (1, 3, 512, 512)) for network in networks)
    assert dilated < 1.5 * plain


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.AvgPool2d((1, 5), 1, (0, 2)), nn.Conv2d(4, 4, 3, padding=1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stride", [1, 2])
def test_features_without_dilation_are_every_other_of_those_with(pool, stride):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), copy.deepcopy(pool)
    whole = nn.Sequential(*layers).eval()
    dilated = copy.deepcopy(whole)
    dilate(dilated, stride)
    images, steps = torch.rand(2, 3, 64, 96), 4 // stride
    with torch.inference_mode():
        for each in (dilated, pickle.loads(pickle.dumps(dilated))):
            torch.testing.assert_close(each(images)[..., ::steps, ::steps], whole(images), rtol=1e-4, atol=1e-5)
