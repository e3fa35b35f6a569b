"""Burning: polygons as pixels, by window, order and priority; and pixels as polygons."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from landscribe.geo.classes import IGNORE
from landscribe.geo.features import Features
from landscribe.geo.grid import Window
from landscribe.geo.vectors import burning as burning_module
from landscribe.geo.vectors.burning import burn, covers_a_centre
from worlds import METRE, UTM, grid, pixel_box

SIDE = 24
"""Rows and columns of the grid here."""

ODD = Affine(0.1492910708693671, 0, 9_519_926.124805562, 0, -0.1492910708693671, 3_202_940.7962337397)
"""A real drone's grid: no coordinate of its pixels is a round number."""


def features(geometries, labels=None) -> Features:
    labels = labels or ["house"] * len(geometries)
    return Features("a.gpkg", np.array(geometries, dtype=object), tuple(labels), UTM)


def polygonize(values, place):
    """(polygon, value) of each 4-connected region of pixels that are not 255."""
    mask = values != IGNORE
    for geometry, value in rasterio.features.shapes(values, mask, connectivity=4, transform=place.transform):
        yield shapely.geometry.shape(geometry), int(value)


def moved(geometries, transform: Affine) -> list:
    """The same polygons, pixel for pixel, on another grid."""
    return [shapely.transform(one, lambda xy: np.column_stack(transform @ (~METRE @ xy.T))) for one in geometries]


@st.composite
def polygons(draw) -> shapely.Polygon:
    """A triangle or box anywhere in and around the grid, on quarters of pixels."""
    quarter = st.integers(-20, 4 * SIDE + 20).map(lambda number: number / 4)
    corners = draw(st.lists(st.tuples(quarter, quarter), min_size=3, max_size=3, unique=True))
    triangle = shapely.Polygon([METRE @ (col, row) for row, col in corners])
    return triangle if triangle.is_valid and triangle.area > 0 else triangle.envelope.buffer(0.3, join_style="mitre")


many = st.lists(st.tuples(polygons(), st.integers(0, 4)), min_size=1, max_size=8)


windows = st.builds(Window, st.integers(-8, 23), st.integers(-8, 23), st.integers(9, 16), st.integers(9, 16))


@settings(max_examples=50)
@given(many, windows, st.permutations(range(5)))
def test_burning_equals_gdal_burning_all_features_bottom_to_top(pairs, window, order):
    geometries, values = [p for p, _ in pairs], np.array([v for _, v in pairs], np.uint8)
    place = grid(SIDE, SIDE)[window]
    expected = np.full(place.shape, 9, np.uint8)
    for value in order:
        same = [p for p, v in pairs if v == value]
        if same:
            inside = rasterio.features.rasterize(same, out_shape=place.shape, transform=place.transform)
            expected[inside == 1] = value
    np.testing.assert_array_equal(burn(features(geometries), values, order, place, 9), expected)


@settings(max_examples=100)
@given(many, windows, st.sampled_from([METRE, ODD]))
def test_a_window_is_burned_like_that_part_of_the_whole(pairs, window, transform):
    world = features(moved([p for p, _ in pairs], transform))
    values, place = np.array([v for _, v in pairs], np.uint8), grid(SIDE, SIDE, transform=transform)
    whole = burn(world, values, range(5), place, 9, Window(-8, -8, SIDE + 24, SIDE + 24))
    part = burn(world, values, range(5), place, 9, window)
    np.testing.assert_array_equal(part, whole[window.relative_to(Window(-8, -8, 0, 0)).slices])


@settings(max_examples=100)
@given(many)
def test_the_same_polygons_in_pixels_give_the_same_mask_on_any_grid(pairs):
    # Many of their edges go through centres of pixels, where noise in coordinates would decide.
    geometries, values = [p for p, _ in pairs], np.array([v for _, v in pairs], np.uint8)
    plain = burn(features(geometries), values, range(5), grid(SIDE, SIDE), 9)
    odd = burn(features(moved(geometries, ODD)), values, range(5), grid(SIDE, SIDE, transform=ODD), 9)
    np.testing.assert_array_equal(odd, plain)


def test_a_pixel_takes_the_value_of_the_polygon_that_its_centre_lies_in():
    # Columns 0 to 3; the polygon covers 0.6 to 2.6: the centres 1.5 and 2.5.
    polygon = pixel_box(0, 0.6, 1, 2)
    assert burn(features([polygon]), np.array([7], np.uint8), [7], grid(1, 4), 0).tolist() == [[0, 7, 7, 0]]


@pytest.mark.parametrize("reverse", [False, True], ids=["file order", "reversed file order"])
def test_where_polygons_overlap_the_later_row_of_the_class_table_wins(reverse):
    # Columns 0 to 3; value 2 covers 0 and 1, value 1 covers 1 and 2; the table burns 2 first, then 1.
    polygons = [pixel_box(0, 0, 1, 2), pixel_box(0, 1, 1, 2)]
    values = np.array([2, 1], np.uint8)
    if reverse:
        polygons, values = polygons[::-1], values[::-1]
    assert burn(features(polygons), values, [2, 1], grid(1, 4), 0).tolist() == [[2, 1, 1, 0]]


def test_holes_are_filled_with_the_fill_value():
    ring = pixel_box(0, 0, 3, 3) - pixel_box(1, 1, 1, 1)
    burned = burn(features([ring]), np.array([1], np.uint8), [1], grid(3, 3), 255)
    assert burned.tolist() == [[1, 1, 1], [1, 255, 1], [1, 1, 1]]


@settings(max_examples=50)
@given(st.lists(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=6, max_size=6), min_size=1, max_size=6))
def test_polygonizing_keeps_the_area_of_each_value(rows):
    values = np.array(rows, np.uint8)
    place = grid(*values.shape, transform=Affine(0.5, 0, 500_000, 0, -2, 5_000_000))
    areas = dict.fromkeys((0, 1, 2), 0.0)
    for polygon, value in polygonize(values, place):
        areas[value] += polygon.area
    # A pixel is 0.5 m x 2 m = 1 m2.
    assert areas == {value: (values == value).sum() for value in (0, 1, 2)}


@settings(max_examples=50)
@given(st.lists(st.lists(st.sampled_from([1, 2, 255]), min_size=6, max_size=6), min_size=1, max_size=6))
def test_burning_polygonized_pixels_gives_the_pixels_back(rows):
    values = np.array(rows, np.uint8)
    pairs = list(polygonize(values, grid(*values.shape)))
    if pairs:
        found = np.array([value for _, value in pairs], np.uint8)
        burned = burn(features([p for p, _ in pairs]), found, [1, 2], grid(*values.shape), 255)
        np.testing.assert_array_equal(burned, values)


@settings(max_examples=50)
@given(st.lists(polygons(), min_size=1, max_size=5))
def test_burn_then_polygonize_keeps_the_area_up_to_the_pixels_on_the_border(shapes):
    union = shapely.intersection(shapely.union_all(shapes), shapely.box(*grid(SIDE, SIDE).bounds))
    burned = burn(features(shapes), np.ones(len(shapes), np.uint8), [1], grid(SIDE, SIDE), 0)
    area = sum(polygon.area for polygon, value in polygonize(burned, grid(SIDE, SIDE)) if value == 1)
    # Only pixels that the border crosses can be counted wrongly; a line of length L crosses at most 2 L + 4 pixels
    # a part (and its ends on pixel corners touch as many again).
    border = sum(shape.exterior.length for shape in shapes)
    assert abs(area - union.area) <= 2 * border + 8 * len(shapes)


@settings(max_examples=50)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 12), st.integers(0, 12))
def test_whole_pixels_burned_and_polygonized_are_the_same_polygon(height, width, row, col):
    box = pixel_box(row, col, height, width)
    burned = burn(features([box]), np.array([1], np.uint8), [1], grid(SIDE, SIDE), 0)
    (polygon,) = [polygon for polygon, value in polygonize(burned, grid(SIDE, SIDE)) if value == 1]
    assert polygon.equals(box)


def test_only_features_near_the_grid_are_given_to_gdal(monkeypatch):
    # 2 500 boxes of 1 x 1 pixels, 2 pixels apart; a window of 4 x 4 pixels intersects 2 x 2 of their bounding boxes, or
    # 3 x 3 where it touches them.
    boxes = [pixel_box(2 * row, 2 * col, 1, 1) for row in range(50) for col in range(50)]
    given_to_gdal = []
    rasterize = burning_module.rasterize

    def counted(pairs, **options):
        given_to_gdal.extend(polygon for geometry, _ in pairs for polygon in geometry["coordinates"])
        return rasterize(pairs, **options)

    monkeypatch.setattr(burning_module, "rasterize", counted)
    burn(features(boxes), np.ones(2500, np.uint8), [1], grid(100, 100), 0, Window(40, 60, 4, 4))
    assert 4 <= len(given_to_gdal) <= 9


# Priorities and touched pixels -------------------------------------------------------------------------------------


def prioritised(geometries, priorities) -> Features:
    return replace(features(geometries), priorities=np.array(priorities, np.float64))


@pytest.mark.parametrize(("priorities", "expected"), [([0, 1], [2, 1, 1, 0]), ([5, 1], [2, 2, 1, 0])])
def test_the_polygon_of_the_higher_priority_lies_on_top(priorities, expected):
    # Columns 0 to 3; value 2 covers 0 and 1, value 1 covers 1 and 2; the table alone would put 2 on top.
    shapes = prioritised([pixel_box(0, 0, 1, 2), pixel_box(0, 1, 1, 2)], priorities)
    assert burn(shapes, np.array([2, 1], np.uint8), [1, 2], grid(1, 4), 0).tolist() == [expected]


def test_the_class_table_decides_between_equal_priorities():
    shapes = prioritised([pixel_box(0, 0, 1, 2), pixel_box(0, 1, 1, 2)], [3, 3])
    assert burn(shapes, np.array([2, 1], np.uint8), [1, 2], grid(1, 4), 0).tolist() == [[2, 2, 1, 0]]


def test_a_touched_class_takes_every_pixel_that_its_polygons_touch():
    # A strip over columns 0.6 to 1.4 contains no centre; it touches the columns 0 and 1.
    strip = features([pixel_box(0, 0.6, 1, 0.8), pixel_box(0, 2.6, 1, 0.3)])
    values = np.array([7, 8], np.uint8)
    assert burn(strip, values, [7, 8], grid(1, 4), 0).tolist() == [[0, 0, 0, 0]]
    assert burn(strip, values, [7, 8], grid(1, 4), 0, all_touched=[7]).tolist() == [[7, 7, 0, 0]]


@settings(max_examples=100)
@given(many, windows, st.permutations(range(8)))
def test_a_window_of_touched_pixels_and_priorities_is_that_part_of_the_whole(pairs, window, priorities):
    world, place = prioritised([p for p, _ in pairs], priorities[: len(pairs)]), grid(SIDE, SIDE)
    values = np.array([v for _, v in pairs], np.uint8)
    whole = burn(world, values, range(5), place, 9, Window(-8, -8, SIDE + 24, SIDE + 24), all_touched=[1, 3])
    part = burn(world, values, range(5), place, 9, window, all_touched=[1, 3])
    np.testing.assert_array_equal(part, whole[window.relative_to(Window(-8, -8, 0, 0)).slices])


def test_a_window_of_a_long_touched_edge_through_corners_of_pixels_is_that_part_of_the_whole():
    # GDAL's own rounding along such an edge, from the window's border on, decides which pixels it touches.
    needle = shapely.Polygon([METRE @ corner for corner in ((1593, 2), (2506, 2990), (2507, 2990))])
    place, window = grid(3000, 3000), Window(551, 1467, 282, 435)
    whole, part = (burn(features([needle]), np.ones(1, np.uint8), [1], place, 0, each, [1]) for each in (None, window))
    np.testing.assert_array_equal(part, whole[window.slices])
    assert part.any()


@settings(max_examples=100)
@given(polygons())
def test_a_polygon_covers_a_centre_if_it_burns_a_pixel(polygon):
    around = Window(-20, -20, SIDE + 40, SIDE + 40)
    burned = burn(features([polygon]), np.ones(1, np.uint8), [1], grid(SIDE, SIDE), 0, around)
    assert covers_a_centre(polygon, grid(SIDE, SIDE)) == burned.any()
