"""Overlaps and distances on the ground of chips and scenes of different CRSs.

Outlines that overlap intersect in longitude and latitude. Distances are straight lines between outlines in geocentric
coordinates: they need no common CRS, and 100 km along the ground are 1 m less.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from scipy.spatial import cKDTree

from landscribe.geo.grid import LONLAT, Grid, Window, transformer

# On each edge of an outline: straight edges are curved in another CRS.
_POINTS = 21
# On each edge of a chip, which is short: edges of 10 km are 10 cm off.
_POINTS_OF_CHIP = 4
_GEOCENTRIC = CRS.from_epsg(4978)
# From geocentric x, y, z of a point of the ellipsoid (WGS 84) to the direction of up.
_TO_UP = np.array([1, 1, 1 / (1 - 0.00669437999)])
_PAIRS_AT_ONCE = 2**14


def crs_text(grid: Grid | None) -> str:
    """The CRS of a grid as text; "" if there is none."""
    return "" if grid is None or grid.crs is None else grid.crs.to_wkt()


def outlines(
    grid: Grid, windows: Sequence[Window], crs: CRS, *, buffer_px: float = 0, points: int = _POINTS
) -> NDArray[np.float64]:
    """(windows, 4 * points, 2) outlines in coordinates x, y of `crs`; inf where `crs` cannot show them.

    Args:
        grid: of the windows, with a CRS.
        windows: their padding outside the grid is cut away.
        crs: of the outlines.
        buffer_px: pixels of the grid by which windows grow on each side; they shrink if it is negative.
        points: of each edge.
    """
    assert grid.crs is not None
    boxes = [(w.row, w.col, w.row_stop, w.col_stop) for w in (window & grid.window for window in windows)]
    top, left, bottom, right = np.array(boxes, np.float64).reshape(-1, 4).T[:, :, None]
    along, zeros = np.arange(points) / points, np.zeros(points)
    down, across = (
        np.concatenate([zeros, along, zeros + 1, 1 - along]),
        np.concatenate([along, zeros + 1, 1 - along, zeros]),
    )
    rows = top - buffer_px + down * (bottom - top + 2 * buffer_px)
    cols = left - buffer_px + across * (right - left + 2 * buffer_px)
    xy = np.stack(grid.transform @ (cols, rows), axis=-1)
    try:
        return np.stack(transformer(grid.crs, crs).transform(xy[..., 0], xy[..., 1]), axis=-1)
    except ProjError:
        # A local CRS has no position on Earth.
        return np.full_like(xy, np.inf)


def pairs_between_crss(
    grids: Sequence[Grid | None], windows: Sequence[Sequence[Window]], *, buffer_px: float
) -> NDArray[np.intp]:
    """(n, 2) indices of windows of scenes of different CRSs that intersect on the ground; each pair in both orders.

    Args:
        grids: of the scenes; None, and grids without a CRS, intersect no other.
        windows: of each scene; indices count them scene by scene.
        buffer_px: pixels by which each window grows on each side beforehand; they shrink if it is negative.
    """
    texts = [crs_text(grid) for grid in grids]
    if len({*texts} - {""}) < 2:
        return np.zeros((0, 2), np.intp)
    crs_of = np.unique(texts, return_inverse=True)[1].reshape(-1)
    of_scenes = [_shapes(grid, [grid.window if grid else Window(0, 0, 0, 0)], buffer_px) for grid in grids]
    near = np.unique(_intersecting(of_scenes, crs_of)).tolist()
    stops = np.cumsum([len(own) for own in windows])
    shapes = [_shapes(grids[index], windows[index], buffer_px) for index in near]
    indices = [np.arange(stops[index] - len(windows[index]), stops[index]) for index in near]
    if not near:
        return np.zeros((0, 2), np.intp)
    return np.concatenate(indices)[_intersecting(shapes, crs_of[near])]


def _intersecting(shapes: Sequence[NDArray[np.object_]], crs_of: NDArray[np.intp]) -> NDArray[np.intp]:
    """(n, 2) indices of shapes that intersect, of scenes with different numbers `crs_of`."""
    of_shape = np.repeat(crs_of, [len(own) for own in shapes])
    every = np.concatenate(shapes)
    a, b = shapely.STRtree(every).query(every)
    differs = of_shape[a] != of_shape[b]
    a, b = a[differs], b[differs]
    meets = shapely.intersects(every[a], every[b])
    return np.column_stack([a[meets], b[meets]])


def _shapes(grid: Grid | None, windows: Sequence[Window], buffer_px: float) -> NDArray[np.object_]:
    """(windows,) shapes in longitude and latitude; empty ones for windows without a position on Earth.

    A window across the antimeridian has a polygon at either end of the longitudes.
    """
    shapes = np.full(len(windows), shapely.Polygon(), object)
    if grid is None or grid.crs is None or not len(windows):
        return shapes
    outline = outlines(grid, windows, LONLAT, buffer_px=buffer_px)
    is_finite = np.isfinite(outline).all(axis=(1, 2))
    finite = outline[is_finite]
    # An outline across the antimeridian is continuous from 0 to 360 degrees.
    finite[np.ptp(finite[..., 0], axis=1) > 180, :, 0] %= 360
    # Grids count longitudes from -180 or from 0.
    finite[..., 0] -= np.floor((finite[..., 0].min(axis=1, keepdims=True) + 180) / 360) * 360
    own = shapely.polygons(finite)
    is_across = finite[..., 0].max(axis=1) > 180
    copies = shapely.transform(own[is_across], lambda lonlat: lonlat - [360, 0])
    own[is_across] = shapely.multipolygons(np.column_stack([own[is_across], copies]))
    shapes[is_finite] = own
    return shapes


@dataclass(frozen=True)
class GroundOutlines:
    """Outlines of windows of several scenes, between which distances on the ground are measured."""

    points: NDArray[np.float64]
    """(n, points, 3) geocentric x, y, z in metres; inf without a position on Earth."""
    crs_of: NDArray[np.intp]
    """(n,) number of each window's CRS."""

    @classmethod
    def of(cls, grids: Sequence[Grid | None], windows: Sequence[Sequence[Window]]) -> "GroundOutlines":
        """Outlines of the windows of each scene, scene by scene; their padding outside the grid is cut away."""
        crs_of = np.unique([crs_text(grid) for grid in grids], return_inverse=True)[1].reshape(-1)
        points = [_geocentric(grid, own) for grid, own in zip(grids, windows, strict=True)]
        return cls(np.concatenate(points), np.repeat(crs_of, [len(own) for own in windows]))

    def take(self, indices: NDArray[np.intp]) -> "GroundOutlines":
        """The outlines of these windows, in this order."""
        return GroundOutlines(self.points[indices], self.crs_of[indices])

    def nearest(self, a: NDArray[np.intp], b: NDArray[np.intp]) -> tuple[int, int, float] | None:
        """The nearest windows of different CRSs, one of `a` and one of `b`, and the metres between them.

        Returns:
            None if there are no two of different CRSs with a position on Earth; 0 m for windows that overlap.
        """
        pairs = [
            (one, another) for one, another in product(self._circles(a), self._circles(b)) if one.crs != another.crs
        ]
        middles: tuple[float, int, int] = (np.inf, 0, 0)
        for one, another in pairs:
            apart, which = another.tree.query(one.tree.data, distance_upper_bound=middles[0])
            row = int(apart.argmin())
            if apart[row] < middles[0]:
                middles = float(apart[row]), int(one.indices[row]), int(another.indices[which[row]])
        if not np.isfinite(middles[0]):
            return None
        most = float(self._metres(np.array([middles[1:]]))[0])
        near = np.concatenate([one.near(another, most) for one, another in pairs])
        metres = self._metres(near)
        first = np.lexsort((near[:, 1], near[:, 0], metres))[0]
        return int(near[first, 0]), int(near[first, 1]), float(metres[first])

    def _circles(self, indices: NDArray[np.intp]) -> "list[_Circles]":
        """Circles around the windows with a position on Earth, of each CRS."""
        known = indices[np.isfinite(self.points[indices]).all(axis=(1, 2))]
        circles = []
        for crs in np.unique(self.crs_of[known]).tolist():
            own = known[self.crs_of[known] == crs]
            middles = self.points[own].mean(axis=1)
            radii = np.linalg.norm(self.points[own] - middles[:, None], axis=2).max(axis=1)
            circles.append(_Circles(crs, own, radii, cKDTree(middles)))
        return circles

    def _metres(self, pairs: NDArray[np.intp]) -> NDArray[np.float64]:
        """(n,) metres between the windows of each pair, in the plane that is level halfway between them."""
        metres = [np.zeros(0)]
        for first in range(0, len(pairs), _PAIRS_AT_ONCE):
            both = self.points[pairs[first : first + _PAIRS_AT_ONCE]]
            halfway = both.mean(axis=(1, 2))
            # An orthonormal basis: up, and two directions of the plane.
            level = np.linalg.qr((halfway * _TO_UP)[:, :, None], mode="complete").Q[:, None, :, 1:]
            shapes = shapely.polygons((both - halfway[:, None, None]) @ level)
            metres.append(shapely.distance(shapes[:, 0], shapes[:, 1]))
        # Equal distances differ by rounding.
        return np.concatenate(metres).round(6)


@dataclass(frozen=True)
class _Circles:
    """Circles around windows of one CRS."""

    crs: int
    indices: NDArray[np.intp]
    """Of the windows."""
    radii: NDArray[np.float64]
    tree: cKDTree
    """Of the middles."""

    def near(self, other: "_Circles", metres: float) -> NDArray[np.intp]:
        """(n, 2) indices of windows that may be as near to each other as this."""
        # A millimetre for rounding.
        reach = metres + float(self.radii.max() + other.radii.max()) + 1e-3
        found = self.tree.sparse_distance_matrix(other.tree, reach, output_type="ndarray")
        i, j = found["i"], found["j"]
        is_near = found["v"] <= metres + self.radii[i] + other.radii[j] + 1e-3
        return np.column_stack([self.indices[i[is_near]], other.indices[j[is_near]]])


def _geocentric(grid: Grid | None, windows: Sequence[Window]) -> NDArray[np.float64]:
    """(windows, points, 3) outlines of a scene's windows; inf without a position on Earth."""
    xyz = np.full((len(windows), 4 * _POINTS_OF_CHIP, 3), np.inf)
    if grid is not None and grid.crs is not None and len(windows):
        lonlat = outlines(grid, windows, LONLAT, points=_POINTS_OF_CHIP)
        lon, lat = lonlat[..., 0], lonlat[..., 1]
        xyz = np.stack(transformer(LONLAT, _GEOCENTRIC).transform(lon, lat, np.zeros_like(lon)), axis=-1)
    return xyz
