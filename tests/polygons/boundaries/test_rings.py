"""Tracing, joining and linking: the polygons of any class codes, whatever the strips."""

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from shapely.geometry import shape
from tests.polygons.strips import polygons_in_strips, shapes_of

from landscribe.polygons.boundaries.rings import signed_areas

CODES = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3))


def as_text(shapes):
    return sorted(shapely.to_wkt(shapely.normalize(shapely.simplify(shapes, 0))))


def code_rows(text):
    return np.array([[int(digit) for digit in row] for row in text.split()], np.uint8)


@given(CODES)
@settings(max_examples=60)
def test_polygons_are_those_of_gdal(codes):
    polygons = polygons_in_strips(codes, len(codes))
    expected = [shape(each) for each, _ in rasterio.features.shapes(codes.astype(np.int16), mask=codes > 0)]
    assert as_text(shapes_of(polygons)) == as_text(np.array(expected, object))


@given(CODES)
@settings(max_examples=60)
def test_rasterised_polygons_give_the_codes_back(codes):
    polygons = polygons_in_strips(codes, 3)
    shapes = shapes_of(polygons)
    assert shapely.is_valid(shapes).all()
    burned = np.zeros_like(codes)
    if len(polygons):
        pairs = zip(shapes, polygons.codes.tolist(), strict=True)
        burned = rasterio.features.rasterize(pairs, out_shape=codes.shape, dtype="uint8")
    np.testing.assert_array_equal(burned, codes)


@given(CODES, st.sampled_from(["region", "diagonal", "touching"]))
@settings(max_examples=60)
def test_strips_of_any_height_give_the_same_polygons_in_the_same_order(codes, grouping):
    weights = np.arange(codes.size, dtype=np.float32).reshape(codes.shape)
    whole = polygons_in_strips(codes, len(codes), grouping=grouping, weights=weights)
    for rows in (1, 2, 5):
        strips = polygons_in_strips(codes, rows, grouping=grouping, weights=weights)
        assert shapely.to_wkb(shapes_of(strips)).tolist() == shapely.to_wkb(shapes_of(whole)).tolist()
        np.testing.assert_array_equal(strips.codes, whole.codes)
        np.testing.assert_array_equal(strips.groups, whole.groups)
        np.testing.assert_array_equal(strips.sums, whole.sums)


@given(CODES)
@settings(max_examples=40)
def test_groups_hold_the_polygons_of_single_regions(codes):
    alone = as_text(shapes_of(polygons_in_strips(codes, 4)))
    assert as_text(shapes_of(polygons_in_strips(codes, 4, grouping="diagonal"))) == alone
    assert as_text(shapes_of(polygons_in_strips(codes, 4, grouping="touching"))) == alone


@given(CODES)
@settings(max_examples=40)
def test_sums_are_those_of_the_pixels_of_each_polygon(codes):
    weights = np.arange(codes.size, dtype=np.float32).reshape(codes.shape)
    weights[::2, ::2] = np.nan
    polygons = polygons_in_strips(codes, 2, weights=weights)
    for each, (total, count) in zip(shapes_of(polygons), polygons.sums, strict=True):
        own = weights[rasterio.features.rasterize([(each, 1)], out_shape=codes.shape) == 1]
        assert (np.nansum(own), np.count_nonzero(~np.isnan(own))) == (total, count)


@pytest.mark.parametrize(
    ("text", "polygons", "holes"),
    [
        ("1", 1, 0),  # one pixel
        ("12", 2, 0),  # neighbours
        ("10 01", 2, 0),  # a corner in common
        ("111 101 111", 1, 1),  # a hole
        ("111 121 111", 2, 1),  # nested
        ("1111 1021 1201 1111", 3, 1),  # a hole that two regions of one class share with no class
        ("1110 1011 0111", 1, 1),  # a hole that no corner joins to the outside
        ("1110 1011 1101 0111", 1, 2),  # two holes that touch at a corner
    ],
)
def test_small_maps_have_the_polygons_that_one_counts(text, polygons, holes):
    for rows in (1, 9):
        shapes = shapes_of(polygons_in_strips(code_rows(text), rows))
        assert shapely.is_valid(shapes).all()
        assert len(shapes) == polygons
        assert shapely.get_num_interior_rings(shapes).sum() == holes


def test_pixels_that_meet_at_a_corner_are_one_group_of_two_polygons():
    polygons = polygons_in_strips(code_rows("10 01"), 1, grouping="diagonal")
    assert (len(polygons), polygons.groups.tolist()) == (2, [0, 0])


def test_exteriors_run_counterclockwise_and_holes_clockwise_where_y_points_north():
    polygons = polygons_in_strips(code_rows("111 101 111"), 2)
    assert signed_areas(polygons.points, polygons.rings).tolist() == [9, -1]


def test_a_checkerboard_is_a_polygon_for_each_of_its_pixels():
    codes = (np.indices((64, 64)).sum(axis=0) % 2).astype(np.uint8)
    assert len(polygons_in_strips(codes, 16)) == 64 * 64 / 2


def test_a_ring_around_a_hole_of_another_class_that_fills_it_keeps_its_hole():
    polygons = polygons_in_strips(code_rows("111 121 111"), 3, grouping="touching")
    assert sorted(shapely.area(shapes_of(polygons))) == [1, 8]
