"""Label numbers: a label raster in which each number is an object, and 0 is the background.

On another grid, a pixel has the number at its centre: a majority of numbers would lose small objects.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from landscribe.data.scenes.label_raster import LabelRaster, RasterLabels, located_labels
from landscribe.data.scenes.polygon_files import PolygonFiles
from landscribe.data.scenes.spec import SceneSpec
from landscribe.geo.classes import Classes
from landscribe.geo.grid import Window
from landscribe.geo.rasters.derived.resampling import resample_to
from landscribe.geo.rasters.raster import Raster

_FIRST = 1
"""The lowest number of an object, which is the threshold of the class foreground."""


@dataclass(frozen=True)
class LabelNumbers(LabelRaster):
    """A raster of object numbers on the grid of an image."""

    @classmethod
    def open(cls, path: str, image: Raster, spec: SceneSpec, _polygons: PolygonFiles) -> "LabelNumbers":
        """Open the object numbers of `image`.

        Raises:
            LabelError, GridError: as `LabelRaster.open`.
        """
        # Colours of numbers mean nothing: 0 may be transparent, and is the background.
        numbers = replace(located_labels(path, image, spec), has_palette=False)
        if numbers.nodata == 0:
            # Programs declare 0 as nodata; it is the background.
            numbers = numbers.with_nodata(None)
        if not numbers.grid.is_aligned(image.grid):
            numbers = resample_to(numbers, image.grid, nearest=True)
        return cls(numbers, _FIRST, spec.label_nodata_as)

    def with_classes(self, classes: Classes) -> "NumberLabels":
        """The raster with a class table.

        Raises:
            ClassError: the table has no class with the name that nodata pixels get.
        """
        return NumberLabels(self, classes, self._nodata_value(classes))


@dataclass(frozen=True)
class NumberLabels(RasterLabels):
    """A raster of object numbers with a class table."""

    separates_objects: ClassVar[bool] = True

    def objects(self, window: Window) -> NDArray[np.uint32]:
        """Object numbers (height, width), 0 where there is none."""
        pixels, opaque, is_nodata = self.source.stored(window)
        return np.where(opaque & ~is_nodata & (pixels[0] >= _FIRST), pixels[0], 0).astype(np.uint32)
