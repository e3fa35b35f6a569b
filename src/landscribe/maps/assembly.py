"""Assembly: units become one Cloud Optimized GeoTIFF, streamed by GDAL through a virtual raster.

Each unit is read once, in file order, so memory stays small and the bytes depend on the units alone.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from landscribe.errors import OutputError
from landscribe.geo.grid import Grid, Window
from landscribe.geo.tiling import Unit
from landscribe.maps.layers import Layer
from landscribe.maps.unit_store import UnitStore
from landscribe.outputs import atomic_file, remove_stale, scratch_folder, write_text

_BLOCK_ITEMS = ("OFFSET", "SIZE")
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
        store: where the units are.
        units: those with mapped pixels; the rest of the grid is nodata.
        grid: of the map.
        layer: which layer.
        metadata: band descriptions, tags, palette.

    Raises:
        OutputError: the file cannot be written whole.
    """
    return _as_cog(build_vrt(store, units, grid, layer, metadata), layer)


def merge(
    maps: Sequence[tuple[Path, Sequence[Window]]], grid: Grid, layer: Layer, metadata: BandMetadata, out: Path
) -> None:
    """Write one file that holds windows of several files on the same grid.

    Args:
        maps: files of the layer, and the windows that each gives; where windows overlap, the later wins. The rest of
            the grid is nodata.
        grid: of all files.
        layer: which layer.
        metadata: as of `assemble`.
        out: the file to write; its folder exists.

    Raises:
        OutputError: the file cannot be written whole.
    """
    sources = [_Source(str(path.resolve()), own, own) for path, windows in maps for own in _inside(windows, grid)]
    with scratch_folder(out) as folder:
        virtual = folder / f"{layer.kind}.vrt"
        write_text(virtual, _vrt(sources, grid, layer, metadata))
        built = _as_cog(virtual, layer)
        with atomic_file(out) as temporary:
            shutil.move(built, temporary)


def _inside(windows: Sequence[Window], grid: Grid) -> Iterator[Window]:
    return (part for part in (window & grid.window for window in windows) if not part.is_empty)


def _as_cog(virtual: Path, layer: Layer) -> Path:
    """Write a virtual raster as a Cloud Optimized GeoTIFF beside it."""
    options: dict[str, Any] = {
        "driver": "COG",
        "BLOCKSIZE": 512,
        "COMPRESS": "DEFLATE",
        "LEVEL": 6,
        "PREDICTOR": "YES" if layer.dtype == "float32" else "NO",
        "OVERVIEWS": "IGNORE_EXISTING",
        "OVERVIEW_RESAMPLING": layer.resampling,
        "BIGTIFF": "IF_SAFER",
        "NUM_THREADS": "ALL_CPUS",
    }
    # Built in the same folder, so that GDAL's own temporary files are deleted with it.
    built = virtual.parent / f"{layer.kind}.cog.tif"
    try:
        with rasterio.Env(CPL_TMPDIR=str(virtual.parent)), silenced_stderr():
            rasterio.shutil.copy(virtual, built, **options)
        require_whole(built)
    # rasterio lets GDAL's own errors through as they are, and a failure without one as SystemError.
    except (RasterioError, CPLE_BaseError, SystemError, OSError) as error:
        built.unlink(missing_ok=True)
        raise OutputError(
            f"the {layer.kind} file could not be written whole, most often because the disk is full "
            f"({error.__cause__ or error}). Free some space, or write to another disk."
        ) from error
    return built


def move_into_place(built: Path, out: Path) -> None:
    """Move a finished file to its path, whole or not at all; the path may be on another disk.

    Raises:
        OutputError: it cannot be written there.
    """
    remove_stale(out)
    with atomic_file(out) as temporary:
        shutil.move(built, temporary)


@contextmanager
def silenced_stderr() -> Iterator[None]:
    """Drop what libtiff prints to stderr about a full disk, past GDAL: our own error line says it."""
    stderr = os.dup(2)
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def require_whole(path: Path) -> None:
    """Raise OSError unless every block of a TIFF lies inside the file.

    GDAL writes cached blocks when the file is closed, and rasterio does not check whether that succeeded.
    """
    # Without access.open_dataset: an error here is about what we wrote, and `assemble` explains it.
    size = path.stat().st_size
    with rasterio.open(path) as source:
        levels = [None, *range(len(source.overviews(1)))]
    for level in levels:
        with rasterio.open(path, **({} if level is None else {"overview_level": level})) as source:
            rows, cols = (-(-length // side) for length, side in zip(source.shape, source.block_shapes[0], strict=True))
            for row, col in product(range(rows), range(cols)):
                offset, length = (
                    source.get_tag_item(f"BLOCK_{item}_{col}_{row}", "TIFF", bidx=1) for item in _BLOCK_ITEMS
                )
                if not offset or not length or int(offset) + int(length) > size:
                    raise OSError(f"block {row}, {col} is not in the file, which ends after {size} bytes")


def build_vrt(store: UnitStore, units: Sequence[Unit], grid: Grid, layer: Layer, metadata: BandMetadata) -> Path:
    """Write a GDAL virtual raster of a layer of units, beside them; nodata elsewhere."""
    sources = [
        _Source(store.path(unit, layer.kind).name, Window(0, 0, *unit.keep.shape), unit.keep, block=256)
        for unit in units
    ]
    path = store.folder / f"{layer.kind}.vrt"
    write_text(path, _vrt(sources, grid, layer, metadata))
    return path


@dataclass(frozen=True)
class _Source:
    """A part of a file in a virtual raster."""

    path: str
    """Absolute, or relative to the virtual raster."""
    read: Window
    """Of the file; with `block`, all of it."""
    target: Window
    """Of the virtual raster."""
    block: int | None = None
    """Side of the file's blocks, so that GDAL need not open the file to know; None if it shall."""

    def xml(self, band: int, layer: Layer) -> str:
        relative, read, target = int(not Path(self.path).is_absolute()), self.read, self.target
        known = "" if self.block is None else (
            f'<SourceProperties RasterXSize="{read.width}" RasterYSize="{read.height}" '
            f'DataType="{_GDAL_NAME[layer.dtype]}" BlockXSize="{self.block}" BlockYSize="{self.block}"/>'
        )  # fmt: skip
        return (
            f'    <SimpleSource><SourceFilename relativeToVRT="{relative}">{escape(self.path)}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand>{known}<SrcRect {_rectangle(read)}/><DstRect {_rectangle(target)}/>"
            "</SimpleSource>\n"
        )


def _rectangle(window: Window) -> str:
    return f'xOff="{window.col}" yOff="{window.row}" xSize="{window.width}" ySize="{window.height}"'


def _vrt(sources: Sequence[_Source], grid: Grid, layer: Layer, metadata: BandMetadata) -> str:
    crs = f"  <SRS>{escape(grid.crs.to_wkt())}</SRS>\n" if grid.crs else ""
    transform = ", ".join(repr(float(coefficient)) for coefficient in grid.transform.to_gdal())
    tags = "".join(
        f"    <MDI key={quoteattr(key)}>{escape(value)}</MDI>\n" for key, value in sorted(metadata.tags.items())
    )
    bands = "".join(_band(band, sources, layer, metadata) for band in range(1, len(metadata.bands) + 1))
    return (
        f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">\n{crs}'
        f"  <GeoTransform>{transform}</GeoTransform>\n  <Metadata>\n{tags}  </Metadata>\n{bands}</VRTDataset>\n"
    )


def _band(band: int, sources: Sequence[_Source], layer: Layer, metadata: BandMetadata) -> str:
    palette = ""
    if metadata.colormap:
        entries = (metadata.colormap.get(value, (0, 0, 0, 0)) for value in range(256))
        rows = "".join(f'      <Entry c1="{r}" c2="{g}" c3="{b}" c4="{a}"/>\n' for r, g, b, a in entries)
        palette = f"    <ColorInterp>Palette</ColorInterp>\n    <ColorTable>\n{rows}    </ColorTable>\n"
    scale = f"    <Scale>{layer.scale!r}</Scale>\n" if layer.scale != 1 else ""
    parts = "".join(source.xml(band, layer) for source in sources)
    return (
        f'  <VRTRasterBand dataType="{_GDAL_NAME[layer.dtype]}" band="{band}">\n'
        f"    <Description>{escape(metadata.bands[band - 1])}</Description>\n"
        f"    <NoDataValue>{layer.nodata}</NoDataValue>\n{scale}{palette}{parts}  </VRTRasterBand>\n"
    )
