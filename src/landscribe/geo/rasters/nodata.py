"""Nodata: which pixels a raster's nodata values mark as not valid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.errors import RasterError, counted
from landscribe.geo.spec import NodataRule, NodataValue

_FLOAT32_STEPS = 4
"""GDAL takes float32 pixels within so many rounding steps of the declared value for nodata (ARE_REAL_EQUAL)."""
_HUGE = 1e38
"""A float32 value beyond this marks all pixels beyond it: programs write the smallest float32 with few digits."""


@dataclass(frozen=True)
class Nodata:
    """Nodata values, and the rule by which they mark pixels.

    >>> pixels = np.array([[[0, 0, 9]], [[0, 9, 9]]], np.uint8)  # 2 bands, 1 row, 3 columns
    >>> Nodata(0).marks(pixels)
    array([[ True, False, False]])
    >>> Nodata(0, "any").marks(pixels)
    array([[ True,  True, False]])
    >>> Nodata((None, 9)).marks(pixels)
    array([[False,  True,  True]])
    """

    value: NodataValue = None
    """NaN marks all values that are not finite. A band whose value is None is never nodata."""
    rule: NodataRule = "auto"

    @property
    def is_nan(self) -> bool:
        """True if the one value for all bands is NaN."""
        return isinstance(self.value, float) and math.isnan(self.value)

    def of_bands(self, indices: Sequence[int] | None) -> "Nodata":
        """Nodata of these bands, in this order; of all bands if None."""
        if indices is None or not isinstance(self.value, tuple):
            return self
        return replace(self, value=one_if_equal([self.value[index] for index in indices]))

    def marks(self, pixels: NDArray[Any]) -> NDArray[np.bool_]:
        """(rows, cols), True where pixels (bands, rows, cols) are nodata."""
        values = self.value if isinstance(self.value, tuple) else (self.value,) * len(pixels)
        bands = [_holds(band, value) for band, value in zip(pixels, values, strict=True) if value is not None]
        if not bands:
            return np.zeros(pixels.shape[1:], bool)
        return (np.logical_and if self.needs_all(pixels.dtype) else np.logical_or).reduce(bands)

    def needs_all(self, dtype: np.dtype[Any]) -> bool:
        """True if a pixel is nodata only where all of its bands that have a value hold it."""
        if self.rule == "auto":
            values = self.value if isinstance(self.value, tuple) else (self.value,)
            return dtype.kind == "u" and {value for value in values if value is not None} <= {0, np.iinfo(dtype).max}
        return self.rule == "all"


def one_if_equal(values: Sequence[float | None]) -> NodataValue:
    """The value that all bands share, else a value for each band.

    >>> one_if_equal([0, 0]), one_if_equal([0, None])
    (0, (0, None))
    """
    return values[0] if len({str(value) for value in values}) == 1 else tuple(values)


def nodata_label(value: NodataValue) -> str:
    """Nodata for messages.

    >>> nodata_label(0.0), nodata_label((0.0, None))
    ('0', '0, none (by band)')
    """
    if isinstance(value, tuple):
        return ", ".join("none" if band is None else f"{band:.10g}" for band in value) + " (by band)"
    return "none" if value is None else f"{value:.10g}"


def require_representable(nodata: NodataValue, dtype: str, bands: int, name: str) -> None:
    """Raise RasterError if no pixel of an integer dtype can hold a nodata value: nothing would be nodata."""
    if isinstance(nodata, tuple) and len(nodata) != bands:
        raise RasterError(
            f"{len(nodata)} nodata values were given ({nodata_label(nodata)}), but {name} has "
            f"{counted(bands, 'band')}. Expected one value, or one for each band."
        )
    integer = np.dtype(dtype)
    if integer.kind not in "iu":
        return
    limits = np.iinfo(integer)
    for value in nodata if isinstance(nodata, tuple) else (nodata,):
        if value is not None and not (
            math.isfinite(value) and limits.min <= value <= limits.max and value == int(value)
        ):
            raise RasterError(
                f"nodata is {value:g}, but {name} holds {dtype}. Expected a whole number from {limits.min} to "
                f"{limits.max}. Give the value that its empty pixels hold; if it has no empty pixels, unset the "
                "declared value (gdal_edit.py -unsetnodata)."
            )


def _holds(band: NDArray[Any], value: float) -> NDArray[np.bool_]:
    """(rows, cols), True where a band holds a nodata value."""
    if band.dtype.kind != "f":
        # As an integer: as floats, 64 bits would be rounded.
        is_whole = math.isfinite(value) and value == int(value)
        limits = np.iinfo(band.dtype)
        whole = min(int(value), int(limits.max)) if is_whole else 0
        return np.asarray(band == whole) if is_whole and whole >= limits.min else np.zeros(band.shape, bool)
    if math.isnan(value):
        return ~np.isfinite(band)
    if band.dtype != np.float32 or not math.isfinite(value):
        return np.asarray(band == value)
    if abs(value) > _HUGE:
        return np.asarray(band < -_HUGE if value < 0 else band > _HUGE)
    reach = _FLOAT32_STEPS * float(np.finfo(np.float32).eps) * abs(value)
    return np.asarray((band >= np.float32(value - reach)) & (band <= np.float32(value + reach)))
