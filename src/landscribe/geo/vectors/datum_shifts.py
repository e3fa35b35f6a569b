"""Datum shifts: how exactly PROJ moves coordinates between two CRSs, which depends on the datum grids that it has.

pip's pyproj and rasterio come without these files. Where one is missing, PROJ uses a less exact formula, silently: one
of 14 m in place of 0.15 m from NAD27 to NAD83.
"""

import math
import warnings
from functools import lru_cache
from typing import Any

import pyproj
from pyproj.aoi import AreaOfInterest
from pyproj.exceptions import ProjError
from pyproj.transformer import TransformerGroup
from rasterio.crs import CRS

from landscribe.errors import GridError
from landscribe.geo.grid import LONLAT, Grid, crs_label, definition, transformer
from landscribe.geo.rasters.metadata import log_once

_INEXACT = 5.0
"""Metres from which an accuracy gives a warning, although PROJ lacks no better datum grid. Smaller ones are often
stated for datums between which nothing moves: 1 m from ETRS89 to WGS 84."""


def warn_of_datum_shift(source: CRS | None, grid: Grid, name: str) -> None:
    """Warn if coordinates are moved to the CRS of a grid less exactly than its pixels, and PROJ could do better.

    Args:
        source: CRS of the coordinates.
        grid: of the raster onto which they are moved.
        name: of the file of the coordinates.
    """
    if source is None or grid.crs is None or source == grid.crs:
        return
    try:
        pixel = grid.pixel_size
        lon, lat = transformer(grid.crs, LONLAT).transform(*(grid.transform @ (grid.width / 2, grid.height / 2)))
    except (GridError, ProjError):  # a CRS that is not on Earth, which the caller refuses
        return
    if pixel is None or not (math.isfinite(lon) and math.isfinite(lat)):
        return
    # Datum grids are those of countries: a degree chooses the same one for many tiles.
    accuracy, datum_grid = _shift(source, grid.crs, round(lon), round(lat), pixel)
    if accuracy <= pixel or not (datum_grid or accuracy >= _INEXACT):
        return
    how = f"with an accuracy of {accuracy:.3g} m" if math.isfinite(accuracy) else (
        "although PROJ knows no transformation between their datums"
    )  # fmt: skip
    remedy = (
        f"PROJ lacks the datum grid {datum_grid}: install it (projsync --file {datum_grid}), or set PROJ_NETWORK=ON"
        if datum_grid
        else "Check how well both fit together, or reproject the file with a transformation of its region"
    )
    log_once(f"{name} is reprojected from {crs_label(source)} to {crs_label(grid.crs)} {how}. {remedy}.")


@lru_cache(maxsize=1024)
def _shift(source: CRS, target: CRS, lon: float, lat: float, enough: float) -> tuple[float, str]:
    """The accuracy in metres with which PROJ moves a point, and the datum grid that it lacks for a better one.

    The accuracy is infinite if PROJ knows no transformation. It is 0 if nothing is to be moved: between CRSs of one
    datum, spheres, unnamed datums of one ellipsoid, and CRSs with parameters of their own (TOWGS84).
    """
    before, after = _datum(source), _datum(target)
    if before is None or after is None or before == after:
        return 0.0, ""
    try:
        moving = _moving(before, after)
        moved = moving.transform(lon, lat, errcheck=True)
        accuracy = _used(moving).accuracy
    except ProjError:
        return 0.0, ""
    if accuracy < 0:
        return (0.0 if _have_one_ellipsoid(before, after) else math.inf), ""
    # Twice as exact is better. Of a datum that is not moved, PROJ states 4 m (NAD83, WGS 84), and 2 m of a grid for it.
    limit = accuracy / 2 if not math.isclose(moved[0], lon, abs_tol=1e-9) else math.nextafter(accuracy / 2, 0)
    unavailable = _unavailable(before, after, lon, lat) if accuracy > enough else []
    return accuracy, next((grid for better, grid in unavailable if better <= limit), "")


def _datum(crs: CRS) -> pyproj.CRS | None:
    """The CRS of longitude and latitude below a CRS; None without one, or with parameters of its own to WGS 84."""
    known = definition(crs)
    return None if known.is_bound else known.geodetic_crs


@lru_cache(maxsize=64)
def _moving(before: pyproj.CRS, after: pyproj.CRS) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(before, after, always_xy=True)


def _have_one_ellipsoid(before: pyproj.CRS, after: pyproj.CRS) -> bool:
    """True if one is a sphere, whose coordinates are those of an ellipsoid, or if both have the same size."""
    geods = [crs.get_geod() or pyproj.Geod(ellps="WGS84") for crs in (before, after)]
    return any(geod.sphere for geod in geods) or abs(geods[0].a - geods[1].a) <= 1


def _unavailable(before: pyproj.CRS, after: pyproj.CRS, lon: float, lat: float) -> list[tuple[float, str]]:
    """Accuracies of transformations at a point, from the best on, and the datum grid that PROJ lacks for each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of each grid that is missing
        area: Any = AreaOfInterest(lon, lat, lon, lat)
        group = TransformerGroup(before, after, always_xy=True, area_of_interest=area)
    lacking = (
        (operation.accuracy, next((grid.short_name for grid in operation.grids if not grid.available), ""))
        for operation in group.unavailable_operations
    )
    return sorted((accuracy, grid) for accuracy, grid in lacking if grid and accuracy >= 0)


def _used(moving: pyproj.Transformer) -> pyproj.Transformer:
    """What PROJ chose for the last point, among several for different regions; itself if there is one."""
    try:
        return moving.get_last_used_operation()
    except ProjError:
        return moving
