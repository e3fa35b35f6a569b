"""Open file: one raster file, open in one thread, and which parts of it store pixels."""

import math
import threading
import weakref
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from landscribe.geo.access import gdal_errors, is_remote, open_handle
from landscribe.geo.grid import Window
from landscribe.geo.rasters.metadata import MASK_BAND, band_numbers, mask_band, read_mask
from landscribe.machine import cores, most_open_files

_MOST_OPEN = 64
"""Files that one thread has open."""
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
        part = RasterioWindow(window.col, window.row, window.width, window.height)
        return bool(read_mask(self.dataset, MASK_BAND, part).any())

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


class Handles(threading.local):
    """The files of one raster that a thread has open; pickling drops them.

    Of all rasters that a thread reads, the files of the least recently used are closed: systems limit the open files of
    a process, some to 256.
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
        _RECENT.add(self)
        return self.files

    def close(self) -> None:
        """Close the files of this thread; the next use opens them again."""
        _RECENT.handles.pop(id(self), None)
        for file in self.files:
            file.dataset.close()
        self.files = ()


class _Recent(threading.local):
    """Handles with open files of a thread, the least recently used first."""

    def __init__(self) -> None:
        self.handles = dict[int, weakref.ref[Handles]]()
        # Half of what the process may open, for readers on all cores.
        self.most = max(4, min(_MOST_OPEN, most_open_files() // (2 * cores())))

    def add(self, handles: Handles) -> None:
        """Put handles last."""
        self.handles.pop(id(handles), None)
        self.handles[id(handles)] = weakref.ref(handles)

    def make_room(self, count: int) -> None:
        """Close the least recently used files, until `count` more can be opened."""
        alive = [handles for ref in self.handles.values() if (handles := ref()) is not None]
        self.handles = {id(handles): self.handles[id(handles)] for handles in alive}
        excess = sum(len(handles.files) for handles in alive) + count - self.most
        for handles in alive:
            if excess <= 0:
                return
            excess -= len(handles.files)
            handles.close()


_RECENT = _Recent()
