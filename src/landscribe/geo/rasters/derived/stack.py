"""Stack: the bands of several rasters on the grid of the first.

Each raster keeps its own nodata values and encoding. The nodata rule is applied to groups of bands (`Nodata.groups`):
outside the extent or mask of any raster, and where any group is nodata, no pixel is valid.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from landscribe.errors import GridError
from landscribe.geo.grid import Window, grid_label
from landscribe.geo.rasters.derived import Derived
from landscribe.geo.rasters.derived.resampling import resample_to
from landscribe.geo.rasters.nodata import Nodata, one_if_equal, require_held
from landscribe.geo.rasters.open_file import Files
from landscribe.geo.rasters.raster import Pixels, Raster, Source, Valid, deduplicate_names
from landscribe.geo.spec import NodataValue


def stack_bands(rasters: Sequence[Raster], *, resample: bool = False) -> Raster:
    """Stack the bands of rasters, in this order.

    Args:
        rasters: at least one, each of one file, with all its bands.
        resample: resample the rasters that lie on other grids to the grid of the first.

    Raises:
        GridError: they lie on different grids, and `resample` is off or a CRS is missing.
    """
    first = rasters[0]
    odd = [raster for raster in rasters if not raster.grid.is_aligned(first.grid)]
    if odd and not (resample and all(raster.grid.crs for raster in rasters)):
        raise GridError(
            f"{odd[0].paths[0]} is {grid_label(odd[0].grid)}, but {first.paths[0]} is {grid_label(first.grid)}. "
            "Expected one grid for all stacked rasters. Warp one (gdalwarp), or pass --resample (in a recipe: "
            "resample) to resample all to the grid of the first; they need a CRS."
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
        origins=tuple(origin for raster in rasters for origin in raster.origins_by_band),
        encoding=tuple(band for raster in rasters for band in raster.encoding_by_band) if declares else (),
        has_palette=False,
    )


def override_nodata(rasters: Sequence[Raster], nodata: NodataValue) -> list[Raster]:
    """The rasters of a stack, each of one file, with another nodata value; with their own if it is None.

    Args:
        rasters: each of one file.
        nodata: one for all; or for a single raster, one for each of its bands.

    Raises:
        RasterError: the dtype of a file cannot hold the value.
    """
    if nodata is None:
        return [*rasters]
    if not isinstance(nodata, tuple):
        require_held(nodata, [origin for raster in rasters for origin in raster.origins_by_band])
    return [raster.override_nodata(nodata) for raster in rasters]


@dataclass(frozen=True, eq=False)
class Stack(Derived):
    """Rasters on one grid, each of one file; at least one of them is computed."""

    dtype: str

    def read(
        self,
        window: Window,
        bands: Sequence[int] | None,
        nodata: Nodata,
        shape: tuple[int, int],
    ) -> tuple[Pixels, Valid]:
        """See `Source`."""
        pixels = np.zeros((len(self._owners) if bands is None else len(bands), *shape), self.dtype)
        covered, held = np.ones(shape, bool), dict[int, Valid]()
        for raster, positions, groups in self._judged(bands, nodata):
            own, valid = raster.read_decimated(window, shape)
            if groups is not None:
                held |= {group: held[group] | valid if group in held else valid for group in groups}
                if not valid.all():
                    stored, inside = _ignoring_nodata(raster).read_decimated(window, shape)
                    own, valid = np.where(valid, own, stored), inside
            pixels[positions] = own
            covered &= valid
        # Where all bands of a group must hold nodata, a pixel is valid as soon as one raster has another value.
        return pixels, np.logical_and.reduce([covered, *held.values()])

    def may_hold_valid(self, window: Window, bands: Sequence[int] | None, nodata: Nodata) -> bool:
        """See `Source`."""
        may_hold = dict[int, bool]()
        for raster, _, groups in self._judged(bands, nodata):
            may_hold |= {group: may_hold.get(group, False) or raster.may_hold_valid(window) for group in groups or ()}
            if not (raster if groups is None else _ignoring_nodata(raster)).may_hold_valid(window):
                return False
        return all(may_hold.values())

    @property
    def _owners(self) -> list[int]:
        """The index of the raster of each band."""
        return [index for index, raster in enumerate(self.rasters) for _ in raster.bands]

    def _judged(
        self, bands: Sequence[int] | None, nodata: Nodata
    ) -> Iterator[tuple[Raster, list[int], list[int] | None]]:
        """The rasters of the chosen bands, the positions of their bands among these, and the groups they share.

        The groups, by number, are those in which a pixel is nodata only where other rasters hold nodata, too; None for
        a raster that is judged alone.
        """
        owners = self._owners
        chosen = range(len(owners)) if bands is None else bands
        groups = nodata.groups(len(chosen), np.dtype(self.dtype))
        for index in sorted({owners[band] for band in chosen}):
            positions = [position for position, band in enumerate(chosen) if owners[band] == index]
            first = owners.index(index)
            own = [chosen[position] - first for position in positions]
            raster = self.rasters[index].of_bands(own, nodata.of_bands(positions))
            numbers = [number for number, group in enumerate(groups) if not set(group.indices).isdisjoint(positions)]
            judged = [groups[number] for number in numbers]
            is_alone = any(not group.needs_all or set(group.indices) <= set(positions) for group in judged)
            has_value = any(value is not None for value in raster.nodata_by_band)
            yield raster, positions, numbers if has_value and not is_alone else None


def _ignoring_nodata(raster: Raster) -> Raster:
    """The raster, valid everywhere inside its extent and mask, except where nodata is NaN, which is never valid."""
    values = [value if value is not None and math.isnan(value) else None for value in raster.nodata_by_band]
    return raster.with_nodata(one_if_equal(values))
