"""Clipped: a raster of which only the pixels inside polygons are valid."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from affine import Affine

from landscribe.geo.features import Features, bounding_window, intersects
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.derived import Derived
from landscribe.geo.rasters.nodata import Nodata
from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.geo.vectors.burning import rasterize_mask


def clip(raster: Raster, area: Features) -> Raster:
    """The raster on the same grid; a pixel is valid only if a polygon contains its centre.

    Args:
        raster: with a CRS.
        area: polygons in the raster's CRS.
    """
    return replace(raster, source=Clipped((raster,), area), area=area, _band_indices=None)


@dataclass(frozen=True, eq=False)
class Clipped(Derived):
    """A raster and the polygons outside of which it is not valid."""

    area: Features
    """In the CRS of the raster."""

    def read(
        self,
        window: Window,
        bands: Sequence[int] | None,
        nodata: Nodata,
        shape: tuple[int, int],
    ) -> tuple[Pixels, Valid]:
        """See `Source`."""
        raster = self.raster.of_bands(bands, nodata)
        inside = rasterize_mask(self.area, _decimated(raster.grid[window], shape))
        if not inside.any():
            return np.zeros((len(raster.bands), *shape), raster.dtype), inside
        pixels, valid = raster.read_decimated(window, shape)
        return pixels, valid & inside

    def may_hold_valid(self, window: Window, bands: Sequence[int] | None, nodata: Nodata) -> bool:
        """See `Source`."""
        is_in_area = intersects(self.area, self.raster.grid[window])
        return is_in_area and self.raster.of_bands(bands, nodata).may_hold_valid(window)


def _decimated(grid: Grid, shape: tuple[int, int]) -> Grid:
    """The grid of the same area with other rows and columns."""
    if shape == grid.shape:
        return grid
    return Grid(grid.crs, grid.transform @ Affine.scale(grid.width / shape[1], grid.height / shape[0]), *shape)


def spread_windows(raster: Raster, side: int, per_axis: int) -> list[Window]:
    """Windows spread evenly over a raster, its corners among them; of a clipped raster, also on its polygons.

    Args:
        raster: clipped or not.
        side: of a window in pixels, which lies inside the raster.
        per_axis: maximum number of windows along an axis; its square is that of the polygons.
    """
    whole, height, width = raster.grid.window, *(min(side, length) for length in raster.grid.shape)
    area = None if raster.area is None else raster.area.take(raster.area.intersecting(raster.grid))
    part = whole if area is None or not len(area) else bounding_window(area, raster.grid) & whole
    if area is None or part.is_empty:
        return raster.grid.spread_windows((height, width), per_axis)
    shape = min(height, part.height), min(width, part.width)
    spread = [
        Window(window.row + part.row, window.col + part.col, *shape)
        for window in raster.grid[part].spread_windows(shape, per_axis)
    ]
    chosen = np.linspace(0, len(area) - 1, min(len(area), per_axis**2)).astype(int)
    points = shapely.get_coordinates(shapely.point_on_surface(area.geometries[chosen]))
    for row, col in (raster.grid.row_col(x, y) for x, y in points):
        first = int(row) - height // 2, int(col) - width // 2
        centred = Window(min(max(0, first[0]), whole.height - height), min(max(0, first[1]), whole.width - width),
                         height, width)  # fmt: skip
        spread.append(centred)
    return list(dict.fromkeys(spread))
