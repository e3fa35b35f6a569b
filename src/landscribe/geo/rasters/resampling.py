"""Resampling: a raster read at another pixel size, or in another CRS.

What becomes coarser is the mean of all that a pixel covers, weighted by area; what becomes finer is interpolated
between the four nearest pixels. Pixels that are not valid take no part in either. A pixel is valid where at least half
of what it covers is, or, when it becomes finer, where the pixel that its centre lies in is.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import reproject, transform, transform_bounds

from landscribe.errors import GridError
from landscribe.geo.access import plain_pictures_allowed
from landscribe.geo.grid import Grid, Window, name_of
from landscribe.geo.rasters.nodata import Nodata
from landscribe.geo.rasters.raster import Pixels, Raster, Valid

_SIDE = 256
"""Of the blocks that are resampled each on its own, so that a pixel does not depend on the window it is read in."""
_MOST_READ = 2048
"""About the side of what is read for a block: blocks are smaller where much of it goes into one pixel."""
_POINTS = 21
"""Along each side of a block, by which its place in another CRS is found."""
_MOST_SPREAD = 20
"""Pixels of a raster in another CRS for one of it; one that is turned by 45 degrees has two."""
_REACH = 2
"""Pixels beside a block that take part in it."""
# What is exactly half may be a little less after some sums.
_HALF = 0.5 - 1e-6


def resampled(raster: Raster, grid: Grid) -> Raster:
    """The same raster on another grid."""
    source = Resampled(raster, grid, _scale(raster.grid, grid))
    return replace(raster, source=source, grid=grid, _chosen=None)


def grid_of_pixel_size(grid: Grid, side_m: float, crs: CRS | None = None) -> Grid:
    """The same ground in pixels of another size.

    Args:
        grid: with a CRS.
        side_m: of a pixel in metres on the ground, at the middle of the grid. In the CRS's own units it is the roundest
            number within a hundredth of that.
        crs: another one, in which pixels begin at multiples of their size, so that neighbours meet.

    Raises:
        GridError: the grid cannot be brought into that CRS.
    """
    there = grid if crs is None else _in_crs(grid, crs)
    sides = there.pixel_sides
    assert there.crs is not None
    assert sides is not None
    steps = [step / side for step, side in zip((-there.transform.e, there.transform.a), sides, strict=True)]
    if not there.crs.is_geographic:
        # Projections stretch a little more one way than the other: their pixels are squares in their own units.
        steps = [math.sqrt(steps[0] * steps[1])] * 2
    y, x = (_round(step * side_m) for step in steps)
    left, bottom, right, top = there.bounds
    if crs is not None:
        left, right = math.floor(left / x) * x, math.ceil(right / x) * x
        bottom, top = math.floor(bottom / y) * y, math.ceil(top / y) * y
    height, width = max(1, round((top - bottom) / y)), max(1, round((right - left) / x))
    _require_dense(grid, side_m, crs, height, width)
    return Grid(there.crs, Affine(x, 0, left, 0, -y, top), height, width)


def _require_dense(grid: Grid, side_m: float, crs: CRS | None, height: int, width: int) -> None:
    """Raise GridError if nearly all pixels of a raster in another CRS would be empty."""
    own = (grid.pixel_size or side_m) / side_m
    if crs is not None and height * width > _MOST_SPREAD * max(1, grid.height * own) * max(1, grid.width * own):
        raise GridError(
            f"in {name_of(crs)} this raster would have {height} x {width} pixels of {side_m:.3g} m (rows, columns), of "
            f"which less than one in {_MOST_SPREAD} is of it. A CRS for that part of the Earth was expected. Choose "
            "one, or crop the raster (gdal_translate -projwin)."
        )


def _round(number: float) -> float:
    """The number of fewest digits that is within a hundredth of a number."""
    return next(
        rounded for digits in range(1, 4) if abs((rounded := float(f"{number:.{digits}g}")) - number) <= number / 100
    )


def crs_of(text: str) -> CRS:
    """A CRS by what people call it, such as EPSG:32632.

    Raises:
        GridError: it is none.
    """
    try:
        # Outside of an environment of rasterio, PROJ would speak to the user itself.
        with rasterio.Env():
            return CRS.from_user_input(text)
    except CRSError as error:
        raise GridError(
            f"'{text}' is no CRS that is known. One such as EPSG:32632 was expected. Look up its number "
            "(epsg.io), or give it as WKT."
        ) from error


def _in_crs(grid: Grid, crs: CRS) -> Grid:
    """The same ground, in as many pixels, in another CRS."""
    try:
        left, bottom, right, top = transform_bounds(grid.crs, crs, *grid.bounds, densify_pts=_POINTS)
    except (RasterioError, CPLE_BaseError) as error:
        raise GridError(
            f"what lies in {name_of(grid.crs)} cannot be brought into {name_of(crs)}: {error}. A CRS for the same part "
            "of the Earth was expected."
        ) from error
    if not (math.isfinite(right - left) and math.isfinite(top - bottom) and right > left and top > bottom):
        raise GridError(
            f"what lies in {name_of(grid.crs)} is not in one piece in {name_of(crs)}, as where that CRS begins anew at "
            "the 180th meridian, or does not show all of it. A CRS for that part of the Earth was expected. Choose "
            "one, or crop the raster (gdal_translate -projwin)."
        )
    step_x, step_y = (right - left) / grid.width, (top - bottom) / grid.height
    return Grid(crs, Affine(step_x, 0, left, 0, -step_y, top), grid.height, grid.width)


def _scale(source: Grid, target: Grid) -> float:
    """How many pixels of one grid, along a side, go into one of the other, at its middle."""
    row, col = target.height / 2, target.width / 2
    x, y = zip(*(target.xy(row + down, col + across) for down, across in ((0, 0), (1, 0), (0, 1))), strict=True)
    if source.crs != target.crs:
        x, y = transform(target.crs, source.crs, x, y)
    (row, col), *others = (source.row_col(*place) for place in zip(x, y, strict=True))
    down, across = ((other_row - row, other_col - col) for other_row, other_col in others)
    return math.sqrt(abs(down[0] * across[1] - down[1] * across[0]))


@dataclass(frozen=True, eq=False)
class Resampled:
    """Another raster's pixels on a grid."""

    raster: Raster
    grid: Grid
    scale: float
    """Pixels of the raster, along a side, that go into one of the grid."""

    @property
    def paths(self) -> tuple[str, ...]:
        """See `Source`."""
        return self.raster.paths

    @property
    def masks(self) -> tuple[str, ...]:
        """See `Source`."""
        return self.raster.masks

    def close(self) -> None:
        """See `Source`."""
        self.raster.source.close()

    def read(self, window: Window, bands: Sequence[int] | None, nodata: Nodata) -> tuple[Pixels, Valid]:
        """See `Source`."""
        raster = replace(self.raster, nodata=nodata.value, nodata_rule=nodata.rule)
        if bands is not None:
            raster = raster.select([band + 1 for band in bands])
        pixels = np.zeros((len(raster.bands), *window.shape), raster.dtype)
        valid = np.zeros(window.shape, bool)
        for block in self._blocks(window):
            common = window & block
            there, here = common.relative_to(window).slices, common.relative_to(block).slices
            found, known = self._block(raster, block)
            pixels[:, *there], valid[there] = found[:, *here], known[here]
        return pixels, valid

    def _blocks(self, window: Window) -> Iterator[Window]:
        """The blocks of the grid that a window touches."""
        side = max(1, min(_SIDE, int(_MOST_READ / self.scale)))
        for row in range(window.row // side * side, window.row_stop, side):
            for col in range(window.col // side * side, window.col_stop, side):
                yield Window(row, col, side, side) & self.grid.window

    def _block(self, raster: Raster, block: Window) -> tuple[Pixels, Valid]:
        target = self.grid[block]
        part = self._read_for(target)
        if (part & raster.grid.window).is_empty:
            return np.zeros((len(raster.bands), *block.shape), raster.dtype), np.zeros(block.shape, bool)
        pixels, known = raster.read(part)
        source = raster.grid[part]
        # Floating numbers that hold the type's, with NaN for what takes no part.
        numbers = pixels.astype(np.result_type(pixels.dtype, np.float32))
        numbers[:, ~known] = np.nan
        if not self.is_coarser:
            warped = _warped(numbers, source, target, Resampling.bilinear)
            valid = ~np.isnan(warped[0])
        else:
            warped = _warped(numbers, source, target, Resampling.average)
            share = _warped(known[None].astype(np.float32), source, target, Resampling.average)
            valid = share[0] >= _HALF
        warped[:, ~valid] = 0
        return _as(pixels.dtype, warped), valid

    @property
    def is_coarser(self) -> bool:
        """True if several pixels go into one."""
        return self.scale > 1 + 1e-4

    def _read_for(self, target: Grid) -> Window:
        """The pixels of the raster that take part in a block."""
        source, bounds = self.raster.grid, target.bounds
        if source.crs != target.crs:
            bounds = transform_bounds(target.crs, source.crs, *bounds, densify_pts=_POINTS)
        left, bottom, right, top = bounds
        if left > right:
            left, right = _across(left, right, source)
        reach = math.ceil(self.scale) + _REACH
        (row, col), (row_stop, col_stop) = source.row_col(left, top), source.row_col(right, bottom)
        row, col = math.floor(row) - reach, math.floor(col) - reach
        part = Window(row, col, math.ceil(row_stop) + reach - row, math.ceil(col_stop) + reach - col)
        return part & source.window.grown(reach)


def _across(left: float, right: float, source: Grid) -> tuple[float, float]:
    """From where to where a raster in degrees is read for what reaches over the 180th meridian."""
    first, _, last, _ = source.bounds
    met = [(start, stop) for start, stop in ((left, 180.0), (-180.0, right)) if start < last and stop > first]
    # What is met on both sides goes all around the Earth.
    return min((start for start, _ in met), default=first), max((stop for _, stop in met), default=first)


def _warped(numbers: Pixels, source: Grid, target: Grid, method: Resampling) -> Pixels:
    """Numbers (bands, rows, cols) of one grid on another, NaN where there are none."""
    result = np.full((len(numbers), *target.shape), np.nan, numbers.dtype)
    # GDAL would stretch the bell of the interpolation by what it measures of each block.
    scale = {"XSCALE": 1, "YSCALE": 1} if method == Resampling.bilinear else {}
    # For GDAL, arrays are files that at first have no place.
    with plain_pictures_allowed():
        reproject(
            numbers, result, src_transform=source.transform, src_crs=source.crs, src_nodata=np.nan,
            dst_transform=target.transform, dst_crs=target.crs, dst_nodata=np.nan, resampling=method, **scale,
        )  # fmt: skip
    return result


def _as(dtype: np.dtype[Any], numbers: Pixels) -> Pixels:
    """Numbers in a type of pixels, rounded as GDAL rounds."""
    if dtype.kind == "f":
        return numbers.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.floor(numbers + 0.5), limits.min, limits.max).astype(dtype)
