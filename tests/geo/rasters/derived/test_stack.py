"""Stacked bands: of files on one grid, and of rasters that are resampled to it."""

import pickle

import numpy as np
import pytest
from affine import Affine

from landscribe.errors import GridError
from landscribe.geo.grid import Window
from landscribe.geo.rasters.derived.mosaic import mosaic
from landscribe.geo.rasters.derived.stack import Stack, stack_bands
from landscribe.geo.rasters.open_file import Files
from landscribe.geo.rasters.raster import Raster
from worlds import METRE, noise, write_raster

COARSE = METRE @ Affine.scale(2)


def opened(tmp_path, name: str, array: np.ndarray, **options) -> Raster:
    return Raster.open([write_raster(tmp_path / f"{name}.tif", array, **options)])


def test_rasters_on_one_grid_are_stacked_as_files(tmp_path):
    a, b = (opened(tmp_path, name, noise(1, 4, 6, seed=seed)) for seed, name in enumerate("ab"))
    stack = stack_bands([b, a])
    assert isinstance(stack.source, Files)
    assert stack.bands == ("b", "a")
    pixels, valid = stack.read(Window(0, 0, 4, 6))
    np.testing.assert_array_equal(pixels, np.concatenate([noise(1, 4, 6, seed=1), noise(1, 4, 6)]))
    assert valid.all()


def test_a_band_name_that_occurs_twice_gets_numbers(tmp_path):
    a = opened(tmp_path, "a", noise(1, 4, 6))
    assert stack_bands([a, a]).bands == ("a_1", "a_2")


def test_a_coarse_raster_is_resampled_to_the_grid_of_the_first(tmp_path):
    fine = opened(tmp_path, "fine", np.full((4, 6), 10, "uint8"))
    coarse = opened(tmp_path, "coarse", np.full((2, 3), 300, "int16"), transform=COARSE)
    stack = stack_bands([fine, coarse], resample=True)
    assert isinstance(stack.source, Stack)
    assert (stack.grid, stack.dtype) == (fine.grid, "int16")
    pixels, valid = pickle.loads(pickle.dumps(stack)).read(Window(0, 0, 4, 6))
    assert valid.all()
    assert (pixels[0] == 10).all()
    assert (pixels[1] == 300).all()
    np.testing.assert_array_equal(stack.select([2]).read(Window(1, 1, 2, 2))[0], pixels[1:, 1:3, 1:3])


@pytest.mark.parametrize(("rule", "valid"), [("any", [False, False, False, True]), ("all", [False, True, True, True])])
def test_the_nodata_rule_counts_the_bands_of_all_rasters(tmp_path, rule, valid):
    # Of four coarse pixels: both rasters hold nodata, the first, the second, none.
    fine = np.repeat(np.repeat(np.array([[0, 0, 5, 5]], "uint8"), 2, 0), 2, 1)
    coarse = np.array([[0, 5, 0, 5]], "uint8")
    rasters = [
        Raster.open([write_raster(tmp_path / "fine.tif", fine, nodata=0)], nodata_rule=rule),
        Raster.open([write_raster(tmp_path / "coarse.tif", coarse, nodata=0, transform=COARSE)], nodata_rule=rule),
    ]
    stack = stack_bands(rasters, resample=True)
    assert stack.read(stack.grid.window)[1].tolist() == [list(np.repeat(valid, 2))] * 2


@pytest.mark.parametrize("rule", ["auto", "all", "any"])
@pytest.mark.parametrize("nodata", [None, 0])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_no_pixel_outside_the_extent_or_mask_of_a_raster_is_valid(tmp_path, dtype, nodata, rule):
    masked = np.ones((20, 30), bool)
    masked[:, :4] = False
    files = {
        "fine": write_raster(tmp_path / "fine.tif", np.full((40, 60), 5, dtype), nodata=nodata),
        "part": write_raster(tmp_path / "part.tif", np.full((20, 60), 6, dtype), nodata=nodata),
        "masked": write_raster(tmp_path / "masked.tif", np.full((20, 30), 7, dtype), valid=masked, transform=COARSE),
    }
    stack = stack_bands([Raster.open([path], nodata_rule=rule) for path in files.values()], resample=True)
    expected = np.zeros((40, 60), bool)
    expected[:20, 8:] = True
    np.testing.assert_array_equal(stack.read(stack.grid.window)[1], expected)
    np.testing.assert_array_equal(stack.overview(30)[1], expected[::2, ::2])
    assert stack.may_hold_valid(Window(0, 10, 20, 20))
    assert not stack.may_hold_valid(Window(28, 10, 12, 20))


def test_a_raster_without_nodata_does_not_make_nodata_of_another_valid(tmp_path):
    # As in files on one grid: all bands that have a nodata value hold it.
    fine = np.array([[0, 0, 5, 5]], "uint8").repeat(2, 0)
    rasters = [
        opened(tmp_path, "fine", fine, nodata=0),
        opened(tmp_path, "coarse", np.full((1, 2), 7, "uint8"), transform=COARSE),
    ]
    stack = stack_bands(rasters, resample=True)
    assert stack.read(stack.grid.window)[1].tolist() == [[False, False, True, True]] * 2


def test_other_grids_are_refused_without_resampling_with_both_grids(tmp_path):
    fine, coarse = opened(tmp_path, "a", noise(1, 4, 6)), opened(tmp_path, "b", noise(1, 2, 3), transform=COARSE)
    with pytest.raises(GridError, match=r"b\.tif is 3 x 2 pixels of 2 .*a\.tif is 6 x 4 pixels of 1 .*--resample"):
        stack_bands([fine, coarse])


def test_each_raster_of_a_stack_keeps_its_own_nodata_value(tmp_path):
    fine, coarse = np.full((1, 8, 12), 5, np.uint8), np.full((1, 4, 6), 7, np.uint8)
    fine[0, 0, 0], fine[0, 4, 4] = 1, 2
    coarse[0, 1, 1], coarse[0, 3, 5] = 2, 1
    rasters = [
        opened(tmp_path, "fine", fine, nodata=1),
        Raster.open([write_raster(tmp_path / "coarse.tif", coarse, nodata=2, transform=COARSE)]),
    ]
    raster = stack_bands(rasters, resample=True)
    assert raster.nodata == (1, 2)
    valid = raster.read(raster.grid.window)[1]
    assert not valid[0, 0]
    assert not valid[2:4, 2:4].any()
    assert valid[4, 4]
    assert valid[6:, 10:].all()
    only_second = raster.select([2]).read(raster.grid.window)[1]
    assert only_second[0, 0]


def test_an_overview_of_a_stack_has_all_its_bands(tmp_path):
    fine = opened(tmp_path, "fine", np.full((40, 60), 10, "uint8"))
    coarse = opened(tmp_path, "coarse", np.full((20, 30), 30, "uint8"), transform=COARSE)
    pixels, valid = stack_bands([fine, coarse], resample=True).overview(6)
    assert valid.all()
    assert pixels[:, 0, 0].tolist() == [10, 30]
    assert pixels.shape == (2, 4, 6)


def test_grids_of_crs84_and_epsg_4326_are_one(tmp_path):
    degrees = {"transform": Affine(0.1, 0, 8, 0, -0.1, 47)}
    a, b = (
        opened(tmp_path, str(n), noise(1, 4, 6), crs=crs, **degrees) for n, crs in enumerate(["OGC:CRS84", "EPSG:4326"])
    )
    assert stack_bands([a, b]).grid == stack_bands([b, a]).grid
    assert mosaic([a, b]).grid.shape == (4, 6)
