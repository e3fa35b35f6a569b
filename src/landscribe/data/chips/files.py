"""The files of a chip: their names, formats and pixels."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.data.chips.spec import Format
from landscribe.data.scenes.scene import Sample
from landscribe.errors import ChipError, counted
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.nodata import Nodata
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.whole_files import write_mask_file, write_raster

NUMBERS = "objects"
"""The folder of object numbers, and the column of their paths."""
PICTURE_FILL = 0
"""Fill value of pixels that are not valid in PNG and JPEG chips, which have no nodata value, but a mask file."""


def require_format_fits(file_format: Format, image: Raster) -> None:
    """Raise ChipError if chips of this format cannot hold the bands of the image."""
    bands = len(image.bands)
    fits = {
        "tif": True,
        "png": bands in (1, 3, 4) and image.dtype in ("uint8", "uint16"),
        "jpg": bands in (1, 3) and image.dtype == "uint8",
    }
    if not fits[file_format]:
        raise ChipError(
            f"{file_format} chips cannot hold {counted(bands, 'band')} of {image.dtype}. Expected for png 1, 3 or 4 "
            "bands of uint8 or uint16, for jpg 1 or 3 of uint8. Use tif."
        )


def numbers_name(mask: str) -> str:
    """Relative path of the object numbers of a chip, for that of its mask.

    >>> numbers_name("masks/positive/chip.png")
    'objects/positive/chip.tif'
    """
    return "" if not mask else f"{NUMBERS}/{mask.partition('/')[2].rpartition('.')[0]}.tif"


def pair_names(name: str, file_format: Format, subfolder: str = "") -> dict[str, str]:
    """Relative paths of a chip's image and mask; the mask of a JPEG is a PNG.

    Args:
        name: of the chip.
        file_format: of the image.
        subfolder: within images/ and masks/.

    >>> pair_names("chip", "jpg", "positive")
    {'image': 'images/positive/chip.jpg', 'mask': 'masks/positive/chip.png'}
    """
    mask_format = "png" if file_format == "jpg" else file_format
    path = f"{subfolder}/{name}" if subfolder else name
    return {"image": f"images/{path}.{file_format}", "mask": f"masks/{path}.{mask_format}"}


def make_folders(folder: Path, subfolders: tuple[str, ...], *, objects: bool) -> None:
    """Create images/ and masks/, and objects/ if there are object numbers, and their subfolders."""
    for kind in ("images", "masks", *([NUMBERS] if objects else ())):
        for subfolder in subfolders or ("",):
            (folder / kind / subfolder).mkdir(parents=True)


def write_pair(image_path: Path, mask_path: Path, image: Raster, window: Window, sample: Sample) -> None:
    """Write image and mask of a chip into existing folders; for a picture, also which of its pixels are valid.

    Args:
        image_path: the suffix is the format.
        mask_path: the suffix is the format.
        image: the image of the scene.
        window: the chip's window in it.
        sample: the pixels and labels of that window.
    """
    pixels, valid, mask = sample
    is_geotiff = image_path.suffix == ".tif"
    fill = fill_value(image) if is_geotiff else PICTURE_FILL
    if is_geotiff and Nodata(fill, "all").marks(pixels)[valid].any():
        # A mean of valid pixels may equal the nodata value.
        fill = None
    if fill is not None and not valid.all():
        pixels = np.where(valid, pixels, np.array(fill, pixels.dtype))
    valid_mask = valid if fill is None and not valid.all() else None
    grid = image.grid[window] if is_geotiff else None
    write_raster(image_path, pixels, grid, valid_mask, **_image_options(image_path.suffix, fill))
    if not (is_geotiff or valid.all()):
        # Black pixels may be imagery, and JPEG changes those that are fill.
        write_mask_file(image_path, valid, len(pixels))
    write_raster(mask_path, mask[None], grid, **_mask_options(mask_path.suffix))


def write_numbers(path: Path, numbers: NDArray[np.uint32], grid: Grid) -> None:
    """Write the object numbers (height, width) of a chip, renumbered without gaps, into an existing folder."""
    dense = dense_numbers(numbers)
    smallest = np.uint16 if dense.max() < 2**16 else np.uint32
    write_raster(path, dense.astype(smallest)[None], grid, driver="GTiff", compress="deflate", zlevel=1)


def dense_numbers(numbers: NDArray[Any]) -> NDArray[np.uint32]:
    """The numbers without gaps: 1 to the number of objects, in their order; 0 stays.

    >>> dense_numbers(np.array([[0, 900], [70, 900]])).tolist()
    [[0, 2], [1, 2]]
    """
    present, inverse = np.unique(numbers, return_inverse=True)
    return (inverse.reshape(numbers.shape) + (present[0] > 0)).astype(np.uint32)


def _image_options(suffix: str, fill: float | None) -> dict[str, Any]:
    if suffix == ".tif":
        return {"driver": "GTiff", "compress": "deflate", "zlevel": 1, "predictor": 1, "nodata": fill}
    if suffix == ".png":
        return {"driver": "PNG", "zlevel": 1}
    return {"driver": "JPEG", "quality": 95}


def _mask_options(suffix: str) -> dict[str, Any]:
    if suffix == ".tif":
        return {"driver": "GTiff", "compress": "deflate", "zlevel": 1, "nodata": IGNORE}
    return {"driver": "PNG", "zlevel": 1}


def fill_value(image: Raster) -> float | None:
    """The nodata value for copies of the image.

    Returns:
        The image's nodata if its dtype can hold it and all bands share it, else NaN for floats, else None.
    """
    dtype = np.dtype(image.dtype)
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    if isinstance(image.nodata, (int, float)) and float(limits.min) <= image.nodata <= float(limits.max):
        return image.nodata
    return math.nan if dtype.kind == "f" else None
