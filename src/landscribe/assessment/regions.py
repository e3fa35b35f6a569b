"""Accuracy by region: polygons with a name, such as districts, each with a confusion matrix of its own."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from landscribe.data.scenes.polygon_files import PolygonFiles
from landscribe.geo.classes import IGNORE
from landscribe.geo.features import Features
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.burning import burn


class Regions:
    """A file of polygons, each of a region; of polygons that overlap, the later in the file lies on top."""

    def __init__(self, path: str, field: str | None) -> None:
        """Read the file.

        Args:
            path: of polygons in any CRS.
            field: column with the name of a polygon's region; None if all polygons are one region.

        Raises:
            LabelError: the file cannot be read, or lacks the column.
        """
        self._files, self._path, self._field = PolygonFiles(), path, field
        labels = self._files.read(path, field=field).labels
        self.names = tuple(dict.fromkeys(map(str, labels)))
        """Of the regions, in the order of the file."""

    def on(self, mapped: Raster) -> "RegionsOnMap":
        """The regions on the grid of a map, which need not overlap any."""
        features = self._files.reprojected(mapped, self._path, field=self._field)
        index = {name: number for number, name in enumerate(self.names, 1)}
        numbers = np.array([index[str(label)] for label in features.labels], np.uint32)
        return RegionsOnMap(self.names, features, numbers, mapped.grid)


@dataclass(frozen=True, eq=False)
class RegionsOnMap:
    """Regions on a grid, burned window by window."""

    names: tuple[str, ...]
    features: Features
    numbers: NDArray[np.uint32]
    """Of the region of each polygon, from 1."""
    grid: Grid

    def parts(self, window: Window, reference: NDArray[np.uint8]) -> Iterator[tuple[str, Window, NDArray[np.uint8]]]:
        """The regions of a window: name, the part of the window around it, and the reference in it, 255 outside.

        A pixel is in the region whose polygon contains its centre; a pixel in no region is in no part.

        Args:
            window: of the grid.
            reference: (height, width) class indices of the window, or 255 for ignore.
        """
        burned = burn(self.features, np.ones(len(self.features), np.uint8), (1,), self.grid, 0, window,
                      numbers=self.numbers)  # fmt: skip
        regions = np.where(reference == IGNORE, 0, burned).astype(np.int32)
        for number, part in enumerate(ndimage.find_objects(regions), 1):
            if part is not None:
                rows, cols = part
                around = Window(
                    window.row + rows.start, window.col + cols.start, rows.stop - rows.start, cols.stop - cols.start
                )
                own = np.where(regions[part] == number, reference[part], np.uint8(IGNORE))
                yield self.names[number - 1], around, own
