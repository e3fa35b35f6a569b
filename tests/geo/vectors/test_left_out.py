"""What burning leaves out, against burning each polygon alone."""

from collections import Counter
from dataclasses import replace

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from landscribe.geo.features import Features
from landscribe.geo.grid import Window
from landscribe.geo.vectors.burning import burn
from landscribe.geo.vectors.left_out import _MOST_BLOCKS, _blocks, overlaps, without_pixel
from worlds import METRE, UTM, grid, pixel_box

SIDE = 12


def features(geometries, priorities=None) -> Features:
    world = Features("a.gpkg", np.array(geometries, dtype=object), ("house",) * len(geometries), UTM)
    return world if priorities is None else replace(world, priorities=np.array(priorities, np.float64))


@st.composite
def polygons(draw) -> shapely.Polygon:
    """A triangle of any size, on eighths of pixels: many go exactly through centres."""
    row, col = draw(st.integers(0, 8 * SIDE)), draw(st.integers(0, 8 * SIDE))
    size = draw(st.sampled_from([3, 12, 60]))
    corners = [(col + draw(st.integers(0, size)), row + draw(st.integers(0, size))) for _ in range(3)]
    triangle = shapely.Polygon([METRE @ (x / 8, y / 8) for x, y in corners])
    return triangle if triangle.is_valid and triangle.area > 0 else triangle.envelope.buffer(0.1, join_style="mitre")


@settings(max_examples=100)
@given(st.lists(polygons(), min_size=1, max_size=12))
def test_polygons_without_pixel_burn_none_when_they_are_alone(shapes):
    place, world = grid(SIDE, SIDE), features(shapes)
    around = place.window.grown(12)
    burns = [burn(features([shape]), np.ones(1, np.uint8), [1], place, 0, around).any() for shape in shapes]
    near = set(world.intersecting(place).tolist())
    assert without_pixel(world, place).tolist() == [n for n, burned in enumerate(burns) if n in near and not burned]


@settings(max_examples=100)
@given(st.lists(st.tuples(polygons(), st.integers(1, 3), st.integers(0, 2)), min_size=1, max_size=8), st.booleans())
def test_overlaps_are_the_pixels_that_polygons_of_several_classes_burn(rows, by_priority):
    shapes, values = [shape for shape, _, _ in rows], np.array([value for _, value, _ in rows], np.uint8)
    place, priorities = grid(SIDE, SIDE), [priority for _, _, priority in rows]
    # Bottom to top: the rank of each polygon, and which of them contain each pixel.
    ranks = [(priority if by_priority else 0, value) for _, value, priority in rows]
    masks = [burn(features([shape]), np.ones(1, np.uint8), [1], place, 0) == 1 for shape in shapes]
    expected = Counter()
    for pixel in np.ndindex(place.shape):
        inside = sorted(rank for rank, mask in zip(ranks, masks, strict=True) if mask[pixel])
        if len({value for _, value in inside}) > 1 and inside[0][1] != inside[-1][1]:
            expected[(inside[0][1], inside[-1][1])] += 1
    counted = overlaps(features(shapes, priorities if by_priority else None), values, (1, 2, 3), place)
    assert counted.complete
    assert counted.pixels == expected


def test_a_thin_polygon_around_the_earth_is_counted_at_once():
    line = shapely.box(METRE.c - 2e7, METRE.f - 3.9, METRE.c + 2e7, METRE.f - 3.8)
    features = Features("a.gpkg", np.array([line], object), ("road",), UTM)
    assert without_pixel(features, grid(8, 8)).tolist() == [0]


def test_neighbours_that_share_an_edge_do_not_overlap():
    # The edge goes through the centres of the pixels of column 2.
    world = features([pixel_box(0, 0, 4, 2.5), pixel_box(0, 2.5, 4, 3)])
    assert not overlaps(world, np.array([1, 2], np.uint8), (1, 2), grid(4, 6)).pixels


def test_overlaps_on_a_large_grid_are_counted_in_a_part_of_it():
    # Of 2**31 pixels squared, looking at every block would take for ever.
    side = 2**31
    world = features([pixel_box(0, 0, 5000, 5000), pixel_box(3000, 3000, 1, 1)])
    large = grid(side, side)
    counted = overlaps(world, np.array([1, 2], np.uint8), (1, 2), large)
    assert (counted.pixels, counted.complete) == (Counter({(1, 2): 1}), True)
    assert len(_blocks(np.array([shapely.box(*large.bounds)]), large)) == _MOST_BLOCKS + 1


@settings(max_examples=30)
@given(st.integers(-2000, 2000), st.integers(-2000, 2000), st.integers(1, 3000), st.integers(1, 3000))
def test_blocks_cover_the_part_of_a_box_on_the_grid(row, col, height, width):
    place = grid(1500, 2500)
    blocks = _blocks(np.array([pixel_box(row, col, height, width)]), place)
    covered = np.zeros(place.shape, np.uint8)
    for block in blocks:
        covered[(block & place.window).slices] += 1
    assert covered.max(initial=0) <= 1
    assert covered[(Window(row, col, height, width) & place.window).slices].all()
