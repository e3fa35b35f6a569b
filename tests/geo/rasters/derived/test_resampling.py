"""Other pixel sizes and CRSs: blocks and ramps with known results, and GDAL's own warper."""

import pickle
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform

from landscribe.errors import GridError
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.derived.resampling import (
    at_pixel_size,
    grid_of_pixel_size,
    is_coarser,
    parse_crs,
    resample_by_majority,
    resample_to,
)
from landscribe.geo.rasters.raster import Raster
from worlds import CORNER, METRE, UTM, grid, noise, write_raster


def scaled(raster: Raster, factor: float) -> Raster:
    """In pixels that are so many times as large."""
    one = raster.grid
    shape = round(one.height / factor), round(one.width / factor)
    return resample_to(raster, Grid(one.crs, one.transform @ Affine.scale(factor), *shape))


def whole(raster: Raster) -> tuple[np.ndarray, np.ndarray]:
    return raster.read(raster.grid.window)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("factor", [2, 3, 7])
def test_blocks_of_one_value_become_pixels_of_that_value(tmp_path, dtype, factor):
    blocks = noise(2, 40, 31, dtype)
    path = write_raster(tmp_path / "a.tif", blocks.repeat(factor, 1).repeat(factor, 2))
    pixels, valid = whole(scaled(Raster.open([path]), factor))
    assert valid.all()
    assert pixels.dtype == dtype
    np.testing.assert_array_equal(pixels, blocks)


def test_nodata_is_left_out_of_means_and_half_a_pixel_of_it_is_valid(tmp_path):
    # Of 2 x 2 pixels each: none, one, two, three and four are nodata.
    array = np.array([[8, 8, 0, 8, 0, 8, 0, 0, 0, 0], [8, 8, 8, 8, 8, 0, 8, 0, 0, 0]], np.uint16)
    path = write_raster(tmp_path / "a.tif", array, nodata=0)
    pixels, valid = whole(scaled(Raster.open([path]), 2))
    assert valid.tolist() == [[True, True, True, False, False]]
    assert pixels[0].tolist() == [[8, 8, 8, 0, 0]]


@settings(max_examples=30)
@given(factor=st.floats(0.13, 1), slope=st.tuples(st.floats(-3, 3), st.floats(-3, 3)))
def test_a_ramp_is_the_same_ramp_in_finer_pixels(tmp_path_factory, factor, slope):
    rows, cols = np.mgrid[:23, :31]
    ramp = (1000 + slope[0] * rows + slope[1] * cols).astype("float32")
    path = write_raster(tmp_path_factory.mktemp("ramp") / "a.tif", ramp)
    pixels, _ = whole(scaled(Raster.open([path]), factor))
    rows, cols = ((number + 0.5) * factor - 0.5 for number in np.mgrid[: pixels.shape[1], : pixels.shape[2]])
    inner = (rows >= 0) & (rows <= 22) & (cols >= 0) & (cols <= 30)
    np.testing.assert_allclose(pixels[0][inner], (1000 + slope[0] * rows + slope[1] * cols)[inner], atol=2e-3)


@pytest.mark.parametrize("factor", [2, 5])
def test_a_ramp_is_the_same_ramp_in_coarser_pixels(tmp_path, factor):
    rows, cols = np.mgrid[:60, :40]
    path = write_raster(tmp_path / "a.tif", (1000 + 2 * rows - 3 * cols).astype("float32"))
    pixels, _ = whole(scaled(Raster.open([path]), factor))
    rows, cols = ((number + 0.5) * factor - 0.5 for number in np.mgrid[: pixels.shape[1], : pixels.shape[2]])
    np.testing.assert_allclose(pixels[0], 1000 + 2 * rows - 3 * cols, atol=1e-3)


@settings(max_examples=40)
@given(factor=st.floats(0.2, 9), edge=st.integers(1, 50))
def test_the_edge_of_valid_pixels_moves_by_half_a_pixel_at_most(tmp_path_factory, factor, edge):
    array = noise(1, 60, 50, "uint8")
    array[:, edge:] = 0
    path = write_raster(tmp_path_factory.mktemp("edge") / "a.tif", array, nodata=0)
    _, valid = whole(scaled(Raster.open([path]), factor))
    there = valid[:, : max(1, round(50 / factor) - 1)].sum(axis=0)
    assert (np.abs(there * factor - edge) <= 0.5 * max(1, factor) + 1e-6).all()


@pytest.mark.parametrize("factor", [0.3, 0.5, 1, 1.7, 4])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_nodata_does_not_bleed_into_valid_pixels(tmp_path, factor, dtype):
    array = np.full((2, 60, 60), 100, dtype)
    odd = np.random.default_rng(0).random((60, 60)) < 0.3
    array[:, odd] = 60_000
    path = write_raster(tmp_path / "a.tif", array, nodata=60_000)
    pixels, valid = whole(scaled(Raster.open([path]), factor))
    assert 0 < valid.mean() < 1
    assert np.unique(pixels[:, valid]).tolist() == [100]


@pytest.mark.parametrize("way", ["mask", "alpha", "nan"])
def test_masks_alpha_and_nan_are_kept(tmp_path, way):
    known = np.ones((40, 60), bool)
    known[:, 20:40] = False
    array = np.full((4, 40, 60), 7, "float32" if way == "nan" else "uint8")
    if way == "nan":
        array[:, ~known] = np.nan
        path = write_raster(tmp_path / "a.tif", array, nodata=float("nan"))
    elif way == "alpha":
        array[3] = np.where(known, 255, 0)
        path = write_raster(tmp_path / "a.tif", array, alpha=True)
    else:
        path = write_raster(tmp_path / "a.tif", array, valid=known)
    for factor in (0.5, 2):
        pixels, valid = whole(scaled(Raster.open([path]), factor))
        side = round(20 / factor)
        np.testing.assert_array_equal(valid, np.repeat([True, False, True], side)[None].repeat(round(40 / factor), 0))
        assert (pixels[:, valid] == 7).all()


def test_a_mean_equal_to_the_nodata_value_stays_valid(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.array([[6, 8], [6, 8]], "int16"), nodata=7)
    pixels, valid = whole(scaled(Raster.open([path]), 2))
    assert (pixels[0, 0, 0], valid[0, 0]) == (7, True)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """Noise with holes, larger than some blocks."""
    array = noise(3, 700, 900, "uint16")
    array[:, np.random.default_rng(1).random((700, 900)) < 0.1] = 0
    return write_raster(tmp_path_factory.mktemp("scene") / "a.tif", array, nodata=0, tiled=True)


@pytest.mark.parametrize("to", [0.7, 2, 10, "EPSG:32631", "EPSG:4326"])
def test_a_pixel_is_the_same_in_every_window(scene, to):
    raster = Raster.open([scene])
    other = (
        resample_to(raster, grid_of_pixel_size(raster.grid, 1.3, CRS.from_string(to)))
        if isinstance(to, str)
        else scaled(raster, to)
    )
    pixels, valid = whole(other)
    assert valid.mean() > 0.5
    height, width = other.grid.shape
    rng = np.random.default_rng(2)
    for _ in range(12):
        row, col = int(rng.integers(-9, height)), int(rng.integers(-9, width))
        window = Window(row, col, *(int(side) for side in rng.integers(1, 400, 2)))
        inside = window & other.grid.window
        found, known = other.read(window)
        here = inside.relative_to(window).slices
        np.testing.assert_array_equal(found[:, *here], pixels[:, *inside.slices])
        np.testing.assert_array_equal(known[here], valid[inside.slices])


# rasterio 1.4 multiplies affines in the way that affine 3 is giving up.
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize(
    ("crs", "side", "method"),
    [
        (None, 0.7, Resampling.bilinear),
        (None, 3.3, Resampling.average),
        ("EPSG:32631", 0.9, Resampling.bilinear),
        ("EPSG:3857", 5, Resampling.average),
    ],
)
def test_pixels_are_those_of_gdals_warper(tmp_path, crs, side, method):
    rows, cols = np.mgrid[:300, :400]
    smooth = (1000 + 400 * np.sin(rows / 20) * np.cos(cols / 30)).astype("float32")
    path = write_raster(tmp_path / "a.tif", smooth, nodata=-1)
    raster = Raster.open([path])
    target = grid_of_pixel_size(raster.grid, side, None if crs is None else CRS.from_string(crs))
    pixels, valid = whole(resample_to(raster, target))
    place = {"crs": target.crs, "transform": target.transform, "width": target.width, "height": target.height}
    with rasterio.open(path) as source, WarpedVRT(source, resampling=method, **place) as warped:
        theirs = warped.read(1)
    # A pixel across the edge is of what is in the raster; GDAL asks for any of it, we for half.
    inner = np.s_[1:-1, 1:-1]
    both = (valid & (theirs != -1))[inner]
    assert both.sum() > 0.99 * (theirs != -1)[inner].sum()
    np.testing.assert_allclose(pixels[0][inner][both], theirs[inner][both], atol=0.01)


def test_bands_are_selected_before_or_after_resampling(scene):
    raster = Raster.open([scene])
    before, after = scaled(raster.select([3, 1]), 3), scaled(raster, 3).select([3, 1])
    np.testing.assert_array_equal(whole(before)[0], whole(after)[0])
    np.testing.assert_array_equal(whole(before.select([2]))[0], whole(scaled(raster, 3))[0][:1])
    assert before.bands == after.bands == ("band3", "band1")


def test_a_pickled_resampled_raster_reads_the_same(scene):
    raster = scaled(Raster.open([scene]), 3)
    expected = raster.read(Window(50, 60, 70, 80))
    found = pickle.loads(pickle.dumps(raster)).read(Window(50, 60, 70, 80))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


# ---- grids


def test_resampled_pixels_start_at_the_corner_of_the_raster():
    # On the ground, a metre of UTM's is 1 / 0.9996 m along its middle: 10 m of a model trained there are 10.004 m.
    one = grid(100, 50, transform=Affine(20, 0, *CORNER[:1], 0, -20, CORNER[1]))
    model = grid(100, 50, transform=Affine(10, 0, *CORNER[:1], 0, -10, CORNER[1])).pixel_size
    there = grid_of_pixel_size(one, model)
    assert there.transform.almost_equals(Affine(10, 0, CORNER[0], 0, -10, CORNER[1]))
    assert there.shape == (200, 100)


def test_degrees_become_squares_on_the_ground():
    one = Grid(CRS.from_epsg(4326), Affine(1e-4, 0, 9, 0, -1e-4, 60), 2000, 3000)
    height, width = grid_of_pixel_size(one, 10.0).pixel_sides
    assert height == pytest.approx(10, rel=0.01)
    assert width == pytest.approx(10, rel=0.01)


def test_neighbouring_rasters_in_another_crs_share_one_pixel_grid():
    grids = [
        grid_of_pixel_size(grid(500, 500, transform=METRE @ Affine.translation(shift, 3.3)), 1.0, CRS.from_epsg(3035))
        for shift in (0, 333.3)
    ]
    for one in grids:
        assert one.crs == CRS.from_epsg(3035)
        assert one.pixel_size == pytest.approx(1.0, rel=0.01)
        x, _ = one.xy(0, 0)
        assert x % one.transform.a == pytest.approx(0, abs=1e-6) or x % one.transform.a == pytest.approx(1, abs=1e-6)
        assert one.transform.a == -one.transform.e == grids[0].transform.a


def test_a_raster_in_another_crs_covers_its_whole_area():
    one = grid(500, 700)
    there = grid_of_pixel_size(one, 1.0, CRS.from_epsg(3035))
    from rasterio.warp import transform_bounds

    left, bottom, right, top = transform_bounds(UTM, there.crs, *one.bounds)
    assert there.bounds[0] <= left
    assert there.bounds[1] <= bottom
    assert there.bounds[2] >= right
    assert there.bounds[3] >= top


@pytest.mark.parametrize("crs", ["EPSG:99999", "nowhere", ""])
def test_an_invalid_crs_is_refused(crs):
    with pytest.raises(GridError, match=f"'{crs}' is not a CRS"):
        parse_crs(crs)


def test_a_raster_that_begins_at_180_degrees_west_keeps_its_area(tmp_path):
    degrees = {"transform": Affine(1e-4, 0, -180, 0, -1e-4, -20), "crs": "EPSG:4326"}
    raster = Raster.open([write_raster(tmp_path / "a.tif", np.ones((300, 600), np.uint8), **degrees)])
    there = grid_of_pixel_size(raster.grid, 11.0, parse_crs("EPSG:32701"))
    _, valid = whole(resample_to(raster, there))
    ground = raster.grid.pixel_size**2 * 300 * 600
    assert valid.sum() * there.pixel_size**2 == pytest.approx(ground, rel=0.01)


def smooth(height: int, width: int) -> np.ndarray:
    rows, cols = np.mgrid[:height, :width]
    return (1000 + 400 * np.sin(rows / 20) * np.cos(cols / 30)).astype("float32")


def require_as_gdal(raster: Raster, target: Grid) -> None:
    """Nearly the same pixels are valid as after GDAL's own warp of the whole raster, with nearly the same values."""
    there = resample_to(raster, target)
    pixels, valid = whole(there)
    theirs = np.full(target.shape, np.nan, "float32")
    reproject(
        whole(raster)[0][0], theirs, src_transform=raster.grid.transform, src_crs=raster.grid.crs, src_nodata=np.nan,
        dst_transform=target.transform, dst_crs=target.crs, dst_nodata=np.nan, resampling=there.source.method,
    )  # fmt: skip
    both = valid & ~np.isnan(theirs)
    assert both.sum() > 0.99 * max(valid.sum(), (~np.isnan(theirs)).sum()) > 0
    assert np.quantile(np.abs(pixels[0] - theirs)[both], 0.99) < 5
    assert there.overview(40)[1].mean() == pytest.approx(valid.mean(), abs=0.03)


@pytest.mark.parametrize("crs", ["EPSG:32760", "EPSG:32701", "EPSG:3832"])
@pytest.mark.parametrize("west", [179.8, 179.9, -180.2, -180.05, 183, -183.3, -177])
def test_longitudes_beyond_180_degrees_are_reprojected_as_by_gdal(tmp_path, west, crs):
    degrees = {"transform": Affine(1e-3, 0, west, 0, -1e-3, -17), "crs": "EPSG:4326"}
    raster = Raster.open([write_raster(tmp_path / "a.tif", smooth(100, 400), **degrees)])
    require_as_gdal(raster, grid_of_pixel_size(raster.grid, 96.0, parse_crs(crs)))


@pytest.mark.parametrize("west", [179.8, -180.2])
@pytest.mark.parametrize(("crs", "x"), [("EPSG:32760", 805_000), ("EPSG:32701", 170_000)])
def test_a_raster_in_metres_is_read_in_degrees_beyond_180_as_by_gdal(tmp_path, west, crs, x):
    metres = {"transform": Affine(100, 0, x, 0, -100, 7_780_000), "crs": crs}
    raster = Raster.open([write_raster(tmp_path / "a.tif", smooth(300, 300), **metres)])
    require_as_gdal(raster, Grid(CRS.from_epsg(4326), Affine(1e-3, 0, west, 0, -1e-3, -20.1), 150, 400))


@pytest.mark.parametrize("west", [-180, 0, -170])
@pytest.mark.parametrize(
    ("crs", "corner", "side"),
    [
        ("EPSG:32631", (100_000, 6_000_000), 2000),
        ("EPSG:32760", (600_000, 6_000_000), 2000),
        ("EPSG:3413", (-4e6, 4e6), 20_000),
    ],
    ids=["across 0 degrees", "across 180 degrees", "around the pole"],
)
def test_a_raster_of_the_whole_earth_goes_on_at_its_other_side(tmp_path, west, crs, corner, side):
    degrees = {"transform": Affine(0.2, 0, west, 0, -0.2, 90), "crs": "EPSG:4326"}
    raster = Raster.open([write_raster(tmp_path / "a.tif", np.ones((900, 1800), "float32"), **degrees)])
    there = resample_to(raster, Grid(CRS.from_string(crs), Affine(side, 0, corner[0], 0, -side, corner[1]), 400, 400))
    pixels, valid = whole(there)
    assert valid.all()
    assert (pixels == 1).all()


def test_pixels_across_180_degrees_have_the_size_of_others(tmp_path):
    degrees = {"transform": Affine(1e-3, 0, 179.8, 0, -1e-3, -17), "crs": "EPSG:4326"}
    raster = Raster.open([write_raster(tmp_path / "a.tif", noise(1, 100, 400), **degrees)])
    # The 180th meridian runs through the middle of the central pixel.
    middle = transform(CRS.from_epsg(4326), CRS.from_epsg(3832), [180], [-17.05])[0][0]
    there = Grid(CRS.from_epsg(3832), Affine(100, 0, middle - 20_050, 0, -100, -1_908_400), 100, 400)
    assert not is_coarser(there, raster.grid)
    assert resample_to(raster, there).source.scale == pytest.approx(100 / 111, rel=0.05)


def test_a_raster_is_read_in_the_turn_of_another_in_the_same_crs(tmp_path):
    # 0.07 degrees do not divide a turn of 360 degrees.
    own = Affine(0.07, 0, 183, 0, -0.07, -17)
    raster = Raster.open([write_raster(tmp_path / "a.tif", noise(1, 30, 40), transform=own, crs="EPSG:4326")])
    west = Grid(raster.grid.crs, Affine.translation(-360, 0) @ own, 30, 40)
    pixels, valid = whole(resample_to(raster, west))
    assert valid.all()
    np.testing.assert_array_equal(pixels, noise(1, 30, 40))


def test_a_raster_across_the_antimeridian_is_refused_in_degrees(tmp_path):
    across = {"transform": Affine(100, 0, 805_000, 0, -100, 7_780_000), "crs": "EPSG:32760"}
    raster = Raster.open([write_raster(tmp_path / "a.tif", np.ones((200, 200), np.uint8), **across)])
    with pytest.raises(GridError, match=r"EPSG:32760 is not in one piece in EPSG:4326: .* 180th meridian"):
        grid_of_pixel_size(raster.grid, 100.0, parse_crs("EPSG:4326"))


def test_a_raster_nearly_empty_in_another_crs_is_refused(tmp_path):
    globe = {"transform": Affine(1, 0, -180, 0, -1, 90), "crs": "EPSG:4326"}
    raster = Raster.open([write_raster(tmp_path / "a.tif", np.ones((179, 360), np.uint8), **globe)])
    with pytest.raises(GridError, match=r"in EPSG:3413 this raster would have \d+ x \d+ pixels of"):
        grid_of_pixel_size(raster.grid, raster.grid.pixel_size, parse_crs("EPSG:3413"))


@pytest.mark.parametrize(("crs", "side"), [(None, 0.5), (None, 4.0), ("EPSG:32631", 1.0)])
def test_an_overview_of_a_resampled_raster_samples_its_pixels(tmp_path, crs, side):
    # Fields of 50 x 50 pixels; nodata in one of them.
    fields = np.arange(1, 25, dtype="uint8").reshape(4, 6).repeat(50, 0).repeat(50, 1)
    raster = Raster.open([write_raster(tmp_path / "a.tif", fields, nodata=8)])
    there = resample_to(raster, grid_of_pixel_size(raster.grid, side, None if crs is None else CRS.from_string(crs)))
    pixels, valid = there.overview(60)
    all_pixels, all_valid = whole(there)
    rows, cols = (
        ((np.arange(n) + 0.5) * full / n).astype(int) for n, full in zip(valid.shape, all_valid.shape, strict=True)
    )
    # Edges of fields may be a pixel of the overview apart.
    assert (valid == all_valid[np.ix_(rows, cols)]).mean() > 0.95
    assert (pixels == all_pixels[:, rows[:, None], cols]).mean() > 0.85


@pytest.mark.parametrize("crs", ["EPSG:4978", "EPSG:5773", 'LOCAL_CS["site",UNIT["metre",1]]'])
def test_a_crs_in_which_no_map_can_be_drawn_is_refused(crs):
    with pytest.raises(GridError, match=r"neither a projected nor a geographic CRS|is not a CRS"):
        parse_crs(crs)


# ---- majority


def by_hand(values: np.ndarray, valid: np.ndarray, factor: float, shape: tuple[int, int]):
    """The majority from the areas in which pixels overlap."""
    starts = [np.arange(n)[:, None] * factor for n in shape]
    rows, cols = (
        np.clip(np.minimum(start + factor, np.arange(n) + 1) - np.maximum(start, np.arange(n)), 0, None) / factor
        for start, n in zip(starts, values.shape, strict=True)
    )
    present = np.unique(values)
    areas = np.stack([rows @ ((values == value) & valid) @ cols.T for value in present])
    # Of equal areas the first, which is the lowest.
    return present[areas.round(5).argmax(axis=0)], areas.sum(axis=0)


@pytest.mark.parametrize("factor", [2, 3, 5, 7, 2.5, 3.3])
def test_the_majority_has_the_largest_area_and_half_a_pixel_is_valid(tmp_path, factor):
    values = np.random.default_rng(4).integers(1, 5, (120, 90)).astype(np.uint8)
    values[np.random.default_rng(5).random(values.shape) < 0.4] = 0
    raster = Raster.open([write_raster(tmp_path / "a.tif", values, nodata=0)])
    shape = int(120 / factor), int(90 / factor)
    target = Grid(raster.grid.crs, raster.grid.transform @ Affine.scale(factor), *shape)
    pixels, valid = whole(resample_by_majority(raster, target))
    expected, share = by_hand(values, values > 0, factor, shape)
    clear = abs(share - 0.5) > 1e-4
    assert clear.mean() > 0.6
    np.testing.assert_array_equal(valid[clear], share[clear] > 0.5)
    assert valid[~clear].all()
    np.testing.assert_array_equal(pixels[0][valid], expected[valid])
    assert (pixels[0][~valid] == 0).all()


@pytest.mark.parametrize(
    ("block", "majority"),
    [
        ([1, 1, 2, 3], 1),
        ([3, 2, 3, 2], 2),
        ([4, 3, 2, 1], 1),
        ([0, 0, 2, 2], 2),
        ([0, 0, 3, 1], 1),
        ([0, 0, 0, 2], None),
    ],
)
def test_equal_votes_go_to_the_lowest_value_and_nodata_does_not_vote(tmp_path, block, majority):
    raster = Raster.open([write_raster(tmp_path / "a.tif", np.array(block, np.uint8).reshape(2, 2), nodata=0)])
    one = raster.grid
    coarse = resample_by_majority(raster, Grid(one.crs, one.transform @ Affine.scale(2), 1, 1))
    pixels, valid = whole(coarse)
    assert (pixels[0, 0, 0] if valid[0, 0] else None) == majority


def test_the_majority_is_the_same_in_every_window(tmp_path):
    values = noise(1, 900, 800) % 5
    raster = Raster.open([write_raster(tmp_path / "a.tif", values)])
    coarse = resample_by_majority(raster, grid_of_pixel_size(raster.grid, 2.7))
    pixels, valid = whole(coarse)
    for window in (Window(100, 200, 80, 60), Window(250, 0, 20, 300)):
        part, part_valid = coarse.read(window)
        rows, cols = (window & coarse.grid.window).slices
        inside = np.s_[: rows.stop - rows.start, : cols.stop - cols.start]
        np.testing.assert_array_equal(part[:, *inside], pixels[:, rows, cols])
        np.testing.assert_array_equal(part_valid[inside], valid[rows, cols])


# ---- pixel size


def test_a_raster_of_nearly_the_requested_pixel_size_is_as_it_is(tmp_path):
    raster = Raster.open([write_raster(tmp_path / "a.tif", noise(1, 40, 60))])
    assert at_pixel_size(raster, 1.0) is raster
    assert at_pixel_size(raster, 0.995) is raster
    assert at_pixel_size(raster, 1.1).grid.shape == (36, 55)


@pytest.mark.parametrize("side", [0.01, 61, 1e30, 1e-320])
def test_a_pixel_size_that_does_not_fit_the_raster_is_refused(tmp_path, side):
    raster = Raster.open([write_raster(tmp_path / "a.tif", noise(1, 40, 60))])
    with pytest.raises(GridError, match=r"a\.tif \(60 x 40 pixels of 1 m\) cannot be resampled .* another pixel size"):
        at_pixel_size(raster, side)


@pytest.mark.parametrize(("crs", "wide"), [("EPSG:4326", True), ("EPSG:4326", False), ("EPSG:32633", True)])
def test_a_pixel_that_is_coarser_along_one_side_only_is_a_mean(tmp_path, crs, wide):
    # Stripes of one pixel: at 70 degrees north, one of 1e-4 degrees is 3.8 m wide and 11.2 m high.
    stripes = np.indices((300, 300))[1 if wide else 0].astype("float32") % 2
    step = (1e-4, 1e-4) if wide else (4e-4, 4e-5)
    degrees = {"transform": Affine(step[0], 0, 15, 0, -step[1], 70), "crs": "EPSG:4326"}
    raster = Raster.open([write_raster(tmp_path / "a.tif", stripes, **degrees)])
    there = grid_of_pixel_size(raster.grid, 6.4, None if crs == "EPSG:4326" else parse_crs(crs))
    pixels, valid = whole(resample_to(raster, there))
    assert is_coarser(there, raster.grid)
    # Interpolation at a point takes any number from 0 to 1; a mean over 1.43 stripes holds at least 0.3 of each.
    inner = pixels[0, 5:-5, 5:-5][valid[5:-5, 5:-5]]
    assert 0.29 < inner.min() < 0.5 < inner.max() < 0.71


def test_pixels_of_degrees_are_resampled_by_their_size_on_the_ground(tmp_path):
    # At 60 degrees north, a degree of longitude is half as long as one of latitude.
    degrees = {"transform": Affine(2e-5, 0, 9, 0, -1e-5, 60), "crs": "EPSG:4326"}
    raster = Raster.open([write_raster(tmp_path / "a.tif", noise(1, 100, 100), **degrees)])
    height, width = at_pixel_size(raster, 5.57).grid.pixel_sides
    assert height == pytest.approx(5.57, rel=0.011)
    assert width == pytest.approx(5.57, rel=0.011)


# Edges of the Earth ----------------------------------------------------------------------------------------------

GEOS = "+proj=geos +h=35785831 +lon_0=0 +a=6378169 +b=6356583.8"
DISC = Grid(CRS.from_proj4(GEOS), Affine(60_000, 0, -5_580_000, 0, -60_000, 5_580_000), 186, 186)


def degrees(left: float, top: float, height: int, width: int, pixel: float = 0.5) -> Grid:
    return Grid(CRS.from_epsg(4326), Affine(pixel, 0, left, 0, -pixel, top), height, width)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *((degrees(-180, 90, 360, 720), crs) for crs in ("EPSG:6933", "ESRI:54009", "ESRI:54030", "ESRI:54012")),
        (degrees(-180, 84, 288, 720), "ESRI:54009"),
        (degrees(0, 90, 360, 720), Grid(parse_crs("ESRI:54009"), Affine(8e4, 0, -1.808e7, 0, -8e4, 9.04e6), 226, 452)),
        (degrees(166, -34, 130, 135, 0.1), "ESRI:54009"),
        (degrees(-180, 90, 360, 720), "EPSG:3035"),
        (degrees(-180, 90, 360, 720), DISC),
        (DISC, degrees(-90, 90, 180, 180, 1)),
        (DISC, degrees(-180, 80, 160, 150, 1)),
    ],
    ids=["6933", "mollweide", "robinson", "eckert", "84 to -60", "0 to 360", "new zealand", "3035", "disc", "of disc",
         "centre off the disc"],
)  # fmt: skip
def test_blocks_across_the_edge_of_the_earth_have_the_means_of_their_ground(tmp_path, source, target):
    rows, cols = np.indices(source.shape) + 0.5
    x, y = source.transform @ (cols, rows)
    unit = 3 * np.pi / (180 if source.crs.is_geographic else 5e6)
    array = (1000 + 100 * np.sin(unit * x) + 100 * np.cos(unit * y)).astype("float32")
    path = write_raster(tmp_path / "a.tif", array, transform=source.transform, crs=source.crs)
    raster = Raster.open([path])
    if isinstance(target, str):
        size = 12_000 if source.transform.a < 0.5 else 80_000
        target = grid_of_pixel_size(raster.grid, size, parse_crs(target))
    resampled = resample_to(raster, target)
    pixels, valid = whole(resampled)

    # 6 x 6 points in each pixel, in the pixels of the source.
    rows, cols = (np.indices([6 * side for side in target.shape]) + 0.5) / 6
    x, y = target.transform @ (cols, rows)
    there = pyproj.Transformer.from_crs(target.crs.to_wkt(), source.crs.to_wkt(), always_xy=True)
    moved = there.transform(x, y)
    back = there.transform(*moved, direction="INVERSE")
    on_earth = np.hypot(back[0] - x, back[1] - y) < 1e-5 * target.transform.a
    moved = [np.where(on_earth, axis, 0) for axis in moved]
    if source.crs.is_geographic:
        moved[0] = (moved[0] - source.bounds[0]) % 360 + source.bounds[0]
    cols, rows = ~source.transform @ moved
    on_source = on_earth & (rows > 1) & (rows < source.height - 1) & (cols > 1) & (cols < source.width - 1)
    rows, cols = (np.where(on_source, axis, 0).astype(int) for axis in (rows, cols))
    blocks = target.height, 6, target.width, 6
    exact = array[rows, cols].reshape(blocks).mean(axis=(1, 3))
    # Of a pixel at the very edge, a corner may be off the Earth.
    inside = np.pad(on_source.reshape(blocks).all(axis=(1, 3)), 1)
    inside = np.lib.stride_tricks.sliding_window_view(inside, (3, 3)).all(axis=(2, 3))
    narrow = np.ptp(cols.reshape(blocks), axis=(1, 3)) < 12

    assert inside.mean() > 0.05
    assert valid[inside].all()
    np.testing.assert_allclose(pixels[0][inside & narrow], exact[inside & narrow], atol=6)
    assert resampled.read_decimated(target.window, (20, 30))[1].any()


@pytest.mark.parametrize(("crs", "half"), [("EPSG:6933", 17_367_530), ("ESRI:54009", 18_040_096)])
def test_a_raster_from_0_to_360_degrees_covers_its_area_in_a_map_of_the_whole_earth(crs, half):
    left, _, right, _ = grid_of_pixel_size(degrees(0, 90, 360, 720), 50_000, parse_crs(crs)).bounds
    assert -1.1 * half < left <= -half
    assert half <= right < 1.1 * half
