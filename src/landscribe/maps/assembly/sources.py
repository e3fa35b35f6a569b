"""Sources: windows of files that fill a raster, such as the units of a map."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from landscribe.errors import DamagedPartError, RasterError
from landscribe.geo.access import open_dataset
from landscribe.geo.grid import Window

_CELL = 2048
"""Side in pixels of the squares by which sources are found."""


@dataclass(frozen=True)
class Source:
    """A window of a file that fills a window of a raster, pixel by pixel."""

    path: Path
    window: Window
    """Of the file."""
    fills: Window
    """Of the raster, of the same shape."""

    @classmethod
    def of(cls, path: Path, fills: Window) -> "Source":
        """A whole file that fills a window of a raster."""
        return cls(path, Window(0, 0, *fills.shape), fills)


class Sources:
    """The sources of one raster. Where they overlap, the later wins; the rest of the raster is nodata."""

    def __init__(self, sources: Sequence[Source], *, bands: int, dtype: str, nodata: float) -> None:
        self._sources = sources
        self._by_cell: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, source in enumerate(sources):
            for cell in _cells(source.fills):
                self._by_cell[cell].append(index)
        self._bands, self._dtype, self._nodata = bands, dtype, nodata

    def of(self, window: Window) -> list[Source]:
        """The sources that fill some of a window, in their order."""
        near = {index for cell in _cells(window) for index in self._by_cell.get(cell, ())}
        return [self._sources[index] for index in sorted(near) if not (self._sources[index].fills & window).is_empty]

    def read(self, window: Window) -> NDArray[Any]:
        """Pixels (bands, rows, cols) of a window.

        Raises:
            DamagedPartError: a file cannot be read.
        """
        pixels = np.full((self._bands, *window.shape), self._nodata, self._dtype)
        for source in self.of(window):
            part = source.fills & window
            row, col = part.row - source.fills.row + source.window.row, part.col - source.fills.col + source.window.col
            try:
                with open_dataset(source.path) as file:
                    pixels[(slice(None), *part.relative_to(window).slices)] = file.read(
                        window=RasterioWindow(col, row, part.width, part.height)
                    )
            except RasterError as error:
                # We wrote it: the user's raster is not to blame.
                raise DamagedPartError(source.path, "is damaged or missing") from error
        return pixels


def _cells(window: Window) -> Iterator[tuple[int, int]]:
    for row in range(window.row // _CELL, -(-window.row_stop // _CELL)):
        for col in range(window.col // _CELL, -(-window.col_stop // _CELL)):
            yield row, col
