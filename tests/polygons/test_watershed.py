"""Seeds grow over the pixels of their class; distances and seeds are those of the neighbourhood."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from landscribe.geo.grid import Window
from landscribe.polygons.watershed import distance_seeds, distances, grow, label_by_class


def grown(seeds, mask, heights=None, row=0, col=0) -> np.ndarray:
    seeds, mask = np.atleast_2d(seeds).astype(np.int64), np.atleast_2d(mask).astype(bool)
    heights = np.zeros(mask.shape, np.int64) if heights is None else np.atleast_2d(heights)
    return grow(seeds, mask, heights, Window(row, col, *mask.shape))


def test_seeds_meet_in_the_middle_of_level_ground_and_at_a_ridge():
    assert grown([7, 0, 0, 0, 0, 0, 9], np.ones(7)).tolist() == [[7, 7, 7, 7, 9, 9, 9]]
    assert grown([7, 0, 0, 0, 0, 0, 9], np.ones(7), [0, 9, 1, 1, 1, 1, 0]).tolist() == [[7, 7, 9, 9, 9, 9, 9]]


def test_a_seed_stays_within_its_mask_and_a_part_without_one_is_0():
    assert grown([7, 0, 0, 0, 9, 0], [1, 1, 0, 1, 0, 1]).tolist() == [[7, 7, 0, 0, 0, 0]]


@given(seed=st.integers(0, 2**31), row=st.integers(0, 20_000), col=st.integers(0, 20_000))
def test_every_pixel_that_is_connected_to_a_seed_has_one_of_its_seeds(seed, row, col):
    rng = np.random.default_rng(seed)
    mask = rng.random((12, 14)) < 0.7
    seeds = np.where(rng.random(mask.shape) < 0.1, rng.integers(1, 5, mask.shape), 0)
    labels = grown(seeds, mask, rng.integers(0, 3, mask.shape), row, col)
    np.testing.assert_array_equal(labels[mask & (seeds > 0)], seeds[mask & (seeds > 0)])
    assert not labels[~mask].any()
    parts, count = ndimage.label(mask)
    for part in range(1, count + 1):
        own = parts == part
        present = set(seeds[own].tolist()) - {0}
        assert set(labels[own].tolist()) == (present or {0})


@given(seed=st.integers(0, 2**31), most=st.integers(1, 5))
def test_distances_of_a_window_are_those_of_the_whole_where_it_reaches_far_enough(seed, most):
    mask = np.random.default_rng(seed).random((24, 24)) < 0.9
    part = distances(mask[4:20, 3:21], most)
    inside = slice(most, 16 - most), slice(most, 18 - most)
    np.testing.assert_array_equal(part[inside], distances(mask, most)[4:20, 3:21][inside])


def test_a_mask_without_an_edge_is_as_far_from_it_as_can_be():
    assert (distances(np.ones((3, 4), bool), 5) == 5).all()
    assert all(pixels.all() for pixels in distance_seeds(np.full((3, 4), 5.0), 1))


def test_parts_of_two_classes_that_touch_are_two_parts():
    values = np.array([[1, 1, 2, 2, 1]], np.uint8)
    labels, stop = label_by_class(np.ones((1, 5), bool), values, 5)
    assert (labels.tolist(), stop) == ([[5, 5, 7, 7, 6]], 8)
