"""The arithmetic of windows and grids."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from landscribe.errors import GridError
from landscribe.geo.grid import Grid, Window, check_north_up, crs_label
from landscribe.geo.pixel_area import pixel_areas
from worlds import METRE, grid

places = st.integers(-40, 40)
sides = st.integers(1, 30)
windows = st.builds(Window, places, places, sides, sides)
steps = st.floats(1e-3, 1e3)
grids = st.builds(
    lambda dx, dy, x, y, height, width: Grid(CRS.from_epsg(32632), Affine(dx, 0, x, 0, -dy, y), height, width),
    steps,
    steps,
    st.floats(-1e6, 1e6),
    st.floats(-1e7, 1e7),
    sides,
    sides,
)


def pixels(window: Window) -> set[tuple[int, int]]:
    """All (row, col) of a window, the plain way."""
    return {(row, col) for row in range(window.row, window.row_stop) for col in range(window.col, window.col_stop)}


@given(windows, windows)
def test_the_common_part_of_two_windows_holds_their_common_pixels(a, b):
    assert pixels(a & b) == pixels(a) & pixels(b)


@given(windows, windows)
def test_windows_without_common_pixels_meet_in_an_empty_window(a, b):
    assert (a & b).is_empty == (not pixels(a) & pixels(b))


@given(windows, windows)
def test_a_relative_window_holds_the_same_pixels(window, other):
    shifted = {(row - other.row, col - other.col) for row, col in pixels(window)}
    assert pixels(window.relative_to(other)) == shifted


@given(windows, windows)
def test_distance_counts_the_pixels_between_windows_along_the_farther_axis(a, b):
    # The plain way: how far two pixels are apart is how many pixels lie between them along the farther axis.
    rows = min(abs(r - s) for r in range(a.row, a.row_stop) for s in range(b.row, b.row_stop))
    cols = min(abs(c - d) for c in range(a.col, a.col_stop) for d in range(b.col, b.col_stop))
    assert a.distance_to(b) == max(0, rows - 1, cols - 1)


@given(windows, windows)
def test_distance_is_the_same_in_both_directions(a, b):
    assert a.distance_to(b) == b.distance_to(a)


@given(grids, st.floats(-100, 100), st.floats(-100, 100))
def test_pixel_coordinates_survive_the_round_trip_to_world_coordinates(world, row, col):
    back = world.row_col(*world.xy(row, col))
    # A coordinate of 10 000 km is rounded to 2 nm, and a pixel here may be as small as a millimetre.
    tolerance = 1e-8 / min(world.transform.a, -world.transform.e) + 1e-9
    assert back == pytest.approx((row, col), abs=tolerance)


@given(grids, windows)
def test_the_grid_of_a_window_starts_where_the_window_does(world, window):
    assert world[window].xy(0, 0) == pytest.approx(world.xy(window.row, window.col), rel=1e-12, abs=1e-6)


@given(grids, windows, places, places)
def test_the_grid_of_a_window_keeps_the_coordinates_of_every_pixel(world, window, row, col):
    inside = world[window].xy(row, col)
    assert inside == pytest.approx(world.xy(window.row + row, window.col + col), rel=1e-12, abs=1e-6)


def test_bounds_are_the_outer_corners():
    assert grid(3, 5).bounds == (500_000, 4_999_997, 500_005, 5_000_000)


def test_one_metre_of_utm_is_one_metre_on_the_ground():
    # On the central meridian UTM is 0.04 % too short.
    assert grid(10, 10).pixel_size == pytest.approx(1 / 0.9996, rel=1e-6)


def test_one_metre_of_web_mercator_is_half_a_metre_at_60_degrees():
    # Northing of 60 degrees: R ln tan(75 deg) = 6378137 * 1.3169579. On the sphere the scale is cos(60 deg) = 1/2;
    # on the ellipsoid the radii there are 1.00252 R (east) and 1.00083 R (north), so 0.5 * 1.00167.
    world = Grid(CRS.from_epsg(3857), Affine(1, 0, 0, 0, -1, 6_378_137 * 1.3169579), 2, 2)
    assert world.pixel_size == pytest.approx(0.5 * 1.00167, rel=1e-4)


def test_a_thousandth_of_a_degree_at_the_equator_is_111_metres():
    # East: a * pi / 180 = 111 319.49 m a degree; north: 110 574.28 m; the side of the square of the same area.
    world = Grid(CRS.from_epsg(4326), Affine(1e-3, 0, 10, 0, -1e-3, 0.001), 2, 2)
    assert world.pixel_size == pytest.approx((111.31949 * 110.57428) ** 0.5, rel=1e-5)


def test_pixels_that_are_not_square_have_the_side_of_the_square_of_their_area():
    # 4 m x 1 m
    world = grid(2, 2, transform=Affine(4, 0, 500_000, 0, -1, 5_000_000))
    assert world.pixel_size == pytest.approx(2 / 0.9996, rel=1e-5)


def test_a_grid_without_crs_has_no_pixel_size():
    assert Grid(None, METRE, 2, 2).pixel_size is None


def test_feet_become_metres():
    # EPSG:2263, New York Long Island in US survey feet of 1200/3937 m; its scale is 1 within 0.02 % there.
    world = Grid(CRS.from_epsg(2263), Affine(1, 0, 990_000, 0, -1, 200_000), 2, 2)
    assert world.pixel_size == pytest.approx(1200 / 3937, rel=2e-4)


def test_grids_a_thousandth_of_a_pixel_apart_are_aligned():
    shifted = grid(4, 4, transform=METRE @ Affine.translation(0.001, 0))
    assert grid(4, 4).is_aligned(shifted)


@pytest.mark.parametrize(
    "other",
    [
        grid(4, 4, transform=METRE @ Affine.translation(0.02, 0)),
        grid(4, 4, transform=METRE @ Affine.scale(1.01)),
        grid(4, 5),
        grid(4, 4, crs="EPSG:32633"),
    ],
    ids=["shifted", "scaled", "wider", "other zone"],
)
def test_grids_that_differ_are_not_aligned(other):
    assert not grid(4, 4).is_aligned(other)


def test_grids_differ_by_the_largest_distance_between_corners():
    # 1 % larger pixels: the far corner of 4 x 4 pixels lies 0.04 pixels away.
    assert grid(4, 4).max_corner_offset(grid(4, 4, transform=METRE @ Affine.scale(1.01))) == pytest.approx(
        0.04, abs=1e-6
    )


def test_a_rotated_geotransform_is_refused_with_its_angle():
    with pytest.raises(GridError, match=r"a\.tif has a rotated geotransform \(-30\.00 degrees\).*gdalwarp"):
        check_north_up(Affine(1, 0, 500_000, 0, -1, 5_000_000) @ Affine.rotation(30), "a.tif")


def test_a_south_up_raster_is_refused_with_its_steps():
    with pytest.raises(GridError, match=r"a\.tif has pixel steps of 1 \(x\) and 1 \(y\)"):
        check_north_up(Affine(1, 0, 500_000, 0, 1, 5_000_000), "a.tif")


def test_a_crs_without_a_code_is_named_by_its_name():
    local = CRS.from_proj4("+proj=tmerc +lat_0=1 +lon_0=2 +datum=WGS84 +units=m")
    assert crs_label(local) == "unknown"


# Strips and samples --------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 2000), st.sampled_from([1, 16, 64]))
def test_strips_partition_the_grid_at_multiples_of_the_block(height, width, max_pixels, block):
    strips = list(grid(height, width).strips(max_pixels, block=block))
    rows = [row for strip in strips for row in range(strip.row, strip.row_stop)]
    assert rows == list(range(height))
    assert all((strip.col, strip.width, strip.row % block) == (0, width, 0) for strip in strips)
    assert all(strip.height * width <= max(max_pixels, block * width) for strip in strips)


def test_strips_are_as_high_as_their_pixels_allow():
    # 100 columns and at most 2 500 pixels: 25 rows, of which whole blocks of 10 are 20.
    strips = list(grid(50, 100).strips(2500, block=10))
    assert [(strip.row, strip.height) for strip in strips] == [(0, 20), (20, 20), (40, 10)]


@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 30), st.integers(1, 5), st.sampled_from([1, 4]))
def test_spread_windows_are_few_aligned_and_different(height, width, side, per_axis, align):
    windows = grid(height, width).spread_windows((side, side), per_axis, align=align)
    assert 1 <= len(windows) <= per_axis**2
    assert windows == sorted(set(windows))
    assert all(window.row % align == window.col % align == 0 for window in windows)
    assert all(window.row_stop <= max(height, side) and window.col_stop <= max(width, side) for window in windows)


@given(st.integers(30, 100), st.integers(2, 5))
def test_spread_windows_include_both_ends(length, per_axis):
    rows = [window.row for window in grid(length, 10).spread_windows((10, 10), per_axis)]
    assert (rows[0], rows[-1]) == (0, length - 10)


def test_the_pixel_size_of_a_crs_that_shears_is_the_side_of_a_square_of_the_pixel_s_area():
    """MODIS, tile h10v04: its pixels cover 463.3 m x 463.3 m everywhere, in an equal-area projection."""
    side = 463.3127165
    sinusoidal = CRS.from_proj4("+proj=sinu +R=6371007.181 +units=m +no_defs")
    corner = Affine(side, 0, -8895604.157, 0, -side, 5559752.598)
    assert Grid(sinusoidal, corner, 2400, 2400).pixel_size == pytest.approx(side, rel=1e-4)


@pytest.mark.parametrize(
    ("epsg", "transform"),
    [(27572, Affine(10, 0, 600_000, 0, -10, 2_200_000)), (4807, Affine(1e-4, 0, 1, 0, -1e-4, 55))],
    ids=["Lambert, from grads", "grads"],
)
def test_the_pixel_size_of_a_crs_with_angles_in_grads_is_the_root_of_the_pixel_s_area(epsg, transform):
    grid = Grid(CRS.from_epsg(epsg), transform, 100, 100)
    assert grid.pixel_size**2 == pytest.approx(np.mean(pixel_areas(grid)), rel=1e-5)
    assert grid.pixel_size == pytest.approx({27572: 10.0, 4807: 8.065}[epsg], rel=0.005)


def test_a_raster_whose_centre_is_not_on_earth_has_no_pixel_size():
    grid = Grid(CRS.from_proj4("+proj=geos +h=35785831 +lon_0=0"), Affine(1000, 0, 6e6, 0, -1000, 6e6), 10, 10)
    with pytest.raises(GridError, match="the centre of the raster is not on Earth"):
        _ = grid.pixel_size
