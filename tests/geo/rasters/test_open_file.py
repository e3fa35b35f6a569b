"""Which parts of rasters may hold valid pixels: known without reading them, and never against what a read finds."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterioWindow

from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.derived.converted import as_colours, filled
from landscribe.geo.rasters.derived.mosaic import mosaic
from landscribe.geo.rasters.derived.resampling import grid_of_pixel_size, parse_crs, resample_to
from landscribe.geo.rasters.derived.stack import stack_bands
from landscribe.geo.rasters.open_file import Files
from landscribe.geo.rasters.raster import Raster

SIDE, BLOCK = 256, 32
PLACE = {"crs": "EPSG:32617", "transform": Affine(1, 0, 500_000, 0, -1, 4_000_000)}
DATA = Window(70, 100, 20, 30)
"""Where a sparse file holds pixels; the blocks around them are stored too."""
WINDOWS = [Window(row, col, 32, 32) for row, col in product(range(0, SIDE, 24), repeat=2)]


def sparse(path: Path, *, data: Window = DATA, bands: int = 2, col: int = 0, side: int = SIDE, **options: Any) -> Path:
    """A square GeoTIFF with blocks of 32 pixels; those without data are missing."""
    layout = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "SPARSE_OK": "TRUE"} | options
    place = PLACE | {"transform": PLACE["transform"] @ Affine.translation(col, 0)}
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=bands, dtype="uint8", **place, **layout
    ) as target:
        pixels = np.random.default_rng(0).integers(1, 200, (bands, *data.shape)).astype(np.uint8)
        target.write(pixels, window=RasterioWindow(data.col, data.row, data.width, data.height))
    return path


def vrt(path: Path, *sources: Path, root: str = "") -> Path:
    """A virtual raster of 512 x 512 pixels, nodata 0, with sources on its diagonal."""
    placed = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="1">{source.name}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="{SIDE}" ySize="{SIDE}"/>'
        f'<DstRect xOff="{at}" yOff="{at}" xSize="{SIDE}" ySize="{SIDE}"/></SimpleSource>'
        for at, source in zip((0, SIDE), sources, strict=False)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="512" rasterYSize="512"{root}><GeoTransform>0, 1, 0, 0, 0, -1</GeoTransform>'
        f'<VRTRasterBand dataType="Byte" band="1"><NoDataValue>0</NoDataValue>{placed}</VRTRasterBand></VRTDataset>'
    )
    return path


def with_alpha(path: Path, **options: Any) -> Path:
    sparse(path, bands=4, photometric="rgb", alpha="yes", **options)
    with rasterio.open(path) as source:
        assert source.colorinterp[3] == ColorInterp.alpha
    return path


def with_mask(path: Path, *, internal: bool) -> Path:
    sparse(path)
    valid = np.zeros((SIDE, SIDE), bool)
    valid[DATA.slices] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as target:
        target.write_mask(valid)
    return path


def with_palette(path: Path) -> Path:
    sparse(path, bands=1, photometric="palette", nodata=0)
    with rasterio.open(path, "r+") as target:
        target.write_colormap(1, {value: (value, value, value, 255) for value in range(256)})
    return path


def other_grid(raster: Raster, side: float) -> Raster:
    return resample_to(raster, grid_of_pixel_size(raster.grid, side))


RASTERS: dict[str, Callable[[Path], Raster]] = {
    "nodata, any band": lambda to: Raster.open([sparse(to / "a.tif", nodata=0)], nodata_rule="any"),
    "nodata, all bands": lambda to: Raster.open([sparse(to / "a.tif", nodata=0)], nodata_rule="all"),
    "bands apart": lambda to: Raster.open([sparse(to / "a.tif", nodata=0, interleave="band")]),
    "nodata given": lambda to: Raster.open([sparse(to / "a.tif")], nodata=0),
    "one band of two": lambda to: Raster.open([sparse(to / "a.tif", nodata=0)]).select([2]),
    "alpha": lambda to: Raster.open([with_alpha(to / "a.tif")]),
    "alpha, bands apart": lambda to: Raster.open([with_alpha(to / "a.tif", interleave="band")]),
    "internal mask": lambda to: Raster.open([with_mask(to / "a.tif", internal=True)]),
    "mask file": lambda to: Raster.open([with_mask(to / "a.tif", internal=False)]),
    "two files of a band": lambda to: Raster.open(
        [sparse(to / "a.tif", nodata=0, bands=1), sparse(to / "b.tif", nodata=0, bands=1, data=Window(200, 10, 9, 9))]
    ),
    "two files of two bands": lambda to: Raster.open(
        [sparse(to / "a.tif", nodata=0), sparse(to / "b.tif", nodata=0, data=Window(80, 120, 40, 40))]
    ),
    "palette": lambda to: as_colours(Raster.open([with_palette(to / "a.tif")])),
    "mosaic": lambda to: mosaic(
        [Raster.open([sparse(to / "a.tif", nodata=0)]), Raster.open([sparse(to / "b.tif", nodata=0, col=600)])]
    ),
    "coarser": lambda to: other_grid(Raster.open([sparse(to / "a.tif", nodata=0)]), 1.7),
    "finer": lambda to: other_grid(Raster.open([sparse(to / "a.tif", nodata=0)]), 0.7),
    "stack": lambda to: stack_bands(
        [Raster.open([sparse(to / "a.tif", nodata=0)]), other_grid(Raster.open([sparse(to / "b.tif", nodata=0)]), 2)],
        resample=True,
    ),
    "stack of files of a band": lambda to: stack_bands(
        [
            Raster.open([sparse(to / "a.tif", nodata=0, bands=1)]),
            other_grid(Raster.open([sparse(to / "b.tif", nodata=0, bands=1, data=Window(200, 10, 9, 9))]), 2),
        ],
        resample=True,
    ),
    "VRT": lambda to: Raster.open([vrt(to / "a.vrt", sparse(to / "a.tif", nodata=0))]),
    "VRT of two sources": lambda to: Raster.open(
        [vrt(to / "a.vrt", sparse(to / "a.tif", nodata=0), sparse(to / "b.tif", nodata=0, bands=1))]
    ),
}


def windows_of(grid: Grid) -> list[Window]:
    return [Window(row, col, 32, 32) for row in range(0, grid.height, 40) for col in range(0, grid.width, 40)]


@pytest.mark.parametrize("name", RASTERS)
def test_no_window_with_a_valid_pixel_is_called_empty_and_most_empty_ones_are(tmp_path, name):
    raster = RASTERS[name](tmp_path)
    windows = windows_of(raster.grid)
    valid = [bool(raster.read(window)[1].any()) for window in windows]
    may_hold = [raster.may_hold_valid(window) for window in windows]
    assert any(valid)
    assert all(known for known, own in zip(may_hold, valid, strict=True) if own)
    assert np.mean(may_hold) < 0.6
    assert raster.may_hold_valid(raster.grid.window)


def test_another_crs_keeps_the_law(tmp_path):
    raster = Raster.open([sparse(tmp_path / "a.tif", nodata=0, side=1024)])
    raster = resample_to(raster, grid_of_pixel_size(raster.grid, 1, parse_crs("EPSG:32618")))
    windows = windows_of(raster.grid)[::5]
    valid = np.array([raster.read(window)[1].any() for window in windows])
    may_hold = np.array([raster.may_hold_valid(window) for window in windows])
    assert valid.any()
    assert may_hold[valid].all()
    assert not may_hold.all()


def test_the_zeros_of_a_sparse_file_without_nodata_are_valid(tmp_path):
    raster = Raster.open([sparse(tmp_path / "a.tif")])
    assert all(raster.may_hold_valid(window) for window in WINDOWS)
    assert all(raster.read(window)[1].all() for window in WINDOWS if (window & raster.grid.window) == window)


def test_a_mask_that_leaves_missing_blocks_valid_counts(tmp_path):
    path = sparse(tmp_path / "a.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as target:
        target.write_mask(np.eye(SIDE, dtype=bool))
    raster = Raster.open([path])
    assert raster.may_hold_valid(Window(200, 190, 32, 32))
    assert not raster.may_hold_valid(Window(200, 0, 32, 32))


def test_a_mask_of_one_band_that_leaves_missing_blocks_valid_counts(tmp_path):
    path = sparse(tmp_path / "a.tif", bands=2)
    masks = np.stack([np.eye(SIDE), np.zeros((SIDE, SIDE))]).astype(np.uint8)
    with rasterio.open(
        f"{path}.msk", "w", driver="GTiff", count=2, height=SIDE, width=SIDE, dtype="uint8", **PLACE
    ) as beside:
        beside.write(masks * 255)
        beside.update_tags(INTERNAL_MASK_FLAGS_1="0", INTERNAL_MASK_FLAGS_2="0")
    raster = Raster.open([path]).select([1])
    assert raster.read(Window(200, 190, 32, 32))[1].any()
    assert raster.may_hold_valid(Window(200, 190, 32, 32))
    assert not raster.may_hold_valid(Window(200, 0, 32, 32))


@pytest.mark.parametrize(
    "layout",
    [
        {"tiled": False, "blockysize": 1},
        pytest.param({"tiled": False, "blockysize": 9000, "compress": "deflate"}, id="one strip, split by GDAL"),
    ],
)
def test_strips_are_read(tmp_path, layout):
    path = tmp_path / "strips.tif"
    pixels = np.full((1, 9000, 9000), 7, np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=9000, height=9000, count=1, dtype="uint8", nodata=0, **PLACE, **layout
    ) as target:
        pixels[:, :100] = 0
        target.write(pixels)
    assert Raster.open([path]).may_hold_valid(Window(0, 0, 200, 200))


def test_a_virtual_raster_that_computes_its_pixels_is_read(tmp_path):
    path = vrt(tmp_path / "a.vrt", sparse(tmp_path / "a.tif", nodata=0))
    text = path.read_text()
    path.write_text(text.replace('band="1">', 'band="1" subClass="VRTDerivedRasterBand">', 1).replace(
        "<NoDataValue>", "<PixelFunctionType>sum</PixelFunctionType><NoDataValue>", 1
    ))  # fmt: skip
    assert Raster.open([path]).may_hold_valid(Window(300, 0, 32, 32))


def test_a_raster_whose_empty_pixels_are_filled_is_valid_everywhere(tmp_path):
    raster = filled(Raster.open([sparse(tmp_path / "a.tif", nodata=0)]), 3)
    assert all(raster.may_hold_valid(window) for window in WINDOWS)


def test_outside_the_grid_nothing_is_valid(tmp_path):
    raster = Raster.open([sparse(tmp_path / "a.tif")])
    assert not raster.may_hold_valid(Window(-40, 0, 40, 40))
    assert raster.may_hold_valid(Window(-40, 0, 41, 40))


def test_at_most_one_pixel_of_an_empty_window_is_read(tmp_path, monkeypatch):
    raster, pixels = Raster.open([sparse(tmp_path / "a.tif", nodata=0)]), []
    real = Files._read

    def counted(self: Files, window: Window, *rest: Any) -> Any:
        pixels.append(window.height * window.width)
        return real(self, window, *rest)

    monkeypatch.setattr(Files, "_read", counted)
    assert not raster.may_hold_valid(Window(128, 128, 128, 128))
    assert pixels == [1]


def test_a_nan_that_marks_missing_blocks_is_nodata(tmp_path):
    path = tmp_path / "a.tif"
    layout = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "SPARSE_OK": "TRUE", "nodata": np.nan}
    with rasterio.open(
        path, "w", driver="GTiff", width=SIDE, height=SIDE, count=1, dtype="float32", **PLACE, **layout
    ) as target:
        target.write(np.ones((1, 8, 8), np.float32), window=RasterioWindow(0, 0, 8, 8))
    raster = Raster.open([path])
    assert raster.may_hold_valid(Window(0, 0, 64, 64))
    assert not raster.may_hold_valid(Window(64, 64, 64, 64))
