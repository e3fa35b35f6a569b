"""Accuracy by region: polygons with a name, such as districts, each with a confusion matrix of its own."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landscribe.confusion import Confusion
from landscribe.data.scenes.polygon_files import PolygonFiles
from landscribe.geo.classes import IGNORE, Classes
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

    def confusions(
        self, window: Window, classes: Classes, reference: NDArray[np.uint8], predicted: NDArray[np.uint8]
    ) -> dict[str, Confusion]:
        """The confusion of each region with compared pixels in a window; arguments as of `BlockCounter.count`.

        A pixel is in the region whose polygon contains its centre; a pixel in no region is in no confusion.
        """
        burned = burn(self.features, np.ones(len(self.features), np.uint8), (1,), self.grid, 0, window,
                      numbers=self.numbers)  # fmt: skip
        inside = (burned > 0) & (reference != IGNORE)
        regions, reference, predicted = burned[inside], reference[inside], predicted[inside]
        present = np.flatnonzero(np.bincount(regions, minlength=1))
        order = np.zeros(len(self.names) + 1, np.int64)
        order[present] = np.arange(len(present))
        rows, mapped, size = order[regions], predicted != IGNORE, len(classes)
        codes = (rows[mapped] * size + reference[mapped]) * size + predicted[mapped]
        counts = np.bincount(codes, minlength=len(present) * size**2).reshape(len(present), size, size)
        unmapped = np.bincount(rows[~mapped], minlength=len(present))
        return {
            self.names[number - 1]: Confusion(classes, counts[row], int(unmapped[row]))
            for row, number in enumerate(present.tolist())
        }
