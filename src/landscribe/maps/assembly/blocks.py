"""Blocks of a map and of its overviews, compressed in groups, as a Cloud Optimized GeoTIFF holds them.

A group is a square of 2048 pixels of the map with the parts of two overviews that it holds, at whole blocks. Groups are
compressed on their own: by threads, and while other units of the map are still computed. The next two overviews are
those of the second overview, whose groups are compressed in the same way.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.errors import DamagedPartError
from landscribe.executor import stopped_at_exit
from landscribe.geo.grid import Window
from landscribe.geo.rasters.overviews import LARGEST, averaged, halved, halvings, reduced
from landscribe.geo.rasters.whole_files import write_raster
from landscribe.machine import cores, total_memory
from landscribe.maps.assembly.sources import Source, Sources
from landscribe.maps.layers import Layer
from landscribe.outputs import atomic_file

BLOCK = LARGEST
"""Side of a block in pixels: the smallest overview is one block."""
GROUP = 4 * BLOCK
_HELD = 2
"""Overviews in a group: a block of the second is a whole group."""
_COPIES = 2
"""Of a group's pixels in memory while it is compressed, at most; a quarter of the memory is for them."""

_LEVEL = 6
"""Of DEFLATE: as gdal_translate takes by default."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of one layer of a map, in files of groups."""

    folder: Path
    layer: Layer
    shape: tuple[int, int]
    """(rows, cols) of the map."""
    bands: int

    @property
    def overviews(self) -> int:
        """Number of overviews; the first has level 1."""
        return halvings(self.shape)

    def sources(self, sources: Sequence[Source]) -> Sources:
        """Sources with the bands and the type of the layer."""
        return Sources(sources, bands=self.bands, dtype=self.layer.dtype, nodata=self.layer.nodata)

    def threads(self, most: int) -> int:
        """Threads that may compress groups at once, within the memory of this machine."""
        size = self.bands * np.dtype(self.layer.dtype).itemsize * GROUP**2
        return max(1, min(most, total_memory() // 4 // (_COPIES * size)))

    def count(self, level: int) -> int:
        """Number of blocks of the map (level 0) or of an overview."""
        return math.prod(_count_blocks(reduced(self.shape, level)))

    def compress_all(self, sources: Sources) -> None:
        """Compress all groups of the map and of its overviews that are not compressed yet, in threads.

        Raises:
            DamagedPartError: a source cannot be read.
            OutputError: a file cannot be written.
        """
        for base in range(0, max(1, self.overviews), _HELD):
            windows = [window for window in groups(reduced(self.shape, base)) if sources.of(window)]
            missing = [window for window in windows if not self._path(base, window).exists()]
            with stopped_at_exit(ThreadPoolExecutor(self.threads(cores()))) as pool:
                for _ in pool.map(
                    lambda window, base=base, sources=sources: self.compress(window, sources, base), missing
                ):
                    pass
            sources = self.sources([self._reduced(base, window) for window in windows])

    def compress(self, window: Window, sources: Sources, base: int = 0) -> None:
        """Compress one group and write its files.

        Args:
            window: one of `groups`.
            sources: of the map, or of the overview `base`.
            base: 0, or the level of the overview that is divided into groups; its own blocks are in other groups.

        Raises:
            DamagedPartError: a source cannot be read.
            OutputError: a file cannot be written.
        """
        pixels = sources.read(window)
        blocks: list[bytes] = []
        for level in self._levels(base):
            if level > base:
                pixels = self._halved(pixels)
            blocks += (_compressed(block, self.layer.nodata) for block in _cut(pixels))
        if base + _HELD < self.overviews:
            with atomic_file(self._reduced(base, window).path) as temporary:
                write_raster(temporary, pixels, None, nodata=self.layer.nodata, compress="deflate", zlevel=1)
        # Last: the group is compressed if this file exists.
        with atomic_file(self._path(base, window)) as temporary:
            sizes = np.array([len(block) for block in blocks], "<u4")
            temporary.write_bytes(sizes.tobytes() + b"".join(blocks))

    def of_level(self, level: int) -> Iterator[bytes]:
        """Compressed blocks of the map (level 0) or of an overview, in row order.

        Raises:
            DamagedPartError: the file of a group is not whole.
        """
        base = max(0, level - 1) // _HELD * _HELD
        empty = _compressed(np.full((self.bands, BLOCK, BLOCK), self.layer.nodata, self.layer.dtype), self.layer.nodata)
        per_group = GROUP // BLOCK >> (level - base)
        windows = list(groups(reduced(self.shape, base)))
        columns = -(-reduced(self.shape, base)[1] // GROUP)
        for start in range(0, len(windows), columns):
            for row in range(per_group):
                for window in windows[start : start + columns]:
                    yield from self._row(level, base, window, row, empty)

    def _row(self, level: int, base: int, window: Window, row: int, empty: bytes) -> Iterator[bytes]:
        """Blocks in one row of a group, of one level."""
        shapes = [_count_blocks(reduced(window.shape, each - base)) for each in self._levels(base)]
        rows, cols = _count_blocks(reduced(window.shape, level - base))
        if row >= rows:
            return
        path = self._path(base, window)
        if not path.exists():
            yield from [empty] * cols
            return
        before = sum(rows * cols for rows, cols in shapes[: self._levels(base).index(level)])
        count = sum(rows * cols for rows, cols in shapes)
        first = before + row * cols
        with path.open("rb") as file:
            sizes = np.frombuffer(file.read(4 * count), "<u4").tolist()
            if path.stat().st_size != 4 * count + sum(sizes):
                raise DamagedPartError(path, "is damaged")
            file.seek(sum(sizes[:first]), 1)
            for size in sizes[first : first + cols]:
                yield file.read(size)

    def _levels(self, base: int) -> range:
        """Levels whose blocks are in a group."""
        return range(base + (base > 0), min(base + _HELD, self.overviews) + 1)

    def _halved(self, pixels: NDArray[Any]) -> NDArray[Any]:
        # Band by band: the mean takes several numbers a pixel.
        if self.layer.resampling == "AVERAGE":
            return np.concatenate([averaged(band[None], self.layer.nodata) for band in pixels])
        return np.stack([halved(band, int(self.layer.nodata)) for band in pixels])

    def _path(self, base: int, window: Window) -> Path:
        row, col = window.row // GROUP, window.col // GROUP
        return self.folder / f"{self.layer.kind}.{base}.{row:05d}_{col:05d}.blocks"

    def _reduced(self, base: int, window: Window) -> Source:
        """The pixels of the second overview of a group, from which the next overviews are computed."""
        fills = Window(window.row >> _HELD, window.col >> _HELD, *reduced(window.shape, _HELD))
        return Source.of(self._path(base, window).with_suffix(".tif"), fills)


def groups(shape: tuple[int, int]) -> Iterator[Window]:
    """Groups of a map of (rows, cols), in row order."""
    whole = Window(0, 0, *shape)
    for row in range(0, shape[0], GROUP):
        for col in range(0, shape[1], GROUP):
            yield Window(row, col, GROUP, GROUP) & whole


def _count_blocks(shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of blocks."""
    return -(-shape[0] // BLOCK), -(-shape[1] // BLOCK)


def _cut(pixels: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Blocks of (bands, rows, cols) in row order; at the end they may be smaller."""
    for row in range(0, pixels.shape[1], BLOCK):
        for col in range(0, pixels.shape[2], BLOCK):
            yield pixels[:, row : row + BLOCK, col : col + BLOCK]


def _compressed(block: NDArray[Any], nodata: float) -> bytes:
    """A block (bands, rows, cols) as a TIFF with bands interleaved by pixel holds it, filled up with nodata."""
    filled = np.full((BLOCK, BLOCK, len(block)), nodata, block.dtype)
    filled[: block.shape[1], : block.shape[2]] = block.transpose(1, 2, 0)
    data = _predicted(filled) if block.dtype == np.float32 else filled
    return zlib.compress(data.tobytes(), _LEVEL)


def _predicted(block: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Differences of the bytes of each row, the highest bytes of all numbers first.

    Predictor 3 of TIFF: Adobe Photoshop TIFF Technical Note 3, 2005.
    """
    rows, cols, bands = block.shape
    planes = block.astype(">f4").view(np.uint8).reshape(rows, cols * bands, 4)
    flat = planes.transpose(0, 2, 1).reshape(rows, -1)
    differences = flat.copy()
    differences[:, bands:] -= flat[:, :-bands]
    return differences
