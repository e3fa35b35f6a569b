"""Assembly: parts become one Cloud Optimized GeoTIFF, streamed by GDAL through a virtual mosaic.

Each part is read once, in file order, so memory stays small, and the bytes depend on the parts alone.
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
from landscribe.maps.unit_store import Parts
from landscribe.outputs import atomic_file, remove_stale, write_text

_PLACE = ("OFFSET", "SIZE")
_GDAL_NAME = {"uint8": "Byte", "float32": "Float32"}


@dataclass(frozen=True)
class Dress:
    """What the file of a layer holds besides pixels."""

    bands: tuple[str, ...]
    """Descriptions."""
    tags: dict[str, str]
    colormap: dict[int, tuple[int, int, int, int]] | None = None


def assemble(parts: Parts, units: Sequence[Unit], grid: Grid, layer: Layer, dress: Dress) -> Path:
    """Make one file of all parts of a kind, inside the parts folder; `placed` takes it where it belongs.

    Raises:
        OutputError: it cannot be written whole.
    """
    virtual = mosaic(parts, units, grid, layer, dress)
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
    # Built inside the parts folder, where GDAL's own temporary files die with it.
    built = parts.folder / f"{layer.kind}.cog.tif"
    try:
        with rasterio.Env(CPL_TMPDIR=str(parts.folder)), _libtiff_is_silent():
            rasterio.shutil.copy(virtual, built, **options)
        _require_whole(built)
    # rasterio lets GDAL's own errors through as they are, and a failure without one as SystemError.
    except (RasterioError, CPLE_BaseError, SystemError, OSError) as error:
        built.unlink(missing_ok=True)
        raise OutputError(
            f"its {layer.kind} file could not be written whole, most often for want of room "
            f"({error.__cause__ or error}). A disk with enough of it was expected."
        ) from error
    return built


def placed(built: Path, out: Path) -> None:
    """Move a finished file to its place, whole or not at all; the place may be on another disk.

    Raises:
        OutputError: it cannot be written there.
    """
    remove_stale(out)
    with atomic_file(out) as temporary:
        shutil.move(built, temporary)


@contextmanager
def _libtiff_is_silent() -> Iterator[None]:
    """Keep what libtiff says of a full disk off stderr: it prints that itself, past GDAL, and we say it in our line."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _require_whole(path: Path) -> None:
    """Raise OSError unless every block of a TIFF lies inside the file.

    When a file is closed, GDAL writes what it had kept back, and rasterio does not ask whether there was room.
    """
    size = path.stat().st_size
    with rasterio.open(path) as source:
        levels = [None, *range(len(source.overviews(1)))]
    for level in levels:
        with rasterio.open(path, **({} if level is None else {"overview_level": level})) as source:
            rows, cols = (-(-length // side) for length, side in zip(source.shape, source.block_shapes[0], strict=True))
            for row, col in product(range(rows), range(cols)):
                offset, length = (source.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1) for what in _PLACE)
                if not offset or not length or int(offset) + int(length) > size:
                    raise OSError(f"block {row}, {col} is not in the file, which ends after {size} bytes")


def mosaic(parts: Parts, units: Sequence[Unit], grid: Grid, layer: Layer, dress: Dress) -> Path:
    """Write a GDAL virtual raster of all parts of a layer beside them; where there is none it is nodata."""
    path = parts.folder / f"{layer.kind}.vrt"
    write_text(path, _vrt(parts, units, grid, layer, dress))
    return path


def _vrt(parts: Parts, units: Sequence[Unit], grid: Grid, layer: Layer, dress: Dress) -> str:
    crs = f"  <SRS>{escape(grid.crs.to_wkt())}</SRS>\n" if grid.crs else ""
    transform = ", ".join(repr(float(number)) for number in grid.transform.to_gdal())
    tags = "".join(
        f"    <MDI key={quoteattr(key)}>{escape(value)}</MDI>\n" for key, value in sorted(dress.tags.items())
    )
    bands = "".join(_band(number, parts, units, layer, dress) for number in range(1, len(dress.bands) + 1))
    return (
        f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">\n{crs}'
        f"  <GeoTransform>{transform}</GeoTransform>\n  <Metadata>\n{tags}  </Metadata>\n{bands}</VRTDataset>\n"
    )


def _band(number: int, parts: Parts, units: Sequence[Unit], layer: Layer, dress: Dress) -> str:
    colours = ""
    if dress.colormap:
        entries = (dress.colormap.get(value, (0, 0, 0, 0)) for value in range(256))
        rows = "".join(f'      <Entry c1="{r}" c2="{g}" c3="{b}" c4="{a}"/>\n' for r, g, b, a in entries)
        colours = f"    <ColorInterp>Palette</ColorInterp>\n    <ColorTable>\n{rows}    </ColorTable>\n"
    scale = f"    <Scale>{layer.scale!r}</Scale>\n" if layer.scale != 1 else ""
    sources = "".join(_source(number, parts, unit, layer) for unit in units if parts.content(unit).pixels)
    return (
        f'  <VRTRasterBand dataType="{_GDAL_NAME[layer.dtype]}" band="{number}">\n'
        f"    <Description>{escape(dress.bands[number - 1])}</Description>\n"
        f"    <NoDataValue>{layer.nodata}</NoDataValue>\n{scale}{colours}{sources}  </VRTRasterBand>\n"
    )


def _source(number: int, parts: Parts, unit: Unit, layer: Layer) -> str:
    keep, name = unit.keep, parts.path(unit, layer.kind).name
    size = f'xSize="{keep.width}" ySize="{keep.height}"'
    return (
        f'    <SimpleSource><SourceFilename relativeToVRT="1">{escape(name)}</SourceFilename>'
        f'<SourceBand>{number}</SourceBand><SourceProperties RasterXSize="{keep.width}" RasterYSize="{keep.height}" '
        f'DataType="{_GDAL_NAME[layer.dtype]}" BlockXSize="256" BlockYSize="256"/><SrcRect xOff="0" yOff="0" {size}/>'
        f'<DstRect xOff="{keep.col}" yOff="{keep.row}" {size}/></SimpleSource>\n'
    )
