"""Whole raster files, written or read at once: chips, masks, parts of a map, palettes."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import MemoryFile

from landscribe.errors import GridError
from landscribe.geo.access import allow_ungeoreferenced, open_dataset
from landscribe.geo.grid import Grid, crs_label
from landscribe.geo.rasters.metadata import MASK_BAND, mask_band, read_mask
from landscribe.geo.rasters.nodata import Nodata
from landscribe.geo.rasters.raster import Pixels, Valid

_BLOCK_ITEMS = ("OFFSET", "SIZE")


def write_raster(
    path: Path,
    pixels: Pixels,
    grid: Grid | None,
    valid: Valid | None = None,
    tags: Mapping[str, str] | None = None,
    **layout: Any,
) -> None:
    """Write pixels to a new file.

    Args:
        path: of the file. The write is not atomic: see `outputs`.
        pixels: (bands, rows, cols).
        grid: of the pixels; None for an image without georeference.
        valid: (rows, cols), written as an internal mask band of a GeoTIFF; None for no mask band.
        tags: of the file, besides its georeference.
        layout: driver and creation options of rasterio.
    """
    count, height, width = pixels.shape
    georeference = {"crs": grid.crs, "transform": grid.transform} if grid is not None else {}
    shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    if layout.get("driver", "GTiff") == "GTiff":
        # By default, GDAL takes the fourth of four uint8 bands for alpha.
        layout = {"alpha": "no"} | layout
    # In memory first: rasterio does not report what GDAL fails to write while it closes a file.
    with rasterio.Env(GDAL_TIFF_INTERNALMASK_BAND=True), MemoryFile() as memory:
        with allow_ungeoreferenced():
            dataset = memory.open(**shape, **georeference, **({"driver": "GTiff"} | layout))
        with dataset as target:
            target.write(pixels)
            if valid is not None:
                target.write_mask(valid)
            if tags:
                target.update_tags(**tags)
        path.write_bytes(memory.getbuffer())


def mask_file(path: Path) -> Path:
    """The file beside a PNG or JPEG that GDAL, and `read_copy`, take for its mask."""
    return path.with_name(f"{path.name}.msk")


def write_mask_file(path: Path, valid: Valid, bands: int) -> None:
    """Write the mask file of a PNG or JPEG with so many bands."""
    tags = {f"INTERNAL_MASK_FLAGS_{band}": str(MaskFlags.per_dataset.value) for band in range(1, bands + 1)}
    write_raster(mask_file(path), valid[None] * np.uint8(255), None, tags=tags, compress="deflate", zlevel=1)


def require_geotiff_holds(grid: Grid, name: str) -> None:
    """Raise GridError if a GeoTIFF would lose the CRS of a grid, so that nobody could locate its pixels.

    Args:
        grid: of the pixels.
        name: of the raster that has it, for the message.
    """
    if grid.crs is not None and not _geotiff_holds(grid.crs):
        raise GridError(
            f"{name} is in {crs_label(grid.crs)}, a CRS that no GeoTIFF can hold. Map it in another CRS (--crs), or "
            "warp it (gdalwarp -t_srs)."
        )


@lru_cache(maxsize=64)
def _geotiff_holds(crs: CRS) -> bool:
    # Without side files: copies would lose them.
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), MemoryFile() as memory:
        layout: dict[str, Any] = {"driver": "GTiff", "count": 1, "height": 1, "width": 1, "dtype": "uint8"}
        with memory.open(**layout, crs=crs, transform=Affine(1, 0, 0, 0, -1, 1)):
            pass
        with memory.open() as dataset:
            return bool(dataset.crs == crs)


def read_copy(path: Path, fill: float) -> tuple[Pixels, Valid]:
    """Read the whole of a file that `write_raster` wrote.

    Args:
        path: of the file.
        fill: the value of pixels that are not valid, in a picture without a mask file; a GeoTIFF declares its own.

    Returns:
        Pixels (bands, rows, cols), 0 where not valid, and valid (rows, cols).
    """
    with _open_pixels(path) as source:
        # GDAL takes the fourth band of a PNG for alpha: here it is a band like any other.
        pixels = source.read()
        is_geotiff = source.driver == "GTiff"
        masked = mask_band(source) == MASK_BAND if is_geotiff else mask_file(path).exists()
        nodata = source.nodata if is_geotiff or masked else fill
        valid = read_mask(source, MASK_BAND) if masked else np.ones(pixels.shape[1:], bool)
    # All bands of a pixel that is not valid hold the value. Single bands of a valid pixel may hold it, too.
    valid &= ~Nodata(nodata, "all").marks(pixels)
    pixels[:, ~valid] = 0
    return pixels, valid


@contextmanager
def _open_pixels(path: Path) -> Iterator[Any]:
    """Open a file for its pixels alone: to decode its georeference takes GDAL longer than to read a chip."""
    with rasterio.Env(GDAL_GEOREF_SOURCES="NONE"), open_dataset(path) as source:
        yield source


def read_band(path: Path) -> NDArray[Any]:
    """The first band (rows, cols) of a file, as stored."""
    with _open_pixels(path) as source:
        band: NDArray[Any] = source.read(1)
        return band


def read_palette(path: str) -> dict[int, tuple[int, int, int, int]] | None:
    """Red, green, blue and opacity (0 to 255) by the value of the first band; None if the file has no palette."""
    with open_dataset(path) as source:
        if source.colorinterp[0] != ColorInterp.palette:
            return None
        return dict(source.colormap(1))


@contextmanager
def silenced_stderr() -> Iterator[None]:
    """Drop what libtiff prints to stderr about a full disk, past GDAL: our own error line says it."""
    stderr = os.dup(2)
    with Path(os.devnull).open("wb") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def require_whole(path: Path) -> None:
    """Raise OSError unless every block of a TIFF lies inside the file.

    GDAL writes cached blocks when the file is closed, and rasterio does not check whether that succeeded.
    """
    # Without access.open_dataset: an error here is about what we wrote, and the caller explains it.
    size = path.stat().st_size
    with rasterio.open(path) as source:
        levels = [None, *range(len(source.overviews(1)))]
    for level in levels:
        with rasterio.open(path, **({} if level is None else {"overview_level": level})) as source:
            rows, cols = (-(-length // side) for length, side in zip(source.shape, source.block_shapes[0], strict=True))
            for row, col in product(range(rows), range(cols)):
                offset, length = (
                    source.get_tag_item(f"BLOCK_{item}_{col}_{row}", "TIFF", bidx=1) for item in _BLOCK_ITEMS
                )
                if not offset or not length or int(offset) + int(length) > size:
                    raise OSError(f"block {row}, {col} is not in the file, which ends after {size} bytes")
