"""Seams: networks with and without them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mapping import model_of, write
from test_receptive_field import noise

from landscribe.inference.predictor import Predictor
from landscribe.prediction.seams import check_seams
from landscribe.prediction.tiling import Tiling
from networks import AboveTheMean, Blur, Brightness, Identity


def checked(network, raster, tile, margin, within=8):
    classes = getattr(network, "classes", 2)
    return check_seams(Predictor([model_of(network, classes)]), raster, Tiling(tile, margin, 1, 1.0), within=within)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(20, 200), st.integers(70, 200)),
    tile=st.integers(16, 34),
    margin=st.integers(0, 10),
    network=st.sampled_from([Identity(), Brightness()]),
)
def test_a_network_that_sees_one_cell_leaves_no_seams(tmp_path_factory, shape, tile, margin, network):
    found = checked(network, noise(tmp_path_factory.mktemp("world") / "image.tif", shape, classes=4), 2 * tile, margin)
    assert found.crossings > 0
    assert found.pixels_at_seams > 0
    assert (found.differ_at_seams, found.differ_inside) == (0, 0)


@pytest.mark.parametrize("radius", [4, 9])
def test_a_margin_below_the_receptive_field_leaves_seams(tmp_path, radius):
    raster = noise(tmp_path / "image.tif", (300, 300))
    for margin in (0, radius - 1):
        found = checked(Blur(radius), raster, 128, margin, within=radius)
        assert found.differ_at_seams > 0
        assert found.differ_inside == 0
    enough = checked(Blur(radius), raster, 128, radius)
    assert (enough.differ_at_seams, enough.differ_inside) == (0, 0)


def test_a_network_with_global_context_differs_everywhere(tmp_path):
    values = np.linspace(0, 200, 300)[None] + np.random.default_rng(0).integers(0, 50, (300, 300))
    found = checked(AboveTheMean(), write(tmp_path / "image.tif", values.astype(np.uint8)), 128, 16)
    assert found.mismatch_inside > 0.1
    assert found.factor < 3


def test_pixels_at_seams_are_counted(tmp_path):
    # Tiles of 64 with margin 8 cover 100 columns from 0 and from 36 and meet at 50; the one across is read from 18, so
    # that 26 to 74 are compared, with ends of its own. Within 4 of 26, 50 and 74 are 4 + 8 + 4 of these 48 columns.
    found = checked(Identity(), noise(tmp_path / "image.tif", (60, 100), classes=4), 64, 8, within=4)
    assert found.crossings == 1
    assert (found.pixels_at_seams, found.pixels_inside) == (16 * 60, 32 * 60)


def test_nodata_is_not_counted(tmp_path):
    values = np.random.default_rng(0).integers(0, 4, (60, 100)).astype(np.uint8)
    values[30:] = 255
    found = checked(Identity(), write(tmp_path / "image.tif", values, nodata=255), 64, 8, within=4)
    assert (found.pixels_at_seams, found.pixels_inside) == (16 * 30, 32 * 30)


def test_a_raster_of_one_tile_has_no_seams(tmp_path):
    found = checked(Identity(), noise(tmp_path / "image.tif", (60, 60), classes=4), 64, 8)
    assert found.crossings == 0
    assert "one tile holds the raster" in str(found)


def test_the_result_of_the_seam_check_is_reported(tmp_path):
    found = checked(Blur(9), noise(tmp_path / "image.tif", (300, 300)), 128, 2, within=2)
    assert found.mismatch_at_seams == found.differ_at_seams / found.pixels_at_seams
    assert found.factor == pytest.approx(found.mismatch_at_seams / found.mismatch_inside)
    assert f"{found.mismatch_at_seams:.3%} of {found.pixels_at_seams} pixels within 2 px of a seam" in str(found)
    assert "elsewhere, " in str(found)
