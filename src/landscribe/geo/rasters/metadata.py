"""Metadata: what GDAL says about a raster file: its grid, bands, dtype, nodata value and mask."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window as RasterioWindow

from landscribe.errors import RasterError
from landscribe.geo.access import is_remote, open_dataset
from landscribe.geo.grid import Grid, check_north_up

MASK_BAND = 0
"""Stands for the mask of a dataset, which has no band number."""
_ALPHA = ColorInterp.alpha


def read_metadata(name: str) -> dict[str, Any]:
    """The "grid", names of "bands", "dtype" and "nodata" of a file; alpha is no band.

    Raises:
        RasterError: the file is not a readable raster, or holds complex numbers.
        GridError: it is not north-up.
    """
    with open_dataset(name) as source:
        # GDAL gives an image without a georeference the identity transform, whose rows would run north.
        if source.crs is not None or not source.transform.is_identity:
            check_north_up(source.transform, name)
        indexes = band_numbers(source)
        dtypes = {source.dtypes[index - 1] for index in indexes}
        if any(np.dtype(dtype).kind == "c" for dtype in dtypes):
            raise RasterError(f"{name} holds complex numbers. Expected real numbers. Convert it (gdal_translate -ot).")
        return {
            "grid": Grid(source.crs, source.transform, source.height, source.width),
            "bands": [_band_name(source, index, alone=len(indexes) == 1) for index in indexes],
            "dtype": np.result_type(*dtypes),
            "nodata": source.nodata,
        }


def band_numbers(source: Any) -> list[int]:
    """Numbers of the bands that are not alpha."""
    return [index for index, colour in zip(source.indexes, source.colorinterp, strict=True) if colour != _ALPHA]


def mask_band(source: Any) -> int | None:
    """The band that masks pixels in addition to any nodata value.

    Returns:
        The number of the alpha band, `MASK_BAND` for a mask band, None for neither.
    """
    # GDAL's mask flags omit the alpha band of a file that declares nodata too.
    alpha = [index for index, colour in zip(source.indexes, source.colorinterp, strict=True) if colour == _ALPHA]
    if alpha:
        return int(alpha[0])
    flags = {flag for band_flags in source.mask_flag_enums for flag in band_flags}
    return MASK_BAND if MaskFlags.per_dataset in flags else None


def read_mask(
    source: Any, band: int, window: RasterioWindow | None = None, shape: tuple[int, int] | None = None
) -> NDArray[np.bool_]:
    """(rows, cols), True where the alpha band or mask of a dataset leaves pixels valid; decimated to `shape`."""
    if band == MASK_BAND:
        mask = source.dataset_mask(window=window, out_shape=shape)
    else:
        mask = source.read(band, window=window, out_shape=shape)
    return np.asarray(mask > 0)


def _band_name(source: Any, index: int, *, alone: bool) -> str:
    description = source.descriptions[index - 1]
    if description:
        return str(description)
    colour = source.colorinterp[index - 1]
    if colour in (ColorInterp.red, ColorInterp.green, ColorInterp.blue):
        return str(colour.name)
    return stem(source.name) if alone else f"band{index}"


def stem(name: str) -> str:
    """Stem of a file's name; the query of a URL is not part of it."""
    return Path(name.partition("?")[0] if is_remote(name) else name).stem
