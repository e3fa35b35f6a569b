"""Stack: the bands of several rasters, on the grid of the first."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from landscribe.errors import GridError, RasterError
from landscribe.geo.grid import Window, name_of
from landscribe.geo.rasters.nodata import Nodata
from landscribe.geo.rasters.raster import Files, Pixels, Raster, Source, Valid, numbered
from landscribe.geo.rasters.resampling import resampled


def stacked(rasters: Sequence[Raster], *, resample: bool = False) -> Raster:
    """Put the bands of rasters together, in this order.

    Args:
        rasters: at least one, as they were opened.
        resample: bring those on other grids onto that of the first.

    Raises:
        RasterError: they declare different nodata values.
        GridError: they lie on different grids, and are not to be resampled.
    """
    first = rasters[0]
    declared = list(dict.fromkeys(str(raster.nodata) for raster in rasters))
    if len(declared) > 1:
        raise RasterError(
            f"{', '.join(raster.paths[0] for raster in rasters)} declare different nodata values "
            f"({', '.join(declared)}). One for all was expected. Pass nodata (--nodata)."
        )
    odd = [raster for raster in rasters if not raster.grid.same_place(first.grid)]
    if odd and not (resample and all(raster.grid.crs for raster in rasters)):
        raise GridError(_apart(first, odd[0]))
    dtype = str(np.result_type(*(raster.dtype for raster in rasters)))
    source: Source = Files(tuple(path for raster in rasters for path in raster.paths))
    if odd:
        source = Stack(tuple(resampled(raster, first.grid) if raster in odd else raster for raster in rasters), dtype)
    bands = numbered([band for raster in rasters for band in raster.bands])
    return replace(first, source=source, bands=tuple(bands), dtype=dtype)


@dataclass(frozen=True, eq=False)
class Stack:
    """Rasters on one grid, some of them resampled."""

    rasters: tuple[Raster, ...]
    dtype: str

    @property
    def paths(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(path for raster in self.rasters for path in raster.paths)

    @property
    def masks(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(path for raster in self.rasters for path in raster.masks)

    def read(self, window: Window, bands: Sequence[int] | None, nodata: Nodata) -> tuple[Pixels, Valid]:
        """See `Source`."""
        layers = [replace(raster, nodata=nodata.value, nodata_rule=nodata.rule).read(window) for raster in self.rasters]
        pixels = np.concatenate([pixels.astype(self.dtype, copy=False) for pixels, _ in layers])
        # Where all bands must hold nodata, one raster that holds something else is enough.
        either = np.logical_or if nodata.needs_all(np.dtype(self.dtype)) else np.logical_and
        valid = either.reduce([valid for _, valid in layers])
        return (pixels if bands is None else pixels[list(bands)]), valid

    def close(self) -> None:
        """See `Source`."""
        for raster in self.rasters:
            raster.source.close()


def _apart(first: Raster, other: Raster) -> str:
    return (
        f"{other.paths[0]} is {_told(other)}, but {first.paths[0]} is {_told(first)}. What is stacked must "
        "lie on one grid. Warp one (gdalwarp), or pass --resample to bring all onto that of the first; they need a CRS."
    )


def _told(raster: Raster) -> str:
    grid, (x, y) = raster.grid, raster.grid.xy(0, 0)
    return (
        f"{grid.height} x {grid.width} pixels (rows, columns) of {grid.transform.a:g} from {x:.10g}, {y:.10g} in "
        f"{name_of(grid.crs)}"
    )
