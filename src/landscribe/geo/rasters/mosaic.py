"""Mosaic: many rasters on one lattice of pixels, read as one.

Where they overlap, the first one counts, and where that is not valid the next. What none of them covers is not valid.
GDAL's own mosaics (VRT) decide band by band what is nodata, so that a pixel could be of two rasters: here it is of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from landscribe.errors import GridError, RasterError
from landscribe.geo.grid import Window, name_of
from landscribe.geo.rasters.nodata import Nodata
from landscribe.geo.rasters.raster import Handles, Pixels, Raster, Source, Valid

# Files that a thread holds open: systems allow some hundreds to thousands.
_MOST_OPEN = 64
_PIXEL = 0.1
"""How far apart, in pixels, what lies on one lattice may be: what places are rounded to, and less than imagery is
registered to."""


def mosaic(rasters: Sequence[Raster]) -> Raster:
    """Several rasters as one, with the bands' names of the first.

    Raises:
        GridError: another CRS, pixel size or lattice of pixels than the first's.
        RasterError: other bands, dtype or nodata.
    """
    if not rasters:
        raise RasterError("no image was given for the mosaic. At least one was expected.")
    first = rasters[0]
    for other in rasters[1:]:
        _require_same_pixels(first, other)
    places = [_place_on(first, raster) for raster in rasters]
    row, col = min(place.row for place in places), min(place.col for place in places)
    height = max(place.row_stop for place in places) - row
    width = max(place.col_stop for place in places) - col
    whole = Window(row, col, height, width)
    pieces = tuple(
        Piece(raster.source, place.relative_to(whole)) for raster, place in zip(rasters, places, strict=True)
    )
    return replace(first, source=Mosaic(pieces, len(first.bands), first.dtype), grid=first.grid[whole])


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of a mosaic."""

    source: Source
    place: Window
    """On the mosaic's grid."""


@dataclass(frozen=True, eq=False)
class Mosaic:
    """Pieces, the first of which counts where several are valid."""

    pieces: tuple[Piece, ...]
    bands: int
    dtype: str
    _handles: Handles = field(default_factory=Handles)

    @property
    def paths(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(path for piece in self.pieces for path in piece.source.paths)

    @property
    def masks(self) -> tuple[str, ...]:
        """See `Source`."""
        masks: list[str] = []
        for number, piece in enumerate(self.pieces):
            masks += piece.source.masks
            self._remember(number)
        return tuple(masks)

    def read(self, window: Window, bands: Sequence[int] | None, nodata: Nodata) -> tuple[Pixels, Valid]:
        """See `Source`."""
        pixels = np.zeros((self.bands if bands is None else len(bands), *window.shape), self.dtype)
        valid = np.zeros(window.shape, bool)
        for number, piece in enumerate(self.pieces):
            common = window & piece.place
            if common.is_empty:
                continue
            rows, cols = common.relative_to(window).slices
            missing = ~valid[rows, cols]
            if missing.any():
                found, known = piece.source.read(common.relative_to(piece.place), bands, nodata)
                self._remember(number)
                taken = known & missing
                pixels[:, rows, cols][:, taken] = found[:, taken]
                valid[rows, cols] |= taken
        return pixels, valid

    def _remember(self, number: int) -> None:
        """Of the pieces that this thread has read, keep the latest open."""
        latest: dict[int, None] = self._handles.__dict__.setdefault("latest", {})
        latest.pop(number, None)
        latest[number] = None
        while len(latest) > _MOST_OPEN:
            oldest = next(iter(latest))
            self.pieces[oldest].source.close()
            del latest[oldest]

    def close(self) -> None:
        """See `Source`."""
        for number in self._handles.__dict__.pop("latest", {}):
            self.pieces[number].source.close()


def _require_same_pixels(first: Raster, other: Raster) -> None:
    """Raise RasterError unless both hold the same bands, in the same way."""
    one, two = first.paths[0], other.paths[0]
    if len(other.bands) != len(first.bands):
        raise RasterError(
            f"{two} has {len(other.bands)} bands ({', '.join(other.bands)}), but {one} has {len(first.bands)} "
            f"({', '.join(first.bands)}). The parts of a mosaic must have the same. Leave one out, or map them apart."
        )
    # Bands in files of their own are named like these, which differ from part to part.
    if other.bands != first.bands and set(other.bands) == set(first.bands):
        raise RasterError(
            f"{two} has its bands in the order {', '.join(other.bands)}, but {one} has {', '.join(first.bands)}. The "
            "parts of a mosaic must have the same. Reorder one (gdal_translate -b), or map them apart."
        )
    if other.dtype != first.dtype:
        raise RasterError(
            f"{two} holds {other.dtype}, but {one} holds {first.dtype}. The parts of a mosaic must hold the same. "
            "Convert one (gdal_translate -ot), or map them apart."
        )
    if str(other.nodata) != str(first.nodata):
        raise RasterError(
            f"the nodata value of {two} is {other.nodata}, but that of {one} is {first.nodata}. The parts of a mosaic "
            "must have the same. Pass nodata (--nodata), or map them apart."
        )


def _place_on(first: Raster, other: Raster) -> Window:
    """Where a raster lies in the pixels of the first one."""
    one, two = first.paths[0], other.paths[0]
    a, b = first.grid, other.grid
    if b.crs is None and b.transform.is_identity:
        raise GridError(
            f"{two} has no place on the Earth: neither a CRS nor a geotransform. The parts of a mosaic must have one. "
            "Give it one (gdal_edit.py -a_srs -a_ullr), or map them apart."
        )
    if a.crs != b.crs:
        raise GridError(
            f"{two} is in {name_of(b.crs)}, but {one} is in {name_of(a.crs)}. The parts of a mosaic must be in one "
            "CRS. Warp one (gdalwarp -t_srs), or map them apart."
        )
    corners = [a.row_col(*b.xy(0, 0)), a.row_col(*b.xy(*b.shape))]
    (row, col), (row_stop, col_stop) = corners
    if abs(row_stop - row - b.height) > _PIXEL or abs(col_stop - col - b.width) > _PIXEL:
        raise GridError(
            f"{two} has pixels of {b.transform.a:.10g} x {-b.transform.e:.10g}, but {one} of {a.transform.a:.10g} x "
            f"{-a.transform.e:.10g} (in units of {name_of(a.crs)}). The parts of a mosaic must have the same. Warp one "
            "(gdalwarp -tr), or map them apart."
        )
    if max(abs(value - round(value)) for corner in corners for value in corner) > _PIXEL:
        off = " and ".join(f"{value - round(value):+.2f}" for value in (row, col))
        raise GridError(
            f"{two} begins {off} pixels (rows and columns) beside the lattice of {one}. The parts of a mosaic must lie "
            "on one lattice of pixels. Warp one onto it (gdalwarp -tap), or map them apart."
        )
    return Window(round(row), round(col), b.height, b.width)
