"""Metadata: files that hold several rasters, and files that ground control points place."""

import math
import re
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.shutil import copy

from landscribe.errors import RasterError
from landscribe.geo.inputs import open_rasters
from landscribe.geo.rasters.metadata import stem
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


def test_variables_of_a_container_are_bands_of_their_own_names(tmp_path, bands):
    copy(bands, tmp_path / "cube.nc", driver="netCDF", FORMAT="NC4")
    variables = [f"NETCDF:{tmp_path / 'cube.nc'}:Band{number}" for number in (2, 3)]
    assert Raster.open(variables).bands == ("Band2", "Band3")
    assert Raster.open(variables[::-1]).bands == ("Band3", "Band2")
    assert [raster.name for raster in open_rasters(variables, ImagerySpec())] == ["cube_Band2", "cube_Band3"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("netcdf:cube.nc:Band1", "cube_Band1"),
        ("NETCDF:/v1.2/a b/cube.nc:Band1", "cube_Band1"),
        ('NETCDF:"C:\\data\\cube.nc":/forecast/rain', "cube_forecast_rain"),
        ("NETCDF:cube.nc", "cube"),
        ('NETCDF:"/vsicurl/https://a.org:80/cube.nc?key=1:2":rain', "cube_rain"),
        ('HDF4_EOS:EOS_GRID:"MOD13.hdf":grid:NDVI', "MOD13_grid_NDVI"),
        ('ZARR:"cube.zarr":/rain', "cube_rain"),
        ("SENTINEL2_L2A:/S2.SAFE/MTD_MSIL2A.xml:10m:EPSG_32632", "MTD_MSIL2A_10m_EPSG_32632"),
        ("GTIFF_DIR:2:/maps/pages.tif", "pages_2"),
        ("/maps/a.b.tif", "a.b"),
    ],
)
def test_a_raster_in_a_container_has_a_name_that_files_may_have(name, expected, monkeypatch):
    monkeypatch.setattr("landscribe.geo.rasters.metadata.Path", PureWindowsPath)
    assert stem(name) == expected


def test_further_pages_of_a_tiff_are_said_and_can_be_named(tmp_path, caplog):
    for page in range(3):
        single = write_raster(tmp_path / f"page{page}.tif", ARRAY[page])
        copy(single, tmp_path / "pages.tif", driver="GTiff", **({"APPEND_SUBDATASET": "YES"} if page else {}))
    np.testing.assert_array_equal(read(Raster.open([tmp_path / "pages.tif"])), ARRAY[[0]])
    assert "pages.tif holds 3 rasters; only the first is read. Others are named GTIFF_DIR:2:" in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(read(Raster.open([f"GTIFF_DIR:3:{tmp_path / 'pages.tif'}"])), ARRAY[[2]])
    assert not caplog.text


@pytest.mark.parametrize(
    "tags", [{"scale": 0.0}, {"scale": math.nan}, {"scale": math.inf}, {"offset": math.nan}], ids=str
)
def test_scales_that_give_no_physical_numbers_are_refused_with_the_band(tmp_path, bands, tags):
    with rasterio.open(bands, "r+") as target:
        target.scales = (1.0, tags.get("scale", 1.0), 1.0)
        target.offsets = (0.0, tags.get("offset", 0.0), 0.0)
    with pytest.raises(RasterError, match=r"band 2 of \S*bands.tif has the scale .*gdal_edit.py -scale"):
        Raster.open([bands])


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


def test_a_crs_in_a_file_beside_an_image_is_not_read_and_the_remedy_works(tmp_path, caplog):
    """World files and .prj, as surveyors get them with JPEGs; a Shapefile of the same name has a .prj of its own."""
    for name in ("scan", "parcels"):
        plain = write_raster(tmp_path / "plain.tif", noise(1, 20, 30), crs=None, transform=None)
        copy(plain, tmp_path / f"{name}.png", driver="PNG")
        (tmp_path / f"{name}.pgw").write_text("0.5\n0\n0\n-0.5\n500000\n5000000\n")
        (tmp_path / f"{name}.prj").write_text(CRS.from_epsg(32632).to_wkt(version="WKT1_ESRI"))
    (tmp_path / "parcels.shp").touch()
    rasters = [Raster.open([tmp_path / f"{name}.png"]) for name in ("scan", "parcels")]
    assert [raster.grid.crs for raster in rasters] == [None, None]
    (command,) = re.findall(r"assign it \((rio .*)\)$", caplog.text, re.MULTILINE)
    rio = str(Path(sys.executable).with_name("rio"))
    subprocess.run(command.replace("rio", rio, 1), shell=True, check=True)
    assert Raster.open([tmp_path / "scan.png"]).grid.crs.to_epsg() == 32632


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rational_polynomials_alone_are_not_used_and_the_remedy_is_said(tmp_path, caplog):
    ones = " ".join(["1"] + ["0"] * 19)
    numbers = {f"{axis}_{what}": "1" for axis in ("LINE", "SAMP", "LAT", "LONG", "HEIGHT") for what in ("OFF", "SCALE")}
    polynomials = {f"{axis}_{part}_COEFF": ones for axis in ("LINE", "SAMP") for part in ("NUM", "DEN")}
    path = write_raster(tmp_path / "satellite.tif", ARRAY, crs=None, transform=None)
    with rasterio.open(path, "r+") as target:
        target.update_tags(ns="RPC", **numbers, **polynomials)
    assert Raster.open([path]).grid.crs is None
    assert "satellite.tif is placed by rational polynomial coefficients (RPCs) only" in caplog.text
    assert "gdalwarp -rpc " in caplog.text
