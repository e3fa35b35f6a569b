"""Mosaic: many rasters on one pixel grid, read as one.

Where rasters overlap, a pixel comes from the first one that is valid there. A pixel that no raster covers is not valid.
GDAL's own mosaics (VRT) apply nodata band by band, so that the bands of a pixel may come from two rasters; here all
bands of a pixel come from the same raster.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from landscribe.errors import GridError, RasterError, counted
from landscribe.geo.grid import Window, crs_label
from landscribe.geo.rasters.derived import Derived
from landscribe.geo.rasters.derived.converted import like
from landscribe.geo.rasters.derived.longitudes import cols_around
from landscribe.geo.rasters.encoding import command_to_dtype
from landscribe.geo.rasters.nodata import Nodata
from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.geo.vectors.reprojection import full_turn

_TOLERANCE = 0.1
"""Largest misalignment in pixels: larger than the rounding of coordinates, smaller than the error of registration."""


def mosaic(rasters: Sequence[Raster]) -> Raster:
    """Several rasters as one, with the band names, band order and encoding of the first; each has its own nodata.

    The nodata of the mosaic is that of the first if all rasters declare one, else None. A value that it is given later
    holds for those that declare none.

    Raises:
        GridError: a raster has another CRS or pixel size than the first, or is not aligned to its pixel grid.
        RasterError: a raster has other bands or another dtype, or scale and offset tags where the first has none.
    """
    if not rasters:
        raise RasterError("no image was given for the mosaic. Give at least one.")
    first, *others = rasters
    rasters = [first, *(like(other, first, "Map them one by one, with --bands for each") for other in others)]
    for other in rasters[1:]:
        _require_same_pixels(first, other)
    windows = _in_turn_of_first(first, [_window_on(first, raster) for raster in rasters])
    whole = Window.around(windows)
    source = Mosaic(
        tuple(rasters), tuple(window.relative_to(whole) for window in windows), len(first.bands), first.dtype
    )
    nodata = first.nodata if all(raster.nodata is not None for raster in rasters) else None
    return replace(first, source=source, grid=first.grid[whole], nodata=nodata)


def _in_turn_of_first(first: Raster, windows: list[Window]) -> list[Window]:
    """The windows of neighbours across 180 degrees, each in the turn of 360 degrees that is nearest to the first.

    Rasters that so take more than half a turn stay as they are, from -180 to 180 degrees.
    """
    around = cols_around(first.grid)
    if not around or abs(full_turn(first.grid.crs) / first.grid.transform.a - around) > _TOLERANCE:
        return windows  # in no turn but its own, a raster is aligned to the first
    if Window.around(windows).width <= around / 2:
        return windows
    middle = windows[0].col + windows[0].width / 2
    moved = [
        replace(window, col=window.col - around * round((window.col + window.width / 2 - middle) / around))
        for window in windows
    ]
    return moved if Window.around(moved).width <= around / 2 else windows


@dataclass(frozen=True, eq=False)
class Mosaic(Derived):
    """Rasters on one pixel grid; where several are valid, the first counts."""

    windows: tuple[Window, ...]
    """Of each raster, on the grid of the mosaic."""
    bands: int
    dtype: str

    def read(
        self,
        window: Window,
        bands: Sequence[int] | None,
        nodata: Nodata,
        shape: tuple[int, int],
    ) -> tuple[Pixels, Valid]:
        """See `Source`."""
        pixels = np.zeros((self.bands if bands is None else len(bands), *shape), self.dtype)
        valid = np.zeros(shape, bool)
        for raster, own in zip(self.rasters, self.windows, strict=True):
            common = window & own
            if common.is_empty:
                continue
            inside = common.relative_to(window)
            rows = _decimated(inside.row, inside.row_stop, shape[0] / window.height)
            cols = _decimated(inside.col, inside.col_stop, shape[1] / window.width)
            missing = ~valid[rows, cols]
            if missing.any():
                chosen = _of_bands(raster, bands, nodata)
                own_pixels, own_valid = chosen.read_decimated(common.relative_to(own), missing.shape)
                taken = own_valid & missing
                pixels[:, rows, cols][:, taken] = own_pixels[:, taken]
                valid[rows, cols] |= taken
        return pixels, valid

    def may_hold_valid(self, window: Window, bands: Sequence[int] | None, nodata: Nodata) -> bool:
        """See `Source`."""
        return any(
            not (window & own).is_empty and _of_bands(raster, bands, nodata).may_hold_valid(window.relative_to(own))
            for raster, own in zip(self.rasters, self.windows, strict=True)
        )


def _of_bands(raster: Raster, bands: Sequence[int] | None, nodata: Nodata) -> Raster:
    """The raster with these bands, and with the nodata that the mosaic was given if it has none of its own."""
    raster = raster.take_bands(bands)
    return raster if raster.nodata is not None else replace(raster, nodata=nodata.value, nodata_rule=nodata.rule)


def _decimated(start: int, stop: int, scale: float) -> slice:
    """The decimated pixels whose centres lie in the pixels from `start` to `stop`; the same pixels if `scale` is 1."""
    return slice(math.ceil(start * scale - 0.5), math.ceil(stop * scale - 0.5))


def _require_same_pixels(first: Raster, other: Raster) -> None:
    """Raise RasterError unless both have the same bands and dtype."""
    a, b = first.paths[0], other.paths[0]
    if len(other.bands) != len(first.bands):
        raise RasterError(
            f"{other.files_text} has {counted(len(other.bands), 'band')} ({', '.join(other.bands)}), but "
            f"{first.files_text} has {len(first.bands)} ({', '.join(first.bands)}). Expected the same bands in all "
            "rasters of a mosaic. Leave one out, or map them separately."
        )
    if other.dtype != first.dtype:
        raise RasterError(
            f"{b} holds {other.dtype}, but {a} holds {first.dtype}. Expected the same dtype in all rasters of a "
            f"mosaic. Convert {b} with the scaling of {a} ({command_to_dtype(first.dtype)}), or map them separately."
        )


def _window_on(first: Raster, other: Raster) -> Window:
    """The window of a raster on the pixel grid of the first."""
    a, b = first.grid, other.grid
    a_name, b_name = first.paths[0], other.paths[0]
    if b.crs is None and b.transform.is_identity:
        raise GridError(
            f"{b_name} has neither a CRS nor a geotransform. Expected both for a mosaic. Assign them "
            "(gdal_edit.py -a_srs -a_ullr), or map the rasters separately."
        )
    if a.crs != b.crs:
        raise GridError(
            f"{b_name} is in {crs_label(b.crs)}, but {a_name} is in {crs_label(a.crs)}. Expected one CRS for all "
            "rasters of a mosaic. Warp one (gdalwarp -t_srs), or map them separately."
        )
    corners = [a.row_col(*b.xy(0, 0)), a.row_col(*b.xy(*b.shape))]
    (row, col), (row_stop, col_stop) = corners
    if abs(row_stop - row - b.height) > _TOLERANCE or abs(col_stop - col - b.width) > _TOLERANCE:
        raise GridError(
            f"{b_name} has pixels of {b.transform.a:.10g} x {-b.transform.e:.10g}, but {a_name} has pixels of "
            f"{a.transform.a:.10g} x {-a.transform.e:.10g} (in units of {crs_label(a.crs)}). Expected "
            "one pixel size for all rasters of a mosaic. Warp one (gdalwarp -tr), or map them separately."
        )
    if max(abs(value - round(value)) for corner in corners for value in corner) > _TOLERANCE:
        offset = " and ".join(f"{value - round(value):+.2f}" for value in (row, col))
        raise GridError(
            f"{b_name} is not aligned to the pixel grid of {a_name}: its offset is {offset} pixels (rows and columns). "
            "Warp one to the grid of the other (gdalwarp -tap), or map them separately."
        )
    return Window(round(row), round(col), b.height, b.width)
