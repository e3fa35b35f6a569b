"""Stack: the bands of several rasters on the grid of the first.

Each raster keeps its own nodata values and encoding. Outside the extent or mask of any of them, no pixel is valid; the
nodata rule is about values only.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from landscribe.errors import GridError
from landscribe.geo.grid import Window, grid_label
from landscribe.geo.rasters.derived import Derived
from landscribe.geo.rasters.derived.resampling import resample_to
from landscribe.geo.rasters.nodata import Nodata, one_if_equal
from landscribe.geo.rasters.open_file import Files
from landscribe.geo.rasters.raster import Pixels, Raster, Source, Valid, deduplicate_names


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
            f"{odd[0].paths[0]} is {grid_label(odd[0].grid)}, but {first.paths[0]} is {grid_label(first.grid)}. "
            "Expected one grid for all stacked rasters. Warp one (gdalwarp), or pass --resample to resample all to the "
            "grid of the first; they need a CRS."
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
        declared=tuple(value for raster in rasters for value in raster.declared or (None,) * len(raster.bands)),
        encoding=tuple(band for raster in rasters for band in raster.encoding_by_band) if declares else (),
        has_palette=False,
    )


@dataclass(frozen=True, eq=False)
class Stack(Derived):
    """Rasters on one grid, at least one of which is no file."""

    dtype: str

    def read(
        self,
        window: Window,
        bands: Sequence[int] | None,
        nodata: Nodata,
        shape: tuple[int, int],
    ) -> tuple[Pixels, Valid]:
        """See `Source`."""
        chosen = list(range(len(self._owners))) if bands is None else list(bands)
        pixels = np.zeros((len(chosen), *shape), self.dtype)
        covered, without_nodata = np.ones(shape, bool), []
        for raster, positions in self._chosen(chosen, nodata):
            pixels[positions], valid = raster.read_decimated(window, shape)
            if nodata.needs_all(np.dtype(self.dtype)) and _has_nodata(raster):
                without_nodata.append(valid)
                covered &= valid if valid.all() else _ignoring_nodata(raster).read_decimated(window, shape)[1]
            else:
                covered &= valid
        # Where all bands must hold nodata, a pixel is valid as soon as one raster has another value.
        return pixels, covered & np.logical_or.reduce(without_nodata) if without_nodata else covered

    def may_hold_valid(self, window: Window, bands: Sequence[int] | None, nodata: Nodata) -> bool:
        """See `Source`."""
        chosen = list(range(len(self._owners))) if bands is None else list(bands)
        rasters = [raster for raster, _ in self._chosen(chosen, nodata)]
        if nodata.needs_all(np.dtype(self.dtype)):
            with_nodata = [raster for raster in rasters if _has_nodata(raster)]
            if with_nodata and not any(raster.may_hold_valid(window) for raster in with_nodata):
                return False
            rasters = [_ignoring_nodata(raster) for raster in rasters]
        return all(raster.may_hold_valid(window) for raster in rasters)

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


def _has_nodata(raster: Raster) -> bool:
    return any(value is not None for value in raster.nodata_by_band)


def _ignoring_nodata(raster: Raster) -> Raster:
    """The raster, valid everywhere inside its extent and mask, except where nodata is NaN, which is never valid."""
    values = [value if value is not None and math.isnan(value) else None for value in raster.nodata_by_band]
    return raster.with_nodata(one_if_equal(values))
