"""Pixel area: how large pixels are on the ellipsoid, in any CRS."""

import math

import numpy as np
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.crs import CRS

from landscribe.geo.grid import Grid, definition, geodesy, is_local_crs

_NODES, _MOST_NODES = 9, 257
"""Points along each axis at which pixels are measured, and those of a wide grid; measures are interpolated between."""
_NODES_BY_ROW, _MOST_NODES_BY_ROW = 65, 2**14
"""The same of grids in longitude and latitude, along one axis."""
_CELL_M = 10_000.0
"""Metres between such points from which a grid is wide: over them, interpolation errs by about 2e-7."""
REACH_M = 50.0
"""Metres from the centre of a large pixel at which its sides are taken: a long chord is shorter than its arc."""
SAME = 1e-5
"""Relative difference up to which all pixels count as equally large: that of an equal-area CRS is about 1e-7."""

Floats = NDArray[np.float64]


def pixel_areas(grid: Grid) -> float | Floats:
    """Area of the pixels in m²: a number if all are equally large, else (rows, cols).

    In longitude and latitude, areas are exact. Elsewhere a pixel is a parallelogram on the ground: its area is the
    length of the cross product of its sides, which are taken at its centre, between points of the ellipsoid. So a CRS
    may shear, and a raster may hold a pole or cross the 180th meridian. In a local CRS, a pixel is as large as the file
    says.

    Returns:
        NaN without a CRS, and where the CRS has no longitude and latitude.
    """
    if grid.crs is None:
        return np.nan
    if is_local_crs(grid.crs):
        down, across = grid.pixel_sides or (np.nan, np.nan)
        return down * across
    return _areas_by_row(grid) if is_by_row(grid) else _areas_between_nodes(grid)


def _areas_between_nodes(grid: Grid) -> float | Floats:
    """As `pixel_areas`, of any grid on the Earth."""
    try:
        rows, cols = (
            np.linspace(0.5, length - 0.5, min(length, count))
            for length, count in zip(grid.shape, node_counts(grid), strict=True)
        )
        nodes = _areas_at(grid, rows[:, None], cols[None, :], reach=0.5)
        side = np.sqrt(np.median(_finite(nodes))) if _finite(nodes).size else np.nan
        if side > 2 * REACH_M:
            nodes = _areas_at(grid, rows[:, None], cols[None, :], reach=REACH_M / side)
    except ProjError:
        return np.nan
    if not _finite(nodes).size:
        return np.nan
    if np.ptp(_finite(nodes)) <= SAME * side**2:
        return float(_finite(nodes).mean())
    return _interpolated(_filled(nodes, cols), rows, cols, grid.shape)


def is_by_row(grid: Grid) -> bool:
    """True if all pixels of a row are equally large: those of a grid in longitude and latitude that is not rotated."""
    assert grid.crs is not None
    is_straight = grid.transform.b == grid.transform.d == 0
    return is_straight and definition(grid.crs).is_geographic


def _areas_by_row(grid: Grid) -> float | Floats:
    """As `pixel_areas`, of such a grid: the integral of the area element over the latitudes of each row."""
    assert grid.crs is not None
    _, radians, ellipsoid = geodesy(grid.crs)
    points, weights = np.polynomial.legendre.leggauss(5)
    rows = np.arange(grid.height)[:, None] + (points + 1) / 2
    latitudes = radians * (grid.transform.f + grid.transform.e * rows)
    # The product of both radii of curvature (Snyder 1987, equations 4-18 and 4-20) and the cosine.
    curved = ellipsoid.a**2 * (1 - ellipsoid.es) / (1 - ellipsoid.es * np.sin(latitudes) ** 2) ** 2
    element = curved * np.maximum(np.cos(latitudes), 0)
    areas: Floats = abs(radians**2 * grid.transform.a * grid.transform.e) * (element @ weights) / 2
    if np.ptp(areas) <= SAME * areas.mean():
        return float(areas.mean())
    return np.repeat(areas[:, None], grid.width, axis=1)


def node_counts(grid: Grid) -> tuple[int, int]:
    """Points along each axis at which the pixels of a grid are measured; ProjError if its CRS knows no positions."""
    middle = (np.array([length / 2]) for length in grid.shape)
    sides = np.linalg.norm(np.concatenate(sides_at(grid, *middle, reach=0.5)), axis=1)
    reach = sides * grid.shape
    least, most = (_NODES_BY_ROW, _MOST_NODES_BY_ROW) if is_by_row(grid) else (_NODES, _MOST_NODES)
    if not np.isfinite(reach).all():
        least = _NODES_BY_ROW  # the middle lies beside the Earth's disc, and areas change fast at its limb
    # An odd number, so that a point lies in the middle.
    rows, cols = (
        max(least, min(most, 2 * math.ceil(metres / _CELL_M / 2) + 1))
        for metres in np.nan_to_num(reach, posinf=0).tolist()
    )
    return rows, cols


def metres_per_unit(crs: CRS, xy: Floats, reach: Floats) -> Floats:
    """Matrices that turn small steps (dx, dy) of a CRS into metres on the ground.

    Law: the length of a turned step is its length on the ellipsoid; the determinant is the area of a square unit in m².

    Args:
        crs: projected, geographic, or local, where a unit is as long as the CRS says.
        xy: (n, 2) points in the CRS's units.
        reach: (n,) the steps that are measured at each point, to either side.

    Returns:
        (n, 2, 2), upper triangular; NaN where the CRS has no longitude and latitude.
    """
    if is_local_crs(crs):
        return np.tile(np.eye(2) * definition(crs).axis_info[0].unit_conversion_factor, (len(xy), 1, 1))
    x, y = xy.T
    east = (_on_ellipsoid(crs, x + reach, y) - _on_ellipsoid(crs, x - reach, y)) / (2 * reach[:, None])
    north = (_on_ellipsoid(crs, x, y + reach) - _on_ellipsoid(crs, x, y - reach)) / (2 * reach[:, None])
    # The upper triangle of a QR decomposition of the two steps, by Gram and Schmidt.
    matrices = np.zeros((len(xy), 2, 2))
    matrices[:, 0, 0] = np.linalg.norm(east, axis=1)
    matrices[:, 0, 1] = (east * north).sum(axis=1) / matrices[:, 0, 0]
    matrices[:, 1, 1] = np.linalg.norm(np.cross(east, north), axis=1) / matrices[:, 0, 0]
    return matrices


def _finite(areas: Floats) -> Floats:
    return areas[np.isfinite(areas)]


def _filled(nodes: Floats, cols: Floats) -> Floats:
    """Nodes beside the Earth's disc take the area of the nearest ones on it: interpolation at the limb needs both."""
    is_finite = np.isfinite(nodes)
    rows = np.flatnonzero(is_finite.any(axis=1))
    filled = np.stack([np.interp(cols, cols[is_finite[row]], nodes[row, is_finite[row]]) for row in rows])
    nearest = np.abs(np.arange(len(nodes))[:, None] - rows[None, :]).argmin(axis=1)
    return filled[nearest]


def _areas_at(grid: Grid, rows: Floats, cols: Floats, *, reach: float) -> Floats:
    areas: Floats = np.linalg.norm(np.cross(*sides_at(grid, rows, cols, reach=reach)), axis=-1)
    return areas


def sides_at(grid: Grid, rows: Floats, cols: Floats, *, reach: float) -> tuple[Floats, Floats]:
    """Sides of the pixels with these centres, down and across, as vectors (..., 3) in metres.

    They are taken between points at `reach` pixels from the centres.
    """
    down = _points(grid, rows + reach, cols) - _points(grid, rows - reach, cols)
    across = _points(grid, rows, cols + reach) - _points(grid, rows, cols - reach)
    return down / (2 * reach), across / (2 * reach)


def pixel_sides_of_rows(grid: Grid, rows: Floats) -> Floats:
    """Height and width (n, 2) in metres of the pixels at n rows, in the middle column; the grid's centre is on Earth.

    Rows beside the Earth, as those above a pole, have the sides of the nearest row on it.
    """
    assert grid.crs is not None
    if is_local_crs(grid.crs):
        return np.tile(grid.pixel_sides or (np.nan, np.nan), (len(rows), 1))
    sides = np.stack(
        [np.linalg.norm(side, axis=-1) for side in sides_at(grid, rows, np.full(len(rows), grid.width / 2), reach=0.5)],
        axis=1,
    )
    on_earth = np.flatnonzero(np.isfinite(sides).all(axis=1) & (sides > 0).all(axis=1))
    nearest = on_earth[np.abs(np.arange(len(rows))[:, None] - on_earth).argmin(axis=1)]
    return sides[nearest]


def _points(grid: Grid, rows: Floats, cols: Floats) -> Floats:
    """Points (..., 3) of the ellipsoid in metres from its centre; NaN where the CRS has no coordinates."""
    assert grid.crs is not None
    rows, cols = np.broadcast_arrays(rows, cols)
    a, b, c, d, e, f = grid.transform[:6]
    return _on_ellipsoid(grid.crs, a * cols + b * rows + c, d * cols + e * rows + f)


def _on_ellipsoid(crs: CRS, x: Floats, y: Floats) -> Floats:
    """Points (..., 3) of the ellipsoid in metres from its centre; NaN where the CRS has no coordinates."""
    to_lonlat, radians, ellipsoid = geodesy(crs)
    lon, lat = (radians * angle for angle in to_lonlat.transform(x, y))
    with np.errstate(invalid="ignore"):
        # Radius of curvature in the prime vertical (Snyder 1987, "Map Projections: A Working Manual", equation 4-20).
        prime = ellipsoid.a / np.sqrt(1 - ellipsoid.es * np.sin(lat) ** 2)
        points = (
            prime * np.cos(lat) * np.cos(lon),
            prime * np.cos(lat) * np.sin(lon),
            prime * (1 - ellipsoid.es) * np.sin(lat),
        )
    return np.stack(points, axis=-1)


def _interpolated(nodes: Floats, rows: Floats, cols: Floats, shape: tuple[int, int]) -> Floats:
    """Bilinear interpolation of values at (rows, cols) to the centres of all pixels."""
    across = np.stack([np.interp(np.arange(shape[1]) + 0.5, cols, row) for row in nodes])
    position = np.interp(np.arange(shape[0]) + 0.5, rows, np.arange(len(rows)))
    before = position.astype(int)
    after, share = np.minimum(before + 1, len(rows) - 1), (position - before)[:, None]
    return across[before] * (1 - share) + across[after] * share
