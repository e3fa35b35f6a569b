"""Metadata: what GDAL says about a raster file: its grid, bands, dtype, nodata values, encoding and mask."""

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window as RasterioWindow

from landscribe.errors import RasterError
from landscribe.geo.access import is_local, is_remote, open_dataset
from landscribe.geo.grid import Grid, check_north_up, horizontal, without_rounding
from landscribe.geo.rasters.encoding import Encoding

log = logging.getLogger(__name__)

MASK_BAND = 0
"""Stands for the mask of a dataset, or those of its bands, which have no band number."""
_ALPHA = ColorInterp.alpha
_LISTED = 4
"""Rasters of a container that a message names."""
_SUBDATASET_PREFIXES = ("GTIFF_DIR:", "NETCDF:", "HDF5:", "HDF4_", "ZARR:", "GPKG:", "SENTINEL2_")
_IN_CONTAINER = re.compile(
    r'(?:NETCDF|HDF5|HDF4_\w+|ZARR|GPKG|SENTINEL2_\w+)(?::\w+)??:(?:"([^"]+)"|(.+?\.\w+))(?::(.+))?', re.IGNORECASE
)
"""Of a raster in a container: the path in quotes, or the path, and the variable."""
_PAGE = re.compile(r"GTIFF_DIR:(?:off:)?(\d+):(.+)")
"""Of a page of a TIFF: its number, and the path."""
_SAMPLES_PER_AXIS = 4
_SAMPLE_SIDE = 64
"""Windows of the alpha band that are read to see if it masks, and their side in pixels."""
_SOFT = 0.1
"""Share of half-transparent pixels from which an alpha band holds imagery: soft edges of a mask have less."""


@dataclass(frozen=True)
class Metadata:
    """Of one raster file."""

    grid: Grid
    bands: tuple[str, ...]
    """Names; alpha is no band unless it holds imagery."""
    dtype: str
    nodata: tuple[float | None, ...]
    """Of each band."""
    encoding: tuple[Encoding, ...]
    """Of each band."""
    alpha_is_imagery: bool
    has_palette: bool


def read_metadata(name: str, *, is_imagery: bool = False) -> Metadata:
    """The metadata of a file.

    Args:
        name: of the file.
        is_imagery: an alpha band may hold imagery, such as near infrared: then it is a band.

    Raises:
        RasterError: the file is not a readable raster, holds complex numbers, or a scale of 0.
        GridError: it is not north-up.
    """
    with open_dataset(name) as source:
        _require_one_raster(source, name)
        transform = without_rounding(source.transform, source.height, source.width)
        # GDAL gives an image without a georeference the identity transform, whose rows would run north.
        if source.crs is not None or not transform.is_identity:
            check_north_up(transform, name)
        _warn_unplaced(source, transform, name)
        alpha_is_imagery = is_imagery and _alpha_is_imagery(source, name)
        indexes = band_numbers(source, alpha_is_imagery=alpha_is_imagery)
        dtypes = {source.dtypes[index - 1] for index in indexes}
        if any(np.dtype(dtype).kind == "c" for dtype in dtypes):
            raise RasterError(f"{name} holds complex numbers. Expected real numbers. Convert it (gdal_translate -ot).")
        return Metadata(
            Grid(horizontal(source.crs), transform, source.height, source.width),
            tuple(_band_name(source, index, alone=len(indexes) == 1) for index in indexes),
            str(np.result_type(*dtypes)),
            tuple(source.nodatavals[index - 1] for index in indexes),
            tuple(_encoding(source, index, name) for index in indexes),
            alpha_is_imagery,
            has_palette=len(indexes) == 1 and source.colorinterp[indexes[0] - 1] == ColorInterp.palette,
        )


def _require_one_raster(source: Any, name: str) -> None:
    """Raise RasterError for a container without pixels of its own; warn of pages beside the first."""
    parts = [part for part in source.subdatasets if part != name]
    if not source.count:
        listed = ", ".join(parts[:_LISTED]) + (" …" if len(parts) > _LISTED else "")
        what = f"holds {len(parts)} rasters: {listed}. Name the one to read, or several with commas between"
        if not parts:
            what = "holds no raster. Check it"
        raise RasterError(f"{name} {what}.")
    if parts and not any(source.name.upper().startswith(prefix) for prefix in _SUBDATASET_PREFIXES):
        listed = ", ".join(parts[1 : _LISTED - 1])
        log_once(f"{name} holds {len(parts)} rasters; only the first is read. Others are named {listed}")


def _warn_unplaced(source: Any, transform: Affine, name: str) -> None:
    """Log that what locates a raster is not used, if that is all it has."""
    if source.crs is not None:
        return
    beside = Path(name).with_suffix(".prj")
    if is_local(name) and beside.is_file() and not beside.with_suffix(".shp").exists():
        log_once(
            f"{name} has no CRS: GDAL does not read {beside.name} beside it. If it is that of the image, assign it "
            f'(rio edit-info --crs "$(cat {beside})" {name})'
        )
    if not transform.is_identity:
        return
    gcps, _ = source.gcps
    if gcps or source.rpcs:
        placed_by = f"{len(gcps)} ground control points" if gcps else "rational polynomial coefficients (RPCs)"
        log_once(
            f"{name} is placed by {placed_by} only, which are not used: it has neither CRS nor pixel size. Warp it "
            f"(gdalwarp {'' if gcps else '-rpc '}{name} warped.tif)"
        )


@lru_cache(maxsize=256)
def log_once(text: str, level: int = logging.WARNING) -> None:
    """Log a line, once in this process: a verb opens a file several times."""
    log.log(level, "%s", text)


def _encoding(source: Any, index: int, name: str) -> Encoding:
    scale, offset, unit = (values[index - 1] for values in (source.scales, source.offsets, source.units))
    if not (scale and math.isfinite(scale) and math.isfinite(offset)):
        raise RasterError(
            f"band {index} of {name} has the scale {scale:g} and the offset {offset:g}, with which stored numbers mean "
            "nothing. Expected finite ones, and no scale of 0. Correct the tags (gdal_edit.py -scale 1 -offset 0)."
        )
    return Encoding(float(scale), float(offset), str(unit or ""))


def _alpha_is_imagery(source: Any, name: str) -> bool:
    """True if many pixels of the alpha band are neither transparent nor opaque: near infrared, flagged by a program."""
    alpha = _alpha_bands(source)
    if not alpha:
        return False
    grid = Grid(None, Affine.identity(), source.height, source.width)
    counts: dict[float, int] = {}
    for window in grid.spread_windows((_SAMPLE_SIDE, _SAMPLE_SIDE), _SAMPLES_PER_AXIS):
        inside = window & grid.window
        part = RasterioWindow(inside.col, inside.row, inside.width, inside.height)
        values = np.nan_to_num(source.read(alpha[0], window=part))
        for value, count in zip(*np.unique(values, return_counts=True), strict=True):
            counts[float(value)] = counts.get(float(value), 0) + int(count)
    dtype = np.dtype(source.dtypes[alpha[0] - 1])
    # Floats have no largest value that means opaque: programs write 1, 255 or 65535.
    largest = max(counts) if dtype.kind == "f" else float(np.iinfo(dtype).max)
    opaque = 1 if set(counts) <= {0, 1} else largest
    between = {value: count for value, count in counts.items() if value not in (0, opaque)}
    is_imagery = len(between) > 1 and sum(between.values()) > _SOFT * sum(counts.values())
    if is_imagery:
        log_once(
            f"{name}: band {alpha[0]} is flagged as alpha, but {sum(between.values()) / sum(counts.values()):.0%} of "
            "its sampled pixels are half-transparent: it is read as imagery"
        )
    return is_imagery


def band_numbers(source: Any, *, alpha_is_imagery: bool = False) -> list[int]:
    """Numbers of the bands; alpha is none unless it holds imagery."""
    alpha = () if alpha_is_imagery else _alpha_bands(source)
    return [index for index in source.indexes if index not in alpha]


def _alpha_bands(source: Any) -> list[int]:
    """Numbers of the alpha bands; without a band beside them that they could mask, they are no alpha."""
    alpha = [index for index, colour in zip(source.indexes, source.colorinterp, strict=True) if colour == _ALPHA]
    return alpha if len(alpha) < source.count else []


def mask_band(source: Any, *, alpha_is_imagery: bool = False) -> int | None:
    """The band that masks pixels in addition to any nodata value.

    Returns:
        The number of the alpha band, `MASK_BAND` for mask bands, None for neither.
    """
    # GDAL's mask flags omit the alpha band of a file that declares nodata too.
    alpha = _alpha_bands(source)
    if alpha:
        return None if alpha_is_imagery else int(alpha[0])
    return MASK_BAND if distinct_masks(source, source.indexes) else None


def distinct_masks(source: Any, indexes: Sequence[int]) -> list[int]:
    """Those of these bands with a mask of their own, and the first of those that share the mask of the dataset."""
    flags = [source.mask_flag_enums[index - 1] for index in indexes]
    # GDAL has no flag for a mask of one band: such a band has none.
    own = [index for index, band_flags in zip(indexes, flags, strict=True) if not band_flags]
    shared = [index for index, band_flags in zip(indexes, flags, strict=True) if MaskFlags.per_dataset in band_flags]
    return own + shared[:1]


def read_mask(
    source: Any,
    band: int,
    window: RasterioWindow | None = None,
    shape: tuple[int, int] | None = None,
    indexes: Sequence[int] | None = None,
) -> NDArray[np.bool_]:
    """Read where the alpha band or the masks of a dataset leave pixels valid.

    Args:
        source: the dataset.
        band: the number of the alpha band, or `MASK_BAND`.
        window: in pixels; None for all.
        shape: of the result, decimated; None for that of the dataset.
        indexes: the bands whose masks count; None for all.

    Returns:
        (rows, cols), True where all of these bands are valid.
    """
    if band != MASK_BAND:
        return np.asarray(source.read(band, window=window, out_shape=shape) > 0)
    valid = np.ones(shape or source.shape, bool)
    for index in distinct_masks(source, source.indexes if indexes is None else indexes):
        valid &= source.read_masks(index, window=window, out_shape=shape) > 0
    return valid


def _band_name(source: Any, index: int, *, alone: bool) -> str:
    description = source.descriptions[index - 1]
    if description:
        return str(description)
    colour = source.colorinterp[index - 1]
    if colour in (ColorInterp.red, ColorInterp.green, ColorInterp.blue):
        return str(colour.name)
    inside = _IN_CONTAINER.fullmatch(source.name)
    if inside and inside[3]:
        return _plain(inside[3]) if alone else f"{_plain(inside[3])}_{index}"
    return stem(source.name) if alone else f"band{index}"


def _plain(variable: str) -> str:
    """The name of a variable without signs that file names cannot hold."""
    return re.sub(r"[^\w.-]+", "_", variable).strip("_")


def stem(name: str) -> str:
    """Stem of a file's name, with the variable or page of a file that holds several; a URL's query is no part of it.

    >>> stem("scene.tif"), stem("NETCDF:/data/year.nc:rain"), stem('HDF5:"year.h5"://soil/clay')
    ('scene', 'year_rain', 'year_soil_clay')
    """
    if inside := _IN_CONTAINER.fullmatch(name):
        return "_".join([stem(inside[1] or inside[2]), *([_plain(inside[3])] if inside[3] else [])])
    if page := _PAGE.fullmatch(name):
        return f"{stem(page[2])}_{page[1]}"
    return Path(name.partition("?")[0] if is_remote(name) else name).stem
