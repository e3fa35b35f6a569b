"""Assembly: units become one Cloud Optimized GeoTIFF, streamed by GDAL through a virtual raster.

Each unit is read once, in file order, so memory stays small and the bytes depend on the units alone. Units of classes
hold their own overviews, so that none of their pixels is read for those of the map.
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
from rasterio.windows import Window as RasterioWindow

from landscribe.errors import OutputError
from landscribe.geo.access import allow_ungeoreferenced, open_dataset
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.overviews import halved, halvings, packed_windows, reduced
from landscribe.geo.tiling import Unit
from landscribe.maps.layers import Layer
from landscribe.maps.unit_store import UnitStore, overview_count
from landscribe.outputs import atomic_file, remove_stale, scratch_folder, write_text

_STRIP = 512
"""Rows of an overview that are computed at once."""
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
    overviews = _overviews(store, units, grid, layer)
    virtual = build_vrt(store, units, grid, layer, metadata, overviews)
    return _as_cog(virtual, layer, has_overviews=bool(overviews))


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
    parts = [_Part(str(path.resolve()), own, own) for path, windows in maps for own in _inside(windows, grid)]
    with scratch_folder(out) as folder:
        virtual = folder / f"{layer.kind}.vrt"
        write_text(virtual, _layer_vrt(parts, grid, layer, metadata))
        built = _as_cog(virtual, layer, has_overviews=False)
        with atomic_file(out) as temporary:
            shutil.move(built, temporary)


def _inside(windows: Sequence[Window], grid: Grid) -> Iterator[Window]:
    return (part for part in (window & grid.window for window in windows) if not part.is_empty)


def _as_cog(virtual: Path, layer: Layer, *, has_overviews: bool) -> Path:
    """Write a virtual raster as a Cloud Optimized GeoTIFF beside it."""
    options: dict[str, Any] = {
        "driver": "COG",
        "BLOCKSIZE": 512,
        "COMPRESS": "DEFLATE",
        "LEVEL": 6,
        "PREDICTOR": "YES" if layer.dtype == "float32" else "NO",
        "OVERVIEWS": "FORCE_USE_EXISTING" if has_overviews else "IGNORE_EXISTING",
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


def _overviews(store: UnitStore, units: Sequence[Unit], grid: Grid, layer: Layer) -> list[Path]:
    """Files of the overviews of a layer of classes, the largest first; none where GDAL builds them from its pixels.

    Those that its units hold are virtual rasters. The smaller ones are computed from the last of these.
    """
    held = overview_count(units, layer, grid)
    files: list[Path] = []
    for level in range(1, halvings(grid.shape) + 1 if held else 0):
        path = store.folder / f"{layer.kind}.{2**level}.{'vrt' if level <= held else 'tif'}"
        if level <= held:
            sources = [_Part.of_overview(store, unit, layer, grid, level) for unit in units]
            write_text(path, _vrt(reduced(grid.shape, level), "", _band(1, sources, layer)))
        else:
            _halve(files[-1], path)
        files.append(path)
    return files


def _halve(source: Path, out: Path) -> None:
    """Write the `halved` class values of a file, in strips."""
    with open_dataset(source) as whole:
        height, width = reduced(whole.shape, 1)
        shape = {"count": 1, "height": height, "width": width, "dtype": "uint8", "nodata": IGNORE}
        with allow_ungeoreferenced():
            halves = rasterio.open(out, "w", driver="GTiff", compress="deflate", zlevel=1, tiled=True, **shape)
        with halves:
            for row in range(0, height, _STRIP):
                rows = min(_STRIP, height - row)
                part = RasterioWindow(0, 2 * row, whole.width, min(2 * rows, whole.height - 2 * row))
                values = halved(whole.read(1, window=part), IGNORE)
                halves.write(values, 1, window=RasterioWindow(0, row, width, rows))


def build_vrt(
    store: UnitStore,
    units: Sequence[Unit],
    grid: Grid,
    layer: Layer,
    metadata: BandMetadata,
    overviews: Sequence[Path] = (),
) -> Path:
    """Write a GDAL virtual raster of a layer of units, beside them; nodata elsewhere."""
    path = store.folder / f"{layer.kind}.vrt"
    write_text(path, _layer_vrt([_Part.of(store, unit, layer) for unit in units], grid, layer, metadata, overviews))
    return path


def _layer_vrt(
    parts: Sequence["_Part"], grid: Grid, layer: Layer, metadata: BandMetadata, overviews: Sequence[Path] = ()
) -> str:
    crs = f"  <SRS>{escape(grid.crs.to_wkt())}</SRS>\n" if grid.crs else ""
    transform = ", ".join(repr(float(coefficient)) for coefficient in grid.transform.to_gdal())
    tags = "".join(
        f"    <MDI key={quoteattr(key)}>{escape(value)}</MDI>\n" for key, value in sorted(metadata.tags.items())
    )
    head = f"{crs}  <GeoTransform>{transform}</GeoTransform>\n  <Metadata>\n{tags}  </Metadata>\n"
    scale = f"    <Scale>{layer.scale!r}</Scale>\n" if layer.scale != 1 else ""
    palette, files = _palette(metadata), "".join(map(_overview, overviews))
    bands = "".join(
        _band(band, parts, layer, f"    <Description>{escape(name)}</Description>\n{scale}{palette}{files}")
        for band, name in enumerate(metadata.bands, 1)
    )
    return _vrt(grid.shape, head, bands)


def _vrt(shape: tuple[int, int], head: str, bands: str) -> str:
    return f'<VRTDataset rasterXSize="{shape[1]}" rasterYSize="{shape[0]}">\n{head}{bands}</VRTDataset>\n'


def _palette(metadata: BandMetadata) -> str:
    if not metadata.colormap:
        return ""
    entries = (metadata.colormap.get(value, (0, 0, 0, 0)) for value in range(256))
    rows = "".join(f'      <Entry c1="{r}" c2="{g}" c3="{b}" c4="{a}"/>\n' for r, g, b, a in entries)
    return f"    <ColorInterp>Palette</ColorInterp>\n    <ColorTable>\n{rows}    </ColorTable>\n"


def _overview(path: Path) -> str:
    return (
        f'    <Overview><SourceFilename relativeToVRT="1">{escape(path.name)}</SourceFilename>'
        "<SourceBand>1</SourceBand></Overview>\n"
    )


def _band(band: int, parts: Sequence["_Part"], layer: Layer, head: str = "") -> str:
    sources = "".join(part.source(band, layer) for part in parts)
    return (
        f'  <VRTRasterBand dataType="{_GDAL_NAME[layer.dtype]}" band="{band}">\n'
        f"    <NoDataValue>{layer.nodata}</NoDataValue>\n{head}{sources}  </VRTRasterBand>\n"
    )


@dataclass(frozen=True)
class _Part:
    """A window of a file that fills a part of a virtual raster."""

    file: str
    """Absolute, or relative to the virtual raster."""
    window: Window
    fills: Window
    shape: tuple[int, int] | None = None
    """Of a file in blocks of 256, so that GDAL need not open it to know; None if it shall."""

    @classmethod
    def of(cls, store: UnitStore, unit: Unit, layer: Layer) -> "_Part":
        shape = unit.keep.shape
        return cls(store.path(unit, layer.kind).name, Window(0, 0, *shape), unit.keep, shape)

    @classmethod
    def of_overview(cls, store: UnitStore, unit: Unit, layer: Layer, grid: Grid, level: int) -> "_Part":
        """An overview of a unit."""
        windows = packed_windows(unit.keep.shape, overview_count([unit], layer, grid))
        own = windows[level - 1]
        fills = Window(unit.keep.row >> level, unit.keep.col >> level, *own.shape)
        file = store.overviews_path(unit, layer.kind).name
        return cls(file, own, fills, (windows[0].height, windows[-1].col_stop))

    def source(self, band: int, layer: Layer) -> str:
        is_relative = int(not Path(self.file).is_absolute())
        known = "" if self.shape is None else (
            f'<SourceProperties RasterXSize="{self.shape[1]}" RasterYSize="{self.shape[0]}" '
            f'DataType="{_GDAL_NAME[layer.dtype]}" BlockXSize="256" BlockYSize="256"/>'
        )  # fmt: skip
        return (
            f'    <SimpleSource><SourceFilename relativeToVRT="{is_relative}">{escape(self.file)}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand>{known}<SrcRect {_rectangle(self.window)}/>"
            f"<DstRect {_rectangle(self.fills)}/></SimpleSource>\n"
        )


def _rectangle(window: Window) -> str:
    return f'xOff="{window.col}" yOff="{window.row}" xSize="{window.width}" ySize="{window.height}"'
