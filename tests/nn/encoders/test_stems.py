"""Stems follow the names of bands."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from landscribe.errors import NetworkError
from landscribe.nn.encoders.encoder import Encoder
from landscribe.nn.encoders.stems import adapt_stem, image_convolutions, resemblance
from landscribe.nn.encoders.weights import on_meta_device

NAMES = ["red", "green", "blue", "nir", "rededge1", "swir16", "coastal", "pan", "B8A", "B04", "elevation", "band 7"]


@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=8, unique=True))
def test_shares_of_each_kernel_sum_to_one(bands):
    torch.testing.assert_close(resemblance(bands).sum(0), torch.ones(3))


@given(st.permutations(["red", "green", "blue"]))
def test_the_colours_keep_their_kernels_in_any_order(bands):
    expected = torch.stack([torch.eye(3)[["red", "green", "blue"].index(band)] for band in bands])
    assert torch.equal(resemblance(bands), expected)


def test_near_infrared_shares_the_red_kernel():
    shares = resemblance(["blue", "green", "red", "nir"])
    assert shares.tolist() == [[0, 0, 1], [0, 1, 0], [0.5, 0, 0], [0.5, 0, 0]]


def test_a_single_band_takes_all_kernels():
    assert resemblance(["elevation"]).tolist() == [[1, 1, 1]]


def test_bands_without_names_begin_with_red_green_and_blue():
    shares = resemblance(["band 1", "band 2", "band 3", "band 4"])
    assert shares.argmax(1).tolist()[:3] == [0, 1, 2]
    assert (shares[3] > 0).all()


@pytest.mark.parametrize(("band", "like"), [("B02", 2), ("B03", 1), ("B04", 0), ("B08", 0), ("nir08", 0)])
def test_codes_of_sentinel_2_take_the_kernel_of_their_colour(band, like):
    assert resemblance([band, "swir16"])[0].argmax() == like


FAMILIES = [
    "resnet10t", "test_byobnet", "repvgg_a0", "mobileone_s0", "fastvit_t8", "efficientvit_b0", "lcnet_035",
    "convnext_atto", "tf_efficientnet_lite0", "vit_tiny_patch16_224",
]  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_an_adapted_encoder_has_the_same_features_of_an_image_with_permuted_bands(name):
    torch.manual_seed(0)
    # In 64 bits: features of random weights are large.
    encoder, images = Encoder(name, bands=3).eval().double(), torch.rand(1, 3, 64, 64).double()
    with torch.inference_mode():
        expected = encoder(images)
        adapt_stem(encoder.body, ("blue", "red", "green"))
        permuted = encoder(images[:, [2, 0, 1]])
    for one, other in zip(permuted, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0", "fastvit_t8"])
def test_every_branch_of_a_stem_takes_more_bands(name):
    encoder = Encoder(name, bands=3).eval()
    convolutions = [module for _, module in image_convolutions(encoder.body)]
    assert len(convolutions) == 2
    adapt_stem(encoder.body, ("red", "green", "blue", "nir"))
    assert [module.in_channels for module in convolutions] == [4, 4]
    assert encoder(torch.rand(1, 4, 64, 64))[0].shape[0] == 1


@pytest.mark.parametrize("name", ["repvgg_a0", "resnet10t", "vit_tiny_patch16_224"])
def test_the_convolutions_of_the_image_are_found_without_memory_and_the_network_keeps_its_mode(name):
    network = on_meta_device(name).train()
    found = [part for part, _ in image_convolutions(network)]
    three = [part for part, m in network.named_modules() if isinstance(m, torch.nn.Conv2d) and m.in_channels == 3]
    assert set(found) == set(three)
    assert all(module.training for module in network.modules())


class Beside(torch.nn.Module):
    """A convolution of the image, beside another layer of it."""

    def __init__(self, other: torch.nn.Module) -> None:
        super().__init__()
        self.layer, self.other = torch.nn.Conv2d(3, 3, 3, padding=1), other

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.other(x)


def test_a_stem_with_other_layers_of_the_image_than_convolutions_is_refused():
    adapt_stem(Beside(torch.nn.Conv2d(3, 3, 1)), ("red", "green"))
    for other in (torch.nn.BatchNorm2d(3), torch.nn.AvgPool2d(3, 1, 1)):
        with pytest.raises(NetworkError, match="does not begin with a convolution of red, green and blue"):
            adapt_stem(Beside(other), ("red", "green"))
