"""Tiny worlds with known truth: rasters and polygons of a few pixels, written the plain way.

Everything lies in UTM zone 32 N with pixels of one metre unless an argument says otherwise, and its upper left
corner at `CORNER`, so that row r and col c of a raster have their upper left corner at x = 500 000 + c,
y = 5 000 000 - r.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from landscribe.geo.grid import Grid
from landscribe.geo.tiling import ChipLattice

UTM = CRS.from_epsg(32632)
CORNER = (500_000.0, 5_000_000.0)
METRE = Affine(1, 0, CORNER[0], 0, -1, CORNER[1])


def grid(height: int, width: int, *, crs: Any = UTM, transform: Affine = METRE) -> Grid:
    """A Grid of one-metre pixels."""
    return Grid(CRS.from_user_input(crs), transform, height, width)


def write_raster(
    path: Path,
    array: np.ndarray,
    *,
    crs: Any = UTM,
    transform: Affine | None = METRE,
    nodata: float | None = None,
    descriptions: Sequence[str] | None = None,
    valid: np.ndarray | None = None,
    alpha: bool = False,
    **options: Any,
) -> Path:
    """Write (rows, cols) or (bands, rows, cols).

    Args:
        path: where; a .png or .jpg suffix picks that driver.
        array: pixels; the last band is alpha only if `alpha` says so (GDAL alone would take a fourth uint8
            band for alpha).
        crs: None for none.
        transform: None for none.
        nodata: what the file declares.
        descriptions: band names.
        valid: (rows, cols) bool, written as an internal mask band.
        alpha: whether the last band is alpha.
        options: creation options.
    """
    bands = array if array.ndim == 3 else array[None]
    count, height, width = bands.shape
    driver = {".png": "PNG", ".jpg": "JPEG"}.get(path.suffix, "GTiff")
    layout = {"driver": driver, "count": count, "height": height, "width": width, "dtype": bands.dtype}
    place = {"crs": crs, "transform": transform, "nodata": nodata}
    if driver == "GTiff" and not alpha:
        layout |= {"photometric": "minisblack", "alpha": "no"} if count != 3 else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", **layout, **place, **options) as target,
        ):
            target.write(bands)
            if alpha:
                target.colorinterp = [*target.colorinterp[:-1], ColorInterp.alpha]
            if descriptions is not None:
                target.descriptions = tuple(descriptions)
            if valid is not None:
                target.write_mask(valid)
    return path


def pixel_box(row: float, col: float, height: float, width: float, *, transform: Affine = METRE) -> shapely.Polygon:
    """The polygon that covers the pixels of a rectangle."""
    return shapely.Polygon(
        [
            transform @ (c, r)
            for r, c in ((row, col), (row, col + width), (row + height, col + width), (row + height, col))
        ]
    )


def write_polygons(
    path: Path,
    geometries: Sequence[Any],
    *,
    crs: Any = UTM,
    **columns: Sequence[Any],
) -> Path:
    """Write geometries with columns, in the format of the path's suffix."""
    table = gpd.GeoDataFrame(dict(columns), geometry=list(geometries), crs=crs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
        table.to_file(path)
    return path


def counting(bands: int, height: int, width: int, dtype: str = "uint8") -> np.ndarray:
    """(bands, rows, cols) of pixels from 1 upwards, so that each pixel differs from its neighbours."""
    numbers = np.arange(bands * height * width).reshape(bands, height, width)
    return (1 + numbers % 250).astype(dtype)


def noise(bands: int, height: int, width: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """(bands, rows, cols) of random pixels from 1 to 200."""
    return np.random.default_rng(seed).integers(1, 201, (bands, height, width)).astype(dtype)


def chip_windows(height, width, *, size, stride, edge):
    """All windows of a lattice of chips, in row order."""
    lattice = ChipLattice(height, width, size, stride, edge)
    return [lattice.window(row, col) for row in range(lattice.rows) for col in range(lattice.cols)]
