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
from landscribe.geo.grid import Grid
from landscribe.geo.tiling import Unit
from landscribe.maps.layers import Layer
from landscribe.maps.unit_store import UnitStore
from landscribe.outputs import atomic_file, remove_stale, write_text

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
    virtual = build_vrt(store, units, grid, layer, metadata)
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
    # Built inside the store, so that GDAL's own temporary files are deleted with it.
    built = store.folder / f"{layer.kind}.cog.tif"
    try:
        with rasterio.Env(CPL_TMPDIR=str(store.folder)), silenced_stderr():
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
    path = store.folder / f"{layer.kind}.vrt"
    write_text(path, _vrt(store, units, grid, layer, metadata))
    return path


def _vrt(store: UnitStore, units: Sequence[Unit], grid: Grid, layer: Layer, metadata: BandMetadata) -> str:
    crs = f"  <SRS>{escape(grid.crs.to_wkt())}</SRS>\n" if grid.crs else ""
    transform = ", ".join(repr(float(coefficient)) for coefficient in grid.transform.to_gdal())
    tags = "".join(
        f"    <MDI key={quoteattr(key)}>{escape(value)}</MDI>\n" for key, value in sorted(metadata.tags.items())
    )
    bands = "".join(_band(band, store, units, layer, metadata) for band in range(1, len(metadata.bands) + 1))
    return (
        f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">\n{crs}'
        f"  <GeoTransform>{transform}</GeoTransform>\n  <Metadata>\n{tags}  </Metadata>\n{bands}</VRTDataset>\n"
    )


def _band(band: int, store: UnitStore, units: Sequence[Unit], layer: Layer, metadata: BandMetadata) -> str:
    palette = ""
    if metadata.colormap:
        entries = (metadata.colormap.get(value, (0, 0, 0, 0)) for value in range(256))
        rows = "".join(f'      <Entry c1="{r}" c2="{g}" c3="{b}" c4="{a}"/>\n' for r, g, b, a in entries)
        palette = f"    <ColorInterp>Palette</ColorInterp>\n    <ColorTable>\n{rows}    </ColorTable>\n"
    scale = f"    <Scale>{layer.scale!r}</Scale>\n" if layer.scale != 1 else ""
    sources = "".join(_source(band, store, unit, layer) for unit in units)
    return (
        f'  <VRTRasterBand dataType="{_GDAL_NAME[layer.dtype]}" band="{band}">\n'
        f"    <Description>{escape(metadata.bands[band - 1])}</Description>\n"
        f"    <NoDataValue>{layer.nodata}</NoDataValue>\n{scale}{palette}{sources}  </VRTRasterBand>\n"
    )


def _source(band: int, store: UnitStore, unit: Unit, layer: Layer) -> str:
    keep, name = unit.keep, store.path(unit, layer.kind).name
    size = f'xSize="{keep.width}" ySize="{keep.height}"'
    return (
        f'    <SimpleSource><SourceFilename relativeToVRT="1">{escape(name)}</SourceFilename>'
        f'<SourceBand>{band}</SourceBand><SourceProperties RasterXSize="{keep.width}" RasterYSize="{keep.height}" '
        f'DataType="{_GDAL_NAME[layer.dtype]}" BlockXSize="256" BlockYSize="256"/><SrcRect xOff="0" yOff="0" {size}/>'
        f'<DstRect xOff="{keep.col}" yOff="{keep.row}" {size}/></SimpleSource>\n'
    )
