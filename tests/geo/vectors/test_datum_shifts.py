"""Datum shifts: a warning where PROJ lacks the grid of a better one."""

import logging
from pathlib import Path

import numpy as np
import pyproj
import pytest
from affine import Affine
from rasterio.crs import CRS
from shapely import Point

from landscribe.geo.features import Features
from landscribe.geo.grid import Grid
from landscribe.geo.rasters import metadata
from landscribe.geo.rasters.derived.resampling import resample_to
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.datum_shifts import warn_of_datum_shift
from worlds import noise, write_raster

NEW_YORK, ENGLAND, GERMANY, SWITZERLAND, INDIA = (-74.0, 40.7), (-1.0, 52.0), (9.0, 50.0), (8.0, 47.0), (77.0, 28.0)

without_grids = pytest.mark.skipif(
    pyproj.network.is_network_enabled() or bool(list(Path(pyproj.datadir.get_data_dir()).glob("us_noaa_*.tif"))),
    reason="PROJ has its datum grids",
)


@pytest.fixture(autouse=True)
def _no_line_was_logged():
    metadata.log_once.cache_clear()


def grid_at(crs: str, lonlat: tuple[float, float], metres: float) -> Grid:
    """A grid of 10 x 10 pixels at a point."""
    crs = CRS.from_user_input(crs)
    x, y = pyproj.Transformer.from_crs("EPSG:4326", crs.to_wkt(), always_xy=True).transform(*lonlat)
    side = metres / crs.linear_units_factor[1]
    return Grid(crs, Affine(side, 0, x, 0, -side, y), 10, 10)


@without_grids
@pytest.mark.parametrize(
    ("source", "crs", "lonlat", "words"),
    [
        ("EPSG:4267", "EPSG:2263", NEW_YORK, "with an accuracy of 14 m. PROJ lacks the datum grid us_noaa"),
        ("EPSG:4326", "EPSG:27700", ENGLAND, "of 2 m. PROJ lacks the datum grid uk_os_OSTN15"),
        ("EPSG:21781", "EPSG:2056", SWITZERLAND, "of 1.6 m. PROJ lacks the datum grid ch_swisstopo"),
        ("EPSG:4326", "EPSG:24378", INDIA, "of 22 m. Check how well both fit together"),
    ],
)
def test_a_shift_that_a_missing_datum_grid_would_make_exact_is_warned_of(caplog, source, crs, lonlat, words):
    warn_of_datum_shift(CRS.from_user_input(source), grid_at(crs, lonlat, 0.5), "labels.gpkg")
    assert f"labels.gpkg is reprojected from {source} to {crs} with an accuracy" in caplog.text
    assert words in caplog.text


@pytest.mark.parametrize(
    ("source", "crs", "lonlat"),
    [
        ("EPSG:4326", "EPSG:32632", GERMANY),
        ("EPSG:4326", "EPSG:25832", GERMANY),
        ("EPSG:4326", "EPSG:3857", GERMANY),
        ("EPSG:4326", "EPSG:2263", NEW_YORK),
        ("EPSG:4269", "EPSG:32618", NEW_YORK),
        ("EPSG:4269", "EPSG:2263", NEW_YORK),
        ("EPSG:2263", "EPSG:2263", NEW_YORK),
        ("EPSG:4326", "EPSG:4527", (117.0, 40.0)),
        ("EPSG:4269", "EPSG:6347", NEW_YORK),
        ("EPSG:4326", "+proj=sinu +R=6371007.181 +units=m", GERMANY),
        ("EPSG:4326", "+proj=lcc +lat_1=30 +lat_2=60 +lat_0=45 +lon_0=9 +R=6370000", GERMANY),
        ("EPSG:4326", "+proj=utm +zone=32 +ellps=GRS80", GERMANY),
        (
            "EPSG:4326",
            "+proj=tmerc +lon_0=9 +k=1 +x_0=3500000 +ellps=bessel +towgs84=598,73,418,0.2,0,-2.4,6.7",
            GERMANY,
        ),
    ],
)
def test_datums_that_are_not_to_be_moved_give_no_warning(caplog, source, crs, lonlat):
    """PROJ states an accuracy of 1 to 4 m, or none, and moves no longitude and latitude; or the CRS itself says how."""
    warn_of_datum_shift(CRS.from_user_input(source), grid_at(crs, lonlat, 0.05), "labels.gpkg")
    assert not caplog.records


def test_a_datum_without_a_name_on_another_ellipsoid_is_warned_of(caplog):
    warn_of_datum_shift(CRS.from_string("+proj=longlat +ellps=clrk66"), grid_at("EPSG:32618", NEW_YORK, 30), "a.gpkg")
    assert "although PROJ knows no transformation between their datums. Check how well both fit" in caplog.text


@without_grids
def test_a_file_on_many_tiles_is_warned_of_once(caplog):
    for step in range(20):
        tile = grid_at("EPSG:3857", (-3 + step / 10, 52.0 + step / 30), 0.5)
        warn_of_datum_shift(CRS.from_epsg(27700), tile, "labels.gpkg")
    assert len(caplog.records) == 1


def test_pixels_larger_than_the_accuracy_give_no_warning(caplog):
    warn_of_datum_shift(CRS.from_epsg(4267), grid_at("EPSG:2263", NEW_YORK, 30), "labels.gpkg")
    assert not caplog.records


@without_grids
def test_labels_and_rasters_in_another_datum_are_warned_of(tmp_path, caplog):
    grid = grid_at("EPSG:2263", NEW_YORK, 0.5)
    labels = Features("labels.gpkg", np.array([Point(NEW_YORK)], object), ("a",), CRS.from_epsg(4267))
    labels.to_crs_of(grid, "image.tif")
    path = write_raster(
        tmp_path / "old.tif", noise(1, 8, 8), crs=CRS.from_epsg(4267), transform=Affine(1e-5, 0, -74, 0, -1e-5, 40.7)
    )
    resample_to(Raster.open([path]), grid)
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text.split(" is reprojected")[0] for text in warned] == ["labels.gpkg", str(path)]
