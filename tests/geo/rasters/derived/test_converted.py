"""Converted rasters: colours of a palette, bands by name, physical values in another encoding."""

import pickle

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from landscribe.geo.grid import Window
from landscribe.geo.rasters.derived.converted import Palette, as_bands, as_colours, filled, with_encoding
from landscribe.geo.rasters.encoding import Encoding
from landscribe.geo.rasters.raster import Raster
from worlds import noise, write_raster


def with_palette(path, indices, palette, **options):
    """A file of indices with a colour table."""
    write_raster(path, indices, **options)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, palette)
    return path


def with_tags(path, array, scale, offset, unit=None, **options):
    """A file with scale, offset and unit tags."""
    write_raster(path, array, **options)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (scale,) * dataset.count, (offset,) * dataset.count
        if unit:
            dataset.units = (unit,) * dataset.count
    return Raster.open([path])


def test_the_same_picture_with_its_palette_in_another_order_has_the_same_pixels(tmp_path):
    indices = noise(1, 30, 40) % 4
    colours = {0: (10, 20, 30, 255), 1: (200, 100, 0, 255), 2: (0, 0, 0, 255), 3: (255, 255, 255, 255)}
    order = np.array([2, 0, 3, 1], np.uint8)
    one = with_palette(tmp_path / "one.tif", indices, colours)
    two = with_palette(tmp_path / "two.tif", order[indices], {int(order[old]): colours[old] for old in colours})
    first, second = (as_colours(Raster.open([path])) for path in (one, two))
    assert first.bands == second.bands == ("red", "green", "blue")
    pixels, valid = first.read(first.grid.window)
    assert valid.all()
    expected = np.array([colours[index][:3] for index in range(4)], np.uint8)[indices[0]].transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(second.read(second.grid.window)[0], pixels)
    np.testing.assert_array_equal(second.select([3, 1]).read(Window(-2, 5, 8, 9))[0][:, 2:], pixels[[2, 0], :6, 5:14])


def test_nodata_of_a_palette_is_an_index(tmp_path):
    indices = np.array([[0, 1, 3]], np.uint8)
    colours = {0: (9, 9, 9, 255), 1: (3, 3, 3, 255), 3: (0, 0, 0, 255)}
    raster = as_colours(Raster.open([with_palette(tmp_path / "a.tif", indices, colours, nodata=3)]))
    pixels, valid = raster.read(raster.grid.window)
    assert valid.tolist() == [[True, True, False]]
    assert pixels[:, 0].tolist() == [[9, 3, 0]] * 3


def test_a_transparent_colour_is_not_valid():
    colours = np.zeros((2**16, 4), np.uint8)
    colours[1], colours[2] = (7, 8, 9, 255), (7, 8, 9, 0)
    pixels, valid = Palette(colours).apply(np.array([[[1, 2]]], np.uint8), np.ones((1, 2), bool), None)
    assert valid.tolist() == [[True, False]]
    assert pixels[:, 0, 0].tolist() == [7, 8, 9]


def test_a_raster_without_a_palette_stays_as_it_is(tmp_path):
    raster = Raster.open([write_raster(tmp_path / "a.tif", noise(1, 9, 9))])
    assert as_colours(raster) is raster


def test_bands_are_reordered_by_their_names(tmp_path):
    array = noise(3, 9, 9)
    raster = Raster.open([write_raster(tmp_path / "a.tif", array, descriptions=("nir", "red", "swir"))])
    np.testing.assert_array_equal(
        as_bands(raster, ("red", "swir", "nir")).read(raster.grid.window)[0], array[[1, 2, 0]]
    )
    assert as_bands(raster, ("red", "green", "blue")) is raster


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-5, 1e-3), st.floats(-0.3, 0.3), st.integers(1, 2), st.integers(0, 2**31))
def test_integers_in_another_encoding_keep_their_physical_values_within_half_a_step(
    tmp_path_factory, scale, offset, first, seed
):
    folder = tmp_path_factory.mktemp("encoding")
    stored = np.random.default_rng(seed).integers(4000, 9000, (2, 5, 7)).astype(np.uint16)
    stored[:, 0, 0] = 0
    raster = with_tags(folder / "a.tif", stored, scale, offset, nodata=0)
    target = Encoding(scale * 1.5, offset - 0.7)
    converted = with_encoding(raster, (target,) * 2, "uint16", "the model").select([first])
    pixels, valid = converted.read(raster.grid.window)
    expected = stored[first - 1] * scale + offset
    difference = np.abs(pixels[0] * target.scale + target.offset - expected)[valid]
    assert not valid[0, 0]
    in_range = (expected[valid] - target.offset) / target.scale < 65535
    assert (difference <= target.scale * 0.5 + 1e-9)[in_range].all()


def test_per_cent_become_shares_in_the_dtype_of_the_training(tmp_path):
    raster = with_tags(tmp_path / "a.tif", np.full((1, 4, 4), 12.5, np.float32), 1.0, 0.0, "percent")
    converted = with_encoding(raster, (Encoding(1e-4),), "uint16", "the model")
    pixels, _ = pickle.loads(pickle.dumps(converted)).read(raster.grid.window)
    assert pixels.dtype == np.uint16
    assert (pixels == 1250).all()


def test_the_same_encoding_leaves_the_raster_as_it_is(tmp_path):
    raster = with_tags(tmp_path / "a.tif", noise(2, 4, 4), 1e-4, 0.0)
    assert with_encoding(raster, (Encoding(float(np.float32(1e-4))),) * 2, "uint8", "the model") is raster


@pytest.mark.parametrize("value", [0, 60000])
def test_numbers_outside_of_the_dtype_are_clipped(tmp_path, value):
    raster = with_tags(tmp_path / "a.tif", np.full((1, 4, 4), value, np.uint16), 2e-4, -0.1)
    pixels, _ = with_encoding(raster, (Encoding(1e-4),), "uint16", "the model").read(raster.grid.window)
    assert (pixels == (0 if value == 0 else 65535)).all()


@pytest.mark.parametrize(
    "convert",
    [as_colours, lambda raster: filled(raster, 7), lambda raster: with_encoding(raster, [Encoding(2.0)], "uint8", "")],
    ids=["colours", "filled", "encoding"],
)
def test_the_nodata_value_of_stored_numbers_is_in_the_fingerprint(tmp_path, convert):
    paths = with_tags(tmp_path / "a.tif", np.zeros((5, 6), np.uint8), 4.0, 0.0).paths
    with rasterio.open(paths[0], "r+") as dataset:
        dataset.write_colormap(1, {0: (9, 9, 9, 255)})
    none, again, zero = (convert(Raster.open(paths, nodata=nodata)).fingerprint_fields for nodata in (None, None, 0))
    assert none == again != zero
