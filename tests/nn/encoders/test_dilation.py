"""Backbones whose sizes halve exactly, and that are dilated instead of strided."""

import copy
import pickle

import pytest
import torch
from timm.models.inception_v3 import InceptionB, InceptionD
from torch import nn

from landscribe.nn.encoders.dilation import pad_valid


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
