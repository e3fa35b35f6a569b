"""Frame: the sampling units of a map, by stratum, read in rows of a lattice so that memory stays bounded.

A pixel belongs to the frame where the map has a class, the raster of strata has one too, and the area of interest
contains its centre. A sampling unit is a pixel, or a square block of a lattice that begins at the first pixel of the
map. A block is in the frame if it lies wholly in the map and at least half of its pixels are in the frame. Its class
is the majority class of these pixels, its stratum the majority stratum; of equally frequent ones, the lower value.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from landscribe import progress
from landscribe.estimation.designs.hashes import PixelHash
from landscribe.geo.access import bounded_block_cache
from landscribe.geo.classes import IGNORE
from landscribe.geo.features import Features
from landscribe.geo.grid import Grid, Window
from landscribe.geo.pixel_area import pixel_areas, pixel_sides_of_rows
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.burning import rasterize_mask
from landscribe.maps.class_map import class_values

OUTSIDE = IGNORE
"""Code of the pixels and blocks that are not in the frame; other codes of strata are the values of their raster."""
BUFFER = 256
"""Code of the stratum around a class."""
CODES = 257

_STRIP_PIXELS = 2**22
"""Areas take 30 times the memory of the pixels, distances to a class too. A file's blocks are decoded once, for GDAL
keeps a row of them."""
_BAND_PIXELS = 2**16
"""Pixels of whole rows whose reading takes about as long as that of a single row."""

_BUFFER_BAND_M = 10_000.0
"""Height of the bands: within one, a pixel's width in degrees changes by 0.4 % at a latitude of 70 degrees."""
_SAME_SIDES = 0.005
"""Relative difference up to which all pixels of a map count as equally large."""

Codes = NDArray[np.uint16]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Buffer:
    """Pixels of other classes near a class: a stratum of their own."""

    value: int
    """Of the class."""
    metres: float
    rows: int
    """Of a band of the map whose pixels count as equally large."""
    sides: tuple[tuple[float, float], ...]
    """Height and width of a pixel in metres, by band."""

    @classmethod
    def of(cls, value: int, metres: float, grid: Grid) -> "Buffer":
        """From the grid of the map, which has a CRS."""
        middle = grid.pixel_sides
        assert middle is not None
        rows = max(1, round(_BUFFER_BAND_M / middle[0]))
        centres = np.minimum(np.arange(0, grid.height, rows) + rows / 2, grid.height - 0.5)
        sides = pixel_sides_of_rows(grid, centres)
        if np.allclose(sides, middle, rtol=_SAME_SIDES):
            return cls(value, metres, grid.height, (middle,))
        return cls(value, metres, rows, tuple(map(tuple, sides.tolist())))

    @property
    def reach(self) -> int:
        """Rows above and below a window that decide about its pixels."""
        return int(np.ceil(self.metres / min(height for height, _ in self.sides)))

    def bands(self, window: Window) -> Iterator[tuple[Window, tuple[float, float]]]:
        """The parts of a window that lie in one band each, and the sides of their pixels."""
        for band in range(window.row // self.rows, -(-window.row_stop // self.rows)):
            yield Window(band * self.rows, window.col, self.rows, window.width) & window, self.sides[band]


@dataclass(frozen=True)
class UnitRows:
    """Sampling units; arrays (rows, cols) of the lattice."""

    strata: Codes
    """Code of the stratum; OUTSIDE where there is no unit."""
    values: NDArray[np.uint8]
    """Class value of the map."""
    areas: Floats
    """On the ground in m²; NaN without a CRS."""
    without_unit: tuple[int, int] = (0, 0)
    """Pixels in the frame: those that no block holds, and all; not counted if a unit is a pixel."""

    def row(self, index: int) -> "UnitRows":
        """One row: arrays (cols,)."""
        return UnitRows(self.strata[index], self.values[index], self.areas[index])


@dataclass(frozen=True)
class FrameCounts:
    """The contents of a frame."""

    by_row: NDArray[np.int32]
    """(rows of the lattice, CODES): units of each stratum."""
    stratum_areas: Floats
    """(CODES,) in m²."""
    units_of_class: NDArray[np.int64]
    """(256,) by class value of the map."""
    areas_of_class: Floats
    """(256,) in m²."""
    sha256: str
    """Of the class values of the map, see `PixelHash`."""
    without_stratum: float = 0.0
    """Share of the pixels with a class, inside the area, for which the raster of strata has none."""
    without_unit: float = 0.0
    """Share of the pixels in the frame that no block holds."""

    @property
    def units_of_stratum(self) -> NDArray[np.int64]:
        """(CODES,)."""
        units: NDArray[np.int64] = self.by_row.sum(axis=0, dtype=np.int64)
        units[OUTSIDE] = 0
        return units

    @property
    def units_by_row(self) -> NDArray[np.int64]:
        """Units of all strata in each row of the lattice."""
        units: NDArray[np.int64] = self.by_row.sum(axis=1, dtype=np.int64) - self.by_row[:, OUTSIDE]
        return units


@dataclass(frozen=True)
class Frame:
    """The sampling frame of a map."""

    mapped: Raster
    """One band of class values (uint8)."""
    strata: Raster | None = None
    """Class raster on the same grid; None if the classes of the map are the strata."""
    area: Features | None = None
    """Polygons in the CRS of the map."""
    side: int = 1
    """Of a sampling unit in pixels."""
    buffer: Buffer | None = None
    strip_pixels: int = _STRIP_PIXELS
    """Pixels that are read at once, in whole rows of the lattice."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the lattice of units."""
        height, width = self.mapped.grid.shape
        return height // self.side, width // self.side

    def strips(self) -> Iterator[Window]:
        """Strips of the map, each of whole rows of the lattice but for the last."""
        rows = max(1, self.strip_pixels // self.mapped.grid.width // self.side) * self.side
        return self.mapped.grid.strips(self.strip_pixels, block=rows)

    def count(self) -> FrameCounts:
        """Count the units of each stratum in each row; the map is read once."""
        by_row = np.zeros((self.shape[0], CODES), np.int32)
        stratum_areas, areas_of_class = np.zeros(CODES), np.zeros(IGNORE + 1)
        units_of_class, of_strata, of_units = np.zeros(IGNORE + 1, np.int64), np.zeros(2, int), np.zeros(2, int)
        pixels_hash, strips = PixelHash(), list(self.strips())
        with progress.task(f"units of {self.mapped.name}", len(strips)) as advance, bounded_block_cache():
            for strip in strips:
                pixels, valid = self.mapped.read(strip)
                pixels_hash.add(pixels[0], valid)
                values = class_values(pixels, valid)
                units, of_strata = self._units(strip, values), of_strata + self._without_stratum(strip, values)
                first, of_units = strip.row // self.side, of_units + units.without_unit
                for index, (strata, row, areas) in enumerate(zip(units.strata, units.values, units.areas, strict=True)):
                    counts, ground = _tally(strata, areas)
                    by_row[first + index], stratum_areas = counts, stratum_areas + ground
                    if not self._is_stratified_by_class:
                        counts, ground = _tally(np.where(strata == OUTSIDE, OUTSIDE, row), areas)
                    units_of_class += counts[: IGNORE + 1]
                    areas_of_class += ground[: IGNORE + 1]
                advance()
        units_of_class[OUTSIDE] = 0
        without = [float(missing / max(1, pixels)) for missing, pixels in (of_strata, of_units)]
        return FrameCounts(by_row, stratum_areas, units_of_class, areas_of_class, pixels_hash.sha256, *without)

    @property
    def _is_stratified_by_class(self) -> bool:
        return self.strata is None and self.buffer is None and self.side == 1

    def read(self, window: Window) -> UnitRows:
        """The units of a window; of blocks, and with a buffer, whole rows of the lattice."""
        return self._units(window, class_values(*self.mapped.read(window)))

    def read_rows(self, first: int, count: int = 1) -> UnitRows:
        """The units of rows of the lattice; fewer at its end."""
        window = Window(first * self.side, 0, count * self.side, self.mapped.grid.width)
        return self.read(window & Window(0, 0, self.shape[0] * self.side, window.width))

    @property
    def band(self) -> int:
        """Rows of the lattice read at once for units here and there: several if they are short, or need a buffer."""
        reach = 1 if self.buffer is None else self.buffer.reach
        return max(1, _BAND_PIXELS // self.mapped.grid.width // self.side, -(-reach // self.side))

    def occupied_squares(self, side: int) -> NDArray[np.bool_]:
        """Squares of `side` pixels (rows, cols), from the first pixel of the map: True where one holds a pixel."""
        height, width = self.mapped.grid.shape
        occupied = np.zeros((-(-height // side), -(-width // side)), bool)
        strips = list(self.strips())
        with progress.task(f"squares of {self.mapped.name}", len(strips)) as advance, bounded_block_cache():
            for strip in strips:
                inside = self.read(strip).strata != OUTSIDE
                by_col = np.logical_or.reduceat(inside, np.arange(0, width, side), axis=1)
                for index, row in enumerate(by_col):
                    occupied[(strip.row + index) // side] |= row
                advance()
        return occupied

    def _units(self, window: Window, values: NDArray[np.uint8]) -> UnitRows:
        """The units of a window with these class values."""
        codes = self._codes(window, values)
        areas = np.broadcast_to(pixel_areas(self.mapped.grid[window]), window.shape)
        if self.side == 1:
            return UnitRows(codes, values, areas)
        rows, cols = window.height // self.side, self.shape[1]
        parts = [_blocks(each, rows, cols, self.side) for each in (codes, values, areas)]
        inside = parts[0] != OUTSIDE
        pixels, total = inside.sum(axis=(1, 3)), int(np.count_nonzero(codes != OUTSIDE))
        is_unit = 2 * pixels >= self.side**2
        strata = np.where(is_unit, _majority(parts[0], inside), OUTSIDE).astype(np.uint16)
        classes = _majority(parts[1], inside).astype(np.uint8)
        without_unit = (total - int(pixels[is_unit].sum()), total)
        return UnitRows(strata, classes, (parts[2] * inside).sum(axis=(1, 3)), without_unit)

    def _codes(self, window: Window, values: NDArray[np.uint8]) -> Codes:
        """Code of the stratum of each pixel (rows, cols)."""
        strata = self._strata_values(window, values)
        codes = strata.astype(np.uint16)
        if self.buffer is not None:
            near = [self._is_near(part, self.buffer, sides) for part, sides in self.buffer.bands(window)]
            codes[np.concatenate(near) & (strata != self.buffer.value)] = BUFFER
        outside = (values == OUTSIDE) | (strata == OUTSIDE)
        if self.area is not None:
            outside |= ~rasterize_mask(self.area, self.mapped.grid, window)
        codes[outside] = OUTSIDE
        return codes

    def _strata_values(self, window: Window, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.strata is None:
            return values
        return class_values(*self.strata.read(window))

    def _without_stratum(self, window: Window, values: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Pixels with a class inside the area: those without a stratum, and all; not counted without strata."""
        if self.strata is None:
            return np.zeros(2, np.int64)
        inside = values != OUTSIDE
        if self.area is not None:
            inside &= rasterize_mask(self.area, self.mapped.grid, window)
        missing = inside & (self._strata_values(window, values) == OUTSIDE)
        return np.array([np.count_nonzero(missing), np.count_nonzero(inside)])

    def _is_near(self, window: Window, buffer: Buffer, sides: tuple[float, float]) -> NDArray[np.bool_]:
        """True within the buffer's width of the centre of a pixel of its class, which may lie outside of the area."""
        reach = math.ceil(buffer.metres / sides[0])
        first, stop = window.row - reach, window.row_stop + reach
        grown = Window(first, 0, stop - first, window.width) & self.mapped.grid.window
        pixels, valid = (self.mapped if self.strata is None else self.strata).read(grown)
        is_class = valid & (pixels[0] == buffer.value)
        if not is_class.any():
            return np.zeros(window.shape, bool)
        near: NDArray[np.bool_] = distance_transform_edt(~is_class, sampling=sides) <= buffer.metres
        return near[window.relative_to(grown).slices]


def _tally(codes: NDArray[np.integer], areas: Floats) -> tuple[NDArray[np.int64], Floats]:
    """(CODES,) pixels and areas of each code in one row."""
    counts = np.bincount(codes, minlength=CODES).astype(np.int64)
    # All areas of a row are one number, where the CRS has equal pixels.
    ground = counts * areas[0] if areas.strides == (0,) else np.bincount(codes, areas, minlength=CODES)
    return counts, np.asarray(ground, np.float64)


def _blocks(pixels: NDArray[Any], rows: int, cols: int, side: int) -> NDArray[Any]:
    """Pixels (rows, side, cols, side) of whole blocks."""
    return pixels[: rows * side, : cols * side].reshape(rows, side, cols, side)


def _majority(values: NDArray[np.integer], inside: NDArray[np.bool_]) -> NDArray[np.integer]:
    """The most frequent value of each block among its pixels inside; OUTSIDE without any."""
    majority = np.full((values.shape[0], values.shape[2]), OUTSIDE, values.dtype)
    most = np.zeros(majority.shape, np.int64)
    for value in np.flatnonzero(np.bincount(values[inside], minlength=CODES)):
        count = ((values == value) & inside).sum(axis=(1, 3))
        is_more = count > most
        majority[is_more], most[is_more] = value, count[is_more]
    return majority
