"""Stack: the bands of several rasters on the grid of the first."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from landscribe.errors import GridError, RasterError
from landscribe.geo.grid import Window, crs_label
from landscribe.geo.rasters.nodata import Nodata
from landscribe.geo.rasters.raster import Files, Pixels, Raster, Source, Valid, deduplicate_names
from landscribe.geo.rasters.resampling import resample_to


def stack_bands(rasters: Sequence[Raster], *, resample: bool = False) -> Raster:
    """Stack the bands of rasters, in this order.

    Args:
        rasters: at least one, with all their bands.
        resample: resample the rasters that lie on other grids to the grid of the first.

    Raises:
        RasterError: the rasters declare different nodata values.
        GridError: they lie on different grids, and `resample` is off or a CRS is missing.
    """
    first = rasters[0]
    declared = list(dict.fromkeys(str(raster.nodata) for raster in rasters))
    if len(declared) > 1:
        raise RasterError(
            f"{', '.join(raster.paths[0] for raster in rasters)} declare different nodata values "
            f"({', '.join(declared)}). Expected one for all. Pass nodata (--nodata)."
        )
    odd = [raster for raster in rasters if not raster.grid.is_aligned(first.grid)]
    if odd and not (resample and all(raster.grid.crs for raster in rasters)):
        raise GridError(
            f"{odd[0].paths[0]} is {_describe(odd[0])}, but {first.paths[0]} is {_describe(first)}. Expected one grid "
            "for all stacked rasters. Warp one (gdalwarp), or pass --resample to resample all to the grid of the "
            "first; they need a CRS."
        )
    dtype = str(np.result_type(*(raster.dtype for raster in rasters)))
    source: Source = Files(tuple(path for raster in rasters for path in raster.paths))
    if odd:
        source = Stack(tuple(resample_to(raster, first.grid) if raster in odd else raster for raster in rasters), dtype)
    bands = deduplicate_names([band for raster in rasters for band in raster.bands])
    return replace(first, source=source, bands=tuple(bands), dtype=dtype)


@dataclass(frozen=True, eq=False)
class Stack:
    """Rasters on one grid, at least one of which is resampled."""

    rasters: tuple[Raster, ...]
    dtype: str

    @property
    def paths(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(path for raster in self.rasters for path in raster.paths)

    @property
    def mask_files(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(path for raster in self.rasters for path in raster.mask_files)

    def read(
        self,
        window: Window,
        bands: Sequence[int] | None,
        nodata: Nodata,
        shape: tuple[int, int] | None = None,
    ) -> tuple[Pixels, Valid]:
        """See `Source`."""
        rasters = [replace(raster, nodata=nodata.value, nodata_rule=nodata.rule) for raster in self.rasters]
        layers = [raster.read_decimated(window, shape or window.shape) for raster in rasters]
        pixels = np.concatenate([pixels.astype(self.dtype, copy=False) for pixels, _ in layers])
        # Where all bands must hold nodata, a pixel is valid as soon as it is valid in one raster.
        combine = np.logical_or if nodata.needs_all(np.dtype(self.dtype)) else np.logical_and
        valid = combine.reduce([valid for _, valid in layers])
        return (pixels if bands is None else pixels[list(bands)]), valid

    def close(self) -> None:
        """See `Source`."""
        for raster in self.rasters:
            raster.source.close()


def _describe(raster: Raster) -> str:
    grid, (x, y) = raster.grid, raster.grid.xy(0, 0)
    return (
        f"{grid.height} x {grid.width} pixels (rows, columns) of {grid.transform.a:g} from {x:.10g}, {y:.10g} in "
        f"{crs_label(grid.crs)}"
    )
