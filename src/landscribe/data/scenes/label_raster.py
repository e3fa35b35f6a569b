"""Label rasters: one band of class values, or colours of classes."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from landscribe.data.scenes.polygon_files import PolygonFiles
from landscribe.data.scenes.spec import SceneSpec, is_colour
from landscribe.errors import GridError, LabelError
from landscribe.geo.classes import IGNORE, Classes, Label
from landscribe.geo.grid import Window, crs_label
from landscribe.geo.rasters.raster import Raster, Valid
from landscribe.geo.rasters.resampling import resample_to
from landscribe.geo.rasters.whole_files import read_palette

_COLOUR_BANDS = 3
_NO_COLOUR = -1
_STRIP_PIXELS = 2**24


@dataclass(frozen=True)
class LabelRaster:
    """A label raster on the grid of an image."""

    has_background: ClassVar[bool] = False
    is_one_class: ClassVar[bool] = False
    has_names: ClassVar[bool] = False

    raster: Raster
    """Resampled (nearest) if the file has another grid than the image."""

    @classmethod
    def open(cls, path: str, image: Raster, _spec: SceneSpec, _polygons: PolygonFiles) -> "LabelRaster":
        """Open the labels of `image`.

        Raises:
            LabelError: the raster has neither one band of integers nor three bands of colours.
            GridError: the raster or the image lacks a CRS.
        """
        labels = Raster.open([path])
        _require_labels(labels, path)
        grid = labels.grid
        same_pixels = grid.crs is None and grid.shape == image.grid.shape
        if grid.crs is None and not same_pixels:
            raise GridError(
                f"{path} has no CRS and {grid.height} x {grid.width} pixels, but {image.paths[0]} has "
                f"{image.grid.height} x {image.grid.width}. Without a CRS, sizes must be equal. Check the pair."
            )
        if not same_pixels and image.grid.crs is None:
            raise GridError(
                f"{image.paths[0]} has no CRS, but {path} is in {crs_label(grid.crs)}. Assign the image its CRS."
            )
        is_on_grid = same_pixels or grid.is_aligned(image.grid)
        return cls(labels if is_on_grid else resample_to(labels, image.grid, nearest=True))

    @property
    def has_colours(self) -> bool:
        """True if the raster has three bands of colours."""
        return len(self.raster.bands) == _COLOUR_BANDS

    def labels(self, *, colours: bool) -> set[Label]:
        """Every label in the raster; reads all of it once."""
        codes: set[int] = set()
        for strip in self.raster.grid.strips(_STRIP_PIXELS, block=1):
            pixels, valid = self._read(strip, colours=colours)
            codes |= set(np.unique(pixels[valid]).tolist())
        return {_label(code, colours=colours) for code in codes if colours or code != IGNORE}

    def with_classes(self, classes: Classes) -> "RasterLabels":
        """The raster with a class table."""
        return RasterLabels(self, classes)

    def read(self, window: Window, classes: Classes) -> NDArray[np.uint8]:
        """Class values (height, width); ignore where the raster is nodata or does not reach.

        Raises:
            ClassError: a label is not in the table.
        """
        values = np.full(window.shape, classes.ignore, np.uint8)
        inside = window & self.raster.grid.window
        if not inside.is_empty:
            colours = has_colour_labels(classes)
            codes, valid = self._read(inside, colours=colours)
            inside_values = np.full(inside.shape, classes.ignore, np.uint8)
            inside_values[valid] = self._values(codes[valid], classes, colours=colours)
            values[inside.relative_to(window).slices] = inside_values
        return values

    def _values(self, codes: NDArray[Any], classes: Classes, *, colours: bool) -> NDArray[np.uint8]:
        distinct, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
        table = np.full(len(distinct), classes.ignore, np.uint8)
        labelled = np.ones(len(distinct), bool) if colours else distinct != classes.ignore
        occurring = {
            _label(code, colours=colours): count
            for code, count in zip(distinct[labelled].tolist(), counts[labelled].tolist(), strict=True)
        }
        table[labelled] = classes.values_of(list(occurring), self.raster.paths[0], occurring)
        return table[inverse]

    def _read(self, window: Window, *, colours: bool) -> tuple[NDArray[Any], Valid]:
        """Codes and valid, (height, width) each; a code is the stored number, or a colour as 0xRRGGBB."""
        pixels, valid = self.raster.read(window)
        if not colours:
            self._require_numbers()
            return pixels[0], valid
        if not self.has_colours:
            # Pixels without a palette colour are unlabelled, as nodata is.
            codes = self._palette()[pixels[0]]
            return codes, valid & (codes != _NO_COLOUR)
        red, green, blue = pixels.astype(np.int32)
        return (red << 16) | (green << 8) | blue, valid

    def _require_numbers(self) -> None:
        if self.has_colours:
            raise LabelError(
                f"{self.raster.paths[0]} has {_COLOUR_BANDS} bands of colours, but the class table has no colours. "
                'Expected labels like label = "#3c1098". Write the colour of each class into the table.'
            )

    def _palette(self) -> NDArray[np.int32]:
        palette = read_palette(self.raster.paths[0])
        if palette is None:
            raise LabelError(
                f"{self.raster.paths[0]} has one band without a palette, but the class table's labels are colours. "
                "Expected coloured masks. Give the mask's numbers as labels."
            )
        table = np.full(2**16, _NO_COLOUR, np.int32)
        for index, (red, green, blue) in palette.items():
            table[index] = (red << 16) | (green << 8) | blue
        return table


@dataclass(frozen=True)
class RasterLabels:
    """A label raster with a class table."""

    source: LabelRaster
    classes: Classes

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class values (height, width); ignore where the raster has no label."""
        return self.source.read(window, self.classes)


def has_colour_labels(classes: Classes) -> bool:
    """True if the labels of a class table are colours."""
    return any(map(is_colour, (*(entry.label for entry in classes), *classes.unknown)))


def _label(code: int, *, colours: bool) -> Label:
    return f"#{code:06x}" if colours else code


def _require_labels(labels: Raster, path: str) -> None:
    coloured = len(labels.bands) == _COLOUR_BANDS and labels.dtype == "uint8"
    if len(labels.bands) != 1 and not coloured:
        raise LabelError(
            f"{path} has {len(labels.bands)} bands of {labels.dtype}. Expected one band of class values, or three of "
            "uint8 colours. Check the path."
        )
    if np.dtype(labels.dtype).kind == "f":
        raise LabelError(
            f"{path} has dtype {labels.dtype}. Expected integer class values. Convert it (gdal_translate -ot Byte)."
        )
