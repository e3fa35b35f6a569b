"""Inputs: opens the rasters of a call.

An image is a file, a folder, a pattern, a list of files, a STAC item, a URL, or anything else that GDAL opens; all
images of a call may be one mosaic.
"""

import glob
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from landscribe import progress
from landscribe.errors import RasterError, is_printable
from landscribe.geo.access import is_local, read_utf8
from landscribe.geo.rasters.derived.converted import as_colours
from landscribe.geo.rasters.derived.mosaic import mosaic
from landscribe.geo.rasters.derived.stack import override_nodata, stack_bands
from landscribe.geo.rasters.metadata import stem
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.stac import open_item
from landscribe.geo.spec import ImagerySpec, ReadingSpec
from landscribe.spec import split_at_commas

# Opening a remote file is mostly waiting for its server.
_OPEN_THREADS = 16
_MANY = 100
"""Images from which opening them takes long enough to show progress."""
_DATASET_FOLDERS = {".zarr", ".gdb"}
RASTER_SUFFIXES = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".vrt", ".img", ".bmp"}


def open_rasters(images: str | Path | Sequence[Any], spec: ImagerySpec, *, resample: bool = False) -> list[Raster]:
    """Open the rasters of a call.

    Args:
        images: files, folders, patterns, text files that list images, STAC items; or lists of files to stack. A
            single path needs no list.
        spec: settings of all images.
        resample: resample stacked files to the grid of the first.

    Raises:
        RasterError: there are no images, or one cannot be read.
        GridError: stacked files, or the images of a mosaic, do not lie on one grid.
    """
    images = [images] if isinstance(images, (str, Path)) else images
    stacks = [files for image in images for files in _expand(image, stack=spec.stack)]
    if not stacks:
        raise RasterError("no image was given. Give at least one.")

    def open_stack(files: Sequence[str]) -> Raster:
        if len(files) == 1 and (spec.assets or is_item(files[0])):
            nodata: dict[str, Any] = {"nodata": spec.nodata, "nodata_rule": spec.nodata_rule}
            return open_item(files[0], spec.assets, **nodata, resample=resample)
        return open_imagery(files, spec, resample=resample)

    rasters = []
    with (
        ThreadPoolExecutor(_OPEN_THREADS) as pool,
        progress.task("opening images", len(stacks), least=_MANY) as advance,
    ):
        for files, name, raster in zip(stacks, raster_names(stacks), pool.map(open_stack, stacks), strict=True):
            rasters.append(replace(raster, title=name) if len(files) > 1 else raster)
            advance()
    return [mosaic(rasters)] if spec.mosaic else rasters


def open_imagery(files: Sequence[str], spec: ReadingSpec, *, resample: bool = False) -> Raster:
    """Open a file, or several that are stacked.

    Palettes are colours, unless `spec.palette` says otherwise; an alpha band that holds many values is a band.

    Raises:
        RasterError: a file cannot be read, or its dtype cannot hold the nodata value.
        GridError: the files do not lie on one grid.
    """
    by_file = isinstance(spec.nodata, tuple) and len(files) > 1
    settings: dict[str, Any] = {"nodata_rule": spec.nodata_rule, "is_imagery": True}
    rasters = [Raster.open([file], **settings) for file in files]
    if not by_file:
        rasters = override_nodata(rasters, spec.nodata)
    if spec.palette == "colours":
        rasters = [as_colours(raster) for raster in rasters]
    raster = rasters[0] if len(rasters) == 1 else stack_bands(rasters, resample=resample)
    return raster.override_nodata(spec.nodata) if by_file else raster


def raster_names(stacks: Sequence[Sequence[str]]) -> list[str]:
    """A name for each raster: the stem of its file; of stacked files that of their folder.

    Where two rasters would have one name, stacked files are named by the words with which all of their names begin, or
    else by the first file.

    Args:
        stacks: the files of each raster.

    >>> raster_names([["april/B01.tif", "april/B02.tif"], ["may.tif"]])
    ['april', 'may']
    >>> raster_names([["s2/april_B01.tif", "s2/april_B02.tif"], ["s2/may_B01.tif", "s2/may_B02.tif"]])
    ['april', 'may']
    """
    candidates = [_names_of(files) for files in stacks]
    return next(
        (list(names) for names in zip(*candidates, strict=True) if not repeated(names)),
        [preferred for preferred, *_ in candidates],
    )


def distinct_names(names: Sequence[str]) -> list[str]:
    """The names, with their index where several are the same.

    >>> distinct_names(["a", "b", "A"])
    ['a_0', 'b', 'A_2']
    """
    same, numbered = set(repeated(names)), [f"{name}_{index}" for index, name in enumerate(names)]
    distinct = [number if name in same else name for name, number in zip(names, numbered, strict=True)]
    # A name may equal another name with its index.
    return numbered if repeated(distinct) else distinct


def repeated(names: Sequence[str]) -> list[str]:
    """The names of files that would replace one another; the disks of Windows and macOS ignore the case of letters.

    >>> repeated(["a", "b", "A", "b"])
    ['a', 'b', 'A']
    """
    keys = [unicodedata.normalize("NFC", name).lower() for name in names]
    counts = Counter(keys)
    return list(dict.fromkeys(name for name, key in zip(names, keys, strict=True) if counts[key] > 1))


def _names_of(files: Sequence[str]) -> tuple[str, str, str]:
    """Names for the raster of these files: by the folder, by the first words of the file names, by the first file."""
    stems = [stem(file) for file in files]
    same = os.path.commonprefix(stems) if len(files) > 1 else ""  # noqa: RUF071  of characters, not of folders
    words = re.match(r"(.*[^-_. ])[-_. ]", same)
    common = words[1] if words else stems[0]
    folders = {Path(file).absolute().parent for file in files}
    # Variables and pages of one file have stems of their own.
    in_folder = len(files) > 1 and len(folders) == 1 and all(Path(file).stem in stems for file in files)
    folder = folders.pop().name if in_folder else ""
    return folder if folder and is_printable(folder) else common, common, stems[0]


def _expand(image: Any, *, stack: bool, from_list: bool = False) -> list[list[str]]:
    """The files of each raster of an image of the call: one raster, unless it is a folder, pattern or list.

    Args:
        image: a path, or paths that are stacked.
        stack: the files of a folder or pattern are one raster.
        from_list: it is a line of a list, which names no further list.
    """
    files = [str(image)] if isinstance(image, (str, Path)) else [str(file) for file in image]
    if not all(file.strip() for file in files):
        raise RasterError("an image has an empty name, which would be the working folder. Give a path.")
    if len(files) != 1:
        return [files]
    path = files[0]
    if is_list(path) and not from_list:
        lines = read_file_list(path)
        return [raster for line in lines for raster in _expand(line, stack=stack, from_list=True)]
    if not is_local(path) and "*" in path:
        raise RasterError(f"{path} is a pattern, which finds local files only. List remote files in @files.txt.")
    if is_collection(path):
        files = [str(file) for file in images_in(path)]
        return [files] if stack else [[file] for file in files]
    if stack:
        # Shells replace a pattern by its files, of which each would be a raster of one band.
        raise RasterError(
            f"{path} is one file, but --stack makes one raster of the files of a folder or pattern. Give the folder, "
            "the pattern in quotes, or the files joined by commas (B1.tif,B2.tif)."
        )
    return [files]


def images_in(path: str) -> list[Path]:
    """The images of a folder or pattern, in natural order (B2 before B10).

    Raises:
        RasterError: there are none.
    """
    files = files_in(path, RASTER_SUFFIXES)
    if not files:
        raise RasterError(
            f"{path} holds no image. Expected files ending in {', '.join(sorted(RASTER_SUFFIXES))}. "
            "Check the folder or pattern."
        )
    return files


def is_collection(path: str) -> bool:
    """True for a folder or a pattern, but not for a folder that is one dataset."""
    if Path(path).suffix.lower() in _DATASET_FOLDERS:
        return False
    return is_local(path) and (Path(path).is_dir() or (glob.has_magic(path) and not Path(path).exists()))


def is_item(address: str) -> bool:
    """True if the suffix is that of a STAC item."""
    path = address if is_local(address) else urlsplit(address).path
    return Path(path).suffix.lower() in {".json", ".geojson"}


def is_list(path: str) -> bool:
    """True for a text file that lists rasters: a name ending in .txt, or with @ before it."""
    return path.startswith("@") or (is_local(path) and Path(path).suffix.lower() == ".txt")


def read_file_list(path: str) -> list[list[str]]:
    """Read a text file with one raster a line; commas separate files that are stacked as bands (`split_files`).

    Relative paths are relative to the text file. Empty lines and lines that begin with # are skipped.

    Returns:
        The files of each raster.

    Raises:
        RasterError: the text file cannot be read, lists nothing, or lists a file that does not exist.
    """
    text_file = Path(path.removeprefix("@"))
    lines = read_utf8(text_file, "a list of images, one a line", RasterError).splitlines()
    rasters = []
    for line_number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            files = [_relative_to(text_file, name) for name in split_files(line.strip(), text_file.parent)]
            _require_existing(files, f"{text_file}, line {line_number},")
            rasters.append(files)
    if not rasters:
        raise RasterError(f"{text_file} lists no image. Write one a line.")
    return rasters


def split_files(text: str, folder: Path = Path()) -> list[str]:
    """The files of a text, between commas; the whole text, if a file has that name.

    Args:
        text: names may stand in double quotes, as Windows copies them; then they may contain commas.
        folder: of relative names.
    """
    # Of a long list, Path.exists raises an error.
    is_file = "," in text and is_local(text) and os.path.exists(folder / text)  # noqa: PTH110
    return [text] if is_file else split_at_commas(text)


def _relative_to(text_file: Path, name: str) -> str:
    return str(text_file.parent / name) if is_local(name) else name


def _require_existing(files: Sequence[str], where: str) -> None:
    for file in files:
        if is_local(file) and not Path(file).exists() and not is_collection(file):
            raise RasterError(f"{where} lists {file}, which does not exist. Correct the line, or put # before it.")


def files_in(path: str, suffixes: set[str]) -> list[Path]:
    """The files with these suffixes in a folder or pattern, in natural order (B2 before B10); or the one file."""
    if Path(path).is_file():
        return [Path(path)]
    pattern = f"{glob.escape(path)}/*" if Path(path).is_dir() else path
    matches = (Path(match) for match in glob.iglob(pattern, recursive=True))  # noqa: PTH207 patterns may be absolute
    files = [match for match in matches if match.suffix.lower() in suffixes]
    return sorted(files, key=lambda file: [int(part) if part.isdigit() else part for part in _parts(file.name)])


def _parts(name: str) -> list[str]:
    """Text and digits in turn, text first, so that any two names compare."""
    return re.split(r"(\d+)", name)
