"""Nodata: which pixels a raster's nodata values mark as not valid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from landscribe.errors import RasterError, counted
from landscribe.geo.grid import Window
from landscribe.geo.spec import NodataRule, NodataValue

_FLOAT32_STEPS = 4
"""GDAL takes float32 pixels within so many rounding steps of the declared value for nodata (ARE_REAL_EQUAL)."""
_HUGE = 1e38
"""A float32 value beyond this marks all pixels beyond it: programs write the smallest float32 with few digits."""
_REMEDY = (
    "Give the value that its empty pixels hold; if it has no empty pixels, unset the declared value (gdal_edit.py "
    "-unsetnodata)"
)


@dataclass(frozen=True)
class Origin:
    """The file of a band.

    >>> str(Origin("s1.tif", 2, 2, "float32"))
    'band 2 of s1.tif'
    """

    file: str
    number: int
    """Of the band in its file, from 1."""
    bands: int
    """How many its file has."""
    dtype: str
    """Of its file."""

    def __str__(self) -> str:
        return f"band {self.number} of {self.file}"


class Group(NamedTuple):
    """Bands that are judged together."""

    indices: list[int]
    """Of the bands with a nodata value."""
    needs_all: bool
    """True if a pixel is nodata only where all of these bands hold their values."""


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
    declared: tuple[float | None, ...] = ()
    """Of each band, a further value that marks where `value` is NaN; empty if there is none."""
    origins: tuple[Origin, ...] = ()
    """Of each band; empty if all are of one file."""

    def by_band(self, count: int) -> tuple[float | None, ...]:
        """The value of each of so many bands."""
        return self.value if isinstance(self.value, tuple) else (self.value,) * count

    def of_bands(self, indices: Sequence[int] | None) -> "Nodata":
        """Nodata of these bands, in this order; of all bands if None."""
        if indices is None:
            return self
        value = one_if_equal([self.value[index] for index in indices]) if isinstance(self.value, tuple) else self.value
        declared = tuple(self.declared[index] for index in indices if self.declared)
        origins = tuple(self.origins[index] for index in indices if self.origins)
        return replace(self, value=value, declared=declared, origins=origins)

    def groups(self, count: int, dtype: np.dtype[Any]) -> list[Group]:
        """The groups of bands to which the rule is applied; a pixel is nodata if one of the groups marks it.

        A file of several bands is a group: another date or sensor in the stack has its own empty pixels. Files of one
        band may be the bands of one acquisition, in which a dark pixel has 0 in one band: those with the same dtype and
        value are one group. Where a file of several bands has that dtype and value too, they may be further bands of
        it, and all of them with the value mark nothing more than that file does.

        Args:
            count: of bands.
            dtype: of the raster, where the bands have no origins.

        >>> single, pair = Origin("b2.tif", 1, 1, "uint8"), [Origin("s2.tif", number, 2, "uint8") for number in (1, 2)]
        >>> Nodata(0, origins=(single, single, *pair)).groups(4, np.dtype("uint8"))
        [Group(indices=[2, 3], needs_all=True)]
        >>> Nodata(0, "any", origins=(single, single, *pair)).groups(4, np.dtype("uint8"))
        [Group(indices=[0, 1], needs_all=False), Group(indices=[2, 3], needs_all=False)]
        """
        values, origins = self.by_band(count), self.origins or (Origin("", 1, count, str(dtype)),) * count
        by_key: dict[tuple[Any, ...], list[int]] = {}
        of_several = set()
        for index, (value, origin) in enumerate(zip(values, origins, strict=True)):
            if value is None:
                continue
            kind = origin.dtype, "nan" if is_nan(value) else value
            if origin.bands > 1:
                of_several.add(kind)
            by_key.setdefault((origin.file,) if origin.bands > 1 else kind, []).append(index)
        groups = {
            key: Group(indices, self._needs_all({values[index] for index in indices}, origins[indices[0]].dtype))
            for key, indices in by_key.items()
        }
        return [group for key, group in groups.items() if key not in of_several or not group.needs_all]

    def groups_apart(self, count: int, dtype: np.dtype[Any]) -> list[Group]:
        """The groups, if they mark other pixels than all bands judged together; else empty."""
        groups, together = self.groups(count, dtype), replace(self, origins=()).groups(count, dtype)
        is_any = not any(group.needs_all and len(group.indices) > 1 for group in (*groups, *together))
        return [] if is_any or groups == together else groups

    def marks(
        self, pixels: NDArray[Any] | Sequence[NDArray[Any]], dtype: np.dtype[Any] | None = None
    ) -> NDArray[np.bool_]:
        """(rows, cols), True where pixels are nodata.

        Args:
            pixels: (bands, rows, cols), or (rows, cols) of each band in its own dtype.
            dtype: of the raster, which decides the rule `auto` where the bands have no origins; that of the pixels if
                None.
        """
        marked = np.zeros(pixels[0].shape, bool)
        for group in self.groups(len(pixels), pixels[0].dtype if dtype is None else dtype):
            bands = [self._marks_band(index, pixels) for index in group.indices]
            marked |= (np.logical_and if group.needs_all else np.logical_or).reduce(bands)
        return marked

    def _marks_band(self, index: int, pixels: NDArray[Any] | Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
        """(rows, cols), True where a band with a value holds it, or the further one."""
        band, value = pixels[index], self.by_band(len(pixels))[index]
        own = self.declared[index] if self.declared else None
        assert value is not None
        return _holds(band, value) | _holds(band, own) if is_nan(value) and own is not None else _holds(band, value)

    def require_finite(
        self, pixels: NDArray[Any], valid: NDArray[np.bool_], window: Window, names: Sequence[str]
    ) -> None:
        """Raise RasterError for a valid pixel that is NaN or infinite.

        Args:
            pixels: (bands, rows, cols) of the window; in a decimated read, each stands for several.
            valid: (rows, cols).
            window: for the message, as the names.
            names: of the file of each band.
        """
        if pixels.dtype.kind != "f":
            return
        finite = np.isfinite(pixels)
        odd = valid & ~finite.all(axis=0)
        if odd.any():
            name = names[int(np.argmax((valid & ~finite).any(axis=(1, 2))))]
            own = np.array([other == name for other in names])
            odd = valid & ~finite[own].all(axis=0)
            row, col = (int(indices[0]) for indices in np.nonzero(odd))
            bands = np.flatnonzero(~finite[:, row, col] & own)
            is_marked = all(is_nan(self.by_band(len(pixels))[band]) for band in bands)
            flag = "nodata_rule = any (--nodata-rule any)" if is_marked else "nodata = nan (--nodata nan)"
            row, col = row * window.height // valid.shape[0], col * window.width // valid.shape[1]
            raise RasterError(
                f"{name} holds {int(odd.sum())} NaN or infinite pixels in rows {window.row} to "
                f"{window.row_stop}, first at row {window.row + row}, col {window.col + col}; its nodata is "
                f"{nodata_label(self.value)}. Treat them as nodata with {flag}."
            )

    def _needs_all(self, values: set[float | None], dtype: str) -> bool:
        """True if a pixel is nodata only where all bands of a group, with these values and this dtype, hold them."""
        if self.rule == "auto":
            return np.dtype(dtype).kind == "u" and values <= {0, np.iinfo(dtype).max}
        return self.rule == "all"


def is_nan(value: float | None) -> bool:
    """True if a band's nodata value is NaN."""
    return value is not None and math.isnan(value)


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


def require_held(nodata: NodataValue, origins: Sequence[Origin]) -> None:
    """Raise RasterError if the file of a band has an integer dtype that cannot hold the band's nodata value."""
    values = Nodata(nodata).by_band(len(origins))
    held = [
        value if can_hold(origin.dtype, value or 0) else math.nan for value, origin in zip(values, origins, strict=True)
    ]
    remedy = None
    if isinstance(nodata, float | int) and not all(map(is_nan, held)):
        texts = ",".join(f"{value:.10g}" for value in held)
        remedy = f"Give a value for each band: {texts} (nan: the declared value of whole numbers)"
    for value, origin in zip(values, origins, strict=True):
        require_representable(value, origin.dtype, 1, origin.file, remedy)


def require_representable(nodata: NodataValue, dtype: str, bands: int, name: str, remedy: str | None = None) -> None:
    """Raise RasterError if no pixel of an integer dtype can hold a nodata value: nothing would be nodata.

    NaN is added to the declared values, so for integers it changes nothing.

    Args:
        nodata: one value, or one for each band.
        dtype: of the bands.
        bands: how many there are.
        name: of the raster, for messages.
        remedy: for the message; None: that for a file.
    """
    if isinstance(nodata, tuple) and len(nodata) != bands:
        raise RasterError(
            f"{len(nodata)} nodata values were given ({nodata_label(nodata)}), but {name} has "
            f"{counted(bands, 'band')}. Expected one value, or one for each band."
        )
    for value in nodata if isinstance(nodata, tuple) else (nodata,):
        if value is not None and not is_nan(value) and not can_hold(dtype, value):
            limits = np.iinfo(dtype)
            raise RasterError(
                f"nodata is {value:g}, but {name} holds {dtype}. Expected a whole number from {limits.min} to "
                f"{limits.max}. {remedy or _REMEDY}."
            )


def can_hold(dtype: str | np.dtype[Any], value: float) -> bool:
    """True if a pixel of a dtype can hold a value, up to the rounding of floats.

    >>> can_hold("uint8", 255), can_hold("uint8", 256), can_hold("uint8", 0.5), can_hold("float32", 0.5)
    (True, False, False, True)
    >>> can_hold("uint64", float(2**64 - 1))
    True
    """
    if np.dtype(dtype).kind == "f":
        return True
    limits = np.iinfo(dtype)
    return math.isfinite(value) and value == int(value) and float(limits.min) <= value <= float(limits.max)


def _holds(band: NDArray[Any], value: float) -> NDArray[np.bool_]:
    """(rows, cols), True where a band holds a nodata value."""
    if band.dtype.kind != "f":
        if not can_hold(band.dtype, value):
            return np.zeros(band.shape, bool)
        # As an integer: as floats, 64 bits would be rounded. The largest one is rounded up already.
        return np.asarray(band == min(int(value), int(np.iinfo(band.dtype).max)))
    if math.isnan(value):
        return ~np.isfinite(band)
    if band.dtype != np.float32 or not math.isfinite(value):
        return np.asarray(band == value)
    if abs(value) > _HUGE:
        return np.asarray(band < -_HUGE if value < 0 else band > _HUGE)
    reach = _FLOAT32_STEPS * float(np.finfo(np.float32).eps) * abs(value)
    return np.asarray((band >= np.float32(value - reach)) & (band <= np.float32(value + reach)))
