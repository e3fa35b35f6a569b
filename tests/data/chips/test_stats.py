"""Statistics of bands: streamed, merged, and those of numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from landscribe import verbs
from landscribe.data.chips.chips import ChipReader
from landscribe.data.chips.stats import Histogram, band_statistics, histogram
from worlds import noise, write_raster

WHOLE = ["uint8", "uint16", "int16"]
OTHER = ["float32", "float64", "int32", "uint32"]


def pixels_of(dtype):
    limits = {"min_value": -1e6, "max_value": 1e6} if np.dtype(dtype).kind == "f" else {}
    if dtype in ("int32", "uint32"):
        limits = {"min_value": 0, "max_value": 10**6}
    return hnp.arrays(
        dtype, st.tuples(st.just(2), st.integers(1, 60)), elements=hnp.from_dtype(np.dtype(dtype), **limits)
    )


def counted(pixels: np.ndarray) -> Histogram:
    return Histogram.zeros(len(pixels), str(pixels.dtype)).plus(pixels)


@pytest.mark.parametrize("dtype", WHOLE)
@given(data=st.data(), share=st.sampled_from([0.0, 0.02, 0.25, 0.5, 0.98, 1.0]))
def test_quantiles_of_whole_numbers_are_those_of_numpy(dtype, data, share):
    pixels = data.draw(pixels_of(dtype))
    expected = np.quantile(pixels, share, axis=1, method="inverted_cdf")
    np.testing.assert_array_equal(counted(pixels).quantile(share), expected)


@pytest.mark.parametrize("dtype", OTHER)
@given(data=st.data(), share=st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))
def test_quantiles_of_other_numbers_are_within_a_128th_of_those_of_numpy(dtype, data, share):
    pixels = data.draw(pixels_of(dtype))
    expected = np.quantile(pixels, share, axis=1, method="inverted_cdf").astype(np.float64)
    np.testing.assert_allclose(counted(pixels).quantile(share), expected, rtol=1 / 128, atol=1e-37)


@given(data=st.data(), cut=st.integers(0, 60))
def test_merged_histograms_equal_the_histogram_of_all_pixels(data, cut):
    pixels = data.draw(pixels_of("int16"))
    parts = counted(pixels[:, :cut]) + counted(pixels[:, cut:])
    np.testing.assert_array_equal(parts.counts, counted(pixels).counts)


def test_shares_are_those_of_numpys_histogram():
    pixels = noise(3, 20, 20, "uint16").reshape(3, -1)
    edges = np.linspace(0, 201, 8)
    expected = [np.histogram(band, edges)[0] / band.size for band in pixels]
    np.testing.assert_allclose(counted(pixels).shares(edges), expected)


@pytest.mark.parametrize(("dtype", "centre"), [("float32", 290.0), ("int32", 10_000), ("float64", 1e6)])
def test_quantiles_of_numbers_far_from_0_are_within_a_128th_of_their_distance_to_the_centre(dtype, centre):
    values = (centre + noise(2, 20, 20, "uint16").reshape(2, -1) / 20).astype(dtype)
    of_all = Histogram.zeros(2, dtype, np.full(2, float(centre))).plus(values)
    for share in (0.02, 0.5, 0.98):
        expected = np.quantile(values, share, axis=1, method="inverted_cdf").astype(np.float64)
        error = np.abs(of_all.quantile(share) - expected)
        assert (error <= np.abs(expected - centre) / 128).all()
    edges = np.array([centre - 1, centre + 5, centre + 20])
    expected = [np.histogram(band, edges)[0] / band.size for band in values]
    np.testing.assert_allclose(of_all.shares(edges), expected, atol=0.02)


def test_a_band_without_pixels_has_no_quantile():
    assert np.isnan(Histogram.zeros(2, "uint8").quantile(0.5)).all()


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    """Nine chips of 8 pixels, a quarter of the scene nodata."""
    folder = tmp_path_factory.mktemp("world")
    array = noise(2, 24, 24, "uint16")
    array[:, :12, :12] = 0
    image = write_raster(folder / "scene.tif", array, nodata=0)
    labels = write_raster(folder / "labels.tif", np.tile([1, 2], (24, 12)).astype(np.uint8))
    return verbs.chip(images=[image], labels=labels, out=folder / "chips", size=8, val=0, test=0)


def test_statistics_of_chips_leave_nodata_out(chips):
    values = np.concatenate(
        [pixels[:, valid] for pixels, valid, _ in map(ChipReader(chips).read, range(len(chips)))], 1
    )
    means, deviations = band_statistics(chips)
    np.testing.assert_allclose(means, values.mean(axis=1))
    np.testing.assert_allclose(deviations, values.std(axis=1))
    np.testing.assert_array_equal(histogram(chips).counts, counted(values).counts)


def test_a_sample_of_chips_is_spread_over_all_of_them(chips):
    reader = ChipReader(chips)
    ends = [pixels[:, valid] for pixels, valid, _ in (reader.read(0), reader.read(len(chips) - 1))]
    np.testing.assert_array_equal(histogram(chips, most=2).counts, counted(np.concatenate(ends, 1)).counts)
