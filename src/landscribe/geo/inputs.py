"""Imagery: from what people give, to the rasters that they mean.

A file, a folder, a pattern, a list of files, a STAC item, a URL, or what else GDAL opens; or all of them as one mosaic.
"""

import glob
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from landscribe.errors import RasterError
from landscribe.geo.access import is_local
from landscribe.geo.rasters.mosaic import mosaic
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.stac import is_item, open_item
from landscribe.geo.rasters.stack import stacked
from landscribe.geo.spec import ImagerySpec

# A file that is far away is mostly waited for.
_AT_ONCE = 16
RASTER_SUFFIXES = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".vrt", ".img", ".bmp"}


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
        return [each for line in read_file_list(place) for each in _each(line, listed=True)]
    if not is_local(place) and "*" in place:
        raise RasterError(
            f"{place} is a pattern, which only finds files of this machine. Name them in a list: @files.txt."
        )
    return [[str(file)] for file in images_in(place)] if is_collection(place) else [files]


def images_in(place: str) -> list[Path]:
    """The images of a folder or pattern, sorted as people number them.

    Raises:
        RasterError: there are none.
    """
    files = files_in(place, RASTER_SUFFIXES)
    if not files:
        raise RasterError(
            f"{place} holds no image. Files ending in {', '.join(sorted(RASTER_SUFFIXES))} were expected. "
            "Check the folder or pattern."
        )
    return files


def is_collection(path: str) -> bool:
    """True for a folder, or a pattern of files."""
    return is_local(path) and (Path(path).is_dir() or (glob.has_magic(path) and not Path(path).exists()))


def is_list(path: str) -> bool:
    """True for a text file that names rasters, one a line: files.txt, or @ before a name."""
    return path.startswith("@") or (is_local(path) and Path(path).suffix.lower() == ".txt")


def read_file_list(path: str) -> list[list[str]]:
    """The files of each raster that a text file names, one raster a line; commas stack files as bands.

    What is not absolute is relative to the text file; empty lines and those that begin with # say nothing.

    Raises:
        RasterError: the text file cannot be read, or names a file that is not there, or none at all.
    """
    place = Path(path.removeprefix("@"))
    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise RasterError(f"{place} cannot be read: {reason}. A list of images was expected, one a line.") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            # Windows copies paths within quotes.
            files = [_beside(place, part.strip().strip('"')) for part in line.split(",")]
            _require_there(files, f"{place}, line {number},")
            found.append(files)
    if not found:
        raise RasterError(f"{place} names no image. One a line was expected.")
    return found


def _beside(place: Path, name: str) -> str:
    return str(place.parent / name) if is_local(name) else name


def _require_there(files: Sequence[str], where: str) -> None:
    for file in files:
        if is_local(file) and not Path(file).exists() and not is_collection(file):
            raise RasterError(f"{where} names {file}, which is not there. Correct the line, or put # before it.")


def files_in(place: str, suffixes: set[str]) -> list[Path]:
    """Files of a folder or pattern, or one alone, sorted as people number them: B2 before B10."""
    if Path(place).is_file():
        return [Path(place)]
    pattern = f"{glob.escape(place)}/*" if Path(place).is_dir() else place
    found = (Path(path) for path in glob.iglob(pattern, recursive=True))  # noqa: PTH207 patterns may be absolute
    files = [path for path in found if path.suffix.lower() in suffixes]
    return sorted(files, key=lambda path: [int(part) if part.isdigit() else part for part in _parts(path.name)])


def _parts(name: str) -> list[str]:
    """Text and numbers by turns, always text first: so that names can be compared."""
    return re.split(r"(\d+)", name)
