"""Overviews of classes: the most common value of four pixels; parts of a raster hold parts of its overviews."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from landscribe.geo.grid import Window
from landscribe.geo.rasters.overviews import HELD, halved, halvings, packed, packed_windows, shared_halvings

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))
VALUES = arrays(np.uint8, SHAPES, elements=st.sampled_from([0, 1, 2, 255]))


def most_common(values: np.ndarray) -> int:
    """Of 2 x 2 pixels or fewer at the edge, in row order; of ties the first."""
    valid = [value for value in values.ravel().tolist() if value != 255]
    return Counter(valid).most_common(1)[0][0] if valid else 255


@given(VALUES)
def test_a_pixel_of_the_half_is_the_most_common_of_four(values):
    half = halved(values, 255)
    assert half.shape == tuple(-(-length // 2) for length in values.shape)
    for row, col in np.ndindex(half.shape):
        assert half[row, col] == most_common(values[2 * row : 2 * row + 2, 2 * col : 2 * col + 2])


@given(VALUES, st.integers(1, 4), st.integers(1, 4))
def test_overviews_of_parts_are_parts_of_the_overviews(values, row, col):
    """Cut where the parts hold at least one overview."""
    row, col = (min(2 * cut, length) for cut, length in zip((row, col), values.shape, strict=True))
    parts = [[values[rows, cols] for cols in (slice(col), slice(col, None))] for rows in (slice(row), slice(row, None))]
    halves = [[halved(part, 255) for part in line if part.size] for line in parts]
    joined = np.concatenate([np.concatenate(line, axis=1) for line in halves if line])
    assert (joined == halved(values, 255)).all()


@given(VALUES, st.integers(1, 3))
def test_packed_overviews_lie_in_their_windows(values, count):
    array = packed(values, count, 255)
    for window in packed_windows(values.shape, count):
        values = halved(values, 255)
        assert (array[window.slices] == values).all()


@pytest.mark.parametrize(
    ("part", "shape", "count"),
    [
        (Window(0, 0, 700, 900), (700, 900), 1),
        (Window(0, 0, 300, 300), (300, 300), 0),
        (Window(64, 992, 64, 992), (40_000, 40_000), HELD),
        (Window(64, 994, 64, 990), (40_000, 40_000), 1),
        (Window(64, 992, 63, 992), (40_000, 40_000), 0),
        (Window(39_936, 992, 63, 992), (39_999, 40_000), HELD),
    ],
)
def test_a_part_holds_the_overviews_that_begin_and_end_with_it(part, shape, count):
    assert shared_halvings(part, shape) == count


@given(st.integers(1, 100_000))
def test_the_smallest_overview_fits_into_a_block(side):
    count = halvings((side, 1))
    assert -(-side // 2**count) <= 512
    assert count == 0 or -(-side // 2 ** (count - 1)) > 512
