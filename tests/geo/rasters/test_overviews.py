"""Overviews: the most common value of four pixels, or their mean; parts of a raster hold parts of its overviews."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from landscribe.geo.rasters.overviews import averaged, halved, halvings

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


@given(
    arrays(
        np.float32, st.tuples(st.just(2), *[st.integers(1, 6)] * 2), elements=st.sampled_from([0.0, 0.25, 1.0, np.nan])
    )
)
def test_a_pixel_of_averages_is_the_mean_of_the_valid_of_four(pixels):
    half = averaged(pixels, float("nan"))
    assert half.dtype == np.float32
    for band, row, col in np.ndindex(half.shape):
        four = pixels[band, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2]
        valid = four[~np.isnan(four)]
        np.testing.assert_array_equal(half[band, row, col], np.float32(valid.mean()) if valid.size else np.nan)


@given(VALUES)
def test_averages_of_integers_round_halves_up(values):
    half = averaged(values[None], 255)[0]
    for row, col in np.ndindex(half.shape):
        valid = [
            value for value in values[2 * row : 2 * row + 2, 2 * col : 2 * col + 2].ravel().tolist() if value < 255
        ]
        assert half[row, col] == (int(sum(valid) / len(valid) + 0.5) if valid else 255)


@given(st.integers(1, 100_000))
def test_the_smallest_overview_fits_into_a_block(side):
    count = halvings((side, 1))
    assert -(-side // 2**count) <= 512
    assert count == 0 or -(-side // 2 ** (count - 1)) > 512
