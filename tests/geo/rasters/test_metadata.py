"""Metadata: files that hold several rasters, and files that ground control points place."""

import numpy as np
import pytest
from rasterio.control import GroundControlPoint
from rasterio.shutil import copy

from landscribe.errors import RasterError
from landscribe.geo.inputs import open_rasters
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.spec import ImagerySpec
from worlds import noise, write_raster

ARRAY = noise(3, 20, 30, "uint16")


@pytest.fixture
def bands(tmp_path):
    """A file of three bands."""
    return write_raster(tmp_path / "bands.tif", ARRAY)


def read(raster: Raster) -> np.ndarray:
    return raster.read(raster.grid.window)[0]


def test_a_container_of_several_rasters_lists_them_and_the_names_work(tmp_path, bands):
    path = tmp_path / "cube.nc"
    copy(bands, path, driver="netCDF", FORMAT="NC4")
    with pytest.raises(RasterError, match=r"cube.nc holds 3 rasters: (\S*:Band1), .* Name the one to read") as refusal:
        Raster.open([path])
    first, second = str(refusal.value).split("rasters: ")[1].split(", ")[:2]
    np.testing.assert_array_equal(read(Raster.open([second])), ARRAY[[1]])
    (stacked,) = open_rasters([[second, first]], ImagerySpec())
    np.testing.assert_array_equal(read(stacked), ARRAY[[1, 0]])


def test_further_pages_of_a_tiff_are_said_and_can_be_named(tmp_path, caplog):
    for page in range(3):
        single = write_raster(tmp_path / f"page{page}.tif", ARRAY[page])
        copy(single, tmp_path / "pages.tif", driver="GTiff", **({"APPEND_SUBDATASET": "YES"} if page else {}))
    np.testing.assert_array_equal(read(Raster.open([tmp_path / "pages.tif"])), ARRAY[[0]])
    assert "pages.tif holds 3 rasters; only the first is read. Others are named GTIFF_DIR:2:" in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(read(Raster.open([f"GTIFF_DIR:3:{tmp_path / 'pages.tif'}"])), ARRAY[[2]])
    assert not caplog.text


def test_a_zarr_store_is_one_raster_and_no_folder_of_images(tmp_path, bands):
    copy(bands, tmp_path / "cube.zarr", driver="Zarr")
    (raster,) = open_rasters([str(tmp_path / "cube.zarr")], ImagerySpec())
    np.testing.assert_array_equal(read(raster), ARRAY)


def test_ground_control_points_alone_are_not_used_and_the_remedy_is_said(tmp_path, caplog):
    corners = [(0, 0, 9.0, 47.0), (0, 30, 9.1, 47.0), (20, 0, 9.0, 46.9), (20, 30, 9.1, 46.9)]
    points = [GroundControlPoint(row=row, col=col, x=x, y=y) for row, col, x, y in corners]
    path = write_raster(tmp_path / "scan.tif", ARRAY, crs="EPSG:4326", transform=None, gcps=points)
    assert Raster.open([path]).grid.crs is None
    assert "scan.tif is placed by 4 ground control points only" in caplog.text
    assert "gdalwarp" in caplog.text
