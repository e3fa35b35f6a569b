"""Nodata: which pixels a raster's nodata value marks as not usable."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.geo.spec import NodataRule


@dataclass(frozen=True)
class Nodata:
    """A value that marks pixels, and the rule by which it does."""

    value: float | None = None
    """None for no such value; NaN for all that is not finite."""
    rule: NodataRule = "auto"

    @property
    def is_nan(self) -> bool:
        """True if all that is not finite is marked."""
        return self.value is not None and math.isnan(self.value)

    def marks(self, pixels: NDArray[Any]) -> NDArray[np.bool_]:
        """(rows, cols), True where pixels (bands, rows, cols) are not valid."""
        if self.value is None:
            return np.zeros(pixels.shape[1:], bool)
        if self.is_nan:
            held = ~np.isfinite(pixels) if pixels.dtype.kind == "f" else np.zeros(pixels.shape, bool)
        else:
            held = np.asarray(pixels == self.value)
        return np.logical_and.reduce(held) if self.needs_all(pixels.dtype) else np.logical_or.reduce(held)

    def needs_all(self, dtype: np.dtype[Any]) -> bool:
        """True if only a pixel all of whose bands hold the value is not valid."""
        if self.rule == "auto":
            return dtype.kind == "u" and self.value in (0, np.iinfo(dtype).max)
        return self.rule == "all"
