"""Grid and Window: the arithmetic of pixels, without files.

A Grid georeferences the pixels of an array. Slicing it by a Window gives another Grid, so that a part of an array
keeps its georeference.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.crs import CRS

from landscribe.errors import GridError

LATTICE = 21
"""Parts of each side of a grid between the points that are transformed, to find its ground in another CRS."""
LONLAT = CRS.from_epsg(4326)
"""Longitudes and latitudes of WGS 84."""
_ROUNDING = 0.01
"""Offset in pixels up to which grids are the same."""
_ALIKE = 1.25
"""Ratio of pixel sizes up to which a network sees objects in the size that it has learned."""


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of whole pixels. It may reach outside the Grid it is used on."""

    row: int
    """First row."""
    col: int
    """First column."""
    height: int
    """Number of rows."""
    width: int
    """Number of columns."""

    @classmethod
    def around(cls, windows: Iterable["Window"]) -> "Window":
        """The smallest window that contains all of one or more windows.

        >>> Window.around([Window(0, 5, 2, 2), Window(3, 0, 1, 1)])
        Window(row=0, col=0, height=4, width=7)
        """
        rows, cols, row_stops, col_stops = zip(*((w.row, w.col, w.row_stop, w.col_stop) for w in windows), strict=True)
        return cls(min(rows), min(cols), max(row_stops) - min(rows), max(col_stops) - min(cols))

    @property
    def row_stop(self) -> int:
        """One past the last row."""
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        """One past the last column."""
        return self.col + self.width

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """For indexing a (rows, cols) array that starts at (0, 0)."""
        return slice(self.row, self.row_stop), slice(self.col, self.col_stop)

    @property
    def is_empty(self) -> bool:
        """True if the window has no pixel."""
        return self.height <= 0 or self.width <= 0

    def __and__(self, other: "Window") -> "Window":
        """The common pixels; empty if there are none.

        >>> Window(0, 0, 4, 4) & Window(2, 3, 4, 4)
        Window(row=2, col=3, height=2, width=1)
        """
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = max(0, min(self.row_stop, other.row_stop) - row)
        width = max(0, min(self.col_stop, other.col_stop) - col)
        return Window(row, col, height, width)

    def relative_to(self, other: "Window") -> "Window":
        """The same pixels, counted from the first pixel of `other`."""
        return Window(self.row - other.row, self.col - other.col, self.height, self.width)

    def grown(self, pixels: int) -> "Window":
        """The window with this many more pixels on each side."""
        return Window(self.row - pixels, self.col - pixels, self.height + 2 * pixels, self.width + 2 * pixels)

    def distance_to(self, other: "Window") -> int:
        """Pixels between two windows along the farther axis; 0 when they touch or overlap.

        >>> Window(0, 0, 2, 2).distance_to(Window(0, 5, 2, 2))
        3
        """
        rows = max(self.row - other.row_stop, other.row - self.row_stop)
        cols = max(self.col - other.col_stop, other.col - self.col_stop)
        return max(0, rows, cols)


@dataclass(frozen=True, slots=True)
class Grid:
    """CRS, affine transform and shape of the pixels of an array.

    >>> grid = Grid(CRS.from_epsg(32632), Affine(10, 0, 500_000, 0, -10, 5_000_000), height=300, width=200)
    >>> grid.bounds
    (500000.0, 4997000.0, 502000.0, 5000000.0)
    >>> part = grid[Window(row=100, col=50, height=20, width=30)]
    >>> part.shape, part.xy(0, 0)
    ((20, 30), (500500.0, 4999000.0))
    """

    crs: CRS | None
    """None for a file without CRS; then only pixel arithmetic works."""
    transform: Affine
    """From (col, row) to (x, y) of the upper left corner of the pixel."""
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def window(self) -> Window:
        """The window of the whole grid."""
        return Window(0, 0, self.height, self.width)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in the CRS's units."""
        left, top = self.transform @ (0, 0)
        right, bottom = self.transform @ (self.width, self.height)
        return min(left, right), min(bottom, top), max(left, right), max(bottom, top)

    def __getitem__(self, window: Window) -> "Grid":
        """The Grid of a window. Law: `grid[w].xy(0, 0) == grid.xy(w.row, w.col)`."""
        shift = Affine.translation(window.col, window.row)
        return Grid(self.crs, self.transform @ shift, window.height, window.width)

    def xy(self, row: float, col: float) -> tuple[float, float]:
        """World coordinates of a point in pixels; (0, 0) is the upper left corner of the first pixel."""
        x, y = self.transform @ (col, row)
        return x, y

    def row_col(self, x: float, y: float) -> tuple[float, float]:
        """Row and column, with fractions, of world coordinates. Law: `row_col(*xy(row, col)) == (row, col)`."""
        col, row = ~self.transform @ (x, y)
        return row, col

    def xy_in(self, crs: CRS | None, rows: Any, cols: Any) -> tuple[Any, Any]:
        """World coordinates, in another CRS, of points in pixels (arrays); NaN outside the domain of that CRS."""
        x, y = self.transform @ (cols, rows)
        if crs is None or self.crs is None or crs == self.crs:
            return x, y
        x, y = transformer(self.crs, crs).transform(x, y)
        known = np.isfinite(x) & np.isfinite(y)
        return np.where(known, x, np.nan), np.where(known, y, np.nan)

    def lattice(self) -> NDArray[np.float64]:
        """Rows and columns of points all over the grid, corners included (2, LATTICE + 1, LATTICE + 1)."""
        return np.array(np.meshgrid(*(np.linspace(0, side, LATTICE + 1) for side in self.shape)))

    @property
    def pixel_size(self) -> float | None:
        """Side of a pixel on the ground in metres, at the centre of the grid; None without a CRS.

        The side is measured as a geodesic, so that degrees, and web-mercator metres (which are longer than metres on
        the ground by 1 / cos(latitude)), become metres too. Pixels that are no squares there give the side of the
        square of the same area. In a local CRS, the side is that of the file.

        Raises:
            GridError: the CRS has no position on Earth at the centre of the grid.
        """
        if self.crs is None:
            return None
        down, across, sine = self._pixel_on_ground
        return math.sqrt(down * across * sine)

    @property
    def pixel_sides(self) -> tuple[float, float] | None:
        """Height and width of a pixel on the ground in metres, measured like `pixel_size`; None without a CRS."""
        return None if self.crs is None else self._pixel_on_ground[:2]

    @property
    def _pixel_on_ground(self) -> tuple[float, float, float]:
        """Height and width in metres, and the sine of the angle between them: a CRS may shear."""
        assert self.crs is not None
        if is_local_crs(self.crs):
            unit = definition(self.crs).axis_info[0].unit_conversion_factor
            return abs(self.transform.e) * unit, abs(self.transform.a) * unit, 1.0
        row, col = self.height / 2, self.width / 2
        x, y = zip(self.xy(row, col), self.xy(row + 1, col), self.xy(row, col + 1), strict=True)
        try:
            to_lonlat, radians, ellipsoid = geodesy(self.crs)
            lon, lat = radians * np.array(to_lonlat.transform(x, y))
            first = np.repeat(lon[0], 2), np.repeat(lat[0], 2)
            (south, east), _, (down, across) = ellipsoid.inv(*first, lon[1:], lat[1:], radians=True)
        except ProjError as error:
            reason = str(error).rstrip(".")
        else:
            if math.isfinite(down * across) and down * across > 0:
                return float(down), float(across), abs(math.sin(south - east))
            reason = "the centre of the raster is not on Earth"
        raise GridError(
            f"the pixel size cannot be measured in {crs_label(self.crs)}: {reason}. Warp the raster to another CRS "
            "(gdalwarp -t_srs)."
        )

    def is_aligned(self, other: "Grid") -> bool:
        """True if both grids have the same pixels: same shape and CRS, corners within 1/100 of a pixel."""
        return self.shape == other.shape and self.crs == other.crs and self.max_corner_offset(other) < _ROUNDING

    def max_corner_offset(self, other: "Grid") -> float:
        """The largest offset between matching corners along an axis, in pixels of this grid."""
        corners = [(0, 0), (0, self.width), (self.height, 0), (self.height, self.width)]
        offsets: list[float] = []
        for row, col in corners:
            other_row, other_col = self.row_col(*other.xy(row, col))
            offsets += [abs(other_row - row), abs(other_col - col)]
        return max(offsets)

    def strips(self, max_pixels: int = 2**24, *, block: int = 512) -> Iterator[Window]:
        """Cut the grid into strips of whole rows, from the top.

        Args:
            max_pixels: of a strip; a strip is at least one block high, however many pixels that is.
            block: height of the file's blocks in rows. Strips begin at multiples of it: no block is decoded twice.

        Yields:
            Windows as wide as the grid. Law: they partition the grid.

        >>> [(strip.row, strip.height) for strip in Grid(None, Affine.identity(), 1200, 100).strips(60_000)]
        [(0, 512), (512, 512), (1024, 176)]
        """
        rows = max(block, max_pixels // self.width // block * block)
        for row in range(0, self.height, rows):
            yield Window(row, 0, min(rows, self.height - row), self.width)

    def spread_windows(self, shape: tuple[int, int], per_axis: int, *, align: int = 1) -> list[Window]:
        """Windows spread evenly over the grid, from corner to corner, in row order.

        Args:
            shape: (height, width) of a window. A window larger than the grid reaches outside.
            per_axis: maximum number of windows along an axis; a short axis is covered by fewer.
            align: rows and columns are rounded down to multiples of this.

        >>> grid = Grid(None, Affine.identity(), 10, 100)
        >>> [(window.row, window.col) for window in grid.spread_windows((10, 10), 3)]
        [(0, 0), (0, 45), (0, 90)]
        """
        rows, cols = (_spread(length, side, per_axis, align) for length, side in zip(self.shape, shape, strict=True))
        return [Window(row, col, *shape) for row in rows for col in cols]


@lru_cache(maxsize=64)
def transformer(source: CRS, target: CRS) -> pyproj.Transformer:
    """From x, y in one CRS to x, y in another; threads may share it."""
    return pyproj.Transformer.from_crs(source.to_wkt(), target.to_wkt(), always_xy=True)


def definition(crs: CRS) -> pyproj.CRS:
    """What PROJ knows of a CRS."""
    return _parsed(crs.to_wkt())


@lru_cache(maxsize=64)
def _parsed(wkt: str) -> pyproj.CRS:
    """PROJ parses a CRS in as much time as it transforms the nodes of a row of pixels."""
    return pyproj.CRS.from_wkt(wkt)


def is_local_crs(crs: CRS) -> bool:
    """True for a CRS without a position on Earth, such as that of a building site; its unit has a length."""
    return bool(definition(crs).is_engineering)


def geodesy(crs: CRS) -> tuple[pyproj.Transformer, float, pyproj.Geod]:
    """From a CRS to longitude and latitude; radians in a unit of these, which may be grads; the ellipsoid.

    Raises:
        ProjError: the CRS has no longitude and latitude.
    """
    return _geodesy(crs.to_wkt())


@lru_cache(maxsize=16)
def _geodesy(wkt: str) -> tuple[pyproj.Transformer, float, pyproj.Geod]:
    crs = _parsed(wkt)
    geodetic = crs.geodetic_crs or pyproj.CRS.from_epsg(4326)
    to_lonlat = pyproj.Transformer.from_crs(crs, geodetic, always_xy=True)
    return to_lonlat, geodetic.axis_info[0].unit_conversion_factor, crs.get_geod() or pyproj.Geod(ellps="WGS84")


def _spread(length: int, side: int, most: int, align: int) -> list[int]:
    count = min(most, -(-length // side))
    last = max(0, length - side)
    # A set, because rounding may give the same start twice.
    return sorted({round(last * index / max(1, count - 1)) // align * align for index in range(count)})


def without_rounding(transform: Affine, height: int, width: int) -> Affine:
    """The transform without rotation terms that move no pixel of the grid by 1/100 of its size: they are rounding."""
    a, b, c, d, e, f = transform[:6]
    if abs(b) * height < _ROUNDING * abs(a) and abs(d) * width < _ROUNDING * abs(e):
        return Affine(a, 0.0, c, 0.0, e, f)
    return transform


def check_north_up(transform: Affine, name: str) -> None:
    """Raise GridError unless the rows of a georeferenced raster run south, and its columns run east.

    Args:
        transform: of the raster.
        name: of the raster, for the message.

    Raises:
        GridError: the raster is rotated or upside down, or has no geotransform (GDAL gives it the identity).
    """
    if transform.b or transform.d:
        angle = math.degrees(math.atan2(transform.d, transform.a))
        raise GridError(
            f"{name} has a rotated geotransform ({angle:.2f} degrees). Expected a north-up raster. "
            f'Warp it with "gdalwarp {name} north_up.tif".'
        )
    if transform.is_identity:
        raise GridError(
            f"{name} has a CRS, but neither an origin nor a pixel size. Expected a geotransform. Assign it "
            "(gdal_edit.py -a_ullr)."
        )
    if transform.a <= 0 or transform.e >= 0:
        raise GridError(
            f"{name} has pixel steps of {transform.a:g} (x) and {transform.e:g} (y). Expected columns that run east "
            f'and rows that run south. Warp it with "gdalwarp {name} north_up.tif".'
        )


ASSIGN_CRS = "Assign its CRS (rio edit-info --crs EPSG:CODE FILE; gdalwarp, if it has ground control points only)"
"""What to do about a raster without a CRS."""


_OF_BOTH_ORDERS = (4326, 4269, 4267)
"""EPSG codes of the CRSs that OGC defines with longitudes first, too: CRS84, CRS83 and CRS27."""


@lru_cache(maxsize=64)
def horizontal(crs: CRS | None) -> CRS | None:
    """The horizontal part of a CRS, the same for each order of its axes: neither heights nor the order move a pixel.

    >>> horizontal(CRS.from_epsg(9518)) == CRS.from_epsg(4326)  # WGS 84 with heights above the geoid
    True
    >>> horizontal(CRS.from_string("OGC:CRS84")) == CRS.from_epsg(4326)  # longitude before latitude
    True
    """
    if crs is None:
        return None
    described = definition(crs)
    flat = described.sub_crs_list[0] if described.is_compound else described
    if not flat.is_geocentric:
        flat = flat.to_2d()
    for epsg in _OF_BOTH_ORDERS:
        if flat.equals(epsg, ignore_axis_order=True):
            return CRS.from_epsg(epsg)
    return crs if flat == described else CRS.from_wkt(flat.to_wkt())


def crs_label(crs: Any) -> str:
    """The authority code of a CRS, else its name.

    >>> crs_label(CRS.from_epsg(4326))
    'EPSG:4326'
    """
    if crs is None:
        return "no CRS"
    described = pyproj.CRS.from_user_input(crs)
    authority = described.to_authority()
    return ":".join(authority) if authority else str(described.name)


def size_label(shape: tuple[int, int]) -> str:
    """Width and height, in the order of GDAL and QGIS, for messages.

    >>> size_label(Grid(None, Affine.identity(), height=100, width=200).shape)
    '200 x 100'
    """
    height, width = shape
    return f"{width} x {height}"


def grid_label(grid: Grid) -> str:
    """Size, pixel size, origin and CRS of a grid, for messages."""
    left, _, _, top = grid.bounds
    return (
        f"{size_label(grid.shape)} pixels of {grid.transform.a:g} from ({left:.10g}, {top:.10g}) in "
        f"{crs_label(grid.crs)}"
    )


def are_pixels_alike(sides: tuple[float, float], others: tuple[float, float]) -> bool:
    """True if pixels of these heights and widths (m) fit within a quarter: a network sees the same objects in both.

    >>> are_pixels_alike((10, 10), (12, 9)), are_pixels_alike((10, 10), (5, 20))
    (True, False)
    """
    return all(1 / _ALIKE < side / other < _ALIKE for side, other in zip(sides, others, strict=True))


def pixel_label(sides: tuple[float, float]) -> str:
    """Height and width of a pixel in metres, as one number for squares, for messages.

    >>> pixel_label((10, 10)), pixel_label((10, 20))
    ('10 m', '20 x 10 m (width x height)')
    """
    height, width = sides
    size = math.sqrt(height * width)
    return (
        f"{size:.3g} m" if are_pixels_alike(sides, (size, size)) else f"{width:.3g} x {height:.3g} m (width x height)"
    )
