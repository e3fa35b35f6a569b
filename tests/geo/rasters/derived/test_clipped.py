"""Rasters of which only the pixels inside polygons are valid."""

import pickle

import numpy as np
import pytest
from affine import Affine

from landscribe.geo.features import Features
from landscribe.geo.grid import Window
from landscribe.geo.rasters.derived.clipped import clip, spread_windows
from landscribe.geo.rasters.derived.resampling import at_pixel_size
from landscribe.geo.rasters.raster import Raster
from worlds import noise, pixel_box, write_polygons, write_raster

H, W = 60, 80


@pytest.fixture
def clipped(tmp_path):
    """Rows 10 to 40 and columns 20 to 70 of an image of three bands, where it is not nodata, and the image."""
    array = noise(3, H, W)
    array[:, 15:18, 25:30] = 0
    raster = Raster.open([write_raster(tmp_path / "a.tif", array, nodata=0)])
    area = Features.read(write_polygons(tmp_path / "area.gpkg", [pixel_box(10, 20, 30, 50)]))
    return clip(raster, area), raster


def test_pixels_outside_the_polygons_are_not_valid(clipped):
    raster, plain = clipped
    pixels, valid = raster.read(Window(-5, -5, H + 10, W + 10))
    whole, own = plain.read(Window(-5, -5, H + 10, W + 10))
    own[:15] = own[45:] = own[:, :25] = own[:, 75:] = False
    np.testing.assert_array_equal(valid, own)
    np.testing.assert_array_equal(pixels, np.where(own, whole, 0))
    assert raster.grid == plain.grid


def test_a_window_holds_the_pixels_of_the_whole_raster(clipped):
    raster, _ = clipped
    pixels, valid = raster.read(raster.grid.window)
    for window in (Window(0, 0, 9, 9), Window(5, 15, 30, 20), Window(38, 60, 22, 20)):
        part, part_valid = raster.read(window)
        np.testing.assert_array_equal(part, pixels[:, *window.slices])
        np.testing.assert_array_equal(part_valid, valid[window.slices])


def test_bands_are_selected_before_or_after_clipping(clipped):
    raster, plain = clipped
    before, after = clip(plain.select([3, 1]), raster.area), raster.select([3, 1])
    np.testing.assert_array_equal(before.read(raster.grid.window)[0], after.read(raster.grid.window)[0])


def test_a_pickled_clipped_raster_reads_the_same(clipped):
    raster, _ = clipped
    again = pickle.loads(pickle.dumps(raster)).read(raster.grid.window)
    for own, other in zip(raster.read(raster.grid.window), again, strict=True):
        np.testing.assert_array_equal(own, other)


def test_an_overview_is_clipped(clipped):
    _, valid = clipped[0].overview(W // 2)
    inside = np.zeros((H // 2, W // 2), bool)
    inside[5:20, 10:35] = True
    assert not valid[~inside].any()
    assert valid[inside].mean() > 0.95


def test_a_coarser_pixel_is_the_mean_of_the_pixels_inside(tmp_path):
    array = np.full((1, 40, 40), 200, np.uint8)
    array[:, 10:30, 12:30] = 7
    raster = Raster.open([write_raster(tmp_path / "a.tif", array)])
    area = Features.read(write_polygons(tmp_path / "area.gpkg", [pixel_box(10, 12, 20, 18)]))
    coarse = at_pixel_size(clip(raster, area), 5)
    pixels, valid = coarse.read(coarse.grid.window)
    expected = np.zeros((8, 8), bool)
    # Columns 10 to 15 are three fifths inside.
    expected[2:6, 2:6] = True
    np.testing.assert_array_equal(valid, expected)
    assert set(pixels[0][valid].tolist()) == {7}


def test_sample_windows_of_a_clipped_raster_lie_on_its_polygons(tmp_path):
    raster = Raster.open([write_raster(tmp_path / "a.tif", noise(1, 600, 800))])
    boxes = [pixel_box(3, 4, 6, 6), pixel_box(500, 777, 5, 5)]
    area = Features.read(write_polygons(tmp_path / "area.gpkg", boxes))
    windows = spread_windows(clip(raster, area), 16, 2)
    valid = [clip(raster, area).read(window)[1].sum() for window in windows]
    assert all(window & raster.grid.window == window for window in windows)
    assert valid[-2:] == [36, 25]
    assert spread_windows(raster, 16, 2) == raster.grid.spread_windows((16, 16), 2)


def test_the_area_file_is_part_of_the_fingerprint(clipped, tmp_path):
    raster, plain = clipped
    before = raster.fingerprint_fields
    assert plain.fingerprint_fields.items() < before.items()
    write_polygons(tmp_path / "area.gpkg", [pixel_box(10, 20, 30, 50), pixel_box(0, 0, 5, 5)])
    changed = raster.fingerprint_fields
    assert {name for name in changed if changed[name] != before[name]} == {"image area"}
    assert at_pixel_size(raster, 2).select([1]).fingerprint_fields["image area"] == changed["image area"]


def test_decimated_pixels_are_burned_at_their_own_centres(tmp_path):
    raster = Raster.open([write_raster(tmp_path / "a.tif", noise(1, 12, 12), transform=Affine(2, 0, 0, 0, -2, 0))])
    box = pixel_box(0, 0, 12, 6.5, transform=raster.grid.transform)
    area = Features.read(write_polygons(tmp_path / "area.gpkg", [box]))
    _, valid = clip(raster, area).read_decimated(raster.grid.window, (4, 4))
    # Centres of decimated columns are 1.5, 4.5, 7.5 and 10.5.
    assert valid.all(axis=0).tolist() == [True, True, False, False]
