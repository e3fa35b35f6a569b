"""Reprojection: straight edges become curves, and longitudes go on beyond 180."""

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from landscribe.geo.features import Features
from landscribe.geo.grid import Grid
from landscribe.geo.vectors.burning import rasterize_mask

LONLAT = CRS.from_epsg(4326)


def features(geometries, crs=LONLAT) -> Features:
    return Features("a.gpkg", np.array(geometries, dtype=object), ("house",) * len(geometries), crs)


def place(crs: str, x: float, y: float, pixel: float, side: int = 100) -> Grid:
    return Grid(CRS.from_string(crs), Affine(pixel, 0, x, 0, -pixel, y), side, side)


TARGETS = [("EPSG:32632", 1.0), ("EPSG:32632", 100.0), ("EPSG:3035", 10.0), ("EPSG:3857", 30.0), ("ESRI:54009", 250.0)]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(TARGETS), st.floats(3, 15), st.floats(40, 60), st.floats(0.001, 3), st.floats(0.001, 3),
    st.floats(0, 90),
)  # fmt: skip
def test_edges_are_within_a_tenth_of_a_pixel_of_their_curves(target, lon, lat, width, height, angle):
    crs, pixel = target
    rectangle = shapely.affinity.rotate(shapely.box(lon, lat, lon + width, lat + height), angle)
    grid = place(crs, 0, 0, pixel)
    moved = features([rectangle]).to_crs_of(grid, "scene.tif").geometries[0]
    transformer = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    dense = shapely.segmentize(rectangle, max(width, height) / 500).exterior
    curve = shapely.transform(dense, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1])))
    assert shapely.distance(shapely.points(shapely.get_coordinates(curve)), moved.exterior).max() < 0.1 * pixel


def test_short_edges_get_no_more_vertices():
    # 20 m on pixels of 10 m.
    house = shapely.box(9.0, 48.0, 9.0003, 48.0002)
    moved = features([house]).to_crs_of(place("EPSG:32632", 5e5, 5.3e6, 10.0), "scene.tif")
    assert len(moved.geometries[0].exterior.coords) == len(house.exterior.coords)


def test_rings_parts_and_holes_stay_apart():
    hole = shapely.box(9.2, 48.2, 9.8, 48.8)
    ring = shapely.box(9, 48, 10, 49) - hole
    both = shapely.MultiPolygon([ring, shapely.box(11, 48, 12, 49)])
    moved = features([both, hole]).to_crs_of(place("EPSG:32632", 5e5, 5.4e6, 10.0), "scene.tif").geometries
    assert shapely.is_valid(moved).all()
    assert shapely.get_num_geometries(moved).tolist() == [2, 1]
    assert shapely.get_num_interior_rings(shapely.get_parts(moved)).tolist() == [1, 0, 0]
    assert shapely.intersection(*moved).area < 1e-6 * moved[1].area


def test_a_rectangle_in_degrees_covers_the_pixels_whose_centres_lie_in_it():
    # 700 x 1500 pixels of 100 m; by its four corners, 6 882 of them came out wrong.
    grid = Grid(CRS.from_epsg(32632), Affine(100, 0, 5e5, 0, -100, 5.45e6), 700, 1500)
    rows, cols = np.indices(grid.shape) + 0.5
    lon, lat = pyproj.Transformer.from_crs(32632, 4326, always_xy=True).transform(*(grid.transform @ (cols, rows)))
    inside = (lon > 9.1) & (lon < 10.9) & (lat > 48.7) & (lat < 49.1)
    burned = rasterize_mask(features([shapely.box(9.1, 48.7, 10.9, 49.1)]).on(grid, "scene.tif"), grid)
    assert (burned != inside).sum() < 0.1 * np.abs(np.diff(inside, axis=0)).sum()
    assert (burned != inside).sum() < 100


# Longitudes ------------------------------------------------------------------------------------------------------

EAST = place("EPSG:4326", 179.99, -16.99, 2e-4)
"""Degrees that go on beyond 180: columns 50 and more lie there."""
SQUARE = shapely.box(179.998, -17.002, 180.002, -16.998)
"""Rows 40 to 59, columns 40 to 59 of EAST."""


@pytest.mark.parametrize(
    "square",
    [
        SQUARE,
        shapely.MultiPolygon([shapely.box(x, -17.002, x + 0.002, -16.998) for x in (179.998, -180)]),
        shapely.Polygon([(179.998, -17.002), (-179.998, -17.002), (-179.998, -16.998), (179.998, -16.998)]),
    ],
    ids=["beyond 180", "two parts at 180", "the short way round"],
)  # fmt: skip
def test_polygons_across_180_degrees_cover_the_same_pixels_however_they_are_written(square):
    burned = rasterize_mask(features([square]).on(EAST, "scene.tif"), EAST)
    expected = np.zeros(EAST.shape, bool)
    expected[40:60, 40:60] = True
    np.testing.assert_array_equal(burned, expected)
    x, y = pyproj.Transformer.from_crs(4326, 32760, always_xy=True).transform(180, -17)
    utm = place("EPSG:32760", x - 500, y + 500, 10.0)
    here = rasterize_mask(features([square]).on(utm, "scene.tif"), utm)
    np.testing.assert_array_equal(here, rasterize_mask(features([SQUARE]).on(utm, "scene.tif"), utm))
    assert here.any()


def test_projected_polygons_lie_on_degrees_beyond_180():
    utm = features([SQUARE]).to_crs_of(place("EPSG:32760", 820_000, 8_120_000, 1.0), "utm.tif")
    burned = rasterize_mask(utm.on(EAST, "scene.tif"), EAST)
    assert burned.sum() == 400
    assert burned[40:60, 40:60].all()


GLOBE = Grid(LONLAT, Affine(0.5, 0, -180, 0, -0.5, 90), 360, 720)
PACIFIC = CRS.from_epsg(3832)
"""Mercator around 150 degrees E: it is in one piece there, and its edges are those of degrees."""


def pacific(west: float, south: float, east: float, north: float):
    xy = pyproj.Transformer.from_crs(4326, PACIFIC.to_wkt(), always_xy=True).transform([west, east], [south, north])
    return shapely.box(xy[0][0], xy[1][0], xy[0][1], xy[1][1])


@pytest.mark.parametrize(("west", "east"), [(177, 182), (177, 189), (-29.5, 329.5)])
def test_projected_polygons_across_180_degrees_cover_the_ground_between_their_edges(west, east):
    polygon = features([pacific(west, -20, east, -15)], PACIFIC)
    assert rasterize_mask(polygon.on(GLOBE, "scene.tif"), GLOBE).sum() == 10 * 2 * (east - west)


def test_holes_stay_in_projected_polygons_across_180_degrees():
    polygon = pacific(170, -20, 190, -10) - pacific(171, -19, 172, -18) - pacific(188, -19, 189, -18)
    other = polygon - pacific(175, -19, 185, -11)
    for each, pixels in ((polygon, 800 - 8), (other, 800 - 8 - 320)):
        assert rasterize_mask(features([each], PACIFIC).on(GLOBE, "scene.tif"), GLOBE).sum() == pixels


def test_polygons_in_degrees_of_another_datum_go_on_beyond_180():
    # NAD27 is within 0.01 degrees of WGS 84.
    for box, pixels in ((shapely.box(177, 50, 182, 55), 100), (shapely.box(-180, -60, 180, 60), 240 * 720)):
        polygon = features([box], CRS.from_epsg(4267))
        assert rasterize_mask(polygon.on(GLOBE, "scene.tif"), GLOBE).sum() == pixels


def test_longitudes_from_0_to_360_hold_polygons_west_of_greenwich():
    grid = place("EPSG:4326", 270, 45, 0.01)
    burned = rasterize_mask(features([shapely.box(-89.9, 44.2, -89.7, 44.4)]).on(grid, "scene.tif"), grid)
    assert burned.sum() == 400
    assert burned[60:80, 10:30].all()


def test_a_polygon_of_the_whole_world_covers_all_of_a_raster_from_0_to_360():
    grid = Grid(LONLAT, Affine(2, 0, 0, 0, -2, 90), 90, 180)
    assert rasterize_mask(features([shapely.box(-180, -90, 180, 90)]).on(grid, "scene.tif"), grid).all()


def test_points_lie_on_rasters_beyond_180():
    points = features([shapely.Point(-179.9999, -16.9901), shapely.Point(179.9901, -16.9901)]).on(EAST, "scene.tif")
    assert points.pixel_rows_cols(EAST).tolist() == [[0, 50], [0, 0]]


# Poles -----------------------------------------------------------------------------------------------------------

POLAR = {
    "cap": shapely.Point(0, 0).buffer(2e6, 64),
    "ring": shapely.Point(1e5, 0).buffer(2e6, 64) - shapely.Point(-3e5, 4e5).buffer(1e6, 64),
    "holes": shapely.Point(0, 0).buffer(2e6, 64) - shapely.union_all(
        [shapely.Point(1.5e6 * np.cos(angle), 1.5e6 * np.sin(angle)).buffer(3e5) for angle in range(6)]
    ),
    "two parts": shapely.union_all([shapely.Point(0, 0).buffer(5e5), shapely.box(1e6, -1e6, 2e6, 1e6)]),
    "vertex at the pole": shapely.box(0, 0, 1.5e6, 1e6),
    "edge through the pole": shapely.box(-1e6, 0, 1.5e6, 1e6),
    "edge beside the pole": shapely.box(-1e6, -1, 1.5e6, 1e6),
}  # fmt: skip


@pytest.mark.parametrize("clockwise", [False, True])
@pytest.mark.parametrize("left", [-180, 0, 20])
@pytest.mark.parametrize("crs", [3413, 3031])
@pytest.mark.parametrize("name", POLAR)
def test_polygons_around_a_pole_cover_the_pixels_whose_centres_lie_in_them(name, crs, left, clockwise):
    polygon = shapely.orient_polygons(POLAR[name], exterior_cw=clockwise)
    grid = Grid(LONLAT, Affine(0.5, 0, left, 0, -0.5, 90 if crs == 3413 else -60), 60, 130 if left == 20 else 720)
    rows, cols = np.indices(grid.shape) + 0.5
    x, y = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(*(grid.transform @ (cols, rows)))
    inside = shapely.contains_xy(polygon, x, y)
    burned = rasterize_mask(features([polygon], CRS.from_epsg(crs)).on(grid, "scene.tif"), grid)
    near = shapely.distance(polygon.boundary, shapely.points(x, y)) < 6e3  # a tenth of 0.5 degrees of latitude
    assert inside.any()
    assert not (burned != inside)[~near].any()


@pytest.mark.parametrize(
    ("west", "south", "east", "north"), [(-180, 70, 180, 80), (-180, 70, 180, 90), (0, 70, 360, 90)]
)
def test_boxes_around_the_earth_cover_their_latitudes_of_a_polar_raster(west, south, east, north):
    grid = Grid(CRS.from_epsg(3413), Affine(2e4, 0, -3e6, 0, -2e4, 3e6), 300, 300)
    rows, cols = np.indices(grid.shape) + 0.5
    _, lat = pyproj.Transformer.from_crs(3413, 4326, always_xy=True).transform(*(grid.transform @ (cols, rows)))
    burned = rasterize_mask(features([shapely.box(west, south, east, north)]).on(grid, "ice.tif"), grid)
    assert np.mean(burned != ((lat > south) & (lat < north))) < 0.002


def test_polygons_around_a_pole_are_valid_on_rasters_from_0_to_360():
    cap = features([shapely.Point(0, 0).buffer(2e6)], CRS.from_epsg(3413))
    grid = Grid(LONLAT, Affine(0.5, 0, 0, 0, -0.5, 90), 60, 720)
    assert shapely.is_valid(cap.on(grid, "scene.tif").geometries).all()


# Polygons around the Earth ---------------------------------------------------------------------------------------

PLACES = {
    "UTM": place("EPSG:32645", 400_000, 3_000_000, 10),
    "UTM across 180": place("EPSG:32660", 690_000, 6_000_000, 100),
    "LAEA": place("EPSG:3035", 4_000_000, 3_000_000, 100),
    "polar": place("EPSG:3031", 1_000_000, 1_000_000, 1000),
    "Mollweide": place("ESRI:54009", 8_500_000, 3_000_000, 100),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("west", [-180, 0])
def test_polygons_around_the_earth_cover_rasters_but_for_their_holes(name, west):
    grid = PLACES[name]
    rows, cols = np.indices(grid.shape) + 0.5
    lon, lat = pyproj.Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(*(grid.transform @ (cols, rows)))
    middle = west + (lon[50, 50] - west) % 360, lat[50, 50]
    hole = shapely.box(middle[0], middle[1], middle[0] + 0.05, middle[1] + 0.02)
    sea = shapely.box(west, -90, west + 360, 90) - hole
    inside = shapely.contains_xy(sea, west + (lon - west) % 360, lat)
    burned = rasterize_mask(features([sea]).on(grid, "scene.tif"), grid)
    assert 0 < np.mean(~inside) < 0.5
    assert np.mean(burned != inside) < 0.01


def test_half_of_the_earth_leaves_the_other_half_empty():
    half = features([shapely.box(-10, -89, 170, 89)])
    assert not rasterize_mask(half.on(PLACES["UTM across 180"], "scene.tif"), PLACES["UTM across 180"]).any()
    assert rasterize_mask(half.on(PLACES["UTM"], "scene.tif"), PLACES["UTM"]).all()


def test_wide_polygons_keep_their_pixels_on_a_raster_that_is_partly_off_the_earth():
    # The northern half of the disk of a geostationary satellite: its corners are in space.
    crs = "+proj=geos +h=35785831 +lon_0=0 +ellps=WGS84"
    grid = Grid(CRS.from_string(crs), Affine(111_000, 0, -5_550_000, 0, -111_000, 5_550_000), 50, 100)
    rows, cols = np.indices(grid.shape) + 0.5
    lon, lat = pyproj.Transformer.from_crs(crs, 4326, always_xy=True).transform(*(grid.transform @ (cols, rows)))
    inside = shapely.contains_xy(shapely.box(-50, -40, 60, 70), lon, lat)
    burned = rasterize_mask(features([shapely.box(-50, -40, 60, 70)]).on(grid, "disk.tif"), grid)
    assert inside.mean() > 0.5
    assert np.mean(burned != inside) < 0.01


def test_an_edge_that_the_short_way_round_lets_cross_others_is_no_error():
    wiggly = shapely.Polygon([(-178, 0), (178, 0), (178, 10), (100, 30), (20, 2), (-50, 40), (-120, 1), (-178, 30)])
    assert wiggly.is_valid
    burned = rasterize_mask(features([wiggly]).to_crs_of(PLACES["UTM"], "scene.tif"), PLACES["UTM"])
    assert burned.shape == PLACES["UTM"].shape
