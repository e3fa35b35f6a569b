"""Mosaics: parts of a raster are joined to the same raster, and rasters that differ are refused."""

import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.merge import merge

from landscribe.errors import GridError, RasterError
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters import open_file
from landscribe.geo.rasters.derived.mosaic import mosaic
from landscribe.geo.rasters.derived.resampling import resample_to
from landscribe.geo.rasters.raster import Raster
from worlds import METRE, counting, noise, write_raster

H, W = 23, 31


def cut(folder: Path, array: np.ndarray, windows: list[Window], **options) -> list[Path]:
    """Parts of an array, each in a file of its own at its place."""
    return [
        write_raster(
            folder / f"{number}.tif", array[:, *part.slices],
            transform=METRE @ Affine.translation(part.col, part.row), **options,
        )
        for number, part in enumerate(windows)
    ]  # fmt: skip


def halves(folder: Path, **other) -> list[Path]:
    """Two files side by side, the second with something that is other."""
    array = noise(3, 10, 10)
    east = {"array": array, "transform": METRE @ Affine.translation(10, 0)} | other
    return [write_raster(folder / "west.tif", array), write_raster(folder / "east.tif", **east)]


windows = st.builds(
    Window, st.integers(0, H - 1), st.integers(0, W - 1), st.integers(1, H), st.integers(1, W)
).map(lambda part: part & Window(0, 0, H, W))  # fmt: skip


@settings(max_examples=40)
@given(parts=st.lists(windows, min_size=1, max_size=9), asked=windows)
def test_a_mosaic_of_parts_of_a_raster_equals_the_raster(tmp_path_factory, parts, asked):
    array = counting(2, H, W)
    raster = mosaic([Raster.open([path]) for path in cut(tmp_path_factory.mktemp("cut"), array, parts)])
    row, col = min(part.row for part in parts), min(part.col for part in parts)
    covered = np.zeros((H, W), bool)
    for part in parts:
        covered[part.slices] = True
    pixels, valid = raster.read(Window(asked.row - row, asked.col - col, *asked.shape))
    np.testing.assert_array_equal(valid, covered[asked.slices])
    np.testing.assert_array_equal(pixels, np.where(valid, array[:, *asked.slices], 0))


# rasterio 1.4 multiplies affines in the way that affine 3 is giving up.
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_overlapping_rasters_are_merged_like_rasterio_merge_first(tmp_path, order):
    parts = [Window(0, 0, 20, 20), Window(5, 8, 18, 20), Window(2, 10, 10, 21)]
    paths = []
    for number, part in enumerate(parts):
        (tmp_path / str(number)).mkdir()
        array = noise(2, H, W, "int16", seed=number)
        array[:, np.random.default_rng(number).random((H, W)) < 0.4] = -9
        paths += cut(tmp_path / str(number), array, [part], nodata=-9)
    chosen = [paths[place] for place in order]
    raster = mosaic([Raster.open([path]) for path in chosen])
    theirs, transform = merge([str(path) for path in chosen], method="first", nodata=-9)
    pixels, valid = raster.read(raster.grid.window)
    assert transform.almost_equals(raster.grid.transform)
    np.testing.assert_array_equal(np.where(valid, pixels, -9), theirs)


def test_all_bands_of_a_pixel_come_from_one_raster(tmp_path):
    # Where nodata is 0 in all bands, a 0 in one band is a dark pixel, not a hole that shows the raster below.
    first, second = np.full((3, 4, 4), 50, "uint8"), np.full((3, 4, 4), 90, "uint8")
    first[0, 1, 1] = 0
    first[:, 2, 2] = 0
    paths = [write_raster(tmp_path / f"{name}.tif", array, nodata=0) for name, array in (("a", first), ("b", second))]
    pixels, valid = mosaic([Raster.open([path]) for path in paths]).read(Window(0, 0, 4, 4))
    assert valid.all()
    assert pixels[:, 1, 1].tolist() == [0, 50, 50]
    assert pixels[:, 2, 2].tolist() == [90, 90, 90]


def test_masks_and_alpha_of_the_files_of_a_mosaic_are_applied(tmp_path):
    known = np.ones((5, 5), bool)
    known[1] = False
    alpha = np.full((4, 5, 5), 255, "uint8")
    alpha[3, 2] = 0
    west = write_raster(tmp_path / "west.tif", noise(3, 5, 5), valid=known)
    east = write_raster(tmp_path / "east.tif", alpha, alpha=True, transform=METRE @ Affine.translation(5, 0))
    raster = mosaic([Raster.open([west]), Raster.open([east])])
    _, valid = raster.read(raster.grid.window)
    assert np.argwhere(~valid).tolist() == [[1, col] for col in range(5)] + [[2, col] for col in range(5, 10)]
    assert raster.mask_files == (str(west), str(east))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_raster_without_nodata_takes_none_from_another_of_its_mosaic(tmp_path, order):
    west = np.array([[[0, 7, 9]]], "uint8")
    paths = [
        write_raster(tmp_path / "west.tif", west, nodata=0),
        write_raster(tmp_path / "east.tif", west, transform=METRE @ Affine.translation(3, 0)),
    ]
    raster = mosaic([Raster.open([paths[number]]) for number in order])
    pixels, valid = raster.read(raster.grid.window)
    assert pixels[0, 0].tolist() == [0, 7, 9, 0, 7, 9]
    assert valid[0].tolist() == [False, True, True, True, True, True]
    # A value that the mosaic is given is for those without one.
    assert raster.nodata is None
    assert raster.with_nodata(7).read(raster.grid.window)[1][0].tolist() == [False, True, True, True, False, True]
    given = mosaic([Raster.open([paths[number]], nodata=9) for number in order])
    assert given.nodata == 9
    assert given.read(given.grid.window)[1][0].tolist() == [True, True, False] * 2


def test_a_mosaic_names_all_its_files_in_their_order(tmp_path):
    paths = cut(tmp_path, counting(1, H, W), [Window(0, 0, 9, 9), Window(9, 0, 9, 9)])
    raster = mosaic([Raster.open([path]) for path in paths[::-1]])
    assert raster.paths == tuple(map(str, paths[::-1]))
    assert raster.name == "1"


def test_a_mosaic_is_selected_and_resampled_like_one_raster(tmp_path):
    array = counting(3, 20, 30)
    raster = mosaic(
        [Raster.open([path]) for path in cut(tmp_path, array, [Window(0, 0, 20, 17), Window(0, 17, 20, 13)])]
    )
    np.testing.assert_array_equal(raster.select([3, 1]).read(raster.grid.window)[0], array[[2, 0]])
    other = raster.with_nodata(float(array[1, 4, 5]))
    assert not other.read(Window(4, 5, 1, 1))[1].any()
    # A mean over the seam is that of the whole raster.
    coarse = Grid(raster.grid.crs, raster.grid.transform @ Affine.scale(2), 10, 15)
    one = Raster.open([write_raster(tmp_path / "whole.tif", array)])
    for two in (resample_to(raster, coarse), pickle.loads(pickle.dumps(resample_to(raster, coarse)))):
        np.testing.assert_array_equal(two.read(coarse.window)[0], resample_to(one, coarse).read(coarse.window)[0])


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> tuple[np.ndarray, list[Path]]:
    """300 files of 5 x 5 pixels."""
    array = counting(1, 50, 150)
    parts = [Window(row, col, 5, 5) for row in range(0, 50, 5) for col in range(0, 150, 5)]
    return array, cut(tmp_path_factory.mktemp("many"), array, parts)


def held(paths: list[Path]) -> set[Path]:
    """Those of the files that this process has open."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not say which files are open")
    return set(paths) & {file.resolve() for file in Path("/proc/self/fd").iterdir()}


def test_few_of_hundreds_of_files_are_open_at_the_same_time(many, monkeypatch):
    array, paths = many
    monkeypatch.setattr(open_file, "_OPEN", weakref.WeakSet())
    monkeypatch.setattr(open_file, "_most_open", lambda: 64)
    raster = mosaic([Raster.open([path]) for path in paths])
    np.testing.assert_array_equal(raster.read(raster.grid.window)[0], array)
    assert 0 < len(held(paths)) <= 64
    np.testing.assert_array_equal(raster.read(raster.grid.window)[0], array)
    raster.source.close()
    assert not held(paths)


def test_only_the_files_of_a_window_are_opened(many):
    array, paths = many
    raster = mosaic([Raster.open([path]) for path in paths])
    np.testing.assert_array_equal(raster.read(Window(7, 7, 6, 2))[0], array[:, 7:13, 7:9])
    assert held(paths) == {paths[31], paths[61]}
    raster.source.close()


def test_threads_and_copies_read_the_same(many):
    array, paths = many
    raster = pickle.loads(pickle.dumps(mosaic([Raster.open([path]) for path in paths])))
    places = [Window(row, col, 12, 20) for row in range(0, 40, 13) for col in range(0, 140, 37)]
    with ThreadPoolExecutor(4) as pool:
        for place, (pixels, _) in zip(places, pool.map(raster.read, places), strict=True):
            rows, cols = (place & raster.grid.window).slices
            np.testing.assert_array_equal(
                pixels[:, : rows.stop - rows.start, : cols.stop - cols.start], array[:, rows, cols]
            )


@pytest.mark.parametrize(
    ("other", "error", "words"),
    [
        ({"crs": None, "transform": None}, GridError, "east.tif has neither a CRS nor a geotransform"),
        ({"crs": "EPSG:32633"}, GridError, r"east.tif is in EPSG:32633, but .*west.tif is in EPSG:32632"),
        (
            {"transform": METRE @ Affine.translation(10, 0) @ Affine.scale(2)},
            GridError,
            r"east.tif has pixels of 2 x 2, but .*west.tif has pixels of 1 x 1 \(in units of EPSG:32632\)",
        ),
        (
            {"transform": METRE @ Affine.translation(10.25, 0.5)},
            GridError,
            r"east.tif is not aligned to the pixel grid of .*west.tif: its offset is [+-]0.50 and \+0.25 pixels",
        ),
        ({"array": noise(2, 10, 10)}, RasterError, r"east.tif has 2 bands \(.*\), but .*west.tif has 3 \(red, green"),
        (
            {"array": noise(3, 10, 10, "uint16")},
            RasterError,
            r"east.tif holds uint16, but .*west.tif holds uint8.*-ot Byte -scale MIN MAX 0 255",
        ),
    ],
    ids=["no georeference", "crs", "pixel size", "alignment", "band count", "dtype"],
)
def test_rasters_that_differ_are_refused_with_both_values(tmp_path, other, error, words):
    rasters = [Raster.open([path]) for path in halves(tmp_path, **other)]
    with pytest.raises(error, match=words):
        mosaic(rasters)


def test_single_band_files_may_have_different_band_names(tmp_path):
    paths = cut(tmp_path, counting(1, 10, 20), [Window(0, 0, 10, 10), Window(0, 10, 10, 10)])
    assert [Raster.open([path]).bands for path in paths] == [("0",), ("1",)]
    assert mosaic([Raster.open([path]) for path in paths]).grid.shape == (10, 20)


def test_a_damaged_file_of_a_mosaic_is_named(tmp_path):
    paths = cut(tmp_path, noise(1, 400, 800), [Window(0, 0, 400, 400), Window(0, 400, 400, 400)])
    raster = mosaic([Raster.open([path]) for path in paths])
    paths[1].write_bytes(paths[1].read_bytes()[:90_000])
    assert raster.read(Window(0, 0, 400, 400))[1].all()
    with pytest.raises(RasterError, match=r"1\.tif cannot be read at rows 300 to 400, cols 0 to 10"):
        raster.read(Window(300, 390, 100, 20))


def test_a_mosaic_without_rasters_is_refused():
    with pytest.raises(RasterError, match="no image was given for the mosaic"):
        mosaic([])


@pytest.mark.parametrize("side", [8, 5, 3])
def test_an_overview_of_a_mosaic_has_the_pixels_of_its_rasters(tmp_path, side):
    # Four rasters of 8 x 8 pixels, each of one value, the last of them missing.
    array = np.repeat(np.repeat(np.array([[[1, 2], [3, 4]]], "uint8"), 8, 1), 8, 2)
    parts = [Window(0, 0, 8, 8), Window(0, 8, 8, 8), Window(8, 0, 8, 8)]
    raster = mosaic([Raster.open([path]) for path in cut(tmp_path, array, parts)])
    pixels, valid = raster.overview(side)
    centres = ((np.arange(side) + 0.5) * 16 / side).astype(int)
    expected = np.where(array[0] == 4, 0, array[0])[np.ix_(centres, centres)]
    np.testing.assert_array_equal(pixels[0], expected)
    np.testing.assert_array_equal(valid, expected > 0)


def test_bands_in_another_order_are_reordered_by_name(tmp_path):
    array = noise(3, 10, 10)
    raster = mosaic([Raster.open([path]) for path in halves(
        tmp_path, array=array[::-1], descriptions=("blue", "green", "red")
    )])  # fmt: skip
    np.testing.assert_array_equal(raster.read(raster.grid.window)[0], np.concatenate([array, array], axis=2))


def test_each_raster_of_a_mosaic_keeps_its_own_nodata_value(tmp_path):
    array = np.ones((1, 10, 10), np.int16)
    array[0, 0, :2] = 7, 9
    west, east = (
        write_raster(tmp_path / f"{nodata}.tif", array, nodata=nodata, transform=METRE @ Affine.translation(col, 0))
        for nodata, col in ((7, 0), (9, 10))
    )
    raster = mosaic([Raster.open([west]), Raster.open([east])])
    assert np.argwhere(~raster.read(raster.grid.window)[1]).tolist() == [[0, 0], [0, 11]]


@pytest.mark.parametrize(
    "tags",
    [
        '<PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand>',
        "<GeoTransform>500006, 1, 0, 5000000, 0, -1</GeoTransform>",
    ],
)
def test_tags_beside_a_file_of_a_mosaic_are_in_its_fingerprint(tmp_path, tags):
    middle = write_raster(tmp_path / "middle.tif", noise(3, 10, 10), transform=METRE @ Affine.translation(5, 0))
    files = [*halves(tmp_path), middle]
    before = mosaic([Raster.open(file) for file in files]).fingerprint_fields
    Path(f"{middle}.aux.xml").write_text(f"<PAMDataset>{tags}</PAMDataset>")
    after = mosaic([Raster.open(file) for file in files]).fingerprint_fields
    assert [name for name in before if before[name] != after[name]] == ["rasters"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_rasters_on_both_sides_of_180_degrees_touch(tmp_path, order):
    array = noise(2, 10, 20)
    parts = [
        write_raster(tmp_path / f"{left}.tif", part, crs="EPSG:4326", transform=Affine(0.1, 0, left, 0, -0.1, 0))
        for left, part in ((179, array[..., :10]), (-180, array[..., 10:]))
    ]
    joined = mosaic([Raster.open([parts[index]]) for index in order])
    assert joined.grid.shape == (10, 20)
    assert joined.grid.bounds[0] == pytest.approx((179, -181)[order[0]])
    pixels, valid = joined.read(joined.grid.window)
    np.testing.assert_array_equal(pixels, array)
    assert valid.all()


def test_rasters_around_the_earth_stay_between_180_degrees_west_and_east(tmp_path):
    parts = [
        write_raster(
            tmp_path / f"{left}.tif", noise(1, 6, 10), crs="EPSG:4326", transform=Affine(6, 0, left, 0, -6, 18)
        )
        for left in (120, -180, -120, -60, 60)
    ]
    assert mosaic([Raster.open([part]) for part in parts]).grid.bounds == (-180, -18, 180, 18)
