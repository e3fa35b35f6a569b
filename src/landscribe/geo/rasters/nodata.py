"""Nodata: which pixels a raster's nodata value marks as not valid."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.geo.spec import NodataRule


@dataclass(frozen=True)
class Nodata:
    """A nodata value, and the rule by which it marks pixels.

    >>> pixels = np.array([[[0, 0, 9]], [[0, 9, 9]]], np.uint8)  # 2 bands, 1 row, 3 columns
    >>> Nodata(0).marks(pixels)
    array([[ True, False, False]])
    >>> Nodata(0, "any").marks(pixels)
    array([[ True,  True, False]])
    """

    value: float | None = None
    """None: nothing is nodata. NaN: all values that are not finite."""
    rule: NodataRule = "auto"

    @property
    def is_nan(self) -> bool:
        """True if all values that are not finite are nodata."""
        return self.value is not None and math.isnan(self.value)

    def marks(self, pixels: NDArray[Any]) -> NDArray[np.bool_]:
        """(rows, cols), True where pixels (bands, rows, cols) are nodata."""
        if self.value is None:
            return np.zeros(pixels.shape[1:], bool)
        if self.is_nan:
            is_nodata = ~np.isfinite(pixels) if pixels.dtype.kind == "f" else np.zeros(pixels.shape, bool)
        else:
            is_nodata = np.asarray(pixels == self.value)
        return np.logical_and.reduce(is_nodata) if self.needs_all(pixels.dtype) else np.logical_or.reduce(is_nodata)

    def needs_all(self, dtype: np.dtype[Any]) -> bool:
        """True if a pixel is nodata only where all of its bands hold the value."""
        if self.rule == "auto":
            return dtype.kind == "u" and self.value in (0, np.iinfo(dtype).max)
        return self.rule == "all"
