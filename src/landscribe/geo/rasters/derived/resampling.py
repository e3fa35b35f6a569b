"""Resampling: a raster read at another pixel size, or in another CRS.

A coarser pixel is the mean of the source pixels it covers, weighted by area; a finer pixel is interpolated between the
four nearest source pixels. A pixel is coarser if one of its sides is longer than that of a source pixel. Means and
interpolation leave out source pixels that are not valid. A coarser pixel is valid if at least half of the area it
covers is valid; a finer pixel is valid if the source pixel that contains its centre is.

Class values are not averaged. Each pixel takes the nearest source pixel, value and validity; or a coarser pixel takes
the majority: the value that covers most of it, the lowest of equal ones. It is valid as other coarser pixels are.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import CRSError
from rasterio.warp import reproject, transform_bounds

from landscribe.errors import GridError, first_line
from landscribe.geo.access import GDAL_ERRORS, allow_ungeoreferenced
from landscribe.geo.grid import ASSIGN_CRS, LATTICE, Grid, Window, crs_label, size_label
from landscribe.geo.rasters.derived import Derived
from landscribe.geo.rasters.derived.longitudes import (
    at_longitude,
    at_longitudes_of,
    centre_x,
    cols_around,
    copies_on_raster,
    read_across_edges,
    shifted_to_turn_of,
)
from landscribe.geo.rasters.nodata import Nodata
from landscribe.geo.rasters.raster import Pixels, Raster, Valid, rounded_to
from landscribe.geo.vectors.datum_shifts import warn_of_datum_shift

_SIDE = 256
"""Side of the blocks, each of which is resampled on its own: so a pixel does not depend on the window that is read."""
_MOST_READ = 2048
"""Approximate side of the source window that is read for a block: blocks are smaller at a large reduction."""
_NOWHERE = Window(0, 0, 0, 0)
_MOST_SPREAD = 20
"""Largest area of the resampled grid, in areas of the source: a raster turned by 45 degrees needs 2."""
_REACH = 2
"""Source pixels beside a block that contribute to it."""
_COARSER = 1 + 1e-4
"""A pixel that covers more source pixels than this along either side is a mean; it is interpolated otherwise."""
# Rounding may give slightly less than an exact half, and slightly different shares of equal areas.
_ROUNDING = 1e-6
_HALF = 0.5 - _ROUNDING
_SAME_SIZE = 0.01
"""Largest relative difference of a pixel's side from a requested size that leaves a raster as it is."""
_LOCAL = CRS.from_wkt('LOCAL_CS["local",UNIT["metre",1]]')
"""Stands for the CRS of grids that have none."""
_MOST_REFINED = 64
"""Most pixels along the side of a source pixel: more show nothing that the source has not."""


def resample_to(raster: Raster, grid: Grid, *, nearest: bool = False) -> Raster:
    """Resample a raster to another grid; pixels are computed when they are read.

    Args:
        raster: with a CRS, unless the grid has none either.
        grid: with a CRS, unless the raster has none either.
        nearest: each pixel takes the nearest source pixel, as class values must be.
    """
    continuous = Resampling.average if is_coarser(grid, raster.grid) else Resampling.bilinear
    return _resampled(raster, grid, Resampling.nearest if nearest else continuous)


def resample_by_majority(raster: Raster, grid: Grid) -> Raster:
    """Resample one band of class values to a coarser grid (`is_coarser`): each pixel takes the value of the majority.

    Valid pixels of the raster vote by the area of the coarser pixel that they cover; of equal areas, the lowest value
    wins. The coarser pixel is valid if at least half of its area is.
    """
    return _resampled(raster, grid, Resampling.mode)


def _resampled(raster: Raster, grid: Grid, method: Resampling) -> Raster:
    warn_of_datum_shift(raster.grid.crs, grid, raster.paths[0])
    source = Resampled((raster,), grid, _scale(raster.grid, grid), method)
    return replace(raster, source=source, grid=grid, _band_indices=None)


def is_coarser(grid: Grid, than: Grid) -> bool:
    """True if a side of a grid's pixels is longer than one pixel of another; both have a CRS."""
    return any(math.hypot(*side) > _COARSER for side in _sides(than, grid))


def at_pixel_size(raster: Raster, side_m: float) -> Raster:
    """The raster in pixels of another size, computed when they are read; as it is if its own differ by 1 % at most.

    Args:
        raster: with a CRS.
        side_m: as in `grid_of_pixel_size`.

    Raises:
        GridError: the raster has no CRS, or the size does not fit it.
    """
    sides = raster.grid.pixel_sides
    if sides is None:
        raise GridError(
            f"{raster.paths[0]} has no CRS, so its pixel size is unknown and cannot become {side_m:.3g} m. "
            f"{ASSIGN_CRS}, or leave out the pixel size."
        )
    if all(abs(side - side_m) <= _SAME_SIZE * side_m for side in sides):
        return raster
    try:
        require_resamplable(raster, side_m)
    except GridError as error:
        raise GridError(f"{error} Choose another pixel size.") from error
    return resample_to(raster, grid_of_pixel_size(raster.grid, side_m))


def require_resamplable(raster: Raster, side_m: float) -> None:
    """Raise GridError if a pixel of a raster with a CRS would become thousands, or the whole raster less than one."""
    shape, size = raster.grid.shape, raster.grid.pixel_size
    assert size is not None
    if size > _MOST_REFINED * side_m or side_m > max(shape) * size:
        raise GridError(
            f"{raster.paths[0]} ({size_label(shape)} pixels of {size:.3g} m) cannot be resampled to pixels of "
            f"{side_m:.3g} m. Expected at most {_MOST_REFINED} pixels along the side of one of the raster, and at "
            "least one for the whole raster."
        )


def grid_of_pixel_size(grid: Grid, side_m: float, crs: CRS | None = None) -> Grid:
    """The grid of the same area with another pixel size.

    Args:
        grid: with a CRS.
        side_m: side of a pixel in metres on the ground, at the centre of the grid. In the units of the CRS, the side
            is the number of fewest digits within 1 % of that.
        crs: another CRS. Its pixels begin at multiples of their size, so that neighbouring rasters are aligned.

    Raises:
        GridError: the grid cannot be reprojected to that CRS.
    """
    source, grid = grid, grid if crs is None else _in_crs(grid, crs)
    sides = grid.pixel_sides
    assert grid.crs is not None
    assert sides is not None
    steps = [step / side for step, side in zip((-grid.transform.e, grid.transform.a), sides, strict=True)]
    if not grid.crs.is_geographic:
        # A projection's scale differs a little between its axes; its pixels are squares in its own units.
        steps = [math.sqrt(steps[0] * steps[1])] * 2
    y, x = (_round(step * side_m) for step in steps)
    left, bottom, right, top = grid.bounds
    if crs is not None:
        left, right = math.floor(left / x) * x, math.ceil(right / x) * x
        bottom, top = math.floor(bottom / y) * y, math.ceil(top / y) * y
    height, width = max(1, round((top - bottom) / y)), max(1, round((right - left) / x))
    _require_dense(source, side_m, crs, height, width)
    return Grid(grid.crs, Affine(x, 0, left, 0, -y, top), height, width)


def _require_dense(grid: Grid, side_m: float, crs: CRS | None, height: int, width: int) -> None:
    """Raise GridError if nearly all pixels of a raster in another CRS would be empty."""
    own = (grid.pixel_size or side_m) / side_m
    if crs is not None and height * width > _MOST_SPREAD * max(1, grid.height * own) * max(1, grid.width * own):
        raise GridError(
            f"in {crs_label(crs)} this raster would have {size_label((height, width))} pixels of {side_m:.3g} m, "
            f"less than 1 in {_MOST_SPREAD} of them valid. Choose a CRS for that part of the Earth, or crop the raster "
            "(gdal_translate -projwin)."
        )


def _round(number: float) -> float:
    """The number of fewest digits within 1 % of a number."""
    return next(
        rounded for digits in range(1, 4) if abs((rounded := float(f"{number:.{digits}g}")) - number) <= number / 100
    )


def parse_crs(text: str) -> CRS:
    """A CRS from a code such as EPSG:32632, WKT or a PROJ string.

    Raises:
        GridError: the text is no CRS.
    """
    try:
        # Outside an environment of rasterio, PROJ prints its errors itself.
        with rasterio.Env():
            crs = CRS.from_user_input(text)
    except (CRSError, ValueError) as error:
        raise GridError(
            f"'{text}' is not a CRS. Expected a code such as EPSG:32632 (look it up on epsg.io), or WKT."
        ) from error
    if not (crs.is_projected or crs.is_geographic):
        raise GridError(
            f"'{text}' is neither a projected nor a geographic CRS, so no map can be drawn in it. Expected a code such "
            "as EPSG:32632 (look it up on epsg.io)."
        )
    return crs


def _in_crs(grid: Grid, crs: CRS) -> Grid:
    """A grid of the same area and shape in another CRS."""
    try:
        left, bottom, right, top = transform_bounds(grid.crs, crs, *grid.bounds, densify_pts=LATTICE)
    except GDAL_ERRORS as error:
        raise GridError(
            f"the raster in {crs_label(grid.crs)} cannot be reprojected to {crs_label(crs)}: {first_line(error)}. "
            "Choose a CRS for that part of the Earth."
        ) from error
    if not (math.isfinite(right - left) and math.isfinite(top - bottom) and right > left and top > bottom):
        raise GridError(
            f"the raster in {crs_label(grid.crs)} is not in one piece in {crs_label(crs)}: it crosses an edge of that "
            "CRS, such as the 180th meridian. Choose a CRS for that part of the Earth, or crop the raster "
            "(gdal_translate -projwin)."
        )
    if not crs.is_geographic:
        # A raster may reach beyond its sides, as one from 0 to 360 degrees does where a map ends at 180.
        x, y = grid.xy_in(crs, *grid.lattice())
        (left, right), (bottom, top) = _holding(x, left, right), _holding(y, bottom, top)
    step_x, step_y = (right - left) / grid.width, (top - bottom) / grid.height
    return Grid(crs, Affine(step_x, 0, left, 0, -step_y, top), grid.height, grid.width)


def _holding(points: NDArray[np.float64], low: float, high: float) -> tuple[float, float]:
    """Bounds that hold points of a lattice, and the ground between those beyond them and their neighbours."""
    first, last = float(np.nanmin(points)), float(np.nanmax(points))
    step = (max(high, last) - min(low, first)) / LATTICE
    curve = step / 10  # between points of a side
    return first - step if first < low - curve else low, last + step if last > high + curve else high


def _scale(source: Grid, target: Grid) -> float:
    """Source pixels along the side of a square of the area of a target pixel, at the centre of the target."""
    down, across = _sides(source, target)
    return math.sqrt(abs(down[0] * across[1] - down[1] * across[0]))


def _sides(source: Grid, target: Grid) -> tuple[tuple[float, float], tuple[float, float]]:
    """Rows and columns of the source along the height, and along the width, of the central pixel of the target."""
    centre = np.array([[target.height / 2], [target.width / 2]])
    points = np.concatenate([centre, target.lattice().reshape(2, -1)], axis=1)
    rows, cols = points[..., None] + np.array([[[0, 1, 0]], [[0, 0, 1]]])
    x, y = target.xy_in(source.crs, rows, cols)
    # The centre may be off the Earth, as in the corner of a world map.
    known = np.flatnonzero(np.isfinite(x).all(axis=1))
    if not known.size:
        return (1.0, 0.0), (0.0, 1.0)
    nearest = known[np.argmin(np.hypot(rows[known, 0] - centre[0], cols[known, 0] - centre[1]))]
    cols, rows = ~source.transform @ (at_longitude(source, x[nearest], x[nearest, 0]), y[nearest])
    down, right = ((float(rows[index] - rows[0]), float(cols[index] - cols[0])) for index in (1, 2))
    return down, right


def _bounds_in_source(source: Grid, target: Grid) -> tuple[float, float, float, float] | None:
    """The bounds of a block in the CRS of a raster; None if the block is outside its domain."""
    if source.crs == target.crs:
        return target.bounds
    if np.isfinite(target.xy_in(source.crs, *target.lattice())).all():
        return transform_bounds(target.crs, source.crs, *target.bounds, densify_pts=LATTICE)
    # Of a block across the edge of the domain, the bounds are those of its pixels: GDAL would leave points out.
    rows, cols = np.mgrid[: 2 * target.height + 1, : 2 * target.width + 1] / 2
    x, y = (axis[np.isfinite(axis)] for axis in target.xy_in(source.crs, rows, cols))
    if not x.size:
        return None
    x = at_longitude(source, x, x[x.size // 2])
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


@dataclass(frozen=True, eq=False)
class Resampled(Derived):
    """A raster resampled to a grid."""

    grid: Grid
    scale: float
    """Pixels of the raster along the side of a pixel of the grid, the geometric mean of both sides."""
    method: Resampling
    """Average, bilinear, nearest or mode (the majority)."""

    def read(
        self,
        window: Window,
        bands: Sequence[int] | None,
        nodata: Nodata,
        shape: tuple[int, int],
    ) -> tuple[Pixels, Valid]:
        """See `Source`."""
        raster = self.raster.of_bands(bands, nodata)
        if shape != window.shape:
            return self._nearest(raster, window, shape)
        pixels = np.zeros((len(raster.bands), *window.shape), raster.dtype)
        valid = np.zeros(window.shape, bool)
        for block in self._blocks(window):
            common = window & block
            in_window, in_block = common.relative_to(window).slices, common.relative_to(block).slices
            block_pixels, block_valid = self._block(raster, block)
            pixels[:, *in_window], valid[in_window] = block_pixels[:, *in_block], block_valid[in_block]
        return pixels, valid

    def may_hold_valid(self, window: Window, bands: Sequence[int] | None, nodata: Nodata) -> bool:
        """See `Source`."""
        raster = self.raster.of_bands(bands, nodata)
        # In another CRS, only the bounds of a block are exact.
        blocks = [window] if raster.grid.crs == self.grid.crs else self._blocks(window)
        parts = (self._source_window(self.grid[block]) for block in blocks)
        return any(raster.may_hold_valid(own) for part in parts for own in copies_on_raster(part, raster.grid))

    def _nearest(self, raster: Raster, window: Window, shape: tuple[int, int]) -> tuple[Pixels, Valid]:
        """A decimated read: at the centre of each pixel, the nearest pixel of a decimated read of the raster."""
        source, target = raster.grid, self.grid[window]
        rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
        x, y = target.xy_in(source.crs, rows * (window.height / shape[0]), cols * (window.width / shape[1]))
        x = at_longitude(source, x, centre_x(source))
        cols, rows = ~source.transform @ (x, y)
        pixels = np.zeros((len(raster.bands), *shape), raster.dtype)
        valid = (rows >= 0) & (rows < source.height) & (cols >= 0) & (cols < source.width)
        if valid.any():
            first, last = ([int(axis[valid].min()), int(axis[valid].max()) + 1] for axis in (rows, cols))
            part = Window(first[0], last[0], first[1] - first[0], last[1] - last[0])
            step = max(1.0, self.scale * window.height / shape[0])
            part_shape = max(1, round(part.height / step)), max(1, round(part.width / step))
            part_pixels, part_valid = raster.read_decimated(part, part_shape)
            nearest = (
                ((rows[valid] - part.row) * part_shape[0] / part.height).astype(int),
                ((cols[valid] - part.col) * part_shape[1] / part.width).astype(int),
            )
            pixels[:, valid] = part_pixels[:, *nearest]
            valid[valid] = part_valid[nearest]
        return pixels, valid

    def _blocks(self, window: Window) -> Iterator[Window]:
        """The blocks of the grid that a window touches."""
        side = max(1, min(_SIDE, int(_MOST_READ / self.scale)))
        for row in range(window.row // side * side, window.row_stop, side):
            for col in range(window.col // side * side, window.col_stop, side):
                yield Window(row, col, side, side) & self.grid.window

    def _block(self, raster: Raster, block: Window) -> tuple[Pixels, Valid]:
        target = self.grid[block]
        part = self._source_window(target)
        if not copies_on_raster(part, raster.grid):
            return np.zeros((len(raster.bands), *block.shape), raster.dtype), np.zeros(block.shape, bool)
        pixels, source_valid = read_across_edges(raster, part)
        source = raster.grid[part]
        if source.crs == target.crs:
            # Between two CRSs, GDAL itself finds the turn of 360 degrees.
            target = shifted_to_turn_of(raster.grid, target)
        if self.method == Resampling.mode:
            return _majority(pixels, source_valid, source, target)
        # A float type that holds every value of the dtype, with NaN where not valid.
        floats = pixels.astype(np.result_type(pixels.dtype, np.float32))
        floats[:, ~source_valid] = np.nan
        warped = _warp(floats, source, target, self.method)
        if self.method == Resampling.average:
            valid_share = _warp(source_valid[None].astype(np.float32), source, target, Resampling.average)
            valid = valid_share[0] >= _HALF
        else:
            valid = ~np.isnan(warped[0])
        warped[:, ~valid] = 0
        return rounded_to(pixels.dtype, warped), valid

    def _source_window(self, target: Grid) -> Window:
        """The window of the raster that contributes to a block."""
        source = self.raster.grid
        bounds = _bounds_in_source(source, target)
        if bounds is None:
            return _NOWHERE
        left, bottom, right, top = bounds
        left, right = at_longitudes_of(source, left, right)
        reach = math.ceil(self.scale) + _REACH
        (row, col), (row_stop, col_stop) = source.row_col(left, top), source.row_col(right, bottom)
        row, col = math.floor(row) - reach, math.floor(col) - reach
        part = Window(row, col, math.ceil(row_stop) + reach - row, math.ceil(col_stop) + reach - col)
        around = cols_around(source)
        if source.crs != target.crs and 0 < around < part.width:
            part = replace(part, col=(source.width - around) // 2, width=around)
        copies = [own.col - part.col for own in copies_on_raster(part, source)] or [0]
        first, last = -max(copies), source.width - min(copies)
        return part & Window(0, first, source.height, last - first).grown(reach)


def _warp(floats: Pixels, source: Grid, target: Grid, method: Resampling) -> Pixels:
    """Floats (bands, rows, cols) of one grid resampled to another, NaN where it has no source pixel."""
    result = np.full((len(floats), *target.shape), np.nan, floats.dtype)
    # GDAL would widen the interpolation kernel by a scale that it estimates for each block.
    scale = {"XSCALE": 1, "YSCALE": 1} if method == Resampling.bilinear else {}
    # Without a CRS, both have one of their own: rasterio asks for it.
    source_crs, target_crs = (grid.crs or _LOCAL for grid in (source, target))
    # GDAL opens an array as a dataset, which has no georeference at first.
    with allow_ungeoreferenced():
        reproject(
            floats, result, src_transform=source.transform, src_crs=source_crs, src_nodata=np.nan,
            dst_transform=target.transform, dst_crs=target_crs, dst_nodata=np.nan, resampling=method, **scale,
        )  # fmt: skip
    return result


def _majority(values: Pixels, valid: Valid, source: Grid, target: Grid) -> tuple[Pixels, Valid]:
    """The value of the largest area under each pixel of the target (1, rows, cols), and valid (rows, cols)."""
    result = np.zeros((1, *target.shape), values.dtype)
    most, total = np.zeros(target.shape, np.float32), np.zeros(target.shape, np.float32)
    for value in np.unique(values[:, valid]):
        votes = ((values == value) & valid).astype(np.float32)
        share = np.nan_to_num(_warp(votes, source, target, Resampling.average)[0])
        # GDAL's own mode does not define which of equal ones wins.
        is_most = share > most + _ROUNDING
        result[0, is_most], most[is_most] = value, share[is_most]
        total += share
    is_valid = total >= _HALF
    result[:, ~is_valid] = 0
    return result, is_valid
