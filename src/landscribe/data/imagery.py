"""Imagery: from what people give, to the rasters that they mean.

A file, a folder, a pattern, a list of files, a STAC item, a URL, or what else GDAL opens; or all of them as one mosaic.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from landscribe.data.formats import images_in, is_list, listed_in, stands_for_many
from landscribe.errors import RasterError
from landscribe.geo.access import is_local
from landscribe.geo.mosaic import mosaic
from landscribe.geo.nodata import NodataRule
from landscribe.geo.raster import Raster
from landscribe.geo.stac import is_item, open_item
from landscribe.geo.stack import stacked
from landscribe.spec import Spec

# A file that is far away is mostly waited for.
_AT_ONCE = 16


class ImagerySpec(Spec):
    """How the images of a call are opened."""

    nodata: float | None = None
    """Overrides what the files declare; nan comes beside it, for all pixels that are not finite."""
    nodata_rule: NodataRule = "auto"
    """A pixel is not valid where any of its bands holds nodata, or only where all do; auto is all for 0 and the largest
    value of unsigned types, and any for others."""
    assets: tuple[str, ...] = ()
    """Of STAC items: the keys of those that are stacked, in this order."""
    mosaic: bool = False
    """All images are one raster; where they overlap, the first that is valid counts."""


def open_rasters(images: Sequence[Any], spec: ImagerySpec, *, resample: bool = False) -> list[Raster]:
    """Open the rasters that images stand for.

    Args:
        images: files, or lists of files to stack; folders, patterns, lists and STAC items stand for what they name.
        spec: how.
        resample: bring what is stacked onto the grid of the first.

    Raises:
        RasterError: there are none, or one cannot be read.
        GridError: what is to be stacked, or to be one mosaic, does not lie on one grid.
    """
    given = [files for image in images for files in _each(image)]
    if not given:
        raise RasterError("no image was given. At least one was expected.")
    known: dict[str, Any] = {"nodata": spec.nodata, "nodata_rule": spec.nodata_rule}

    def opened(files: Sequence[str]) -> Raster:
        if len(files) == 1 and (spec.assets or is_item(files[0])):
            return open_item(files[0], spec.assets, **known, resample=resample)
        return stacked([Raster.open([file], **known) for file in files], resample=resample)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        rasters = list(pool.map(opened, given))
    return [mosaic(rasters)] if spec.mosaic else rasters


def _each(image: Any, *, listed: bool = False) -> list[list[str]]:
    """The files of each raster that an image of a call stands for."""
    files = [str(image)] if isinstance(image, (str, Path)) else [str(file) for file in image]
    if len(files) != 1:
        return [files]
    place = files[0]
    if is_list(place) and not listed:
        return [each for line in listed_in(place) for each in _each(line, listed=True)]
    if not is_local(place) and "*" in place:
        raise RasterError(
            f"{place} is a pattern, which only finds files of this machine. Name them in a list: @files.txt."
        )
    return [[str(file)] for file in images_in(place)] if stands_for_many(place) else [files]
