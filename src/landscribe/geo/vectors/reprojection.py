"""Reprojection of polygons and points to a grid's CRS: straight edges become curves, followed to a tenth of a pixel.

Longitudes count in turns of 360 degrees: a raster may go on beyond 180, or count from 0 to 360.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from landscribe.geo.grid import LATTICE, Grid, transformer

Coordinates = NDArray[np.float64]
"""(n, 2) of x and y."""
Transform = Callable[[Coordinates], Coordinates]

_TOLERANCE = 0.05
"""Pixels between an edge and its curve, at the points where they are compared: half of what is promised."""
_SHORT_EDGE = 4
"""Edges of fewer pixels are not divided: on a circle of 20 pixels, they are within a tenth of a pixel of it."""
_MOST_DIVISIONS = 20
_LONG_WAY = 340
"""Degrees of longitude from which an edge is taken to go the short way round, across 180 degrees."""
_HEMISPHERE = 90
_FAR = 1 / 40
"""Share of the way around the Earth from which an edge is compared with its curve, even if it ends where it began."""
_AROUND_M = 4e7
_ROUNDING = 1e-9
_REPEATS = range(-2, 3)
"""Turns in which a ring around a pole is repeated: they hold the turn of the grid, wherever the ring starts."""
_WIDE = 2.5
"""Turns, of which rings around a pole have more."""


def reproject(geometries: NDArray[np.object_], source: CRS, grid: Grid) -> NDArray[np.object_]:
    """Reproject polygons or points to the CRS of a grid.

    Law: the edges of a reprojected polygon are within a tenth of a pixel of the curves that its straight edges become.

    Args:
        geometries: polygons, or points.
        source: their CRS.
        grid: the target; with a CRS.

    Raises:
        ProjError: the CRS cannot be transformed.
    """
    assert grid.crs is not None
    if source.is_geographic:
        geometries = _the_short_way_round(geometries, full_turn(source))
    if source == grid.crs:
        return geometries
    transform = _transform(source, grid.crs)
    turn = full_turn(grid.crs) if grid.crs.is_geographic else 0.0
    if (shapely.get_type_id(geometries) == shapely.GeometryType.POINT).all():
        return shapely.transform(geometries, lambda xy: _near(longitude_turn(grid), transform(xy), turn))
    if source.is_geographic:
        geometries = _near_grid(geometries, source, grid)
    around = full_turn(source) if source.is_geographic else _AROUND_M / source.linear_units_factor[1]
    moved = geometries.copy()
    holds_ground = ~shapely.is_empty(geometries)
    if holds_ground.any():
        curves = _Curves(transform, grid, turn, _FAR * around)
        moved[holds_ground] = _reproject_polygons(geometries[holds_ground], curves)
    return moved


def at_longitudes_of(grid: Grid, geometries: NDArray[np.object_]) -> NDArray[np.object_]:
    """Repeat geometries a turn of 360 degrees to the west or east, where the grid of a geographic CRS holds them.

    Each geometry keeps its index; a part that lies on the grid twice is there twice.
    """
    if grid.crs is None or not grid.crs.is_geographic or not len(geometries):
        return geometries
    turn = full_turn(grid.crs)
    left, _, right, _ = grid.bounds
    bounds = shapely.bounds(geometries)
    if max(right, bounds[:, 2].max()) <= turn / 2 and min(left, bounds[:, 0].min()) >= -turn / 2:
        return geometries
    moved = geometries.copy()
    shifts = {shift: _over(bounds + np.array([shift, 0, shift, 0]), grid) for shift in (0.0, turn, -turn)}
    for index in np.flatnonzero(shifts[turn] | shifts[-turn]):
        copies = [
            shapely.transform(geometries[index], lambda xy, by=shift: xy + np.array([by, 0]))
            for shift, over in shifts.items()
            if over[index]
        ]
        is_single = len(copies) == 1 or shapely.get_dimensions(copies[0]) == 0
        # Copies of a polygon around a pole touch.
        moved[index] = copies[0] if is_single else shapely.union_all(copies)
    return moved


def _over(bounds: NDArray[np.float64], grid: Grid) -> NDArray[np.bool_]:
    """True for each box (left, bottom, right, top) that touches the grid."""
    left, bottom, right, top = grid.bounds
    inside: NDArray[np.bool_] = (
        (bounds[:, 0] <= right) & (bounds[:, 2] >= left) & (bounds[:, 1] <= top) & (bounds[:, 3] >= bottom)
    )
    return inside


def full_turn(crs: CRS) -> float:
    """360 degrees in the units of a geographic CRS."""
    return round(2 * math.pi / crs.units_factor[1], 9)


def _transform(source: CRS, target: CRS) -> Transform:
    transform = transformer(source, target).transform
    return lambda xy: np.column_stack(transform(xy[:, 0], xy[:, 1]))


def _near(longitude: Any, xy: Coordinates, turn: float) -> Coordinates:
    """Points, each in the turn that is nearest to a longitude; as they are if the turn is 0."""
    if not turn:
        return xy
    return np.column_stack([xy[:, 0] - turn * _turns(xy[:, 0] - longitude, turn), xy[:, 1]])


def _turns(x: NDArray[np.float64], turn: float) -> NDArray[np.float64]:
    """The nearest numbers of whole turns; 0 of numbers that are not finite."""
    return np.round(np.where(np.isfinite(x), x, 0) / turn)


def longitude_turn(grid: Grid) -> float:
    """The multiple of 180 degrees that is nearest to the middle of a grid of a geographic CRS; else 0."""
    if grid.crs is None or not grid.crs.is_geographic:
        return 0.0
    half = full_turn(grid.crs) / 2
    return half * round((grid.bounds[0] + grid.bounds[2]) / 2 / half)


def _the_short_way_round(geometries: NDArray[np.object_], turn: float) -> NDArray[np.object_]:
    """Take an edge from 179.9 to -179.9 as one of 0.2 degrees, as GDAL does, unless the polygon is half the globe high.

    Polygons that reach exactly from -180 to 180 stay as they are.
    """
    bounds = shapely.bounds(geometries)
    width, height = bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1]
    degree = turn / 360
    moved = geometries.copy()
    for index in np.flatnonzero((width > _LONG_WAY * degree) & (width < turn) & (height < _HEMISPHERE * degree)):
        if _longest_edge(geometries[index]) > _LONG_WAY * degree:
            moved[index] = shapely.transform(
                geometries[index], lambda xy: np.column_stack([xy[:, 0] + turn * (xy[:, 0] < 0), xy[:, 1]])
            )
    return moved


def _longest_edge(geometry: Any) -> float:
    """The longest edge of a polygon's rings along x."""
    rings = shapely.get_rings(shapely.get_parts(geometry))
    return max((float(np.abs(np.diff(shapely.get_coordinates(ring)[:, 0])).max()) for ring in rings), default=0.0)


def _near_grid(geometries: NDArray[np.object_], source: CRS, grid: Grid) -> NDArray[np.object_]:
    """Clip polygons that are wider than a quarter of the Earth to the surroundings of the grid.

    Their far edges may lie outside the domain of the grid's CRS, or fold onto one another there.
    """
    bounds = shapely.bounds(geometries)
    wide = np.flatnonzero(bounds[:, 2] - bounds[:, 0] > full_turn(source) / 4)
    # Of a grid that is partly off the Earth, the surroundings are not known.
    if not len(wide) or not np.isfinite(grid.xy_in(source, *grid.lattice())).all():
        return geometries
    clipped, surroundings = geometries.copy(), box_around(grid, source)
    for index in wide:
        # Taking an edge the short way round may let it cross others.
        valid = shapely.make_valid(geometries[index])
        parts = shapely.get_parts(shapely.get_parts(shapely.intersection(valid, surroundings)))
        clipped[index] = shapely.multipolygons(parts[shapely.get_dimensions(parts) == 2])
    return clipped


def box_around(grid: Grid, crs: CRS) -> Any:
    """A box in another CRS that holds a grid, in all turns of its longitudes; empty outside the domain of that CRS."""
    points = np.column_stack([axis.ravel() for axis in grid.xy_in(crs, *grid.lattice())])
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return shapely.Polygon()
    turn = full_turn(crs) if crs.is_geographic else 0.0
    points = _near(points[len(points) // 2, 0], points, turn)
    # Between the points, the grid may reach further.
    margin = np.ptp(points, axis=0) / LATTICE
    (left, bottom), (right, top) = points.min(axis=0) - margin, points.max(axis=0) + margin
    return shapely.union_all([shapely.box(left + shift, bottom, right + shift, top) for shift in (-turn, 0, turn)])


class _Curves(NamedTuple):
    """What edges become in the CRS of a grid."""

    transform: Transform
    """From the source's coordinates to the grid's."""
    grid: Grid
    turn: float
    """360 degrees in the units of the grid; 0 unless its CRS is geographic."""
    far: float
    """Length of edges, in units of the source, that may go around the Earth."""

    def pixels(self, xy: Coordinates, starts: Coordinates) -> Coordinates:
        """Columns and rows of points on edges, of which none goes around half of the Earth, by their starts."""
        xy = np.where(np.isfinite(xy), xy, np.nan)  # infinity, outside the domain of the CRS, would warn
        return np.column_stack(~self.grid.transform @ _near(starts[:, 0], xy, self.turn).T)


def _reproject_polygons(geometries: NDArray[np.object_], curves: _Curves) -> NDArray[np.object_]:
    kind, vertices, (source_starts, *starts) = shapely.to_ragged_array(geometries, include_z=False)
    sources = np.repeat(np.arange(len(source_starts) - 1), np.diff(source_starts))
    moved, rings = _curved(vertices, sources, curves)
    ring_starts = np.searchsorted(rings, np.arange(len(source_starts)))
    around = np.zeros(len(ring_starts) - 1)
    if curves.turn and len(moved):
        # Vertices outside the domain of the CRS are at infinity.
        with np.errstate(invalid="ignore"):
            _unwrap(moved, rings, curves.turn)
            moved[:, 0] += _shifts(moved[:, 0], ring_starts, starts[0], curves)[rings]
            around = _turns(moved[ring_starts[1:] - 1, 0] - moved[ring_starts[:-1], 0], curves.turn)
    if around.any():
        # A ring that runs counterclockwise has its inside to the left: to the north, if it goes around eastwards.
        is_ccw = shapely.is_ccw(shapely.linearrings(vertices, indices=sources))
        moved, ring_starts = _closed_at_poles(
            moved, ring_starts, np.sign(around) * np.where(is_ccw, 1, -1), curves.turn
        )
    polygons: NDArray[np.object_] = shapely.from_ragged_array(kind, moved, (ring_starts, *starts))
    for index in np.unique(np.searchsorted(_geometry_stops(starts), np.flatnonzero(around), side="right")):
        polygons[index] = _in_one_turn(polygons[index], curves)
    return polygons


def _geometry_stops(starts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """One past the last ring of each geometry; `starts` are those of polygons, and of geometries with several."""
    polygon_starts, *geometry_starts = starts
    return (polygon_starts[geometry_starts[0]] if geometry_starts else polygon_starts)[1:]


def _closed_at_poles(
    moved: Coordinates, ring_starts: NDArray[np.int64], poles: NDArray[np.float64], turn: float
) -> tuple[Coordinates, NDArray[np.int64]]:
    """Repeat rings that go around the Earth, and close them along the pole that they enclose.

    Args:
        moved: vertices of all rings, of which some end a turn from their start.
        ring_starts: first vertex of each ring, and the end.
        poles: of each ring 1 (north), -1 (south) or 0 (none).
        turn: 360 degrees.

    Returns:
        The vertices and starts of closed rings.
    """
    rings = np.split(moved, ring_starts[1:-1])
    for index in np.flatnonzero(poles):
        ring, pole = rings[index], poles[index] * turn / 4
        repeated = [ring + number * (ring[-1] - ring[0]) * [1, 0] for number in _REPEATS]
        start, end = repeated[0][0], repeated[-1][-1]
        rings[index] = np.concatenate([*repeated, [[end[0], pole], [start[0], pole], start]])
    return np.concatenate(rings), np.cumsum([0, *map(len, rings)])


def _in_one_turn(geometry: Any, curves: _Curves) -> Any:
    """Polygons of which some go around the Earth, in the turn around the middle of the grid, as a MultiPolygon."""
    turn, middle = curves.turn, longitude_turn(curves.grid)
    whole = shapely.box(middle - turn / 2, -turn / 4, middle + turn / 2, turn / 4)
    kept = []
    for part in shapely.get_parts(geometry):
        left, _, right, _ = shapely.bounds(part)
        if right - left > _WIDE * turn:
            exterior, *holes = shapely.polygons(shapely.get_rings(part))
            repeated = [
                shapely.transform(hole, lambda xy, by=number * turn: xy + np.array([by, 0]))
                for hole in holes
                for number in _REPEATS
            ]
            # The ring of a polygon with a vertex at the pole touches the line that closes it.
            ground = shapely.intersection(shapely.make_valid(exterior), whole)
            kept.append(shapely.difference(ground, shapely.union_all(shapely.make_valid(repeated))))
        else:
            kept.append(part)
    parts = shapely.get_parts(shapely.get_parts(kept))
    return shapely.multipolygons(parts[shapely.get_dimensions(parts) == 2])


def _unwrap(moved: Coordinates, rings: NDArray[np.intp], turn: float) -> None:
    """Let longitudes go on along each ring, from its first vertex."""
    steps = np.where(rings[1:] == rings[:-1], _turns(np.diff(moved[:, 0]), turn), 0)
    turns = np.concatenate([[0], np.cumsum(steps)])
    moved[:, 0] -= turn * (turns - turns[np.searchsorted(rings, rings)])


def _shifts(
    x: NDArray[np.float64], ring_starts: NDArray[np.int64], polygon_starts: NDArray[np.int64], curves: _Curves
) -> NDArray[np.float64]:
    """What moves each ring by whole turns: an exterior to the middle of the grid, a hole into its exterior."""
    left, right = (side.reduceat(x, ring_starts[:-1]) for side in (np.minimum, np.maximum))
    turn = curves.turn
    shifts = -turn * _turns((left + right) / 2 - longitude_turn(curves.grid), turn)
    exteriors = np.repeat(polygon_starts[:-1], np.diff(polygon_starts))
    # The fewest turns that take the left side of a hole to that of its exterior, or beyond it.
    into = turn * _turns((left + shifts)[exteriors] - left + turn * (0.5 - _ROUNDING), turn)
    return np.where(exteriors == np.arange(len(exteriors)), shifts, into)


def _curved(vertices: Coordinates, rings: NDArray[np.intp], curves: _Curves) -> tuple[Coordinates, NDArray[np.intp]]:
    """Transform the vertices of rings, and divide edges until they follow their curves.

    Args:
        vertices: of all rings, one ring after the other.
        rings: index of each vertex's ring.
        curves: what edges become.

    Returns:
        The transformed vertices, each longitude in any turn, and the ring of each.
    """
    moved = curves.transform(vertices)
    edges = _long_edges(vertices, moved, rings, curves)
    for _ in range(_MOST_DIVISIONS):
        if not len(edges):
            break
        start, end = vertices[edges], vertices[edges + 1]
        first, middle, last = (curves.transform(start + share * (end - start)) for share in (0.25, 0.5, 0.75))
        from_, to = moved[edges], moved[edges + 1]
        chord = curves.pixels(from_, from_), curves.pixels(to, from_)
        error = np.max([_distance(curves.pixels(xy, from_), *chord) for xy in (first, middle, last)], axis=0)
        # A midpoint outside the domain of the CRS is kept, so that the caller sees it.
        divided = (error > _TOLERANCE) | ~np.isfinite(error)
        edges, middle = edges[divided], middle[divided]
        vertices = np.insert(vertices, edges + 1, (start + 0.5 * (end - start))[divided], axis=0)
        moved = np.insert(moved, edges + 1, middle, axis=0)
        rings = np.insert(rings, edges + 1, rings[edges])
        halves = edges + np.arange(len(edges))
        edges = np.sort(np.concatenate([halves, halves + 1])[np.tile(np.isfinite(middle).all(axis=1), 2)])
    return moved, rings


def _long_edges(
    vertices: Coordinates, moved: Coordinates, rings: NDArray[np.intp], curves: _Curves
) -> NDArray[np.intp]:
    """Indices of the first vertices of edges that are not short."""
    starts = moved[:-1]
    lengths = np.hypot(*(curves.pixels(moved[1:], starts) - curves.pixels(starts, starts)).T)
    # The ends of an edge around the Earth may be one point.
    is_long = (lengths > _SHORT_EDGE) | (np.hypot(*np.diff(vertices, axis=0).T) > curves.far)
    # Of vertices outside the domain of the CRS, the caller hears.
    return np.flatnonzero(is_long & (rings[1:] == rings[:-1]) & np.isfinite(moved[1:] + moved[:-1]).all(axis=1))


def _distance(points: Coordinates, start: Coordinates, end: Coordinates) -> NDArray[np.float64]:
    """Distance of each point from its segment."""
    along = end - start
    squared = np.maximum((along**2).sum(axis=1), np.finfo(float).tiny)
    share = np.clip(((points - start) * along).sum(axis=1) / squared, 0, 1)[:, None]
    distance: NDArray[np.float64] = np.hypot(*(points - start - share * along).T)
    return distance
