"""Raster: files on one Grid, read lazily by window as (array, valid).

A pixel is *valid* where it can be used. It is not where
- the files' alpha band or mask says so,
- bands hold the declared (or overriding) nodata value: any of them or all, see `nodata.NodataRule`,
- the window reaches outside the grid.
Pixels that are not finite are refused, unless nodata is NaN, which covers them all, beside what the files declare.
"""

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterioWindow

from landscribe.errors import GridError, RasterError, ReadError
from landscribe.geo.access import explained, forget, is_remote, opened, plain_pictures_allowed
from landscribe.geo.grid import Grid, Window, check_north_up, name_of
from landscribe.geo.rasters.nodata import Nodata
from landscribe.geo.spec import NodataRule

Pixels = NDArray[Any]
"""(bands, rows, cols) in the file's own dtype."""
Valid = NDArray[np.bool_]
"""(rows, cols), True where usable."""

_ALPHA = ColorInterp.alpha
_PAUSE = 5.0
"""Seconds, before a window that did not come over the network is asked for once more."""


class Source(Protocol):
    """Where a raster's pixels come from. Threads and processes share it; each has its own file handles."""

    @property
    def paths(self) -> tuple[str, ...]:
        """All files that it reads."""

    @property
    def masks(self) -> tuple[str, ...]:
        """Those of them that say by an alpha or mask band of their own what is valid."""

    def read(self, window: Window, bands: Sequence[int] | None, nodata: Nodata) -> tuple[Pixels, Valid]:
        """Pixels as stored and what is valid in a window inside the grid, of the bands at these places, or of all."""

    def close(self) -> None:
        """Give back the file handles of this thread; what is read next opens them again."""


@dataclass(frozen=True, eq=False)
class Raster:
    """Bands of pixels on one grid. Immutable; reads from several threads or processes are safe."""

    source: Source
    grid: Grid
    bands: tuple[str, ...]
    """Band names: the files' own descriptions, else colours, else the file's stem or its number."""
    dtype: str
    """Numpy name of the type that holds every band."""
    nodata: float | None
    nodata_rule: NodataRule = "auto"
    title: str | None = None
    """What it is called, if not like its first file."""
    _chosen: tuple[int, ...] | None = None
    """Places of `bands` among all bands of the source; None for all in order."""

    @classmethod
    def open(
        cls, paths: Sequence[str | Path], *, nodata: float | None = None, nodata_rule: NodataRule = "auto"
    ) -> "Raster":
        """Open files that lie on one grid.

        Args:
            paths: one file, or several whose bands are stacked in this order.
            nodata: overrides what the files declare; NaN comes beside it.
            nodata_rule: whether any or all bands of a pixel must hold it.

        Raises:
            RasterError: a file that cannot be read as a raster, or a nodata value that its type does not have.
            GridError: files on different grids, or a rotated one.
        """
        names = tuple(str(path) for path in paths)
        if not names:
            raise RasterError("no image file was given. At least one was expected.")
        heads = [_read_head(name) for name in names]
        for name, head in zip(names[1:], heads[1:], strict=True):
            _require_same_grid(names[0], heads[0], name, head)
        bands = numbered([band for head in heads for band in head["bands"]])
        declared = {head["nodata"] for head in heads}
        if nodata is None and len({str(value) for value in declared}) > 1:
            raise RasterError(
                f"{', '.join(names)} declare different nodata values ({', '.join(map(str, declared))}). "
                "One for all was expected. Pass nodata."
            )
        value = nodata if nodata is not None else heads[0]["nodata"]
        dtype = str(np.result_type(*(head["dtype"] for head in heads)))
        _require_in_type(nodata, dtype, names[0])
        return cls(Files(names), heads[0]["grid"], tuple(bands), dtype, value, nodata_rule)

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that it is made of; the first of them names it in messages."""
        return self.source.paths

    @property
    def masks(self) -> tuple[str, ...]:
        """The files that say by an alpha or mask band of their own what is valid."""
        return self.source.masks

    @property
    def name(self) -> str:
        """Its title, or the stem of the first file."""
        return self.title or _stem(self.paths[0])

    @property
    def reading(self) -> dict[str, Any]:
        """Everything but the files that decides the pixels, in JSON's types."""
        return {
            "bands": list(self.bands),
            "nodata": str(self.nodata),
            "nodata rule": self.nodata_rule,
            "grid": [name_of(self.grid.crs), list(self.grid.transform)[:6], *self.grid.shape],
        }

    def select(self, numbers: Sequence[int]) -> "Raster":
        """The same raster with some of its bands, in the order of `numbers` (from 1).

        Raises:
            RasterError: a number that it does not have.
        """
        odd = [number for number in numbers if not 1 <= number <= len(self.bands)]
        if odd or not numbers:
            raise RasterError(
                f"{self.paths[0]} has bands 1 to {len(self.bands)} ({', '.join(self.bands)}), but "
                f"{', '.join(map(str, odd)) or 'none'} was asked for. Ask for numbers among these."
            )
        places = self._chosen or tuple(range(len(self.bands)))
        bands = tuple(self.bands[number - 1] for number in numbers)
        return replace(self, bands=bands, _chosen=tuple(places[number - 1] for number in numbers))

    def named(self, bands: Sequence[str]) -> "Raster":
        """The same raster with other names for its bands.

        Raises:
            RasterError: not one for each.
        """
        if len(set(bands)) != len(self.bands) or len(bands) != len(self.bands):
            raise RasterError(
                f"{self.paths[0]} has {len(self.bands)} bands, but their names are {', '.join(bands)}. "
                "One name for each, all different, was expected."
            )
        return replace(self, bands=tuple(bands))

    def with_nodata(self, nodata: float | None) -> "Raster":
        """The same raster with another nodata value."""
        return replace(self, nodata=nodata)

    def read(self, window: Window) -> tuple[Pixels, Valid]:
        """Read a window; it may reach outside the grid.

        Returns:
            Pixels (bands, height, width) as stored, 0 where not valid, and valid (height, width).

        Raises:
            RasterError: the file is damaged there, or holds pixels that are not finite.
        """
        pixels = np.zeros((len(self.bands), *window.shape), self.dtype)
        valid = np.zeros(window.shape, bool)
        inside = window & self.grid.window
        if not inside.is_empty:
            rows, cols = inside.relative_to(window).slices
            found, known = self.source.read(inside, self._chosen, Nodata(self.nodata, self.nodata_rule))
            if not known.all():
                found[:, ~known] = 0
            pixels[:, rows, cols], valid[rows, cols] = found, known
        return pixels, valid


class Handles(threading.local):
    """What a thread has open; nothing of it travels to other processes."""

    def __reduce__(self) -> tuple[type["Handles"], tuple[()]]:
        return Handles, ()


@dataclass(frozen=True, eq=False)
class Files:
    """One or several files on the same grid, their bands stacked in order."""

    paths: tuple[str, ...]
    _handles: Handles = field(default_factory=Handles)

    def __getstate__(self) -> dict[str, Any]:
        # Workers elsewhere work in other folders.
        there = tuple(str(Path(name).absolute()) if Path(name).exists() else name for name in self.paths)
        return self.__dict__ | {"paths": there}

    @property
    def masks(self) -> tuple[str, ...]:
        """The files that say by an alpha or mask band of their own what is valid."""
        return tuple(name for name, _, _, own_mask in self._opened() if own_mask is not None)

    def read(self, window: Window, bands: Sequence[int] | None, nodata: Nodata) -> tuple[Pixels, Valid]:
        """See `Source`."""
        try:
            return self._read(window, bands, nodata)
        except ReadError:
            remote = [name for name in self.paths if is_remote(name)]
            if not remote:
                raise
            # A server that is started again needs a moment.
            time.sleep(_PAUSE)
            # What came only in part would be taken for the whole until the process ends.
            self.close()
            for name in remote:
                forget(name)
            return self._read(window, bands, nodata)

    def _read(self, window: Window, bands: Sequence[int] | None, nodata: Nodata) -> tuple[Pixels, Valid]:
        part = RasterioWindow(window.col, window.row, window.width, window.height)
        stacked: list[Pixels] = []
        valid = np.ones(window.shape, bool)
        for name, dataset, indexes, own_mask in self._opened():
            with explained(name, window):
                stacked.append(dataset.read(indexes, window=part))
                if nodata.is_nan and dataset.nodata is not None and stacked[-1].dtype.kind == "f":
                    stacked[-1][stacked[-1] == dataset.nodata] = np.nan
                if own_mask is not None:
                    valid &= _read_mask(dataset, own_mask, part)
        pixels = stacked[0] if len(stacked) == 1 else np.concatenate(stacked)
        if bands is not None:
            pixels = pixels[list(bands)]
        valid &= ~nodata.marks(pixels)
        self._refuse_not_finite(pixels, valid, window, nodata)
        return pixels, valid

    def _refuse_not_finite(self, pixels: Pixels, valid: Valid, window: Window, nodata: Nodata) -> None:
        if pixels.dtype.kind != "f":
            return
        odd = valid & ~np.isfinite(pixels).all(axis=0)
        if odd.any():
            row, col = (int(place[0]) for place in np.nonzero(odd))
            flag = "nodata_rule = any (--nodata-rule any)" if nodata.is_nan else "nodata = nan (--nodata nan)"
            raise RasterError(
                f"{self.paths[0]} holds {int(odd.sum())} NaN or infinite pixels in rows {window.row} to "
                f"{window.row_stop}, first at row {window.row + row}, col {window.col + col}; its nodata is "
                f"{nodata.value}. Finite pixels were expected. Treat them as nodata with {flag}."
            )

    def _opened(self) -> list[tuple[str, Any, list[int], int | None]]:
        """(path, dataset, band numbers, its own mask), opened once per thread."""
        if not hasattr(self._handles, "files"):
            handles = []
            for name in self.paths:
                with explained(name):
                    dataset = opened(name)
                handles.append((name, dataset, _colour_bands(dataset), _own_mask(dataset)))
            self._handles.files = handles
        return list(self._handles.files)

    def close(self) -> None:
        """See `Source`."""
        for _, dataset, _, _ in self._handles.__dict__.pop("files", ()):
            dataset.close()


def _require_in_type(nodata: float | None, dtype: str, name: str) -> None:
    """Raise RasterError for a value that no pixel of whole numbers can have: all nodata would be taken for imagery."""
    kind = np.dtype(dtype)
    if nodata is None or kind.kind not in "iu":
        return
    limits = np.iinfo(kind)
    if not (math.isfinite(nodata) and limits.min <= nodata <= limits.max and nodata == int(nodata)):
        raise RasterError(
            f"nodata is {nodata:g}, but {name} holds {dtype}. A whole number from {limits.min} to {limits.max} was "
            "expected. Give the value that its empty pixels hold; if there are none, unset what it declares "
            "(gdal_edit.py -unsetnodata)."
        )


def write_raster(path: Path, pixels: Pixels, grid: Grid | None, valid: Valid | None = None, **layout: Any) -> None:
    """Write (bands, rows, cols) to a new file.

    Args:
        path: where. Not whole-or-nothing by itself: see `outputs`.
        pixels: as they are to be stored.
        grid: where they lie; None for a plain picture.
        valid: (rows, cols), kept as a mask band inside a GeoTIFF; None for no mask band.
        layout: driver and creation options of rasterio.
    """
    count, height, width = pixels.shape
    place = {"crs": grid.crs, "transform": grid.transform} if grid is not None else {}
    shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    if layout.get("driver", "GTiff") == "GTiff":
        # GDAL takes the fourth of four uint8 bands for alpha unless told otherwise.
        layout = {"alpha": "no"} | layout
    # In memory first: what GDAL cannot write when it closes a file, rasterio does not tell.
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
        with plain_pictures_allowed():
            made = memory.open(**shape, **place, **({"driver": "GTiff"} | layout))
        with made as target:
            target.write(pixels)
            if valid is not None:
                target.write_mask(valid)
        path.write_bytes(memory.getbuffer())


def read_copy(path: Path, fill: float) -> tuple[Pixels, Valid]:
    """All of a file that `write_raster` wrote: every band as stored, and what is valid; 0 where not.

    Args:
        path: of the file.
        fill: what marks pixels that are not valid in a format that cannot say so; a GeoTIFF does.
    """
    with explained(str(path)), opened(path) as source:
        # GDAL takes the fourth band of a PNG for alpha: here it is a band like any other.
        pixels = source.read()
        says_itself = source.driver == "GTiff"
        nodata = source.nodata if says_itself else fill
        masked = says_itself and _own_mask(source) == _MASK_BAND
        valid = _read_mask(source, _MASK_BAND) if masked else np.ones(pixels.shape[1:], bool)
    valid &= ~Nodata(nodata).marks(pixels)
    pixels[:, ~valid] = 0
    return pixels, valid


def read_band(path: Path) -> NDArray[Any]:
    """The first band (rows, cols) of a file, as stored."""
    with explained(str(path)), opened(path) as source:
        band: NDArray[Any] = source.read(1)
        return band


def read_palette(path: str) -> dict[int, tuple[int, int, int]] | None:
    """Red, green and blue (0 to 255) by the value of the first band; None if the file has no palette."""
    with explained(path), opened(path) as source:
        if source.colorinterp[0] != ColorInterp.palette:
            return None
        return {value: (red, green, blue) for value, (red, green, blue, _) in source.colormap(1).items()}


def _read_head(name: str) -> dict[str, Any]:
    with explained(name), opened(name) as source:
        # GDAL gives a picture without a place the identity, whose rows would run north.
        if source.crs is not None or not source.transform.is_identity:
            check_north_up(source.transform, name)
        indexes = _colour_bands(source)
        dtypes = {source.dtypes[index - 1] for index in indexes}
        if any(np.dtype(dtype).kind == "c" for dtype in dtypes):
            raise RasterError(f"{name} holds complex numbers. Real numbers were expected.")
        return {
            "grid": Grid(source.crs, source.transform, source.height, source.width),
            "bands": [_band_name(source, index, alone=len(indexes) == 1) for index in indexes],
            "dtype": np.result_type(*dtypes),
            "nodata": source.nodata,
        }


def _colour_bands(source: Any) -> list[int]:
    """Numbers of the bands that are not alpha."""
    return [index for index, colour in zip(source.indexes, source.colorinterp, strict=True) if colour != _ALPHA]


_MASK_BAND = 0


def _own_mask(source: Any) -> int | None:
    """What says where a file is valid beside any nodata value.

    Returns:
        The number of its alpha band, `_MASK_BAND` for a mask band, None for neither.
    """
    # Asked for masks, GDAL passes over the alpha band of a file that declares nodata too.
    alpha = [index for index, colour in zip(source.indexes, source.colorinterp, strict=True) if colour == _ALPHA]
    if alpha:
        return int(alpha[0])
    flags = {flag for band_flags in source.mask_flag_enums for flag in band_flags}
    return _MASK_BAND if MaskFlags.per_dataset in flags else None


def _read_mask(source: Any, own_mask: int, window: RasterioWindow | None = None) -> Valid:
    mask = source.dataset_mask(window=window) if own_mask == _MASK_BAND else source.read(own_mask, window=window)
    return np.asarray(mask > 0)


def _band_name(source: Any, index: int, *, alone: bool) -> str:
    described = source.descriptions[index - 1]
    if described:
        return str(described)
    colour = source.colorinterp[index - 1]
    if colour in (ColorInterp.red, ColorInterp.green, ColorInterp.blue):
        return str(colour.name)
    return _stem(source.name) if alone else f"band{index}"


def _stem(name: str) -> str:
    """Of a file's name; what a URL asks for after a question mark is none of it."""
    return Path(name.partition("?")[0] if is_remote(name) else name).stem


def numbered(names: list[str]) -> list[str]:
    """The same names, numbered where one stands twice."""
    return [
        f"{name}_{names[: place + 1].count(name)}" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _require_same_grid(first: str, one: dict[str, Any], second: str, other: dict[str, Any]) -> None:
    a, b = one["grid"], other["grid"]
    if not a.same_place(b):
        raise GridError(
            f"{second} is {b.height} x {b.width} pixels of {b.transform.a:g} in {name_of(b.crs)}, but {first} is "
            f"{a.height} x {a.width} of {a.transform.a:g} in {name_of(a.crs)}, {a.differs_by(b):.2f} pixels apart. "
            "Files of one scene must lie on the same grid. Warp one onto the other (gdalwarp), or make two scenes."
        )
