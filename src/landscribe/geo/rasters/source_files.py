"""Source files: which files a raster reads, and whether they changed.

The state of a file is its name, size and modification time. A VRT's own files count, masks and headers beside a
file, and the file or local archive of which a raster is a part. A remote TIFF is known by the offsets and lengths of
some of its blocks, which need no more than its header: compressed pixels that change hardly ever keep them.
Uncompressed pixels may change unseen there.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from landscribe.errors import RasterError
from landscribe.geo.access import clear_vsi_cache, is_remote, open_dataset, without_secrets

_NO_PIXELS = (".ovr", ".aux.xml")
"""Suffixes of side files that hold no pixels of their own, which GDAL may add at any time: overviews, statistics, and
tags, which are fields of their own in a raster's fingerprint."""
_BLOCKS = 16
"""Blocks of a remote TIFF whose offsets and lengths are compared."""

_IN_ARCHIVE = re.compile(r"(/vsi(zip|tar|gzip)/)+")

FileState = list[Any]
"""Name, size, modification time, and the states of further files, in JSON's types."""


def file_state(name: str) -> FileState:
    """Name, size and modification time of a local file; of other files the name, and the state of a local archive."""
    path = Path(name)
    if not path.exists():
        return [without_secrets(name), *map(file_state, _archive(name))]
    stat = path.stat()
    return [path.name, stat.st_size, stat.st_mtime_ns]


def state_text(state: FileState) -> str:
    """The state of a file for a message: its name, size and time where they are known.

    >>> state_text(["scene.tif", 1024, 1_700_000_000_000_000_000])
    'scene.tif of 1024 bytes and 2023-11-14 22:13:20 UTC'
    """
    name, *rest = state
    if len(rest) < 2 or not all(isinstance(number, int) for number in rest[:2]):
        return str(name)
    size, changed = rest[:2]
    return f"{name} of {size} bytes and {datetime.fromtimestamp(changed / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"


def files_of(name: str) -> list[str]:
    """A raster file and, behind a VRT, the files that it reads, through VRTs of VRTs.

    Raises:
        UnreachableError: a VRT cannot be read.
    """
    if not name.lower().endswith(".vrt"):
        return [name]
    with open_dataset(name) as dataset:
        files = [file for file in dataset.files if file != name]
    return [name, *(inner for file in files for inner in files_of(file))]


def raster_state(name: str, *, is_fresh: bool = False) -> FileState:
    """The state of a raster file and of all files that it reads.

    Args:
        name: of the file.
        is_fresh: ask the server of a remote file again, past GDAL's cache.

    Raises:
        UnreachableError: the file cannot be read.
    """
    if is_fresh and is_remote(name):
        clear_vsi_cache(name)
    with open_dataset(name) as dataset:
        files = [file for file in dataset.files if file != name and not file.lower().endswith(_NO_PIXELS)]
        state = file_state(name) + ([] if Path(name).exists() else _block_layout(dataset))
    if name.lower().endswith(".vrt"):
        return state + [raster_state(file, is_fresh=is_fresh) for file in files]
    return state + [file_state(file) for file in files]


def _archive(name: str) -> list[str]:
    """The local archive that a path of GDAL leads into, as a.zip of /vsizip/a.zip/b.tif; empty if there is none."""
    prefix = _IN_ARCHIVE.match(name)
    if prefix is None:
        return []
    # GDAL takes the path of an archive also in braces.
    path = Path(re.sub("[{}]", "", name[prefix.end() :]))
    return [str(parent) for parent in (path, *path.parents) if parent.is_file()][:1]


def _block_layout(dataset: Any) -> list[str | None]:
    """Offsets and lengths of some blocks of a TIFF; empty for other formats."""
    if dataset.driver not in ("GTiff", "COG"):
        return []
    rows, cols = (-(-length // side) for length, side in zip(dataset.shape, dataset.block_shapes[0], strict=True))
    blocks = [divmod(rows * cols * part // _BLOCKS, cols) for part in range(_BLOCKS)]
    items = ("BLOCK_OFFSET", "BLOCK_SIZE")
    return [dataset.get_tag_item(f"{item}_{col}_{row}", "TIFF", bidx=1) for row, col in blocks for item in items]


def require_unchanged(paths: Sequence[str], states: Sequence[FileState], work: str = "mapped") -> None:
    """Raise RasterError if a file changed since its state was taken; UnreachableError if it cannot be read any more.

    Args:
        paths: of the rasters.
        states: by `raster_state`, in the order of the paths.
        work: what was done meanwhile, for the message.
    """
    for path, state in zip(paths, states, strict=True):
        if raster_state(path, is_fresh=True) != state:
            raise RasterError(
                f"{path} changed while it was {work}, so the result would mix two files. Nothing was written. Repeat "
                "the command once the file no longer changes."
            )
