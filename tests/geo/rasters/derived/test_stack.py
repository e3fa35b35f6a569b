"""Stacked bands: of files on one grid, and of rasters that are resampled to it."""

import pickle
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from affine import Affine

from landscribe.errors import GridError, RasterError
from landscribe.geo.grid import Window
from landscribe.geo.inputs import open_imagery
from landscribe.geo.rasters.derived.converted import like
from landscribe.geo.rasters.derived.mosaic import mosaic
from landscribe.geo.rasters.derived.stack import Stack, stack_bands
from landscribe.geo.rasters.open_file import Files
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.spec import ImagerySpec
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


# ---- nodata, by groups of bands


class StackedFile(NamedTuple):
    pixels: np.ndarray
    nodata: float | None
    valid: np.ndarray | None


def random_files(seed: int) -> list[StackedFile]:
    """Files of few values, so that pixels of several bands often hold nodata together."""
    rng = np.random.default_rng(seed)
    files = []
    for _ in range(rng.integers(2, 6)):
        dtype = str(rng.choice(["uint8", "uint8", "uint16", "int16", "float32"]))
        values = [0, 5, 255 if dtype == "uint8" else 7]
        pixels = rng.choice(values, (rng.choice([1, 1, 2, 3]), 6, 7), p=[0.6, 0.2, 0.2]).astype(dtype)
        nodata = rng.choice([None, 0, 0, 0, values[2]])
        files.append(StackedFile(pixels, nodata, rng.random((6, 7)) < 0.9 if rng.random() < 0.2 else None))
    return files


def opened_stack(tmp_path, files: list[StackedFile], rule: str) -> Raster:
    return stack_bands([
        Raster.open(
            [write_raster(tmp_path / f"{n}.tif", file.pixels, nodata=file.nodata, valid=file.valid)], nodata_rule=rule
        )
        for n, file in enumerate(files)
    ])  # fmt: skip


def expected_valid(files: list[StackedFile], rule: str) -> np.ndarray:
    """By the rule in words: each file of several bands, and each file of one band with all bands like it."""
    valid = np.ones(files[0].pixels.shape[1:], bool)
    for file in files:
        if file.valid is not None:
            valid &= file.valid
        if file.nodata is None:
            continue
        dtype = file.pixels.dtype
        unsigned = dtype.kind == "u" and file.nodata in (0, np.iinfo(dtype).max)
        same_kind = [other.pixels for other in files if (other.pixels.dtype, other.nodata) == (dtype, file.nodata)]
        has_value = (file.pixels if len(file.pixels) > 1 else np.concatenate(same_kind)) == file.nodata
        valid &= ~(has_value.all(axis=0) if rule == "all" or (rule == "auto" and unsigned) else has_value.any(axis=0))
    return valid


@pytest.mark.parametrize("rule", ["auto", "any", "all"])
@pytest.mark.parametrize("seed", range(25))
def test_a_pixel_is_valid_where_no_group_of_bands_is_nodata(tmp_path, seed, rule):
    files = random_files(seed)
    stack = opened_stack(tmp_path, files, rule)
    paths = [Raster.open([path], nodata_rule=rule) for path in stack.paths]
    computed = replace(stack, source=Stack(tuple(paths), stack.dtype))
    pixels, valid = stack.read(stack.grid.window)
    np.testing.assert_array_equal(valid, expected_valid(files, rule))
    whole = np.concatenate([file.pixels for file in files]).astype(stack.dtype)
    np.testing.assert_array_equal(pixels, np.where(valid, whole, 0))
    part = Window(1, 2, 3, 4)
    numbers = [int(band) + 1 for band in np.random.default_rng(seed).permutation(len(stack.bands))[:3]]
    for raster in (stack, computed):
        np.testing.assert_array_equal(raster.read(stack.grid.window)[1], valid)
        part_pixels, part_valid = raster.read(part)
        np.testing.assert_array_equal(part_pixels, pixels[:, *part.slices])
        np.testing.assert_array_equal(part_valid, valid[part.slices])
        assert raster.may_hold_valid(part) or not part_valid.any()
    for ours, theirs in zip(stack.select(numbers).read(part), computed.select(numbers).read(part), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def date(tmp_path, name: str, empty: slice, dtype: str = "uint16", bands: int = 4) -> Raster:
    """Imagery of one date, nodata 0, with columns outside of its swath and a dark pixel in one band."""
    pixels = noise(bands, 6, 8, dtype)
    pixels[:, :, empty], pixels[0, 5, 4] = 0, 0
    return opened(tmp_path, name, pixels, nodata=0)


OTHERS = {
    "nothing": lambda to: [],
    "float": lambda to: [opened(to, "s1", np.full((2, 6, 8), -9.0, "float32"), nodata=np.nan)],
    "uint8": lambda to: [opened(to, "chm", np.full((6, 8), 9, "uint8"), nodata=0)],
}


@pytest.mark.parametrize("others", OTHERS)
def test_a_date_outside_its_swath_is_nodata_whatever_else_is_stacked(tmp_path, others):
    may, july = date(tmp_path, "may", slice(0)), date(tmp_path, "july", slice(3))
    valid = stack_bands([may, july, *OTHERS[others](tmp_path)]).read(may.grid.window)[1]
    assert not valid[:, :3].any()
    assert valid[:, 3:].all()


def test_a_dark_pixel_of_one_band_is_valid_in_files_of_one_acquisition(tmp_path):
    names = ["b2", "b3", "b4"]
    pixels = noise(3, 6, 8)
    pixels[:, 0, 0], pixels[2, 3, 3] = 0, 0
    bands = [opened(tmp_path, name, band, nodata=0) for name, band in zip(names, pixels, strict=True)]
    valid = np.ones((6, 8), bool)
    valid[0, 0] = False
    np.testing.assert_array_equal(stack_bands(bands).read(Window(0, 0, 6, 8))[1], valid)
    # Near infrared beside a file of three bands.
    nir = opened(tmp_path, "nir", np.zeros((6, 8), "uint8"), nodata=0)
    rgb = opened(tmp_path, "rgb", pixels, nodata=0)
    np.testing.assert_array_equal(stack_bands([rgb, nir]).read(Window(0, 0, 6, 8))[1], valid)


def test_a_mosaic_of_stacks_judges_the_files_of_each(tmp_path):
    stacks = [
        stack_bands([date(tmp_path, f"{place}_may", slice(0)), date(tmp_path, f"{place}_july", slice(3))])
        for place in "ab"
    ]
    moved = replace(stacks[1], grid=replace(stacks[1].grid, transform=METRE @ Affine.translation(8, 0)))
    valid = mosaic([stacks[0], moved]).read(Window(0, 0, 6, 16))[1]
    assert valid[0].tolist() == ([False] * 3 + [True] * 5) * 2


def test_nodata_by_band_counts_on_over_the_stack_and_is_judged_by_file(tmp_path):
    # The second date has its own value in each band.
    may, july = noise(2, 4, 4, seed=1), noise(2, 4, 4, seed=2)
    july[:, 0, 0], july[0, 1, 1] = (0, 255), 0
    paths = [str(write_raster(tmp_path / f"{name}.tif", array)) for name, array in (("may", may), ("july", july))]
    valid = open_imagery(paths, ImagerySpec(nodata=(0, 0, 0, 255))).read(Window(0, 0, 4, 4))[1]
    assert np.argwhere(~valid).tolist() == [[0, 0]]
    valid = open_imagery(paths, ImagerySpec(nodata=(0, 0, 0, 255), nodata_rule="any")).read(Window(0, 0, 4, 4))[1]
    assert np.argwhere(~valid).tolist() == [[0, 0], [1, 1]]


def test_nan_by_band_leaves_the_value_of_whole_numbers_beside_floats(tmp_path):
    optical = noise(2, 4, 4, "uint16")
    optical[:, 0, 0], optical[0, 1, 1] = 0, 0
    radar = np.full((1, 4, 4), np.nan, "float32")
    radar[0, :3] = -9
    paths = [
        str(write_raster(tmp_path / "optical.tif", optical, nodata=0)), str(write_raster(tmp_path / "radar.tif", radar))
    ]  # fmt: skip
    by_band = open_imagery(paths, ImagerySpec(nodata=(np.nan,) * 3)).read(Window(0, 0, 4, 4))[1]
    np.testing.assert_array_equal(by_band, open_imagery(paths, ImagerySpec(nodata=np.nan)).read(Window(0, 0, 4, 4))[1])
    assert np.argwhere(~by_band).tolist() == [[0, 0], [3, 0], [3, 1], [3, 2], [3, 3]]


def test_a_value_that_the_file_of_its_band_cannot_hold_is_refused_with_that_file(tmp_path):
    paths = [str(write_raster(tmp_path / f"{dtype}.tif", noise(1, 4, 4, dtype))) for dtype in ("float32", "uint8")]
    with pytest.raises(RasterError, match=r"nodata is 300, but \S*uint8.tif holds uint8"):
        open_imagery(paths, ImagerySpec(nodata=(-9999, 300)))


def test_only_a_stack_whose_groups_matter_has_another_fingerprint(tmp_path):
    may, july = date(tmp_path, "may", slice(0)), date(tmp_path, "july", slice(3))
    bands = [date(tmp_path, name, slice(0), bands=1) for name in ("b2", "b3")]
    floats = [opened(tmp_path, name, np.ones((2, 6, 8), "float32"), nodata=0) for name in ("vv", "vh")]
    canopy = opened(tmp_path, "canopy", np.ones((6, 8), "uint8"), nodata=0)
    unchanged = [[may], bands, floats, [*floats, canopy]]
    for same in (*map(stack_bands, unchanged), stack_bands([may, july]).select([1, 2])):
        assert "nodata groups" not in same.fingerprint_fields
    assert stack_bands([may, july]).fingerprint_fields["nodata groups"] == ["all of 1, 2, 3, 4", "all of 5, 6, 7, 8"]
    assert stack_bands([may, *floats]).fingerprint_fields["nodata groups"] == [
        "all of 1, 2, 3, 4", "any of 5, 6", "any of 7, 8"
    ]  # fmt: skip


# ---- messages


def test_messages_name_the_file_of_a_band(tmp_path):
    plain = stack_bands([opened(tmp_path, name, noise(2, 4, 4)) for name in ("a", "b")])
    other = stack_bands([opened(tmp_path, "c", noise(2, 4, 4)), opened(tmp_path, "d", noise(2, 4, 4))])
    tagged = replace(other, encoding=(*other.encoding_by_band[:3], replace(other.encoding_by_band[3], scale=1e-4)))
    with pytest.raises(RasterError, match=r"band 2 of \S*d.tif has scale 0.0001, .* but band 2 of \S*b.tif has none"):
        like(tagged, plain)
    with pytest.raises(RasterError, match=r"a.tif with 1 more file has bands 1 to 4"):
        plain.select([5])


def test_nan_pixels_are_reported_of_the_file_that_has_them(tmp_path):
    broken = np.ones((1, 4, 4), "float32")
    broken[0, 2, 1] = np.nan
    stack = stack_bands([opened(tmp_path, "whole", np.ones((2, 4, 4), "float32")), opened(tmp_path, "broken", broken)])
    with pytest.raises(RasterError, match=r"broken.tif holds 1 NaN .* first at row 2, col 1"):
        stack.read(stack.grid.window)
