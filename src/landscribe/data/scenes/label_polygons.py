"""Label polygons: features with a class column, or of one class, burned by window."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from landscribe.data.scenes.polygon_files import PolygonFiles
from landscribe.data.scenes.spec import SceneSpec
from landscribe.geo.classes import Classes, Label
from landscribe.geo.features import Features, burn
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.raster import Raster

VECTOR_SUFFIXES = {".geojson", ".json", ".gpkg", ".shp", ".fgb", ".parquet", ".gml", ".kml"}


def is_vector(path: str) -> bool:
    """True if the suffix of a file is that of a vector format."""
    return Path(path).suffix.lower() in VECTOR_SUFFIXES


@dataclass(frozen=True)
class LabelPolygons:
    """Polygons on the grid of an image."""

    has_colours: ClassVar[bool] = False
    is_thresholded: ClassVar[bool] = False
    has_names: ClassVar[bool] = True

    features: Features
    """In the CRS of `grid`."""
    grid: Grid
    has_field: bool
    """The features have a class column."""
    sparse: bool
    """The area between polygons is unlabelled."""

    @classmethod
    def open(cls, path: str, image: Raster, spec: SceneSpec, polygons: PolygonFiles) -> "LabelPolygons":
        """Open the labels of `image`.

        Raises:
            LabelError: the file cannot be used, or no polygon intersects the image.
        """
        features = polygons.on(image, path, field=spec.label_field, fix_geometries=spec.fix_geometries)
        return cls(features, image.grid, spec.label_field is not None, spec.sparse)

    @property
    def has_background(self) -> bool:
        """True unless the area between polygons is unlabelled."""
        return not self.sparse

    @property
    def is_one_class(self) -> bool:
        """True without a class column."""
        return not self.has_field

    def labels(self, *, colours: bool) -> set[Label]:  # noqa: ARG002 polygons have no palette
        """Every label of the polygons."""
        return set(self.features.labels)

    def with_classes(self, classes: Classes) -> "PolygonLabels":
        """The polygons with a class table.

        Raises:
            ClassError: a label is not in the table.
        """
        values = self._only_class(classes) if self.is_one_class else None
        if values is None:
            values = classes.values_of(self.features.labels, self.features.name)
        return PolygonLabels(self.features, values, classes, self.grid, self.sparse)

    def _only_class(self, classes: Classes) -> NDArray[np.uint8] | None:
        """The value of the only class other than background, for all polygons; None if there are several."""
        if len(classes.foreground) != 1:
            return None
        return np.full(len(self.features), classes.foreground[0].value, np.uint8)


@dataclass(frozen=True)
class PolygonLabels:
    """Polygons, rasterized by window."""

    features: Features
    """In the CRS of `grid`."""
    values: NDArray[np.uint8]
    """Class value of each polygon."""
    classes: Classes
    grid: Grid
    sparse: bool
    """The area between polygons is unlabelled."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class values (height, width); outside polygons background, or ignore if labels are sparse."""
        fill = self.classes.ignore if self.sparse else self.classes.background
        order = (*self.classes.values, self.classes.ignore)
        return burn(self.features, self.values, order, self.grid, fill, window)
