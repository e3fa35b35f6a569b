"""Sieve: the minimum mapping unit. Patches smaller than it take the classes around them.

A pixel's result depends on its neighbourhood alone, so windows read with a halo give the result of the whole map.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from landscribe.geo.classes import IGNORE

_LARGEST_EXTENT = 512
_EIGHT = np.ones((3, 3), bool)
_NEIGHBOURS = [(row, col) for row in (-1, 0, 1) for col in (-1, 0, 1) if (row, col) != (0, 0)]


@dataclass(frozen=True)
class Sieve:
    """Dissolves patches of fewer than `min_pixels`."""

    min_pixels: int
    """Pixels of the smallest patch that stays."""

    @property
    def extent(self) -> int:
        """Most rows and columns that a dissolved patch may span; longer ones stay."""
        return min(self.min_pixels, _LARGEST_EXTENT)

    @property
    def growth(self) -> int:
        """Most pixels by which the surrounding classes grow; pixels farther inside keep their class."""
        return min(2 * math.isqrt(self.min_pixels) + 2, _LARGEST_EXTENT // 2)

    @property
    def halo(self) -> int:
        """Pixels around a window that decide its result."""
        return self.extent + self.growth

    def apply(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Class values (rows, cols) without small patches; ignore stays, and is no neighbour.

        A patch is 8-connected. From its border inwards, each pixel takes the most common class of its eight neighbours
        outside small patches; the lower value in a tie.
        """
        small = self._small(values)
        if not small.any():
            return values
        # A rim of ignore, so that every pixel has eight neighbours.
        grown = np.pad(np.where(small, IGNORE, values), 1, constant_values=IGNORE)
        rows, cols = (indices + 1 for indices in np.nonzero(small))
        for _ in range(self.growth):
            around = np.stack([grown[rows + row, cols + col] for row, col in _NEIGHBOURS])
            is_reached = (around != IGNORE).any(axis=0)
            if not is_reached.any():
                break
            grown[rows[is_reached], cols[is_reached]] = _most_common(around[:, is_reached])
            rows, cols = rows[~is_reached], cols[~is_reached]
        result: NDArray[np.uint8] = grown[1:-1, 1:-1]
        return np.where(small & (result == IGNORE), values, result)

    def _small(self, values: NDArray[np.uint8]) -> NDArray[np.bool_]:
        small = np.zeros(values.shape, bool)
        for value in np.unique(values[values != IGNORE]):
            patches, count = ndimage.label(values == value, _EIGHT)
            is_small = np.bincount(patches.ravel(), minlength=count + 1) < self.min_pixels
            is_small[0] = False
            if self.min_pixels > self.extent:
                for index, slices in enumerate(ndimage.find_objects(patches), start=1):
                    is_small[index] &= max(span.stop - span.start for span in slices) <= self.extent
            small |= is_small[patches]
        return small


def _most_common(around: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Most common class of each column of (8, pixels), ignore not counted; the lower value in a tie."""
    classes = np.unique(around[around != IGNORE])
    counts = np.stack([(around == value).sum(axis=0) for value in classes])
    return classes[counts.argmax(axis=0)]
