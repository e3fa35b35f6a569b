"""The minimum mapping unit: patches too small to be mapped go to the classes around them.

Done window by window. What becomes of a pixel depends on its neighbourhood alone, so that the windows' results fit
together as if the map had been one array.
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
class Generalisation:
    """Which patches are dissolved, and how far one must look to know."""

    smallest: int
    """Pixels of the smallest patch that stays."""

    @property
    def extent(self) -> int:
        """Rows and columns that a patch may span to be dissolved; threads longer than this stay."""
        return min(self.smallest, _LARGEST_EXTENT)

    @property
    def reach(self) -> int:
        """How many pixels the classes around grow at most; what is still left between them stays as it is."""
        return min(2 * math.isqrt(self.smallest) + 2, _LARGEST_EXTENT // 2)

    @property
    def halo(self) -> int:
        """Pixels around a window that decide what becomes of it."""
        return self.extent + self.reach

    def apply(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Class values (rows, cols) without small patches; ignore stays, and is no neighbour.

        A patch is of pixels that touch at sides or corners. Its pixels take, from its border inwards, the most common
        class among the eight around them that are in no small patch; of equals the lower value.
        """
        small = self._small(values)
        if not small.any():
            return values
        # A rim that is no class, so that every pixel has eight neighbours.
        known = np.pad(np.where(small, IGNORE, values), 1, constant_values=IGNORE)
        rows, cols = (places + 1 for places in np.nonzero(small))
        for _ in range(self.reach):
            around = np.stack([known[rows + row, cols + col] for row, col in _NEIGHBOURS])
            reached = (around != IGNORE).any(axis=0)
            if not reached.any():
                break
            known[rows[reached], cols[reached]] = _most_common(around[:, reached])
            rows, cols = rows[~reached], cols[~reached]
        result: NDArray[np.uint8] = known[1:-1, 1:-1]
        return np.where(small & (result == IGNORE), values, result)

    def _small(self, values: NDArray[np.uint8]) -> NDArray[np.bool_]:
        small = np.zeros(values.shape, bool)
        for value in np.unique(values[values != IGNORE]):
            patches, count = ndimage.label(values == value, _EIGHT)
            is_small = np.bincount(patches.ravel(), minlength=count + 1) < self.smallest
            is_small[0] = False
            if self.smallest > self.extent:
                for number, places in enumerate(ndimage.find_objects(patches), start=1):
                    is_small[number] &= max(place.stop - place.start for place in places) <= self.extent
            small |= is_small[patches]
        return small


def _most_common(around: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of each column of (8, pixels) the most common class, ignore not counted; of equals the lower."""
    classes = np.unique(around[around != IGNORE])
    counts = np.stack([(around == value).sum(axis=0) for value in classes])
    return classes[counts.argmax(axis=0)]
