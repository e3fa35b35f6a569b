"""Maps of rasters that are mostly empty: the same pixels as of dense copies, and nothing is read where nothing is."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.windows import Window as RasterioWindow
from test_mapping import model_of, read

from landscribe.errors import RasterError
from landscribe.geo.grid import Window
from landscribe.geo.rasters.open_file import Files
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.unit_store import UnitStore
from landscribe.prediction import run
from landscribe.prediction.spec import PredictSpec
from networks import Identity, predict
from worlds import pixel_box, write_polygons

SMALL = {"tile": 64, "margin": 4, "unit": 64, "engine": "torch"}
SIDE = 512
DATA = {"row_off": 100, "col_off": 300, "height": 40, "width": 50}


def write(path: Path, *, side: int = SIDE, dense: bool = False, bands: int = 1, data: bool = True, **options) -> Raster:
    """A tiled raster with pixels 0 to 3 in one window; the other blocks are missing, or written in a dense copy."""
    place = {"crs": "EPSG:32617", "transform": Affine(1, 0, 500_000, 0, -1, 4_000_000)}
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64, "SPARSE_OK": not dense} | options
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=bands, dtype="uint8", **place, **layout
    ) as target:
        if dense:
            target.write(np.zeros((bands, side, side), np.uint8))
        if data:
            pixels = np.random.default_rng(0).integers(0, 4, (bands, DATA["height"], DATA["width"])).astype(np.uint8)
            target.write(pixels, window=RasterioWindow(**DATA))
    return Raster.open([path])


@pytest.fixture
def reads(monkeypatch) -> list[Window]:
    """The windows that are read."""
    windows, real = [], Files._read

    def counted(self, window, *rest):
        windows.append(window)
        return real(self, window, *rest)

    monkeypatch.setattr(Files, "_read", counted)
    return windows


@pytest.mark.parametrize("nodata", [0, None])
def test_a_sparse_raster_and_its_dense_copy_have_the_same_map(tmp_path, nodata):
    maps = [
        predict(
            model_of(Identity(), 4), write(tmp_path / f"{dense}.tif", dense=dense, nodata=nodata),
            tmp_path / f"map_{dense}.tif", spec=PredictSpec(**SMALL),
        )
        for dense in (False, True)
    ]  # fmt: skip
    sparse, dense = map(read, maps)
    assert (sparse == dense).all()
    assert (sparse != 255).all() == (nodata is None)


def test_only_the_units_around_data_are_read(tmp_path, reads):
    raster = write(tmp_path / "a.tif", nodata=0)
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL))
    whole = [window for window in reads if window.shape != (1, 1)]
    block = Window(64, 256, 128, 128)  # the blocks that hold data
    assert 0 < len(whole) < 16
    assert all(not (window & block).is_empty for window in whole)


def test_only_units_in_the_area_of_interest_are_read(tmp_path, reads):
    raster = write(tmp_path / "a.tif")
    box = pixel_box(10, 10, 40, 40, transform=raster.grid.transform)
    area = write_polygons(tmp_path / "area.gpkg", [box], crs=raster.grid.crs)
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL, area=str(area)))
    assert len([window for window in reads if window.shape != (1, 1)]) == 1


def test_a_raster_of_a_million_pixels_squared_without_a_valid_one_ends_in_a_line(tmp_path, monkeypatch, reads):
    raster = write(
        tmp_path / "a.tif", side=1_000_000, data=False, nodata=0, blockxsize=16384, blockysize=16384, compress="deflate"
    )
    monkeypatch.setattr(UnitStore, "write", None)  # no unit is written
    with pytest.raises(RasterError, match=r"a\.tif has no valid pixel: all are nodata \(0\)"):
        predict(
            model_of(Identity(), 4),
            raster,
            tmp_path / "map.tif",
            spec=PredictSpec(tile=2048, margin=0, unit=2**16, engine="torch"),
        )
    assert {window.shape for window in reads} == {(1, 1)}
    assert not list(tmp_path.glob("map*"))


def test_shards_of_a_sparse_raster_share_its_units(tmp_path):
    raster, model = write(tmp_path / "a.tif", nodata=0), model_of(Identity(), 4)
    whole = predict(model, raster, tmp_path / "whole.tif", spec=PredictSpec(**SMALL)).read_bytes()
    for shard in ("2/2", "1/2"):
        predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL, shard=shard))
    assert predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL)).read_bytes() == whole


def test_the_network_sees_the_same_around_missing_blocks_when_tiles_are_blended(tmp_path):
    spec = PredictSpec(tile=64, margin=16, unit=64, blend="gaussian", engine="torch")
    with torch.inference_mode():
        sparse, dense = (
            read(predict(
                model_of(Identity(), 4), write(tmp_path / f"{dense}.tif", dense=dense, nodata=0),
                tmp_path / f"map_{dense}.tif", spec=spec,
            ))
            for dense in (False, True)
        )  # fmt: skip
    assert (sparse == dense).all()


@pytest.mark.parametrize("is_foreseen", [True, False])
def test_a_map_that_takes_hours_to_assemble_for_little_data_is_warned_about(tmp_path, monkeypatch, caplog, is_foreseen):
    monkeypatch.setattr(run, "_HEADED_PER_HOUR", SIDE**2 / 2)
    raster = write(tmp_path / "a.tif", nodata=0 if is_foreseen else None)
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL))
    assert ("assembling a map of 512 x 512 pixels takes about 2.0 h" in caplog.text) == is_foreseen
