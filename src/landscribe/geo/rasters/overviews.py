"""Overviews: half as many rows and columns, each pixel the most common value of four, or their mean.

Overviews of the parts of a raster are parts of its overviews, as far as the parts begin at multiples of the factor.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 512
"""Side of the smallest overview in pixels at most; larger rasters have a further one."""

Values = NDArray[np.uint8]


def halved(values: Values, nodata: int) -> Values:
    """The most common value of each 2 x 2 pixels, nodata if none of them is valid.

    Of values that are as common, it is the first one in row order. An odd row or column at the end stands alone.

    Args:
        values: (rows, cols).
        nodata: the value of pixels that do not count.

    Returns:
        Half as many rows and columns, rounded up.

    >>> halved(np.array([[1, 2, 5], [2, 3, 255]], np.uint8), nodata=255)
    array([[2, 5]], dtype=uint8)
    """
    rows, cols = values.shape
    if rows % 2 or cols % 2:
        values = np.pad(values, ((0, rows % 2), (0, cols % 2)), constant_values=nodata)
    a, b, c, d = (np.ascontiguousarray(values[row::2, col::2]) for row in (0, 1) for col in (0, 1))
    has_gaps = bool((values == nodata).any())
    result = a.copy()
    # Each replaces those before: the first valid value, then a pair of the last two, of `b`, and of `a`.
    if has_gaps:
        for other in (b, c, d):
            _replace(result, other, result == nodata)
    for value, is_pair in ((c, c == d), (b, (b == c) | (b == d)), (a, (a == b) | (a == c) | (a == d))):
        _replace(result, value, is_pair & (value != nodata) if has_gaps else is_pair)
    return result


def _replace(values: Values, other: Values, where: NDArray[np.bool_]) -> None:
    """As np.copyto, in a quarter of the time where the pixels vary: without branches."""
    values ^= (values ^ other) & np.negative(where.view(np.uint8))


def averaged(pixels: NDArray[Any], nodata: float) -> NDArray[Any]:
    """The mean of the valid pixels of each 2 x 2, nodata if none of them is valid; halves of integers round up.

    Args:
        pixels: (bands, rows, cols) of uint8 or float32.
        nodata: the value of pixels that do not count; NaN for those that are not numbers.

    Returns:
        Half as many rows and columns, rounded up, of the same type.

    >>> averaged(np.array([[[1, 2, 5], [2, 4, 255]]], np.uint8), nodata=255)
    array([[[2, 5]]], dtype=uint8)
    """
    rows, cols = pixels.shape[1:]
    if rows % 2 or cols % 2:
        pixels = np.pad(pixels, ((0, 0), (0, rows % 2), (0, cols % 2)), constant_values=nodata)
    valid = ~np.isnan(pixels) if math.isnan(nodata) else pixels != nodata
    quarters = [(slice(None), slice(row, None, 2), slice(col, None, 2)) for row in (0, 1) for col in (0, 1)]
    count = sum(valid[quarter].astype(np.uint8) for quarter in quarters)
    total = sum(np.where(valid[quarter], pixels[quarter], 0).astype(np.float32) for quarter in quarters)
    mean = total / np.maximum(count, 1)
    if pixels.dtype != np.float32:
        mean = np.floor(mean + 0.5)
    return np.where(count > 0, mean, nodata).astype(pixels.dtype)


def halvings(shape: tuple[int, int]) -> int:
    """How many overviews a raster of (rows, cols) has.

    >>> halvings((512, 300)), halvings((513, 300)), halvings((40_000, 100))
    (0, 1, 7)
    """
    return max(0, (-(-max(shape) // LARGEST) - 1).bit_length())


def reduced(shape: tuple[int, int], level: int) -> tuple[int, int]:
    """(rows, cols) of an overview of a raster, whose pixels are 2 to the power of `level` as long."""
    rows, cols = (-(-length // 2**level) for length in shape)
    return rows, cols
