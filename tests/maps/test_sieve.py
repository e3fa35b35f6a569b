"""The minimum mapping unit: which regions are removed, their new classes, and windows against the whole."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from test_mapping import model_of, read, write

from landscribe.errors import RasterError
from landscribe.geo.grid import Window
from landscribe.geo.tiling import units
from landscribe.maps.sieve import Sieve
from landscribe.prediction.spec import PredictSpec
from landscribe.texts import area_text
from networks import Identity, predict

EIGHT = np.ones((3, 3), bool)


def patchy(seed: int, side: int, smooth: int) -> np.ndarray:
    """Classes 3, 5 and 9 in patches of many sizes, with a hole of nodata."""
    noise = ndimage.uniform_filter(np.random.default_rng(seed).random((side, side)), smooth)
    values = np.array([3, 5, 9], np.uint8)[np.digitize(noise, np.quantile(noise, [0.4, 0.7]))]
    values[: side // 4, : side // 3] = 255
    return values


def sizes(values: np.ndarray) -> list[int]:
    """Pixels of each patch."""
    found = []
    for value in np.unique(values[values != 255]):
        patches, _ = ndimage.label(values == value, EIGHT)
        found += np.bincount(patches.ravel())[1:].tolist()
    return found


def test_a_minimum_area_above_that_of_the_raster_is_refused_with_both(tmp_path):
    raster = write(tmp_path / "image.tif", np.zeros((40, 50), np.uint8))
    with pytest.raises(RasterError, match=r"minimum area is 1e\+09 m², but all of \S*image\.tif is 200\d m²"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(minimum_area=1e9))


def test_a_small_patch_gets_the_class_around_it_and_a_larger_one_stays():
    values = np.ones((12, 20), np.uint8)
    values[2:4, 2:4] = 2  # four pixels
    values[6:9, 6:9] = 7  # nine
    result = Sieve(9).apply(values)
    expected = np.ones_like(values)
    expected[6:9, 6:9] = 7
    assert (result == expected).all()


def test_pixels_of_a_patch_get_the_nearer_of_two_classes():
    values = np.repeat(np.array([[1] * 8 + [5] * 2 + [2] * 8], np.uint8), 3, axis=0)
    result = Sieve(10).apply(values)
    assert result[:, 8].tolist() == [1, 1, 1]
    assert result[:, 9].tolist() == [2, 2, 2]


def test_nodata_is_not_sieved():
    values = np.full((5, 5), 255, np.uint8)
    values[2, 2] = 1  # alone in nothing: there is no class to go to
    assert (Sieve(100).apply(values) == values).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), smallest=st.integers(2, 60), smooth=st.integers(2, 6))
def test_no_small_patch_is_left_and_nodata_stays(seed, smallest, smooth):
    values = patchy(seed, 70, smooth)
    result = Sieve(smallest).apply(values)
    assert ((result == 255) == (values == 255)).all()
    # A patch has somewhere to go where a large one is: each did, or was shut in by nodata.
    if max(sizes(values)) >= smallest:
        small = [size for size in sizes(result) if size < smallest]
        assert sum(small) <= sum(size for size in sizes(values) if size < smallest) * 0.02
    large = np.zeros(values.shape, bool)
    for value in (3, 5, 9):
        patches, _ = ndimage.label(values == value, EIGHT)
        counts = np.bincount(patches.ravel())
        large |= (patches > 0) & (counts[patches] >= smallest)
    assert (result == values)[large].all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), smallest=st.integers(2, 40), side=st.integers(20, 60))
def test_windows_with_a_halo_equal_the_sieved_whole(seed, smallest, side):
    values = patchy(seed, 150, 3)
    generalisation = Sieve(smallest)
    whole = generalisation.apply(values)
    pieces = np.zeros_like(values)
    for unit in units(150, 150, size=side, margin=0, side=side):
        seen = unit.keep.grown(generalisation.halo) & Window(0, 0, 150, 150)
        pieces[unit.keep.slices] = generalisation.apply(values[seen.slices])[unit.keep.relative_to(seen).slices]
    assert (pieces == whole).all()


@pytest.mark.parametrize(("length", "stays"), [(512, False), (513, True)])
def test_a_patch_longer_than_the_halo_stays(length, stays):
    values = np.ones((40, 600), np.uint8)
    values[20, 10 : 10 + length] = 2
    result = Sieve(2000).apply(values)
    assert (result == 2).any() == stays


def test_a_minimum_area_that_long_patches_may_fall_short_of_gives_a_warning(tmp_path, caplog):
    raster = write(
        tmp_path / "image.tif", np.zeros((100, 200), np.uint8), transform=Affine(2, 0, 5e5, 0, -2, 4e6), crs="EPSG:6933"
    )
    spec = {"tile": 32, "margin": 0}
    predict(model_of(Identity(), 4), raster, tmp_path / "a.tif", spec=PredictSpec(**spec, minimum_area=2040))
    assert "rows or columns" not in caplog.text
    predict(model_of(Identity(), 4), raster, tmp_path / "b.tif", spec=PredictSpec(**spec, minimum_area=2400))
    assert "a minimum area of 2,400 m² is 600 pixels. Smaller patches that span more than 512 rows or" in caplog.text
    assert "those below 2,048 m² are all merged" in caplog.text


@pytest.mark.parametrize(("north", "warns"), [(80, True), (20, False)])
def test_a_minimum_area_in_pixels_of_uneven_areas_gives_a_warning(tmp_path, caplog, north, warns):
    pixels = np.zeros((north * 10 // 8, 40), np.uint8)  # from there to the equator
    transform = Affine(0.8, 0, 0, 0, -0.8, north)
    raster = write(tmp_path / "image.tif", pixels, transform=transform, crs="EPSG:4326")
    predict(model_of(Identity(), 4), raster, tmp_path / "m.tif", spec=PredictSpec(tile=32, margin=0, minimum_area=6e10))
    assert ("of 10 pixels, is 14," in caplog.text) == warns
    assert ("has pixels of different areas" in caplog.text) == warns


def test_a_map_has_no_patch_below_the_minimum_area_whatever_its_units(tmp_path, caplog):
    values = patchy(1, 200, 4)
    values[values != 255] //= 3  # classes 1 and 3
    raster = write(tmp_path / "image.tif", values, nodata=255, transform=Affine(2, 0, 500_000, 0, -2, 4_000_000))
    for unit in (64, 300):
        spec = PredictSpec(tile=64, margin=0, unit=unit, minimum_area=100)
        with caplog.at_level("INFO"):
            predict(model_of(Identity(), 4), raster, tmp_path / f"{unit}.tif", spec=spec)
    # 100 m² are 25 pixels of 4 m².
    assert (read(tmp_path / "64.tif") == Sieve(25).apply(values)).all()
    assert (read(tmp_path / "300.tif") == Sieve(25).apply(values)).all()
    ones = (Sieve(25).apply(values) == 1).sum() * raster.grid.pixel_size**2
    assert f"class 1 {area_text(ones)}" in caplog.messages[-1]


def test_a_minimum_area_requires_a_pixel_size(tmp_path):
    raster = write(tmp_path / "image.tif", np.zeros((64, 64), np.uint8), crs=None)
    with pytest.raises(RasterError, match=r"no CRS, so a minimum area of 100 m²"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(minimum_area=100))
    assert [path.name for path in tmp_path.iterdir()] == ["image.tif"]
