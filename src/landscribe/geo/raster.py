"""Raster: files on one Grid, read lazily by window as (array, valid).

A pixel is *valid* where it can be used. It is not where
- the files' alpha band or mask says so,
- a band holds the declared (or overriding) nodata value. Unsigned imagery often has 0 or its largest value
  both as nodata and as a dark or bright pixel, so there all bands must hold it; for any other nodata value
  one band is enough,
- the window reaches outside the grid.
Pixels that are not finite are refused, unless nodata is NaN, which covers them all.
"""

import math
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterioWindow

from landscribe.errors import GridError, RasterError, ReadError
from landscribe.geo.grid import Grid, Window, check_north_up, name_of

Pixels = NDArray[Any]
"""(bands, rows, cols) in the file's own dtype."""
Valid = NDArray[np.bool_]
"""(rows, cols), True where usable."""

_ALPHA = ColorInterp.alpha

# What gdal.org/user/configoptions.html advises for Cloud Optimized GeoTIFFs over a network.
_REMOTE = {
    # Side files are not looked for: that would ask for a listing of the folder.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "VSI_CACHE": "TRUE",
}


class Raster:
    """One or several files on the same grid, their bands stacked in order.

    Opened by `Raster.open`. Immutable; reads from several threads or processes are safe, each has its own
    file handles.
    """

    def __init__(
        self,
        paths: tuple[str, ...],
        grid: Grid,
        bands: tuple[str, ...],
        dtype: str,
        nodata: float | None,
        chosen: tuple[int, ...] | None = None,
    ) -> None:
        self.paths = paths
        self.grid = grid
        self.bands = bands
        """Band names: the files' own descriptions, else colours, else the file's stem or its number."""
        self.dtype = dtype
        """Numpy name of the type that holds every band."""
        self.nodata = nodata
        self._chosen = chosen
        """Places of `bands` among all bands of the files; None for all in order."""
        self._opened = threading.local()

    @classmethod
    def open(cls, paths: Sequence[str | Path], *, nodata: float | None = None) -> "Raster":
        """Open files that lie on one grid.

        Args:
            paths: one file, or several whose bands are stacked in this order.
            nodata: overrides what the files declare.

        Raises:
            RasterError: a file that cannot be read as a raster.
            GridError: files on different grids, or a rotated one.
        """
        names = tuple(str(path) for path in paths)
        if not names:
            raise RasterError("no image file was given. At least one was expected.")
        heads = [_read_head(name) for name in names]
        for name, head in zip(names[1:], heads[1:], strict=True):
            _require_same_grid(names[0], heads[0], name, head)
        bands = _unique([band for head in heads for band in head["bands"]])
        declared = {head["nodata"] for head in heads}
        if nodata is None and len({str(value) for value in declared}) > 1:
            raise RasterError(
                f"{', '.join(names)} declare different nodata values ({', '.join(map(str, declared))}). "
                "One for all was expected. Pass nodata."
            )
        value = nodata if nodata is not None else heads[0]["nodata"]
        dtype = str(np.result_type(*(head["dtype"] for head in heads)))
        return cls(names, heads[0]["grid"], tuple(bands), dtype, value)

    @property
    def masks(self) -> tuple[str, ...]:
        """The files that say by an alpha or mask band of their own what is valid."""
        return tuple(name for name, _, _, own_mask in self._handles() if own_mask is not None)

    @property
    def name(self) -> str:
        """The stem of the first file."""
        return Path(self.paths[0]).stem

    def select(self, numbers: Sequence[int]) -> "Raster":
        """The same raster with some of its bands, in the order of `numbers` (from 1).

        Raises:
            RasterError: a number that it does not have.
        """
        odd = [number for number in numbers if not 1 <= number <= len(self.bands)]
        if odd or not numbers:
            raise RasterError(f"{self.paths[0]} has bands 1 to {len(self.bands)}, but {list(numbers)} were asked for.")
        places = self._chosen or tuple(range(len(self.bands)))
        bands = tuple(self.bands[number - 1] for number in numbers)
        chosen = tuple(places[number - 1] for number in numbers)
        return Raster(self.paths, self.grid, bands, self.dtype, self.nodata, chosen)

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
        return Raster(self.paths, self.grid, tuple(bands), self.dtype, self.nodata, self._chosen)

    def with_nodata(self, nodata: float | None) -> "Raster":
        """The same raster with another nodata value."""
        return Raster(self.paths, self.grid, self.bands, self.dtype, nodata, self._chosen)

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
            pixels[:, rows, cols], valid[rows, cols] = self._read_inside(inside)
        return pixels, valid

    def _read_inside(self, window: Window) -> tuple[Pixels, Valid]:
        part = RasterioWindow(window.col, window.row, window.width, window.height)
        stacked: list[Pixels] = []
        masked = np.ones(window.shape, bool)
        for name, source, indexes, own_mask in self._handles():
            with _explained(name, window):
                stacked.append(source.read(indexes, window=part))
                if own_mask is not None:
                    masked &= _read_mask(source, own_mask, part)
        pixels = stacked[0] if len(stacked) == 1 else np.concatenate(stacked)
        if self._chosen is not None:
            pixels = pixels[list(self._chosen)]
        valid = masked & ~_is_nodata(pixels, self.nodata)
        self._refuse_not_finite(pixels, valid, window)
        if not valid.all():
            pixels[:, ~valid] = 0
        return pixels, valid

    def _refuse_not_finite(self, pixels: Pixels, valid: Valid, window: Window) -> None:
        if pixels.dtype.kind != "f":
            return
        odd = valid & ~np.isfinite(pixels).all(axis=0)
        if odd.any():
            row, col = (int(place[0]) for place in np.nonzero(odd))
            raise RasterError(
                f"{self.paths[0]} holds {int(odd.sum())} NaN or infinite pixels in rows {window.row} to "
                f"{window.row_stop}, first at row {window.row + row}, col {window.col + col}; its nodata is "
                f"{self.nodata}. Finite pixels were expected. Treat them as nodata with nodata = nan (--nodata nan)."
            )

    def _handles(self) -> list[tuple[str, Any, list[int], int | None]]:
        """(path, dataset, band numbers, its own mask), opened once per thread."""
        if not hasattr(self._opened, "handles"):
            handles = []
            for name in self.paths:
                with _explained(name):
                    source = opened(name)
                handles.append((name, source, _colour_bands(source), _own_mask(source)))
            self._opened.handles = handles
        return list(self._opened.handles)

    def __getstate__(self) -> dict[str, Any]:
        # File handles do not travel between processes.
        return {key: value for key, value in self.__dict__.items() if key != "_opened"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _opened=threading.local())


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
    with _explained(str(path)), opened(path) as source:
        # GDAL takes the fourth band of a PNG for alpha: here it is a band like any other.
        pixels = source.read()
        says_itself = source.driver == "GTiff"
        nodata = source.nodata if says_itself else fill
        masked = says_itself and _own_mask(source) == _MASK_BAND
        valid = _read_mask(source, _MASK_BAND) if masked else np.ones(pixels.shape[1:], bool)
    valid &= ~_is_nodata(pixels, nodata)
    pixels[:, ~valid] = 0
    return pixels, valid


def read_band(path: Path) -> NDArray[Any]:
    """The first band (rows, cols) of a file, as stored."""
    with _explained(str(path)), opened(path) as source:
        band: NDArray[Any] = source.read(1)
        return band


def read_palette(path: str) -> dict[int, tuple[int, int, int]] | None:
    """Red, green and blue (0 to 255) by the value of the first band; None if the file has no palette."""
    with _explained(path), opened(path) as source:
        if source.colorinterp[0] != ColorInterp.palette:
            return None
        return {value: (red, green, blue) for value, (red, green, blue, _) in source.colormap(1).items()}


def opened(path: str | Path) -> Any:
    """A dataset of rasterio, to be closed by who asked; it may have no place on the Earth."""
    with plain_pictures_allowed():
        return rasterio.open(path)


_one_at_a_time = threading.Lock()


@contextmanager
def plain_pictures_allowed() -> Iterator[None]:
    """Whether a raster needs a place on the Earth is decided where it is used; rasterio need not warn.

    Only for as long as a file is opened: up to Python 3.13 the filters of warnings are the process's, so that
    threads wait for one another here.
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _read_head(name: str) -> dict[str, Any]:
    with _explained(name), opened(name) as source:
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
    return Path(source.name).stem if alone else f"band{index}"


def _unique(names: list[str]) -> list[str]:
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


def _is_nodata(pixels: Pixels, nodata: float | None) -> Valid:
    if nodata is None:
        return np.zeros(pixels.shape[1:], bool)
    if math.isnan(nodata):
        held = ~np.isfinite(pixels) if pixels.dtype.kind == "f" else np.zeros(pixels.shape, bool)
    else:
        held = np.asarray(pixels == nodata)
    may_be_a_pixel = pixels.dtype.kind == "u" and nodata in (0, np.iinfo(pixels.dtype).max)
    return np.logical_and.reduce(held) if may_be_a_pixel else np.logical_or.reduce(held)


def is_local(name: str) -> bool:
    """True for a path of this machine's file system: no URL, none of GDAL's own file systems."""
    return not ("://" in name or name.startswith("/vsi"))


def is_remote(name: str) -> bool:
    """True for what GDAL reads over a network: a URL, or one of its network file systems."""
    return "://" in name or name.startswith(("/vsicurl", "/vsis3", "/vsigs", "/vsiaz", "/vsiadls", "/vsiswift"))


def _way_to(name: str) -> AbstractContextManager[Any]:
    """GDAL's settings for what is far away, as people otherwise have to know them; the user's environment wins."""
    if not is_remote(name):
        return nullcontext()
    return rasterio.Env(**{key: value for key, value in _REMOTE.items() if key not in os.environ})


@contextmanager
def _explained(name: str, window: Window | None = None) -> Iterator[None]:
    """Reach a file, and turn GDAL's refusals into one line with the file and the place in it."""
    try:
        with _way_to(name):
            yield
    except (RasterioError, OSError) as error:
        # rasterio hides GDAL's own words behind "See previous exception".
        cause = error.__cause__ or error
        where = f" at rows {window.row} to {window.row_stop}, cols {window.col} to {window.col_stop}" if window else ""
        raise (ReadError if window else RasterError)(
            f"{name} cannot be read{where}: {_plain(cause, name)}. A whole raster that GDAL can open was expected. "
            "Check the path, or copy the file again."
        ) from error


def _plain(error: BaseException, name: str) -> str:
    words = str(error).replace(f"'{name}' ", "").replace(f"{name}: ", "").strip().rstrip(".")
    return words or type(error).__name__
