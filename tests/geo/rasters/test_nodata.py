"""Nodata rules: laws over any pixels, and lists derived by hand."""

import math

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from landscribe.geo.rasters.nodata import Nodata
from worlds import write_raster

images = arrays(
    st.sampled_from(["uint8", "int16", "float32"]),
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    elements=st.integers(0, 3),
)
values = st.integers(0, 3).map(float)


@given(images, values)
def test_any_marks_where_one_band_holds_the_value(pixels, value):
    np.testing.assert_array_equal(Nodata(value, "any").marks(pixels), (pixels == value).any(axis=0))


@given(images, values)
def test_all_marks_where_every_band_holds_the_value(pixels, value):
    np.testing.assert_array_equal(Nodata(value, "all").marks(pixels), (pixels == value).all(axis=0))


@given(images, values)
def test_auto_is_one_of_the_two_rules(pixels, value):
    (group,) = Nodata(value).groups(len(pixels), pixels.dtype)
    rule = "all" if group.needs_all else "any"
    np.testing.assert_array_equal(Nodata(value).marks(pixels), Nodata(value, rule).marks(pixels))


@given(images)
def test_the_rules_agree_for_a_single_band(pixels):
    band = pixels[:1]
    np.testing.assert_array_equal(Nodata(1, "any").marks(band), Nodata(1, "all").marks(band))


@given(images)
def test_nothing_is_marked_without_a_value(pixels):
    assert not Nodata().marks(pixels).any()


@pytest.mark.parametrize(
    ("dtype", "value", "needs_all"),
    [
        ("uint8", 0, True),
        ("uint8", 255, True),
        ("uint8", 254, False),
        ("uint16", 255, False),
        ("uint16", 65535, True),
        ("int16", 0, False),
        ("float32", 0, False),
    ],
)
def test_auto_needs_all_bands_for_0_and_the_largest_value_of_unsigned_types(dtype, value, needs_all):
    (group,) = Nodata(value).groups(3, np.dtype(dtype))
    assert group == ([0, 1, 2], needs_all)


def test_nan_marks_values_that_are_not_finite():
    # Columns: NaN in one band, infinity in one band, NaN in both, finite.
    pixels = np.array([[[math.nan, 1, math.nan, 1]], [[1, -math.inf, math.nan, 1]]], "float32")
    assert Nodata(math.nan).marks(pixels).tolist() == [[True, True, True, False]]
    assert Nodata(math.nan, "all").marks(pixels).tolist() == [[False, False, True, False]]


def test_nan_marks_no_whole_numbers():
    assert not Nodata(math.nan).marks(np.zeros((2, 3, 3), "uint8")).any()


@pytest.mark.parametrize(
    ("dtype", "value", "marked"),
    [
        ("uint8", 255, True),
        ("uint8", 256, False),
        ("uint16", 65536, False),
        ("int16", 32768, False),
        # As floats, the largest 64-bit integers are one more.
        ("int64", float(2**63 - 1), True),
        ("uint64", float(2**64 - 1), True),
        ("uint64", 2.0**65, False),
    ],
)
def test_a_value_beyond_the_largest_of_a_type_marks_no_pixel(dtype, value, marked):
    largest = np.full((1, 1, 1), np.iinfo(dtype).max, dtype)
    assert Nodata(value).marks(largest).tolist() == [[marked]]


@given(images, st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_values_by_band_mark_as_the_one_value_marks_the_band_alone(pixels, values):
    by_band = tuple(map(float, values[: len(pixels)]))
    alone = [Nodata(value).marks(band[None]) for band, value in zip(pixels, by_band, strict=True)]
    np.testing.assert_array_equal(Nodata(by_band, "any").marks(pixels), np.any(alone, axis=0))
    np.testing.assert_array_equal(Nodata(by_band, "all").marks(pixels), np.all(alone, axis=0))
    np.testing.assert_array_equal(Nodata(by_band[:1] * len(pixels)).marks(pixels), Nodata(by_band[0]).marks(pixels))


@pytest.mark.parametrize("written", [-3.4e38, -3.402823e38, -3.4028234663852886e38, -3.40282306074e38])
def test_float32_nodata_is_recognised_as_gdal_recognises_it(written, tmp_path):
    """Programs write the smallest float32 with different numbers of digits."""
    pixels = np.array([[[-3.4028234663852886e38, 1.0, 0.0]]], np.float32)
    path = write_raster(tmp_path / "a.tif", pixels, nodata=written)
    with rasterio.open(path) as dataset:
        theirs = dataset.read_masks(1) == 0
    np.testing.assert_array_equal(Nodata(written).marks(pixels), theirs)


def test_a_float32_value_that_is_none_of_the_largest_marks_no_pixel_beyond_it():
    assert Nodata(-1e35).marks(np.array([[[-1e35, -2e35]]], np.float32)).tolist() == [[True, False]]
