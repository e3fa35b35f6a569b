"""Longitudes: rasters in degrees, which may lie in another turn of 360 degrees than what is read from them."""

from dataclasses import replace
from typing import Any

import numpy as np
from affine import Affine

from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.geo.vectors.reprojection import full_turn


def _turn(grid: Grid) -> float:
    """360 degrees in the units of a geographic CRS; 0 in another."""
    return full_turn(grid.crs) if grid.crs is not None and grid.crs.is_geographic else 0.0


def centre_x(grid: Grid) -> float:
    """The x of the centre of a grid."""
    left, _, right, _ = grid.bounds
    return (left + right) / 2


def at_longitude(source: Grid, x: Any, near: float) -> Any:
    """Longitudes of a geographic CRS in the turn of 360 degrees that is nearest to another; any other x as it is."""
    turn = _turn(source)
    return x - turn * np.round((x - near) / turn) if turn else x


def at_longitudes_of(source: Grid, left: float, right: float) -> tuple[float, float]:
    """The bounds of a block in the turn of 360 degrees that is nearest to a raster of a geographic CRS."""
    # A block that crosses the 180th meridian ends west of its start.
    right += _turn(source) * (left > right)
    centre = (left + right) / 2
    shift = at_longitude(source, centre, centre_x(source)) - centre
    return left + shift, right + shift


def shifted_to_turn_of(source: Grid, target: Grid) -> Grid:
    """A block in the CRS of a raster, in the turn of 360 degrees of the raster."""
    left, _, right, _ = target.bounds
    shift = at_longitudes_of(source, left, right)[0] - left
    return replace(target, transform=Affine.translation(shift, 0) @ target.transform)


def cols_around(source: Grid) -> int:
    """Columns in a turn of 360 degrees; 0 unless the CRS is geographic."""
    return round(_turn(source) / source.transform.a)


def copies_on_raster(part: Window, source: Grid) -> list[Window]:
    """A window of a raster, and the same ground a turn of 360 degrees to the west and east; those on the raster."""
    around = cols_around(source)
    windows = [replace(part, col=part.col + shift) for shift in ((0, -around, around) if around else (0,))]
    return [window for window in windows if not (window & source.window).is_empty]


def read_across_edges(raster: Raster, part: Window) -> tuple[Pixels, Valid]:
    """Read a window; of a raster of the whole Earth, a window across one edge continues at the other edge."""
    windows = copies_on_raster(part, raster.grid)
    pixels, valid = raster.read(windows[0])
    for window in windows[1:]:
        more, more_valid = raster.read(window)
        pixels[:, ~valid], valid = more[:, ~valid], valid | more_valid
    return pixels, valid
