"""Stack: the bands of several rasters on the grid of the first.

Each raster keeps its own nodata values and encoding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from landscribe.errors import GridError
from landscribe.geo.grid import Window, crs_label
from landscribe.geo.rasters.derived.resampling import resample_to
from landscribe.geo.rasters.nodata import Nodata, one_if_equal
from landscribe.geo.rasters.raster import Files, Pixels, Raster, Source, Valid, deduplicate_names


def stack_bands(rasters: Sequence[Raster], *, resample: bool = False) -> Raster:
    """Stack the bands of rasters, in this order.

    Args:
        rasters: at least one, with all their bands.
        resample: resample the rasters that lie on other grids to the grid of the first.

    Raises:
        GridError: they lie on different grids, and `resample` is off or a CRS is missing.
    """
    first = rasters[0]
    odd = [raster for raster in rasters if not raster.grid.is_aligned(first.grid)]
    if odd and not (resample and all(raster.grid.crs for raster in rasters)):
        raise GridError(
            f"{odd[0].paths[0]} is {_describe(odd[0])}, but {first.paths[0]} is {_describe(first)}. Expected one grid "
            "for all stacked rasters. Warp one (gdalwarp), or pass --resample to resample all to the grid of the "
            "first; they need a CRS."
        )
    dtype = str(np.result_type(*(raster.dtype for raster in rasters)))
    files = [raster.source for raster in rasters if isinstance(raster.source, Files)]
    source: Source
    if odd or len(files) < len(rasters):
        source = Stack(tuple(resample_to(raster, first.grid) if raster in odd else raster for raster in rasters), dtype)
    else:
        flags = [index in own.alpha_is_imagery for own in files for index in range(len(own.paths))]
        imagery = frozenset(index for index, is_imagery in enumerate(flags) if is_imagery)
        source = Files(tuple(path for own in files for path in own.paths), imagery)
    declares = any(raster.encoding for raster in rasters)
    return replace(
        first,
        source=source,
        bands=tuple(deduplicate_names([band for raster in rasters for band in raster.bands])),
        dtype=dtype,
        nodata=one_if_equal([value for raster in rasters for value in raster.nodata_by_band]),
        encoding=tuple(band for raster in rasters for band in raster.encoding_by_band) if declares else (),
        has_palette=False,
    )


@dataclass(frozen=True, eq=False)
class Stack:
    """Rasters on one grid, at least one of which is no file."""

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
        chosen = list(range(len(self._owners))) if bands is None else list(bands)
        pixels = np.zeros((len(chosen), *(shape or window.shape)), self.dtype)
        valids = []
        for raster, positions in self._chosen(chosen, nodata):
            pixels[positions], valid = raster.read_decimated(window, shape or window.shape)
            valids.append(valid)
        # Where all bands must hold nodata, a pixel is valid as soon as it is valid in one raster.
        combine = np.logical_or if nodata.needs_all(np.dtype(self.dtype)) else np.logical_and
        return pixels, combine.reduce(valids)

    def may_hold_valid(self, window: Window, bands: Sequence[int] | None, nodata: Nodata) -> bool:
        """See `Source`."""
        chosen = list(range(len(self._owners))) if bands is None else list(bands)
        combine = any if nodata.needs_all(np.dtype(self.dtype)) else all
        return combine(raster.may_hold_valid(window) for raster, _ in self._chosen(chosen, nodata))

    @property
    def _owners(self) -> list[int]:
        """The index of the raster of each band."""
        return [index for index, raster in enumerate(self.rasters) for _ in raster.bands]

    def _chosen(self, chosen: Sequence[int], nodata: Nodata) -> Iterator[tuple[Raster, list[int]]]:
        """The rasters of the chosen bands, and the positions of their bands among these."""
        owners = self._owners
        for index in sorted({owners[band] for band in chosen}):
            positions = [position for position, band in enumerate(chosen) if owners[band] == index]
            first = owners.index(index)
            bands = [chosen[position] - first for position in positions]
            yield self.rasters[index].of_bands(bands, nodata.of_bands(positions)), positions

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
