"""Label rasters: one band of class values, or colours that stand for classes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from landscribe.errors import GridError, LabelError
from landscribe.geo.access import open_dataset
from landscribe.geo.classes import IGNORE, Classes, Label
from landscribe.geo.grid import Grid, Window, crs_label
from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.geo.rasters.whole_files import read_palette

_COLOUR_BANDS = 3
_NO_COLOUR = -1
_STRIP_PIXELS = 2**24


@dataclass(frozen=True)
class LabelRaster:
    """A label raster on the grid of an image; where it lies on another one, each pixel takes its nearest label."""

    raster: Raster
    grid: Grid
    """Of the image."""
    on_grid: bool
    """Its pixels are the image's."""

    @classmethod
    def open(cls, path: str, image: Raster) -> "LabelRaster":
        """Open the labels of `image`.

        Raises:
            LabelError: neither one band of whole numbers nor three of colours.
            GridError: it cannot be placed on the image.
        """
        labels = Raster.open([path])
        _require_labels(labels, path)
        grid = labels.grid
        unplaced = grid.crs is None and grid.shape == image.grid.shape
        if grid.crs is None and not unplaced:
            raise GridError(
                f"{path} has no CRS and {grid.height} x {grid.width} pixels, but {image.paths[0]} has "
                f"{image.grid.height} x {image.grid.width}. Without a CRS, sizes must be equal. Check the pair."
            )
        if not unplaced and image.grid.crs is None:
            raise GridError(
                f"{image.paths[0]} has no CRS, but {path} is in {crs_label(grid.crs)}. Assign the image its CRS."
            )
        return cls(labels, image.grid, on_grid=unplaced or grid.is_aligned(image.grid))

    @property
    def is_coloured(self) -> bool:
        """True if its pixels can be nothing but colours."""
        return len(self.raster.bands) == _COLOUR_BANDS

    def labels(self, *, colours: bool) -> set[Label]:
        """Every label that occurs, found by reading everything once."""
        found: set[int] = set()
        for strip in self.grid.strips(_STRIP_PIXELS, block=1):
            codes, known = self._read(strip, colours=colours)
            found |= set(np.unique(codes[known]).tolist())
        return {_label(code, colours=colours) for code in found if colours or code != IGNORE}

    def read(self, window: Window, classes: Classes) -> NDArray[np.uint8]:
        """Class values (height, width); what the raster does not know, or has nothing of, is ignore.

        Raises:
            ClassError: a label that is not in the table.
        """
        values = np.full(window.shape, classes.ignore, np.uint8)
        inside = window & self.grid.window
        if not inside.is_empty:
            colours = stand_for_colours(classes)
            codes, known = self._read(inside, colours=colours)
            part = np.full(inside.shape, classes.ignore, np.uint8)
            part[known] = self._values(codes[known], classes, colours=colours)
            values[inside.relative_to(window).slices] = part
        return values

    def _values(self, codes: NDArray[Any], classes: Classes, *, colours: bool) -> NDArray[np.uint8]:
        distinct, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
        table = np.full(len(distinct), classes.ignore, np.uint8)
        labelled = np.ones(len(distinct), bool) if colours else distinct != classes.ignore
        occurring = {
            _label(code, colours=colours): count
            for code, count in zip(distinct[labelled].tolist(), counts[labelled].tolist(), strict=True)
        }
        table[labelled] = classes.values_of(list(occurring), self.raster.paths[0], occurring)
        return table[places]

    def _read(self, window: Window, *, colours: bool) -> tuple[NDArray[Any], Valid]:
        """Numbers as they stand, or colours as 0xRRGGBB, of a window; and where they are known."""
        pixels, known = self.raster.read(window) if self.on_grid else self._warped(window)
        if not colours:
            self._require_numbers()
            return pixels[0], known
        if not self.is_coloured:
            # What has no colour is as unknown as what is nodata.
            codes = self._palette()[pixels[0]]
            return codes, known & (codes != _NO_COLOUR)
        red, green, blue = pixels.astype(np.int32)
        return (red << 16) | (green << 8) | blue, known

    def _require_numbers(self) -> None:
        if self.is_coloured:
            raise LabelError(
                f"{self.raster.paths[0]} holds colours in {_COLOUR_BANDS} bands, but the class table has none. "
                'Colours like label = "#3c1098" were expected. Write the colour of each class into the table.'
            )

    def _palette(self) -> NDArray[np.int32]:
        palette = read_palette(self.raster.paths[0])
        if palette is None:
            raise LabelError(
                f"{self.raster.paths[0]} has one band without a palette, but the class table's labels are colours. "
                "Coloured masks were expected. Give the numbers that the mask holds as labels."
            )
        table = np.full(2**16, _NO_COLOUR, np.int32)
        for index, (red, green, blue) in palette.items():
            table[index] = (red << 16) | (green << 8) | blue
        return table

    def _warped(self, window: Window) -> tuple[Pixels, Valid]:
        part = RasterioWindow(window.col, window.row, window.width, window.height)
        grid = self.grid
        target = {"crs": grid.crs, "transform": grid.transform, "width": grid.width, "height": grid.height}
        bands = list(range(1, len(self.raster.bands) + 1))
        # The alpha band of the VRT is 0 outside the label raster.
        with (
            open_dataset(self.raster.paths[0]) as source,
            WarpedVRT(source, **target, resampling=Resampling.nearest, add_alpha=True) as warped,
        ):
            return warped.read(bands, window=part), warped.read(warped.count, window=part) > 0


def is_colour(label: Label) -> bool:
    """True for "#rrggbb"."""
    return isinstance(label, str) and len(label) == len("#rrggbb") and label.startswith("#")


def stand_for_colours(classes: Classes) -> bool:
    """True if the labels of a class table are colours."""
    return any(map(is_colour, (*(entry.label for entry in classes), *classes.unknown)))


def _label(code: int, *, colours: bool) -> Label:
    return f"#{code:06x}" if colours else code


def _require_labels(labels: Raster, path: str) -> None:
    coloured = len(labels.bands) == _COLOUR_BANDS and labels.dtype == "uint8"
    if len(labels.bands) != 1 and not coloured:
        raise LabelError(
            f"{path} has {len(labels.bands)} bands of {labels.dtype}. A label raster with one band of class values, or "
            "three of uint8 colours, was expected."
        )
    if np.dtype(labels.dtype).kind == "f":
        raise LabelError(
            f"{path} holds {labels.dtype}. Whole class values were expected. Convert it (gdal_translate -ot Byte)."
        )
