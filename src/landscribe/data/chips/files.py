"""The files of a chip: their names, formats and pixels."""

from pathlib import Path
from typing import Any

import numpy as np

from landscribe.data.chips.spec import Format
from landscribe.data.scenes.scene import Sample, fill_value
from landscribe.errors import ChipError, counted
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Window
from landscribe.geo.rasters.nodata import Nodata
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.whole_files import write_raster

PICTURE_FILL = 0
"""Fill value of pixels that are not valid in PNG and JPEG chips, which have no nodata value."""


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


def make_folders(folder: Path, subfolders: tuple[str, ...]) -> None:
    """Create images/ and masks/ and their subfolders."""
    for kind in ("images", "masks"):
        for subfolder in subfolders or ("",):
            (folder / kind / subfolder).mkdir(parents=True)


def write_pair(image_path: Path, mask_path: Path, image: Raster, window: Window, sample: Sample) -> None:
    """Write image and mask of a chip into existing folders.

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
    write_raster(mask_path, mask[None], grid, **_mask_options(mask_path.suffix))


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
