"""Converted: a raster whose numbers are computed from those of another, pixel by pixel.

Nodata values and masks are applied to the stored numbers, before the conversion.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from landscribe.errors import RasterError
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Window
from landscribe.geo.rasters.derived import Derived
from landscribe.geo.rasters.derived.band_names import matched_bands, moved_band
from landscribe.geo.rasters.encoding import Encoding, conversions
from landscribe.geo.rasters.metadata import log_once
from landscribe.geo.rasters.nodata import Nodata
from landscribe.geo.rasters.raster import Pixels, Raster, Valid, rounded_to
from landscribe.geo.rasters.whole_files import read_palette

NAME_BANDS = "Name the bands (--bands; in a recipe: bands of each scene)"


def as_colours(raster: Raster) -> Raster:
    """A raster with a colour table as its bands red, green and blue (uint8); any other raster as it is.

    Pixels of a transparent colour, and of none, are not valid.
    """
    if not raster.has_palette:
        return raster
    log_once(f"{raster.paths[0]} has a palette: it is read as its colours (--palette indices: as stored)", logging.INFO)
    return replace(
        raster,
        source=Converted((raster,), Palette.of(raster.paths[0])),
        bands=("red", "green", "blue"),
        dtype="uint8",
        nodata=None,
        encoding=(),
        has_palette=False,
        origins=raster.origins_by_band * 3,
        _band_indices=None,
    )


def as_bands(raster: Raster, bands: Sequence[str]) -> Raster:
    """The raster with its bands in this order, if these are their names; else as it is."""
    indices = matched_bands(raster.bands, bands) if len(bands) == len(raster.bands) else None
    return raster if indices is None or indices == sorted(indices) else raster.take_bands(indices)


def filled(raster: Raster, value: int) -> Raster:
    """The raster with a value wherever it is not valid, so that all of its pixels are valid."""
    return replace(
        raster, source=Converted((raster,), Filled(value)), nodata=None, has_palette=False, _band_indices=None
    )


def as_class_values(raster: Raster) -> Raster:
    """The one band of a raster as class values (uint8); a raster of uint8 as it is.

    NaN has no class, whether it is declared as nodata or not. Reading raises RasterError for a valid pixel that is no
    whole number from 0 to 254.
    """
    if raster.dtype == "uint8":
        return raster
    source = raster.override_nodata(math.nan)
    return replace(
        raster,
        source=Converted((source,), ClassValues(raster.paths[0])),
        dtype="uint8",
        declared=(),
        encoding=(),
        has_palette=False,
        _band_indices=None,
    )


def with_encoding(raster: Raster, expected: Sequence[Encoding], dtype: str, expected_of: str | Sequence[str]) -> Raster:
    """The raster in another encoding: the same physical values, stored as other numbers.

    Args:
        raster: to be converted.
        expected: the other encoding of each band; empty if no tag declares one.
        dtype: of the result. Integers are rounded, and clipped to the range of the dtype.
        expected_of: what has that encoding, or that of each band, for messages.

    Raises:
        RasterError: one side declares scale and offset, the other does not.
    """
    expected = tuple(expected) or (Encoding(),) * len(raster.bands)
    if raster.encoding_by_band == expected:
        return raster
    theirs = [expected_of] * len(expected) if isinstance(expected_of, str) else expected_of
    numbers = conversions(raster.band_texts, raster.encoding_by_band, expected, theirs)
    if numbers is None:
        return raster
    return replace(
        raster,
        source=Converted((raster,), Linear(tuple(numbers), dtype)),
        dtype=dtype,
        nodata=None,
        encoding=tuple(expected),
        _band_indices=None,
    )


def like(raster: Raster, first: Raster, remedy: str = NAME_BANDS) -> Raster:
    """The raster with the band order and the encoding of another one; with other bands, it keeps its own encoding.

    Raises:
        RasterError: one of them declares scale and offset, the other does not; or a band has, by its name, another
            position in the first raster, and the order does not follow from the other names.
    """
    ordered = as_bands(raster, first.bands)
    if len(ordered.bands) != len(first.bands):
        return ordered
    moved = moved_band(ordered.bands, first.bands)
    if moved is not None:
        raise RasterError(
            f"{raster.files_text} has the bands {', '.join(ordered.bands)}, but {first.files_text} has "
            f"{', '.join(first.bands)}: by its name, band {moved + 1} ({ordered.bands[moved]}) has another position. "
            f"Expected the same order, or the same names. {remedy}."
        )
    return with_encoding(ordered, first.encoding, first.dtype, first.band_texts)


class Conversion(Protocol):
    """From stored numbers to others."""

    def apply(self, pixels: Pixels, valid: Valid, bands: Sequence[int] | None) -> tuple[Pixels, Valid]:
        """Pixels (bands, rows, cols) of these bands of the result, and valid (rows, cols)."""


@dataclass(frozen=True, eq=False)
class Palette:
    """Colours of indices."""

    colours: NDArray[np.uint8]
    """(65536, 4) red, green, blue and opacity of each index."""

    @classmethod
    def of(cls, path: str) -> "Palette":
        """The palette of a file; an index without a colour is transparent."""
        colours = np.zeros((2**16, 4), np.uint8)
        for index, colour in (read_palette(path) or {}).items():
            colours[index] = colour
        return cls(colours)

    def apply(self, pixels: Pixels, valid: Valid, bands: Sequence[int] | None) -> tuple[Pixels, Valid]:
        """See `Conversion`."""
        colours = self.colours[pixels[0]]
        valid = valid & (colours[..., 3] > 0)
        return np.moveaxis(colours[..., list(bands) if bands is not None else slice(3)], -1, 0).copy(), valid


@dataclass(frozen=True)
class Linear:
    """`stored * factor + offset`."""

    numbers: tuple[tuple[float, float], ...]
    """Factor and offset of each band."""
    dtype: str

    def apply(self, pixels: Pixels, valid: Valid, bands: Sequence[int] | None) -> tuple[Pixels, Valid]:
        """See `Conversion`."""
        numbers = self.numbers if bands is None else [self.numbers[band] for band in bands]
        factor, offset = np.array(numbers, np.float64).T[:, :, None, None]
        return rounded_to(np.dtype(self.dtype), pixels * factor + offset), valid


@dataclass(frozen=True)
class Filled:
    """A value for pixels that are not valid."""

    value: int

    def apply(self, pixels: Pixels, valid: Valid, bands: Sequence[int] | None) -> tuple[Pixels, Valid]:
        """See `Conversion`."""
        chosen = pixels if bands is None else pixels[list(bands)]
        return np.where(valid, chosen, np.array(self.value, pixels.dtype)), np.ones_like(valid)


@dataclass(frozen=True)
class ClassValues:
    """Whole numbers from 0 to 254, of any dtype, in uint8."""

    name: str
    """Of the file, for messages."""

    def apply(self, pixels: Pixels, valid: Valid, bands: Sequence[int] | None) -> tuple[Pixels, Valid]:  # noqa: ARG002
        """See `Conversion`."""
        with np.errstate(invalid="ignore"):  # of numbers that uint8 does not hold, which are refused
            values = pixels.astype(np.uint8)
        odd = (values != pixels) | (values == IGNORE)
        if odd.any():
            number = pixels[odd][0].item()
            text = f"{number:.10g}" if isinstance(number, float) else str(number)
            nodata = f" If it marks pixels without a class, declare it: gdal_edit.py -a_nodata {text}."
            raise RasterError(
                f"{self.name} holds {text}. Expected class values: whole numbers from 0 to 254. Give its classes such "
                f"values (gdal_calc.py, or Reclassify by table in QGIS).{nodata if number == int(number) else ''}"
            )
        return values, valid


@dataclass(frozen=True, eq=False)
class Converted(Derived):
    """A raster after a conversion."""

    conversion: Conversion

    def read(
        self,
        window: Window,
        bands: Sequence[int] | None,
        nodata: Nodata,  # noqa: ARG002 belongs to converted numbers; the raster has its own
        shape: tuple[int, int],
    ) -> tuple[Pixels, Valid]:
        """See `Source`."""
        raster = self.raster.take_bands(bands) if isinstance(self.conversion, Linear) else self.raster
        pixels, valid = raster.read_decimated(window, shape)
        return self.conversion.apply(pixels, valid, bands)

    def may_hold_valid(
        self,
        window: Window,
        bands: Sequence[int] | None,  # noqa: ARG002 a raster without a valid pixel has none in any of its bands
        nodata: Nodata,  # noqa: ARG002 as in `read`
    ) -> bool:
        """See `Source`."""
        return isinstance(self.conversion, Filled) or self.raster.may_hold_valid(window)
