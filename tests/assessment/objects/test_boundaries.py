"""Boundaries: lengths within a tolerance are those of points that lie close together on them."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from landscribe.assessment.objects.boundaries import Edges, length_within

SQUARE = shapely.box(0, 0, 10, 10)


def edges_of(*polygons, metres=((1, 0), (0, 1))):
    matrices = np.tile(np.array(metres, float), (len(polygons), 1, 1))
    return Edges.of(np.array(polygons, dtype=object), matrices)


triangles = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=3, max_size=3).filter(
    lambda corners: shapely.Polygon(corners).area > 0
).map(shapely.Polygon)  # fmt: skip


@given(st.lists(triangles, min_size=1, max_size=3), st.lists(triangles, min_size=1, max_size=3), st.floats(0.1, 6))
def test_length_within_is_that_of_many_points(own, others, tolerance):
    edges = edges_of(*own)
    shares = (np.arange(200) + 0.5) / 200
    points = shapely.points(edges.starts[:, None] + shares[:, None] * (edges.ends - edges.starts)[:, None])
    lines = shapely.multilinestrings([polygon.exterior for polygon in others])
    near = shapely.dwithin(points, lines, tolerance).mean(axis=1)
    found = length_within(edges, edges_of(*others), tolerance)
    # Each interval that is entered or left may be half a step longer or shorter.
    assert found == pytest.approx(float(near @ edges.lengths()), abs=0.02 * edges.lengths().sum())


def test_holes_and_parts_have_boundaries():
    ring = shapely.Polygon(SQUARE.exterior.coords, [shapely.box(2, 2, 4, 4).exterior.coords])
    parts = shapely.MultiPolygon([ring, shapely.box(20, 0, 21, 1)])
    assert edges_of(parts).lengths().sum() == 40 + 8 + 4


def test_edges_without_length_neither_count_nor_attract():
    twice = shapely.Polygon([(0, 0), (0, 0), (10, 0), (10, 10), (0, 10)])
    far = shapely.Polygon([(50, 0), (50, 0), (60, 0), (60, 10)])
    assert len(edges_of(twice)) == 4
    assert length_within(edges_of(SQUARE), edges_of(far), 1) == 0


def test_a_tolerance_is_metres_whatever_the_units_of_the_crs():
    # Units of 2 m along x and 0.5 m along y: the shift of one unit is 2 m.
    metres = ((2, 0), (0, 0.5))
    own, other = edges_of(SQUARE, metres=metres), edges_of(shapely.box(1, 0, 11, 10), metres=metres)
    assert own.lengths().sum() == 2 * 20 + 2 * 5
    assert length_within(own, other, 2.001) == pytest.approx(50)
    # Along x, 18 m are shared and 1.5 m more are near a corner; along y, 1.5 m at either end are near the other's sides
    # along x, of the edge that lies inside.
    assert length_within(own, other, 1.5) == pytest.approx(2 * 19.5 + 3)
