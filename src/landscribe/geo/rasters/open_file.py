"""Open files: raster files on one grid, each open in one thread, and which parts of them store pixels."""

import math
import threading
import time
import weakref
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from landscribe.errors import ReadError
from landscribe.geo.access import clear_vsi_cache, gdal_errors, is_remote, open_handle
from landscribe.geo.grid import Window
from landscribe.geo.rasters.metadata import MASK_BAND, band_numbers, distinct_masks, mask_band, read_mask
from landscribe.geo.rasters.nodata import Nodata
from landscribe.machine import most_open_files

_PAUSE = 5.0
"""Seconds before the second request for a remote window that could not be read."""
_MOST_MASK_PIXELS = 2**24
"""A mask is read to find out if anything is stored in a window, but not in a larger one."""


@dataclass(frozen=True, eq=False)
class OpenFile:
    """One file, open in one thread."""

    name: str
    dataset: Any
    indexes: list[int]
    """Band numbers, without a mask."""
    mask_band: int | None

    @classmethod
    def open(cls, name: str, *, alpha_is_imagery: bool) -> "OpenFile":
        """Open a file, whose alpha band is a mask unless it is imagery."""
        with gdal_errors(name):
            dataset = open_handle(name)
        numbers = band_numbers(dataset, alpha_is_imagery=alpha_is_imagery)
        return cls(name, dataset, numbers, mask_band(dataset, alpha_is_imagery=alpha_is_imagery))

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The smallest type that holds every band."""
        return np.result_type(*{self._dtypes[index - 1] for index in self.indexes})

    @cached_property
    def _dtypes(self) -> tuple[str, ...]:
        return tuple(self.dataset.dtypes)

    def read(
        self, indexes: Sequence[int], window: Window, shape: tuple[int, int]
    ) -> tuple[Sequence[NDArray[Any]], NDArray[np.bool_]]:
        """Read a window decimated to `shape`.

        Args:
            indexes: band numbers.
            window: inside the file's grid.
            shape: (rows, cols) of the result.

        Returns:
            Pixels (rows, cols) of each band in its own dtype, and where the mask leaves them valid (rows, cols).
        """
        part = _part(window)
        with gdal_errors(self.name, window):
            if len({self._dtypes[index - 1] for index in indexes}) == 1:
                pixels: Any = self.dataset.read(list(indexes), window=part, out_shape=(len(indexes), *shape))
            else:
                pixels = [self.dataset.read(index, window=part, out_shape=shape) for index in indexes]
            if self.mask_band is None:
                return pixels, np.ones(shape, bool)
            return pixels, read_mask(self.dataset, self.mask_band, part, shape, indexes)

    def may_store(self, window: Window) -> bool:
        """False only where the file stores no pixel of a window: all of its pixels, and their mask, are then equal.

        GDAL fills the missing blocks of a sparse GeoTIFF, and a virtual raster outside of its sources, with one value.
        """
        with gdal_errors(self.name, window):
            return self._has_blocks(window) or (self.mask_band == MASK_BAND and self._may_be_unmasked(window))

    def _has_blocks(self, window: Window) -> bool:
        if self.dataset.driver == "VRT":
            top, left, bottom, right = self._source_rectangles.T
            rows = (top < window.row_stop) & (bottom > window.row)
            return bool((rows & (left < window.col_stop) & (right > window.col)).any())
        height, width = self.dataset.block_shapes[0]
        # A lost connection makes blocks look as if they were missing. Strips have no offset where GDAL splits them.
        if self.dataset.driver != "GTiff" or is_remote(self.name) or width == self.dataset.width:
            return True
        rows, cols = (
            range(start // side, -(-stop // side))
            for start, stop, side in ((window.row, window.row_stop, height), (window.col, window.col_stop, width))
        )
        is_interleaved = self.dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
        bands = self.dataset.indexes[:1] if is_interleaved else self.dataset.indexes
        return any(
            self.dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band)
            for row, col, band in product(rows, cols, bands)
        )

    def _may_be_unmasked(self, window: Window) -> bool:
        if math.prod(window.shape) > _MOST_MASK_PIXELS:
            return True
        part = _part(window)
        return any(
            read_mask(self.dataset, MASK_BAND, part, window.shape, [index]).any()
            for index in distinct_masks(self.dataset, self.indexes)
        )

    @cached_property
    def _source_rectangles(self) -> NDArray[np.float64]:
        """(sources, 4) first row, first column, last row and last column of each source of a virtual raster."""
        # Written by GDAL, whatever the file holds: there are no entities in it.
        root = ET.fromstring(self.dataset.tags(ns="xml:VRT")["xml:VRT"])  # noqa: S314
        bands = root.findall("VRTRasterBand")
        is_plain = not any("subClass" in element.attrib for element in (root, *bands))
        everywhere = [(-math.inf, -math.inf, math.inf, math.inf)]
        rectangles = [_rectangle(source) for source in _sources(bands)] if is_plain else everywhere
        return np.array(rectangles, np.float64).reshape(-1, 4)


class Handles(threading.local):
    """The files of one raster that a thread has open; pickling drops them.

    Where the threads of a process have many files open, each thread closes those of the rasters that it used least
    recently: systems limit the open files of a process, some to 256.
    """

    files: tuple[OpenFile, ...] = ()

    def __reduce__(self) -> tuple[type["Handles"], tuple[()]]:
        return Handles, ()

    def opened(self, names: Sequence[str], alpha_is_imagery: Container[int]) -> tuple[OpenFile, ...]:
        """The files of these names, opened if they are not, and last in the order of use.

        Args:
            names: of the files.
            alpha_is_imagery: indices of the files whose alpha band is imagery.
        """
        if not self.files:
            _RECENT.make_room(len(names))
            self.files = tuple(
                OpenFile.open(name, alpha_is_imagery=index in alpha_is_imagery) for index, name in enumerate(names)
            )
            _OPEN.update(self.files)
        _RECENT.add(self)
        return self.files

    def close(self) -> None:
        """Close the files of this thread; the next use opens them again."""
        _RECENT.handles.pop(id(self), None)
        for file in self.files:
            file.dataset.close()
            _OPEN.discard(file)
        self.files = ()


class _Recent(threading.local):
    """Handles with open files of a thread, the least recently used first."""

    def __init__(self) -> None:
        self.handles = dict[int, weakref.ref[Handles]]()

    def add(self, handles: Handles) -> None:
        """Put handles last."""
        self.handles.pop(id(handles), None)
        self.handles[id(handles)] = weakref.ref(handles)

    def make_room(self, count: int) -> None:
        """Close the least recently used files of this thread, until the process may open `count` more."""
        while self.handles and len(_OPEN) + count > _most_open():
            oldest = self.handles.pop(next(iter(self.handles)))()
            if oldest is not None:
                oldest.close()


_RECENT = _Recent()
_OPEN = weakref.WeakSet[OpenFile]()
"""The open files of all threads; those of a thread that has ended are closed with it."""


@cache
def _most_open() -> int:
    """Files that all threads may have open together: half of what the process may, for the other half is of others."""
    return most_open_files() // 2


@dataclass(frozen=True, eq=False)
class Files:
    """One or several files on the same grid, their bands stacked in order."""

    paths: tuple[str, ...]
    alpha_is_imagery: frozenset[int] = frozenset()
    """Indices of the files whose alpha band is imagery."""
    rasters: ClassVar[tuple[()]] = ()
    _handles: Handles = field(default_factory=Handles)

    def __getstate__(self) -> dict[str, Any]:
        # A worker on another machine has another working folder.
        absolute = tuple(str(Path(name).absolute()) if Path(name).exists() else name for name in self.paths)
        return self.__dict__ | {"paths": absolute}

    @property
    def mask_files(self) -> tuple[str, ...]:
        """See `raster.Source`."""
        return tuple(file.name for file in self._open_files() if file.mask_band is not None)

    def read(
        self,
        window: Window,
        bands: Sequence[int] | None,
        nodata: Nodata,
        shape: tuple[int, int],
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """See `raster.Source`."""
        try:
            return self._read(window, bands, nodata, shape)
        except ReadError:
            remote = [name for name in self.paths if is_remote(name)]
            if not remote:
                raise
            # A server that restarts needs a moment.
            time.sleep(_PAUSE)
            # GDAL keeps an incomplete answer in its cache and would return it as complete until the process ends.
            self.close()
            for name in remote:
                clear_vsi_cache(name)
            return self._read(window, bands, nodata, shape)

    def may_hold_valid(self, window: Window, bands: Sequence[int] | None, nodata: Nodata) -> bool:
        """See `raster.Source`."""
        if any(file.may_store(window) for file in self._open_files()):
            return True
        # Where nothing is stored, all pixels are equal: the first one is as valid as all others.
        first = Window(window.row, window.col, 1, 1)
        _, valid = self.read(first, bands, nodata, first.shape)
        return bool(valid)

    def _read(
        self, window: Window, bands: Sequence[int] | None, nodata: Nodata, shape: tuple[int, int]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        files = self._open_files()
        owners = [(file, index) for file in files for index in file.indexes]
        chosen = owners if bands is None else [owners[band] for band in bands]
        layers: list[Sequence[NDArray[Any]]] = []
        by_position: dict[int, NDArray[Any]] = {}
        valid = np.ones(shape, bool)
        for file in files:
            positions = [position for position, (owner, _) in enumerate(chosen) if owner is file]
            if positions:
                layer, unmasked = file.read([chosen[position][1] for position in positions], window, shape)
                layers.append(layer)
                by_position |= dict(zip(positions, layer, strict=True))
                valid &= unmasked
        each = [by_position[position] for position in range(len(chosen))]
        dtype = np.result_type(*{file.dtype for file in files})
        valid &= ~nodata.marks(each, dtype)
        pixels = np.asarray(layers[0] if len(layers) == 1 else each, dtype)
        nodata.require_finite(pixels, valid, window, [file.name for file, _ in chosen])
        return pixels, valid

    def _open_files(self) -> tuple[OpenFile, ...]:
        """The files, opened once per thread."""
        return self._handles.opened(self.paths, self.alpha_is_imagery)

    def close(self) -> None:
        """See `raster.Source`."""
        self._handles.close()


def _part(window: Window) -> RasterioWindow:
    return RasterioWindow(window.col, window.row, window.width, window.height)


def _sources(bands: list[ET.Element]) -> Iterator[ET.Element]:
    """The sources of the bands of a virtual raster."""
    return (element for band in bands for element in band if element.tag.endswith("Source"))


def _rectangle(source: ET.Element) -> tuple[float, float, float, float]:
    """The rows and columns that a source fills, with one more on each side for rounding; all if it names none."""
    placed = source.find("DstRect")
    if placed is None:
        return -math.inf, -math.inf, math.inf, math.inf
    col, row, width, height = (float(placed.attrib[name]) for name in ("xOff", "yOff", "xSize", "ySize"))
    return row - 1, col - 1, row + height + 1, col + width + 1
