"""Areas of pixels: their sum is the geodesic area of the raster's outline, in any CRS."""

import math

import numpy as np
import pyproj
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from landscribe.geo.grid import Grid
from landscribe.geo.pixel_area import metres_per_unit, pixel_areas
from worlds import UTM, grid

MODIS = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"
MODIS_TILE = 1111950.519667
# (CRS, left, top, side of a pixel in units of the CRS)
PLACES = {
    "MODIS h10v04": (MODIS, -8 * MODIS_TILE, 5 * MODIS_TILE, MODIS_TILE / 120),
    "MODIS h23v03": (MODIS, 5 * MODIS_TILE, 6 * MODIS_TILE, MODIS_TILE / 120),
    "MODIS h11v02": (MODIS, -7 * MODIS_TILE, 7 * MODIS_TILE, MODIS_TILE / 120),
    "Mollweide, Alaska": ("ESRI:54009", -9_500_000, 7_600_000, 5_000),
    "Equal Earth, Siberia": ("EPSG:8857", 7_000_000, 7_500_000, 5_000),
    "polar stereographic": ("EPSG:3413", -3_000_000, 3_000_000, 50_000),
    "LAEA of Europe": ("EPSG:3035", 2_500_000, 5_000_000, 10_000),
    "UTM, far off its meridian": ("EPSG:32632", 2_000_000, 6_000_000, 3_000),
    "Web Mercator at 80 degrees": ("EPSG:3857", 1_000_000, 15_500_000, 3_000),
    "Albers": ("EPSG:5070", -2_000_000, 3_000_000, 10_000),
    "feet": ("EPSG:2263", 900_000, 300_000, 1_000),
    "degrees": ("EPSG:4326", 10, 70, 0.1),
    "grads from Paris": ("EPSG:4807", 0, 55, 0.05),
}


def outline_area(placed: Grid, steps: int = 500) -> float:
    """Geodesic area of the outline in m², by pyproj."""
    height, width = placed.shape
    along = np.linspace(0, 1, steps, endpoint=False)
    rows = np.concatenate([0 * along, height * along, height + 0 * along, height * (1 - along)])
    cols = np.concatenate([width * along, width + 0 * along, width * (1 - along), 0 * along])
    x, y = placed.transform @ (cols, rows)
    crs = pyproj.CRS.from_wkt(placed.crs.to_wkt())
    geod = crs.get_geod()
    lonlat = pyproj.CRS.from_dict({"proj": "longlat", "a": geod.a, "b": geod.b})
    area, _ = geod.polygon_area_perimeter(*pyproj.Transformer.from_crs(crs, lonlat, always_xy=True).transform(x, y))
    return abs(area)


def total(placed: Grid) -> float:
    areas = pixel_areas(placed)
    return areas * math.prod(placed.shape) if isinstance(areas, float) else float(areas.sum())


@pytest.mark.parametrize("name", PLACES)
@settings(max_examples=15)
@given(height=st.integers(1, 120), width=st.integers(1, 120))
def test_the_areas_of_all_pixels_sum_to_that_of_the_outline(name, height, width):
    crs, left, top, side = PLACES[name]
    placed = Grid(CRS.from_user_input(crs), Affine(side, 0, left, 0, -side, top), height, width)
    assert total(placed) == pytest.approx(outline_area(placed), rel=1e-3)


@pytest.mark.parametrize("degrees", [0.5, 1, 10])
def test_a_globe_has_the_area_of_the_ellipsoid(degrees):
    shape = int(180 / degrees), int(360 / degrees)
    globe = Grid(CRS.from_epsg(4326), Affine(degrees, 0, -180, 0, -degrees, 90), *shape)
    assert total(globe) == pytest.approx(510_065_621_724_089, rel=1e-8)  # of WGS 84, in m²


def test_a_hemisphere_around_its_pole_has_half_of_it():
    crs = CRS.from_string("+proj=laea +lat_0=90 +R=6371000")
    side = 6371000 * math.sqrt(2) / 200
    placed = Grid(crs, Affine(side, 0, -200 * side, 0, -side, 200 * side), 400, 400)
    rows, cols = np.mgrid[:400, :400] - 199.5
    areas = np.broadcast_to(pixel_areas(placed), (400, 400))
    assert areas[np.hypot(rows, cols) < 200].sum() == pytest.approx(2 * math.pi * 6371000**2, rel=2e-3)


def test_a_map_of_the_world_is_measured_though_its_corners_lie_beside_the_earth():
    # PROJ projects Mollweide from a sphere, so that areas on the ellipsoid differ by up to 0.7 %.
    placed = Grid(CRS.from_user_input("ESRI:54009"), Affine(1e5, 0, -18.1e6, 0, -1e5, 9.1e6), 182, 362)
    rows, cols = np.mgrid[:182, :362]
    is_on_earth = np.hypot((cols + 0.5 - 181) / 180.4, (rows + 0.5 - 91) / 90.2) < 1
    assert pixel_areas(placed)[is_on_earth].sum() == pytest.approx(510_065_621_724_089, rel=2e-3)


def test_without_a_crs_areas_cannot_be_measured():
    assert math.isnan(pixel_areas(Grid(None, Affine.identity(), 4, 4)))


def test_pixels_of_a_metre_measure_a_square_metre_but_for_the_scale_of_utm():
    assert np.mean(pixel_areas(grid(50, 70))) == pytest.approx(1 / 0.9996**2, rel=1e-4)


def test_pixels_at_the_central_meridian_of_utm_are_larger_than_where_its_scale_is_1():
    # 180 km to the east, which is 0.9996 (1 + 180² / (2 · 6380² · 0.9996²)); areas go by its square.
    areas = pixel_areas(Grid(UTM, Affine(1000, 0, 499_500, 0, -1000, 5_000_000), 1, 181))
    assert areas[0, [0, -1]] == pytest.approx([1e6 / 0.9996**2, 1e6], rel=2e-5)


@pytest.mark.parametrize("name", PLACES)
def test_metres_per_unit_turn_small_steps_into_geodesics(name):
    text, left, top, side = PLACES[name]
    crs, length, generator = pyproj.CRS.from_user_input(text), side / 1000, np.random.default_rng(0)
    starts = np.array([left, top]) + side * generator.uniform((0, -50), (50, 0), (200, 2))
    steps = length * generator.uniform(-1, 1, (200, 2))
    matrices = metres_per_unit(CRS.from_user_input(text), starts, np.full(200, length))
    geod = crs.get_geod()
    lonlat = pyproj.CRS.from_dict({"proj": "longlat", "a": geod.a, "b": geod.b})
    to_lonlat = pyproj.Transformer.from_crs(crs, lonlat, always_xy=True)
    ends = [to_lonlat.transform(*points.T) for points in (starts - steps / 2, starts + steps / 2)]
    turned = np.linalg.norm(np.einsum("nij,nj->ni", matrices, steps), axis=1)
    assert turned == pytest.approx(geod.inv(*ends[0], *ends[1])[2], rel=1e-4, abs=1e-6)


def test_the_units_of_a_building_site_are_as_long_as_its_crs_says():
    site = CRS.from_wkt(
        'ENGCRS["site",EDATUM["site"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["foot",0.3048]]'
    )
    matrices = metres_per_unit(site, np.zeros((2, 2)), np.ones(2))
    assert matrices.tolist() == [[[0.3048, 0], [0, 0.3048]]] * 2
