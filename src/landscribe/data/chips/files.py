"""The files of a chip: their names, formats and pixels."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from landscribe.data.scenes.scene import fill_value
from landscribe.errors import ChipError
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.geo.rasters.whole_files import write_raster

Format = Literal["tif", "png", "jpg"]

PICTURE_FILL = 0
"""Marks pixels that are not valid in PNG and JPEG chips, which cannot say so themselves as GeoTIFFs do."""


def require_format_fits(file_format: Format, image: Raster) -> None:
    """Raise ChipError if chips of that format cannot hold the bands of the image."""
    bands = len(image.bands)
    fits = {
        "tif": True,
        "png": bands in (1, 3, 4) and image.dtype in ("uint8", "uint16"),
        "jpg": bands in (1, 3) and image.dtype == "uint8",
    }
    if not fits[file_format]:
        raise ChipError(
            f"{file_format} chips cannot hold {bands} bands of {image.dtype}. png takes 1, 3 or 4 bands of uint8 or "
            "uint16, jpg 1 or 3 of uint8. Use tif."
        )


def pair_names(name: str, file_format: Format, group: str = "") -> dict[str, str]:
    """Paths of a chip's image and mask, which share their file name; a mask beside a JPEG is a PNG.

    Args:
        name: of the chip.
        file_format: of the image.
        group: the folder within images/ and masks/.
    """
    mask_format = "png" if file_format == "jpg" else file_format
    place = f"{group}/{name}" if group else name
    return {"image": f"images/{place}.{file_format}", "mask": f"masks/{place}.{mask_format}"}


def make_folders(folder: Path, groups: tuple[str, ...]) -> None:
    """Make images/ and masks/ with a folder for each group."""
    for kind in ("images", "masks"):
        for group in groups or ("",):
            (folder / kind / group).mkdir(parents=True)


def write_pair(
    image_path: Path,
    mask_path: Path,
    image: Raster,
    window: Window,
    arrays: tuple[Pixels, Valid, NDArray[np.uint8]],
) -> None:
    """Write image and mask of a chip into folders that are there.

    Args:
        image_path: its suffix is the format.
        mask_path: likewise.
        image: what the chip is from.
        window: where the chip lies in it.
        arrays: pixels (bands, rows, cols), valid (rows, cols), class values (rows, cols).
    """
    pixels, valid, mask = arrays
    placed = image_path.suffix == ".tif"
    fill = fill_value(image) if placed else PICTURE_FILL
    if fill is not None and not valid.all():
        pixels = np.where(valid, pixels, np.array(fill, pixels.dtype))
    own_mask = valid if fill is None and not valid.all() else None
    place = image.grid[window] if placed else None
    write_raster(image_path, pixels, place, own_mask, **_image_options(image_path.suffix, fill))
    write_raster(mask_path, mask[None], place, **_mask_options(mask_path.suffix))


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
