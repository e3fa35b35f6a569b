"""Grid and Window: the arithmetic of pixels, which needs no file.

A Grid says where an array's pixels lie on the Earth. Slicing it by a Window gives another Grid, so that
georeference cannot be lost on the way.
"""

import math
from dataclasses import dataclass
from typing import Any

import pyproj
from affine import Affine
from pyproj.exceptions import ProjError
from rasterio.crs import CRS

from landscribe.errors import GridError


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
        """True if it has no pixel."""
        return self.height <= 0 or self.width <= 0

    def __and__(self, other: "Window") -> "Window":
        """The common part; empty if there is none.

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
        """The window with so many pixels more on each side."""
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
    """CRS, affine transform and shape: where the pixels of an array lie."""

    crs: CRS | None
    """None where a file has none; then only pixel arithmetic works."""
    transform: Affine
    """From (col, row) to (x, y), the upper left corner of the pixel."""
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def window(self) -> Window:
        """All of it."""
        return Window(0, 0, self.height, self.width)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in the CRS's units."""
        left, top = self.transform @ (0, 0)
        right, bottom = self.transform @ (self.width, self.height)
        return min(left, right), min(bottom, top), max(left, right), max(bottom, top)

    def __getitem__(self, window: Window) -> "Grid":
        """The Grid of a part. Law: `grid[w].xy(0, 0) == grid.xy(w.row, w.col)`."""
        shift = Affine.translation(window.col, window.row)
        return Grid(self.crs, self.transform @ shift, window.height, window.width)

    def xy(self, row: float, col: float) -> tuple[float, float]:
        """World coordinates of a pixel position; (0, 0) is the upper left corner of the first pixel."""
        x, y = self.transform @ (col, row)
        return x, y

    def row_col(self, x: float, y: float) -> tuple[float, float]:
        """Pixel position of world coordinates. Law: `row_col(*xy(row, col)) == (row, col)`."""
        col, row = ~self.transform @ (x, y)
        return row, col

    @property
    def pixel_size(self) -> float | None:
        """Side of a pixel on the ground in metres, at the centre of the grid; None without a CRS.

        Measured as a geodesic, so that degrees and web-mercator metres (which are longer than metres on
        the ground by 1 / cos(latitude)) become metres too. Non-square pixels give the side of the square
        of the same area.
        """
        sides = self.pixel_sides
        return None if sides is None else math.sqrt(sides[0] * sides[1])

    @property
    def pixel_sides(self) -> tuple[float, float] | None:
        """Height and width of a pixel on the ground in metres, measured likewise; None without a CRS."""
        if self.crs is None:
            return None
        row, col = self.height / 2, self.width / 2
        corners = [self.xy(row, col), self.xy(row + 1, col), self.xy(row, col + 1)]
        try:
            crs = pyproj.CRS.from_wkt(self.crs.to_wkt())
            to_lonlat = pyproj.Transformer.from_crs(crs, crs.geodetic_crs or "EPSG:4326", always_xy=True)
            x, y = zip(*corners, strict=True)
            lon, lat = to_lonlat.transform(x, y)
            ellipsoid = crs.get_geod() or pyproj.Geod(ellps="WGS84")
            _, _, (down, across) = ellipsoid.inv([lon[0]] * 2, [lat[0]] * 2, lon[1:], lat[1:])
        except ProjError as error:
            raise GridError(f"the size of a pixel cannot be measured in {name_of(self.crs)}: {error}") from error
        return down, across

    def same_place(self, other: "Grid") -> bool:
        """True if both lie on the same pixels: same shape and CRS, corners within 1/100 of a pixel."""
        return self.shape == other.shape and self.crs == other.crs and self.differs_by(other) < 0.01

    def differs_by(self, other: "Grid") -> float:
        """The largest distance between matching corners, in pixels of this grid."""
        corners = [(0, 0), (0, self.width), (self.height, 0), (self.height, self.width)]
        offsets: list[float] = []
        for row, col in corners:
            other_row, other_col = self.row_col(*other.xy(row, col))
            offsets += [abs(other_row - row), abs(other_col - col)]
        return max(offsets)


def check_north_up(transform: Affine, name: str) -> None:
    """Raise GridError unless rows run south and columns east.

    Args:
        transform: of the raster.
        name: of the raster, for the message.
    """
    if transform.b or transform.d:
        angle = math.degrees(math.atan2(transform.d, transform.a))
        raise GridError(
            f"{name} has a rotated geotransform ({angle:.2f} degrees). A north-up raster was expected. "
            f'Make one with "gdalwarp {name} north_up.tif".'
        )
    if transform.a <= 0 or transform.e >= 0:
        raise GridError(
            f"{name} has pixel steps of {transform.a:g} (x) and {transform.e:g} (y). Columns that run east and "
            f'rows that run south were expected. Make such a raster with "gdalwarp {name} north_up.tif".'
        )


def name_of(crs: Any) -> str:
    """A CRS in a few words: its authority code, else its name.

    >>> name_of(CRS.from_epsg(4326))
    'EPSG:4326'
    """
    if crs is None:
        return "no CRS"
    described = pyproj.CRS.from_user_input(crs)
    authority = described.to_authority()
    return ":".join(authority) if authority else str(described.name)
