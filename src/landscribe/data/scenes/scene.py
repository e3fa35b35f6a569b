"""Scenes: imagery and labels on one grid, read together by window."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landscribe.data.scenes.label_raster import LabelRaster
from landscribe.data.scenes.spec import ClassSpec, SceneSpec, SplitName, is_colour
from landscribe.errors import ClassError, GridError, LabelError, RecipeError
from landscribe.geo.classes import IGNORE, ClassEntry, Classes, Label, default_colour
from landscribe.geo.features import Features, burn, rasterize_mask
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.raster import Pixels, Raster, Valid

LABELLED = "labelled"
"""Name of the only class of polygons without a class column, if their files have different names."""

VECTOR_SUFFIXES = {".geojson", ".json", ".gpkg", ".shp", ".fgb", ".parquet", ".gml", ".kml"}


class LabelSource(Protocol):
    """Labels on a grid, read by window."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class values (height, width) of a window, which may reach outside the grid."""


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


@dataclass(frozen=True)
class RasterLabels:
    """A label raster with a class table."""

    source: LabelRaster
    classes: Classes

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class values (height, width); ignore where the raster has no label."""
        return self.source.read(window, self.classes)


@dataclass(frozen=True)
class Scene:
    """Imagery + labels + split."""

    name: str
    image: Raster
    labels: LabelSource
    split: SplitName | None = None

    def read(self, window: Window) -> tuple[Pixels, Valid, NDArray[np.uint8]]:
        """Pixels (bands, rows, cols), valid (rows, cols), class values (rows, cols); ignore where not valid."""
        pixels, valid = self.image.read(window)
        mask = self.labels.read(window)
        return pixels, valid, np.where(valid, mask, np.uint8(IGNORE))


@dataclass(frozen=True)
class ClippedLabels:
    """Labels clipped to polygons."""

    labels: LabelSource
    area: Features
    """In the CRS of `grid`."""
    grid: Grid

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class values (height, width); ignore outside the area."""
        return np.where(rasterize_mask(self.area, self.grid, window), self.labels.read(window), np.uint8(IGNORE))


def open_scenes(specs: Sequence[SceneSpec], table: Sequence[ClassSpec] = ()) -> tuple[list[Scene], Classes]:
    """Open scenes with one class table for all.

    Args:
        specs: at least one, each with labels.
        table: the class table; if empty, all labels become classes, in sorted order.

    Raises:
        LandscribeError: the files cannot be used together.
    """
    if not specs:
        raise RecipeError("there are no scenes. Expected at least one image with labels. Add a scene to the recipe.")
    images = open_images(specs)
    _require_same_bands(list(images.values()))
    polygons = _PolygonFiles()
    sources = [_open_source(spec, image, polygons) for spec, image in zip(specs, images.values(), strict=True)]
    classes = _classes(table, sources)
    scenes = [
        Scene(name, image, _clipped(spec, image, source.with_classes(classes), polygons), spec.split)
        for (name, image), source, spec in zip(images.items(), sources, specs, strict=True)
    ]
    return scenes, classes


def open_images(specs: Sequence[SceneSpec]) -> dict[str, Raster]:
    """The images by scene name, which is the file's stem, with the scene's index if several have the same stem."""
    images = [open_image(spec) for spec in specs]
    stems = [image.name for image in images]
    names = [stem if stems.count(stem) == 1 else f"{stem}_{index}" for index, stem in enumerate(stems)]
    if len(set(names)) < len(names):
        # A stem may equal another stem with its index.
        names = [f"{stem}_{index}" for index, stem in enumerate(stems)]
    return dict(zip(names, images, strict=True))


def open_image(spec: SceneSpec) -> Raster:
    """The image of a scene, with the band names of `spec`."""
    image = Raster.open(spec.image, nodata=spec.nodata, nodata_rule=spec.nodata_rule)
    return image if spec.bands is None else image.with_band_names(spec.bands)


def open_labels(spec: SceneSpec, image: Raster, classes: Classes) -> LabelSource:
    """The labels of `spec` on the grid of `image`, with an existing class table."""
    polygons = _PolygonFiles()
    return _clipped(spec, image, _open_source(spec, image, polygons).with_classes(classes), polygons)


class _PolygonFiles:
    """Polygon files; each is read and reprojected once for all scenes of a CRS."""

    def __init__(self) -> None:
        self._features: dict[tuple[str, str | None, bool, Any], Features] = {}

    def on(self, image: Raster, path: str, *, field: str | None = None, fix_geometries: bool) -> Features:
        """The features of a file in the CRS of an image.

        Raises:
            LabelError: no feature intersects the image.
        """
        key = (path, field, fix_geometries, image.grid.crs)
        if key not in self._features:
            features = Features.read(path, field=field, fix_geometries=fix_geometries)
            self._features[key] = features.to_crs(image.grid.crs, image.paths[0])
        return self._features[key].require_overlap(image.grid, image.paths[0])


def _clipped(spec: SceneSpec, image: Raster, labels: LabelSource, polygons: _PolygonFiles) -> LabelSource:
    if spec.labelled_area is None:
        return labels
    area = polygons.on(image, spec.labelled_area, fix_geometries=spec.fix_geometries)
    return ClippedLabels(labels, area, image.grid)


def is_vector(path: str) -> bool:
    """True if the suffix of a file is that of a vector format."""
    return Path(path).suffix.lower() in VECTOR_SUFFIXES


def _require_same_bands(images: Sequence[Raster]) -> None:
    """Raise GridError if scenes differ in the number of bands or the dtype: one network is trained on all."""
    first = images[0]
    for other in images[1:]:
        if len(other.bands) != len(first.bands) or other.dtype != first.dtype:
            raise GridError(
                f"{other.paths[0]} has {len(other.bands)} bands of {other.dtype}, but {first.paths[0]} has "
                f"{len(first.bands)} of {first.dtype}. Expected the same for all scenes. Convert one (gdal_translate)."
            )


@dataclass(frozen=True)
class _VectorSource:
    """Polygons of a scene, before the class table is complete."""

    features: Features
    grid: Grid
    has_field: bool
    sparse: bool

    def labels(self) -> list[Label]:
        return list(self.features.labels)

    def with_classes(self, classes: Classes) -> LabelSource:
        values = self._only_class(classes) if not self.has_field else None
        if values is None:
            values = classes.values_of(self.features.labels, self.features.name)
        return PolygonLabels(self.features, values, classes, self.grid, self.sparse)

    def _only_class(self, classes: Classes) -> NDArray[np.uint8] | None:
        """The value of the only class other than background, for all polygons; None if there are several."""
        if len(classes.foreground) != 1:
            return None
        return np.full(len(self.features), classes.foreground[0].value, np.uint8)


@dataclass(frozen=True)
class _RasterSource:
    """The label raster of a scene, before the class table is complete."""

    source: LabelRaster

    def with_classes(self, classes: Classes) -> LabelSource:
        return RasterLabels(self.source, classes)


def _open_source(spec: SceneSpec, image: Raster, polygons: _PolygonFiles) -> "_VectorSource | _RasterSource":
    if spec.labels is None:
        raise LabelError(
            f"{image.paths[0]} has no labels. Expected polygons or a label raster. Set labels = … for this scene."
        )
    if not is_vector(spec.labels):
        return _RasterSource(LabelRaster.open(spec.labels, image))
    features = polygons.on(image, spec.labels, field=spec.label_field, fix_geometries=spec.fix_geometries)
    return _VectorSource(features, image.grid, spec.label_field is not None, spec.sparse)


def _classes(table: Sequence[ClassSpec], sources: Sequence[_VectorSource | _RasterSource]) -> Classes:
    polygons = [source for source in sources if isinstance(source, _VectorSource)]
    if table:
        rows = [_entry(row, index, words=bool(polygons)) for index, row in enumerate(table)]
        unknown = tuple(row.label for row in rows if row.value == IGNORE)
        return Classes(tuple(row for row in rows if row.value != IGNORE), unknown=unknown)
    # If all labels are sparse, no pixel is background.
    background = any(not source.sparse for source in polygons)
    if len(polygons) == len(sources) and not any(source.has_field for source in polygons):
        # Without a class column, the polygons of all files are one class.
        names = {name for source in polygons for name in source.labels()}
        return Classes.from_labels([names.pop() if len(names) == 1 else LABELLED], background=background)
    rasters = [source.source for source in sources if isinstance(source, _RasterSource)]
    # If one mask has bands of colours, the palettes of the other masks are colours too.
    colours = any(raster.is_coloured for raster in rasters)
    labels = {label for source in polygons for label in source.labels()}
    labels |= {label for raster in rasters for label in raster.labels(colours=colours)}
    kinds = {type(label) for label in labels}
    if len(kinds) > 1:
        raise ClassError(
            "labels are text in some scenes and numbers in others. Expected one kind for all scenes. Write a class "
            "table into the recipe."
        )
    if not labels:
        raise LabelError("the label rasters are all nodata. Expected at least one class. Check their nodata value.")
    classes = Classes.from_labels(sorted(labels, key=str), background=background)
    return Classes(tuple(replace(entry, colour=_colour_of(entry.label, entry.colour)) for entry in classes))


def _entry(row: ClassSpec, index: int, *, words: bool) -> ClassEntry:
    label = row.label if row.label is not None else (row.name if words else row.value)
    colour = row.colour or _colour_of(label, default_colour(index, background=row.value == 0))
    return ClassEntry(row.value, row.name, colour, label)


def _colour_of(label: Label, default: str) -> str:
    """The colour of a class: its label in coloured masks."""
    return str(label) if is_colour(label) else default


def class_rows(classes: Classes) -> list[ClassSpec]:
    """A class table as rows of a recipe, with the labels of unlabelled pixels."""
    rows = [ClassSpec(name=entry.name, value=entry.value, colour=entry.colour, label=entry.label) for entry in classes]
    return rows + [ClassSpec(name=f"unknown {label}", value=IGNORE, label=label) for label in classes.unknown]


def fill_value(image: Raster) -> float | None:
    """The nodata value for copies of the image.

    Returns:
        The image's nodata if its dtype can hold it, else NaN for floats, else None.
    """
    dtype = np.dtype(image.dtype)
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    if image.nodata is not None and float(limits.min) <= image.nodata <= float(limits.max):
        return image.nodata
    return math.nan if dtype.kind == "f" else None
