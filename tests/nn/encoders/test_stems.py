"""Stems follow the names of bands."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from landscribe.nn.encoders.stems import resemblance

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
