"""Simplified and smoothed boundaries fit together and cross nowhere."""

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from tests.polygons.strips import polygons_in_strips, shapes_of

from landscribe.polygons.boundaries import simplify

CODES = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=16), elements=st.integers(0, 3))
TOLERANCES = st.sampled_from([1.0, 1.5, 4.0])


def patches(seed, side=40, classes=4):
    """Codes of irregular patches."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((side, side)), 2)
    return (np.digitize(noise, np.quantile(noise, np.linspace(0, 1, classes + 1)[1:-1])) + 1).astype(np.uint8)


def overlap(shapes):
    first, second = shapely.STRtree(shapes).query(shapes)
    is_pair = first < second
    return shapely.area(shapely.intersection(shapes[first[is_pair]], shapes[second[is_pair]])).sum()


@given(CODES, TOLERANCES, st.booleans())
@settings(max_examples=80)
def test_simplified_polygons_are_valid_and_fit_together(codes, tolerance, is_smooth):
    shapes = shapes_of(polygons_in_strips(codes, len(codes), tolerance=tolerance, is_smooth=is_smooth))
    assert len(shapes) == len(polygons_in_strips(codes, len(codes)))
    assert shapely.is_valid(shapes).all()
    assert shapely.is_empty(shapely.coverage_invalid_edges(shapes)).all()
    assert overlap(shapes) < 1e-9


@given(st.integers(0, 50), TOLERANCES, st.booleans())
@settings(max_examples=15)
def test_polygons_of_a_map_without_nodata_cover_it_without_gaps(seed, tolerance, is_smooth):
    codes = patches(seed)
    shapes = shapes_of(polygons_in_strips(codes, 9, tolerance=tolerance, is_smooth=is_smooth))
    assert np.isclose(shapely.area(shapes).sum(), codes.size)
    assert np.isclose(shapely.union_all(shapes).area, codes.size)


@given(st.integers(0, 50), TOLERANCES, st.booleans(), st.sampled_from([16, 512]))
@settings(max_examples=6)
def test_strips_of_any_height_give_the_same_simplified_polygons(seed, tolerance, is_smooth, cut):
    codes = patches(seed)
    before, simplify.CUT = simplify.CUT, cut
    try:
        settings = {"tolerance": tolerance, "is_smooth": is_smooth}
        results = [
            shapely.to_wkb(shapes_of(polygons_in_strips(codes, rows, **settings))).tolist() for rows in (40, 1, 7)
        ]
    finally:
        simplify.CUT = before
    assert results[0] == results[1] == results[2]


@given(st.integers(0, 50), TOLERANCES)
@settings(max_examples=15)
def test_no_traced_corner_is_farther_from_the_simplified_boundary_than_the_tolerance(seed, tolerance):
    codes = patches(seed)
    traced, simplified = (
        shapely.boundary(shapes_of(polygons_in_strips(codes, 40, tolerance=each))) for each in (0.0, tolerance)
    )
    assert max(shapely.hausdorff_distance(traced, simplified)) <= tolerance + 1e-9


def test_steps_of_a_slanting_boundary_become_a_line():
    codes = np.tril(np.ones((30, 30), np.uint8)) + 1
    shapes = shapes_of(polygons_in_strips(codes, 30, tolerance=1.0))
    assert shapely.get_num_coordinates(shapes).tolist() == [5, 7]  # the closing point, and the steps at the frame


def test_a_region_between_two_junctions_keeps_its_area():
    codes = np.ones((9, 9), np.uint8)
    codes[5:] = 2
    codes[4, 3:6] = 3
    shapes = shapes_of(polygons_in_strips(codes, 9, tolerance=4.0))
    assert len(shapes) == 3
    assert shapely.area(shapes).min() > 0


def test_smoothing_rounds_a_square_and_keeps_its_middle():
    codes = np.zeros((12, 12), np.uint8)
    codes[2:10, 2:10] = 1
    (smooth,) = shapes_of(polygons_in_strips(codes, 12, tolerance=0.0, is_smooth=True))
    assert 48 < smooth.area < 64
    assert np.allclose(smooth.centroid.coords[0], (6, 6))
    assert smooth.symmetric_difference(shapely.affinity.rotate(smooth, 90)).area < 1e-9
