"""Areas and lengths on the ground of shapes in pixels."""

from itertools import pairwise

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from landscribe.geo.grid import Grid, Window
from landscribe.geo.ground import Ground
from landscribe.geo.pixel_area import pixel_areas

GRIDS = {
    4326: Affine(0.001, 0, 10, 0, -0.0008, 55),
    32633: Affine(10, 0, 500_000, 0, -10, 5e6),
    3857: Affine(100, 0, 1e6, 0, -100, 7e6),
    3413: Affine(1000, 0, -5e5, 0, -1000, -5e5),
    3035: Affine(25, 0, 4e6, 0, -25, 3e6),
}
# Down the west side, along the south, up the east: counter-clockwise where y points north.
RING = np.array([[100, 50], [400, 50], [400, 800], [100, 800]], float)
BOUNDS = np.array([0, 4])


def grid_of(epsg):
    return Grid(CRS.from_epsg(epsg), GRIDS[epsg], 700, 900)


@pytest.mark.parametrize("epsg", GRIDS)
def test_the_area_of_a_ring_is_the_sum_of_its_pixels(epsg):
    grid = grid_of(epsg)
    areas = np.broadcast_to(pixel_areas(grid), grid.shape)
    assert Ground.of(grid).areas(RING, BOUNDS).item() == pytest.approx(areas[100:400, 50:800].sum(), rel=1e-7)


@pytest.mark.parametrize("epsg", GRIDS)
def test_areas_and_lengths_are_those_of_the_geodesic_polygon(epsg):
    grid, ground = grid_of(epsg), Ground.of(grid_of(epsg))
    corners = [grid.xy(row, col) for row, col in RING]
    dense = shapely.segmentize(shapely.Polygon(corners), 5 * grid.transform.a)
    lon, lat = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True).transform(*dense.exterior.xy)
    area, length = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)
    assert ground.areas(RING, BOUNDS).item() == pytest.approx(area, rel=1e-6)
    assert ground.lengths(RING, BOUNDS).item() == pytest.approx(length, rel=2e-6)


@pytest.mark.parametrize("degrees", [0.25, 1])
def test_the_areas_of_a_globe_are_those_of_its_zones(degrees):
    globe = Grid(CRS.from_epsg(4326), Affine(degrees, 0, -180, 0, -degrees, 90), int(180 / degrees), int(360 / degrees))
    areas = pixel_areas(globe)
    edges = np.array([0, 60, 100, 180]) / degrees
    for north, south in pairwise(edges):
        zone = np.array([[north, 0], [south, 0], [south, globe.width], [north, globe.width]])
        expected = areas[int(north) : int(south)].sum()
        assert Ground.of(globe).areas(zone, BOUNDS).item() == pytest.approx(expected, rel=1e-6)


def test_a_hole_has_a_negative_area():
    ground = Ground.of(grid_of(4326))
    rings = np.concatenate([RING, RING[::-1]])
    first, second = ground.areas(rings, np.array([0, 4, 8]))
    assert first == pytest.approx(-second)
    assert first > 0


def test_areas_of_parts_add_up():
    ground = Ground.of(grid_of(3413))
    west, east = RING.copy(), RING.copy()
    west[2:, 1] = east[:2, 1] = 333
    parts = ground.areas(np.concatenate([west, east]), np.array([0, 4, 8]))
    assert parts.sum() == pytest.approx(ground.areas(RING, BOUNDS).item(), rel=1e-12)


def test_a_grid_without_crs_has_no_metric():
    assert Ground.of(Grid(None, Affine.identity(), 10, 10)) is None


def test_a_site_grid_is_measured_as_the_file_says():
    site = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    ground = Ground.of(Grid(site, Affine(2, 0, 0, 0, -2, 0), 10, 10))
    square = np.array([[0, 0], [3, 0], [3, 3], [0, 3]], float)
    assert (ground.areas(square, BOUNDS).item(), ground.lengths(square, BOUNDS).item()) == (36, 24)
    assert ground.pixel_sides == (2, 2)


def test_a_single_pixel_has_a_metric():
    grid = grid_of(4326)[Window(3, 4, 1, 1)]
    pixel = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    assert Ground.of(grid).areas(pixel, BOUNDS).item() == pytest.approx(pixel_areas(grid))
