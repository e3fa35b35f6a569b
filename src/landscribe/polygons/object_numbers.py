"""Object numbers: a raster of them, which is written and read block by block."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from landscribe.errors import OutputError
from landscribe.geo.access import GDAL_ERRORS
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.whole_files import require_whole, silenced_stderr

_TILE = 256


def blocks_of(grid: Grid, side: int) -> Iterator[Window]:
    """The blocks of a grid, in row order."""
    for row in range(0, grid.height, side):
        for col in range(0, grid.width, side):
            yield Window(row, col, side, side) & grid.window


@contextmanager
def open_numbers(path: Path, grid: Grid) -> Iterator[Any]:
    """A raster of numbers to write block by block."""
    layout: dict[str, Any] = {
        "driver": "GTiff", "count": 1, "dtype": "uint32", "height": grid.height, "width": grid.width,
        "tiled": True, "blockxsize": _TILE, "blockysize": _TILE, "compress": "deflate", "zlevel": 1,
        "bigtiff": "if_safer", "crs": grid.crs, "transform": grid.transform,
    }  # fmt: skip
    try:
        target = rasterio.open(path, "w", **layout)
        try:
            yield target
        finally:
            with silenced_stderr():
                target.close()
        require_whole(path)
    # The user knows none of these files: they lie beside the output, and are deleted at the end.
    except (*GDAL_ERRORS, OSError) as error:
        raise OutputError(
            "the numbers of objects could not be written beside the output, most often because the disk is full "
            f"({error.__cause__ or error}). Free some space, or write to another disk."
        ) from error


def write_numbers(target: Any, block: Window, labels: NDArray[Any]) -> None:
    """Write the numbers (rows, cols) of a block; the raster is that of `open_numbers`."""
    part = RasterioWindow(block.col, block.row, block.width, block.height)
    with silenced_stderr():
        target.write(labels.astype(np.uint32), 1, window=part)


def read_numbers(source: Any, window: Window) -> NDArray[np.uint32]:
    """The numbers (rows, cols) in a window of an open raster."""
    part = RasterioWindow(window.col, window.row, window.width, window.height)
    numbers: NDArray[np.uint32] = source.read(1, window=part)
    return numbers
