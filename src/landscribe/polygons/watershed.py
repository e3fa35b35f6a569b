"""Watershed: seeds of objects, and how they grow to the pixels of their class. Arrays only, no files.

Each result at a pixel depends on its neighbourhood alone, so that blocks with a halo give what the whole map gives.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from landscribe.geo.grid import Window

Mask = NDArray[np.bool_]
"""(rows, cols)."""
Labels = NDArray[np.int64]
"""(rows, cols), 0 where there is none."""
Values = NDArray[np.int16]
"""Class values (rows, cols), -1 where there is none."""

_STEPS_A_PIXEL = 8
_RISE = 1.0
"""Pixels by which the distance of a seed may be shorter than the longest near it: a ragged edge makes no second one."""
_HEIGHTS, _DISTANCES, _ORDERS = 2**11, 2**14, 2**26
"""Numbers of heights, distances and orders, whose product float64 counts exactly."""


def distances(mask: Mask, most: float) -> NDArray[np.float64]:
    """Distance (rows, cols) of each pixel of a mask to the nearest pixel outside, in pixels, at most `most`.

    The array's edge is no edge of the mask: a distance is exact if the array reaches `most` pixels beyond it.
    """
    if mask.all():
        return np.full(mask.shape, most)
    return np.minimum(ndimage.distance_transform_edt(mask), most)


def distance_seeds(distance: NDArray[np.float64], radius: int) -> tuple[Mask, Mask]:
    """Pixels whose distance is, up to a pixel, the longest within `radius` pixels; and those where it is the longest.

    A connected part of the first without one of the second is no seed: a tip, or a saddle between two.

    >>> near, peaks = distance_seeds(np.array([[0.0, 1, 2, 3, 2, 1, 1, 2, 3, 2, 1, 0]]), radius=3)
    >>> near.astype(int).tolist(), peaks.astype(int).tolist()
    ([[0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0]], [[0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0]])
    """
    longest = ndimage.maximum_filter(distance, 2 * radius + 1, mode="constant")
    return (distance > 0) & (distance >= longest - _RISE), (distance > 0) & (distance == longest)


def distance_heights(distance: NDArray[np.float64], most: float) -> NDArray[np.int64]:
    """Heights (rows, cols) whose valleys are the middles of objects."""
    return np.round((most - distance) * _STEPS_A_PIXEL).astype(np.int64)


def grow(seeds: Labels, mask: Mask, heights: NDArray[np.int64], window: Window) -> Labels:
    """Grow seeds over a mask by watershed: from low to high, a pixel gives its label to its 4 neighbours without one.

    Of equally high pixels the one nearer to a seed is first, then the one that comes first in row order. No two pixels
    are equal, so that pixels far away cannot change the order of those that meet.

    Args:
        seeds: a number for each; those outside the mask are left out.
        mask: pixels that may be labelled.
        heights: from 0 to 2047.
        window: of the arrays, on the whole grid.

    Returns:
        (rows, cols) the number of the seed; 0 outside the mask and where no seed is connected.
    """
    parts, count = ndimage.label(mask)
    kept = np.where(mask, seeds, 0)
    is_seed = kept > 0
    lowest, highest = np.full(count + 1, np.iinfo(np.int64).max), np.zeros(count + 1, np.int64)
    np.minimum.at(lowest, parts[is_seed], kept[is_seed])
    np.maximum.at(highest, parts[is_seed], kept[is_seed])
    # A part with one seed needs no watershed.
    contested = (lowest < highest)[parts]
    labels = np.where(contested, 0, highest[parts])
    return labels + _flooded(kept, contested, heights, window) if contested.any() else labels


def _flooded(kept: Labels, mask: Mask, heights: NDArray[np.int64], window: Window) -> Labels:
    """As `grow`, in the parts of a mask with several seeds; seeds outside of it count for the distance to a seed."""
    steps = np.minimum(_DISTANCES - 1, ndimage.distance_transform_edt(kept == 0) * _STEPS_A_PIXEL).astype(np.int64)
    # Row order within the widest window, whatever the window begins with.
    rows, cols = np.ogrid[window.row : window.row_stop, window.col : window.col_stop]
    order = (rows % 2**13) * 2**13 + cols % 2**13
    levels = (np.minimum(heights, _HEIGHTS - 1) * _DISTANCES + steps) * _ORDERS + order
    # Pixels within a seed would only wait in the queue.
    within = ndimage.binary_erosion(kept > 0, border_value=1)
    edges = np.where(within | ~mask, 0, kept).astype(np.int32)
    grown = watershed(levels.astype(np.float64), edges, mask=mask & ~within, connectivity=1)
    return np.where(mask, np.where(within, kept, grown), 0)


def label_by_class(mask: Mask, values: Values, first: int) -> tuple[Labels, int]:
    """Number the 4-connected parts of a mask with one class, from `first`; and the number after the last."""
    labels = np.zeros(mask.shape, np.int64)
    for value in np.unique(values[mask]).tolist():
        parts, count = ndimage.label(mask & (values == value))
        labels += np.where(parts > 0, parts + (first - 1), 0)
        first += count
    return labels, first


def grow_by_class(
    seeds: Labels, mask: Mask, values: Values, heights: Callable[[Mask], NDArray[np.int64]], window: Window
) -> Labels:
    """As `grow`, in each class of the mask on its own; `heights` gives those of a class."""
    labels = np.zeros(mask.shape, np.int64)
    for value in np.unique(values[mask]).tolist():
        own = mask & (values == value)
        labels += grow(seeds, own, heights(own), window)
    return labels
