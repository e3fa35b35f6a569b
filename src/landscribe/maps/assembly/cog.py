"""Assembly: the units of a map become one Cloud Optimized GeoTIFF.

GDAL writes the head of the file, from a virtual raster without pixels; the compressed blocks are appended, the smallest
overview first, and their positions entered (docs/decisions/0034-assembly-by-blocks.md).
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import rasterio
import rasterio.shutil
import tifffile

from landscribe.errors import OutputError
from landscribe.executor import stopped_at_exit
from landscribe.geo.access import GDAL_ERRORS
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.overviews import reduced
from landscribe.geo.rasters.whole_files import silenced_stderr
from landscribe.geo.tiling import Unit
from landscribe.maps.assembly.blocks import BLOCK, Blocks
from landscribe.maps.assembly.sources import Source
from landscribe.maps.layers import Layer
from landscribe.maps.unit_store import UnitStore
from landscribe.outputs import atomic_files, scratch_folder, write_text

_LENGTH = 4
"""Bytes of a block's length, which GDAL's layout has before it; as many of its last bytes are repeated after it."""
_POSITION_TAGS = ("TileOffsets", "TileByteCounts")
_GDAL_NAME = {"uint8": "Byte", "float32": "Float32"}


@dataclass(frozen=True)
class BandMetadata:
    """What a layer's file holds besides pixels."""

    bands: tuple[str, ...]
    """Band descriptions."""
    tags: dict[str, str]
    colormap: dict[int, tuple[int, int, int, int]] | None = None


def assemble(store: UnitStore, units: Sequence[Unit], grid: Grid, layer: Layer, metadata: BandMetadata) -> Path:
    """Write one file of a layer of all units, inside the store; `move_into_place` moves it out.

    Args:
        store: where the units are, and maybe blocks that are compressed already.
        units: those with mapped pixels; the rest of the grid is nodata.
        grid: of the map.
        layer: which layer.
        metadata: band descriptions, tags, palette.

    Raises:
        OutputError: the file cannot be written whole.
    """
    blocks = Blocks(store.folder, layer, grid.shape, len(metadata.bands))
    return _composed(blocks, unit_sources(store, units, layer), grid, metadata)


def unit_sources(store: UnitStore, units: Sequence[Unit], layer: Layer) -> list[Source]:
    """The files of a layer of units, which fill the map."""
    return [Source.of(store.path(unit, layer.kind), unit.keep) for unit in units]


def merge(
    maps: Sequence[tuple[Path, Sequence[Window]]],
    grid: Grid,
    layer: Layer,
    metadata: BandMetadata,
    out: Path,
    side_files: Mapping[Path, str],
) -> None:
    """Write one file that holds windows of several files on the same grid.

    Args:
        maps: files of the layer, and the windows that each gives; where windows overlap, the later wins. The rest of
            the grid is nodata.
        grid: of all files.
        layer: which layer.
        metadata: as of `assemble`.
        out: the file to write; its folder exists.
        side_files: texts beside it, by path.

    Raises:
        OutputError: the file cannot be written whole.
    """
    sources = [Source(path, own, own) for path, windows in maps for own in _inside(windows, grid)]
    with scratch_folder(out) as folder:
        built = _composed(Blocks(folder, layer, grid.shape, len(metadata.bands)), sources, grid, metadata)
        move_into_place(built, out, side_files)


def _inside(windows: Sequence[Window], grid: Grid) -> Iterator[Window]:
    return (part for part in (window & grid.window for window in windows) if not part.is_empty)


def move_into_place(built: Path, out: Path, side_files: Mapping[Path, str]) -> None:
    """Move a finished file to its path and write the texts beside it, all or none; the path may be on another disk.

    Raises:
        OutputError: it cannot be written there.
    """
    with atomic_files(out) as temporary:
        shutil.move(built, temporary)
        for side, text in side_files.items():
            temporary.with_name(side.name).write_text(text, encoding="utf-8")


def _composed(blocks: Blocks, sources: Sequence[Source], grid: Grid, metadata: BandMetadata) -> Path:
    """Write the file of a layer beside its blocks: those that are missing are compressed beside the head."""
    with _whole_file(blocks) as built:
        with stopped_at_exit(ThreadPoolExecutor(1)) as thread:
            head = thread.submit(_write_head, built, blocks, grid, metadata)
            blocks.compress_all(blocks.sources(sources))
            head.result()
        _require_whole_head(built, blocks)
        _append(built, blocks)
    return built


@contextmanager
def _whole_file(blocks: Blocks) -> Iterator[Path]:
    """Yield the path of a layer's file, beside its blocks; remove it, and raise OutputError, if it is not whole."""
    built = blocks.folder / f"{blocks.layer.kind}.cog.tif"
    try:
        yield built
    # rasterio raises SystemError for a failure without an error of GDAL.
    except (*GDAL_ERRORS, SystemError, OSError) as error:
        built.unlink(missing_ok=True)
        raise OutputError(
            f"the {blocks.layer.kind} file could not be written whole, most often because the disk is full "
            f"({error.__cause__ or error}). Free some space, or write to another disk."
        ) from error


# ---- the head


def _write_head(built: Path, blocks: Blocks, grid: Grid, metadata: BandMetadata) -> None:
    """Write a Cloud Optimized GeoTIFF with all that the layer's file has, except blocks."""
    layer = blocks.layer
    options: dict[str, Any] = {
        "driver": "COG",
        "BLOCKSIZE": BLOCK,
        "COMPRESS": "DEFLATE",
        "PREDICTOR": "YES" if layer.dtype == "float32" else "NO",
        "OVERVIEWS": "FORCE_USE_EXISTING" if blocks.overviews else "NONE",
        "BIGTIFF": "IF_SAFER",
        "SPARSE_OK": "YES",
    }
    overviews = []
    for level in range(1, blocks.overviews + 1):
        bands = "".join(_band(band, layer) for band in range(1, blocks.bands + 1))
        overviews.append(blocks.folder / f"{layer.kind}.{2**level}.vrt")
        write_text(overviews[-1], _vrt(reduced(grid.shape, level), "", bands))
    virtual = blocks.folder / f"{layer.kind}.vrt"
    write_text(virtual, _layer_vrt(grid, layer, metadata, overviews))
    # Built in the same folder, so that GDAL's own temporary files are deleted with it.
    with rasterio.Env(CPL_TMPDIR=str(blocks.folder)), silenced_stderr():
        rasterio.shutil.copy(virtual, built, **options)


def _require_whole_head(built: Path, blocks: Blocks) -> None:
    """Raise OSError unless the head has room for the positions of all blocks: rasterio does not report a full disk."""
    try:
        with tifffile.TiffFile(built) as head:
            counts = [[page.aspage().tags[name].count for name in _POSITION_TAGS] for page in head.pages]
    except (ValueError, KeyError) as error:
        raise OSError(f"the head of {built.name} is not whole") from error
    if counts != [[blocks.count(level)] * len(_POSITION_TAGS) for level in range(blocks.overviews + 1)]:
        raise OSError(f"the head of {built.name} is not whole")


def _layer_vrt(grid: Grid, layer: Layer, metadata: BandMetadata, overviews: Sequence[Path]) -> str:
    """A GDAL virtual raster without pixels."""
    crs = f"  <SRS>{escape(grid.crs.to_wkt())}</SRS>\n" if grid.crs else ""
    transform = ", ".join(repr(float(coefficient)) for coefficient in grid.transform.to_gdal())
    tags = "".join(
        f"    <MDI key={quoteattr(key)}>{escape(value)}</MDI>\n" for key, value in sorted(metadata.tags.items())
    )
    head = f"{crs}  <GeoTransform>{transform}</GeoTransform>\n  <Metadata>\n{tags}  </Metadata>\n"
    scale = f"    <Scale>{layer.scale!r}</Scale>\n" if layer.scale != 1 else ""
    bands = []
    for band, name in enumerate(metadata.bands, 1):
        files = "".join(_overview(path, band) for path in overviews)
        description = f"    <Description>{escape(name)}</Description>\n"
        bands.append(_band(band, layer, f"{description}{scale}{_palette(metadata)}{files}"))
    return _vrt(grid.shape, head, "".join(bands))


def _vrt(shape: tuple[int, int], head: str, bands: str) -> str:
    return f'<VRTDataset rasterXSize="{shape[1]}" rasterYSize="{shape[0]}">\n{head}{bands}</VRTDataset>\n'


def _palette(metadata: BandMetadata) -> str:
    if not metadata.colormap:
        return ""
    entries = (metadata.colormap.get(value, (0, 0, 0, 0)) for value in range(256))
    rows = "".join(f'      <Entry c1="{r}" c2="{g}" c3="{b}" c4="{a}"/>\n' for r, g, b, a in entries)
    return f"    <ColorInterp>Palette</ColorInterp>\n    <ColorTable>\n{rows}    </ColorTable>\n"


def _overview(path: Path, band: int) -> str:
    return (
        f'    <Overview><SourceFilename relativeToVRT="1">{escape(path.name)}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></Overview>\n"
    )


def _band(band: int, layer: Layer, head: str = "") -> str:
    return (
        f'  <VRTRasterBand dataType="{_GDAL_NAME[layer.dtype]}" band="{band}">\n'
        f"    <NoDataValue>{layer.nodata}</NoDataValue>\n{head}  </VRTRasterBand>\n"
    )


# ---- the blocks


def _append(built: Path, blocks: Blocks) -> None:
    """Append the blocks of all levels to the head, the smallest overview first, and enter their positions.

    The layout is that which the head states: https://gdal.org/en/stable/drivers/raster/cog.html.
    """
    positions: dict[int, tuple[list[int], list[int]]] = {}
    with built.open("ab") as file:
        for level in range(blocks.overviews, -1, -1):
            offsets, sizes = positions.setdefault(level, ([], []))
            for block in blocks.of_level(level):
                file.write(len(block).to_bytes(_LENGTH, "little"))
                offsets.append(file.tell())
                sizes.append(len(block))
                file.write(block + block[-_LENGTH:])
    with tifffile.TiffFile(built, mode="r+") as head:
        for level, values in positions.items():
            tags = head.pages[level].aspage().tags
            for name, numbers in zip(_POSITION_TAGS, values, strict=True):
                tags[name].overwrite(numbers)
