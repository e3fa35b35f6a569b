"""Scene: imagery and labels on one grid, read together by window."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from landscribe.data.scenes.label_raster import LabelRaster, is_colour
from landscribe.errors import ClassError, GridError, LabelError, RecipeError
from landscribe.geo.classes import IGNORE, ClassEntry, Classes, Label, default_colour
from landscribe.geo.features import Features, burn, rasterize_mask
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.nodata import NodataRule
from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.spec import Spec

SplitName = Literal["train", "val", "test"]
LABELLED = "labelled"
"""The one class of polygons without a class column that come in files of different names."""

VECTOR_SUFFIXES = {".geojson", ".json", ".gpkg", ".shp", ".fgb", ".parquet", ".gml", ".kml"}


class SceneSpec(Spec):
    """Where a scene's files are."""

    image: tuple[str, ...]
    """One file, or several on the same grid, stacked as bands in this order. A folder or a pattern such as
    images/*.tif stands for many scenes."""
    labels: str | None = None
    """Polygons or a label raster; for many scenes also a folder or pattern of files with the images' names."""
    stack: bool = False
    """The files of a folder or pattern are the bands of one scene."""
    without: tuple[str, ...] = ()
    """Names of images of a folder or pattern that are left out."""
    bands: tuple[str, ...] | None = None
    """Names of the bands, such as red, green, nir; the files' own if left out."""
    label_field: str | None = None
    """The polygons' class column; without one they are all one class, named like the file."""
    split: SplitName | None = None
    """Put the whole scene into one split; without this, spatial blocks decide."""
    nodata: float | None = None
    """Overrides what the image files declare; nan comes beside it, for all pixels that are not finite."""
    nodata_rule: NodataRule = "auto"
    """A pixel is not valid where any of its bands holds nodata, or only where all do; auto is all for 0 and the largest
    value of unsigned types, and any for others."""
    labelled_area: str | None = None
    """Polygons outside of which nothing is known, whatever the labels hold there."""
    sparse: bool = False
    """Only what polygons cover is labelled: the ground between them is not known, rather than background."""
    repair: bool = False
    """Mend self-crossing polygons and leave out null and empty ones, instead of refusing them."""

    @field_validator("image", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, (str, Path)) else value


class ClassSpec(Spec):
    """A row of the class table as a person writes it."""

    name: str
    value: int
    """In masks and maps, 0 to 254; 0 is what fills the ground between polygons. 255: not known, no class."""
    colour: str | None = None
    """"#rrggbb"."""
    label: Label | None = None
    """What the labels hold for this class, "#rrggbb" in coloured masks; the value for label rasters, the name for
    polygons, if left out."""

    @field_validator("label")
    @classmethod
    def _colours_are_small(cls, label: Label | None) -> Label | None:
        return label.lower() if isinstance(label, str) and is_colour(label) else label


class LabelSource(Protocol):
    """What gives class values by window."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class values (height, width) of a window, which may reach outside the grid."""


@dataclass(frozen=True)
class PolygonLabels:
    """Polygons, burned where they are asked for."""

    features: Features
    """In the CRS of `grid`."""
    values: NDArray[np.uint8]
    classes: Classes
    grid: Grid
    sparse: bool

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class values; what no polygon covers is background, or ignore if labels are sparse."""
        fill = self.classes.ignore if self.sparse else self.classes.background
        order = (*self.classes.values, self.classes.ignore)
        return burn(self.features, self.values, order, self.grid, fill, window)


@dataclass(frozen=True)
class RasterLabels:
    """A label raster with a class table."""

    source: LabelRaster
    classes: Classes

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class values; what the raster does not know is ignore."""
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
class LabelsWithin:
    """Labels that are known inside some polygons only."""

    labels: LabelSource
    area: Features
    """In the CRS of `grid`."""
    grid: Grid

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class values; ignore outside the area."""
        return np.where(rasterize_mask(self.area, self.grid, window), self.labels.read(window), np.uint8(IGNORE))


def open_scenes(specs: Sequence[SceneSpec], table: Sequence[ClassSpec] = ()) -> tuple[list[Scene], Classes]:
    """Open scenes with one class table for all.

    Args:
        specs: at least one, each with labels.
        table: the class table; if empty, it is made from all labels, in sorted order.

    Raises:
        LandscribeError: files that cannot be used together, each with what to do.
    """
    if not specs:
        raise RecipeError("no scene was given. At least one image with labels was expected.")
    opened = open_images(specs)
    images = list(opened.values())
    _require_alike(images)
    polygons = _Polygons()
    found = [_find_labels(spec, image, polygons) for spec, image in zip(specs, images, strict=True)]
    classes = _classes(table, found)
    scenes = [
        Scene(name, image, _within(spec, image, source.with_classes(classes), polygons), spec.split)
        for (name, image), source, spec in zip(opened.items(), found, specs, strict=True)
    ]
    return scenes, classes


def open_images(specs: Sequence[SceneSpec]) -> dict[str, Raster]:
    """The images alone, by the scenes' names: their stems, numbered where one stands twice."""
    images = [open_image(spec) for spec in specs]
    stems = [image.name for image in images]
    names = [stem if stems.count(stem) == 1 else f"{stem}_{place}" for place, stem in enumerate(stems)]
    if len(set(names)) < len(names):
        # A stem may look like a numbered one.
        names = [f"{stem}_{place}" for place, stem in enumerate(stems)]
    return dict(zip(names, images, strict=True))


def open_image(spec: SceneSpec) -> Raster:
    """The image of a scene, its bands named as it says."""
    image = Raster.open(spec.image, nodata=spec.nodata, nodata_rule=spec.nodata_rule)
    return image if spec.bands is None else image.with_band_names(spec.bands)


def open_labels(spec: SceneSpec, image: Raster, classes: Classes) -> LabelSource:
    """The labels of `spec` on the grid of `image`, with a class table that is given."""
    polygons = _Polygons()
    return _within(spec, image, _find_labels(spec, image, polygons).with_classes(classes), polygons)


class _Polygons:
    """Files of polygons, each read and brought to a CRS once, however many scenes they are for."""

    def __init__(self) -> None:
        self._placed: dict[tuple[str, str | None, bool, Any], Features] = {}

    def on(self, image: Raster, path: str, *, field: str | None = None, repair: bool) -> Features:
        """The features of a file in the CRS of an image, on which some of them lie."""
        key = (path, field, repair, image.grid.crs)
        if key not in self._placed:
            read = Features.read(path, field=field, fix_geometries=repair)
            self._placed[key] = read.to_crs(image.grid.crs, image.paths[0])
        return self._placed[key].require_overlap(image.grid, image.paths[0])


def _within(spec: SceneSpec, image: Raster, labels: LabelSource, polygons: _Polygons) -> LabelSource:
    if spec.labelled_area is None:
        return labels
    area = polygons.on(image, spec.labelled_area, repair=spec.repair)
    return LabelsWithin(labels, area, image.grid)


def is_vector(path: str) -> bool:
    """True if a file holds features rather than pixels, by its suffix."""
    return Path(path).suffix.lower() in VECTOR_SUFFIXES


def _require_alike(images: Sequence[Raster]) -> None:
    """Scenes must agree in bands and dtype: one network is trained on all of them."""
    first = images[0]
    for other in images[1:]:
        if len(other.bands) != len(first.bands) or other.dtype != first.dtype:
            raise GridError(
                f"{other.paths[0]} has {len(other.bands)} bands of {other.dtype}, but {first.paths[0]} has "
                f"{len(first.bands)} of {first.dtype}. Scenes of one recipe must agree. Convert one (gdal_translate)."
            )


@dataclass(frozen=True)
class _FoundPolygons:
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
        """Without a label field, all polygons are the one class that is not background."""
        if len(classes.foreground) != 1:
            return None
        return np.full(len(self.features), classes.foreground[0].value, np.uint8)


@dataclass(frozen=True)
class _FoundRaster:
    source: LabelRaster

    def with_classes(self, classes: Classes) -> LabelSource:
        return RasterLabels(self.source, classes)


def _find_labels(spec: SceneSpec, image: Raster, polygons: _Polygons) -> "_FoundPolygons | _FoundRaster":
    if spec.labels is None:
        raise LabelError(f"{image.paths[0]} has no labels. Give polygons or a label raster (labels = …).")
    if not is_vector(spec.labels):
        return _FoundRaster(LabelRaster.open(spec.labels, image))
    features = polygons.on(image, spec.labels, field=spec.label_field, repair=spec.repair)
    return _FoundPolygons(features, image.grid, spec.label_field is not None, spec.sparse)


def _classes(table: Sequence[ClassSpec], found: Sequence[_FoundPolygons | _FoundRaster]) -> Classes:
    polygons = [source for source in found if isinstance(source, _FoundPolygons)]
    if table:
        rows = [_entry(row, place, words=bool(polygons)) for place, row in enumerate(table)]
        unknown = tuple(row.label for row in rows if row.value == IGNORE)
        return Classes(tuple(row for row in rows if row.value != IGNORE), unknown=unknown)
    # Where all labels are sparse, no pixel is background.
    background = any(not source.sparse for source in polygons)
    if len(polygons) == len(found) and not any(source.has_field for source in polygons):
        # Without a class column, all polygons are of one class, however their files are called.
        names = {name for source in polygons for name in source.labels()}
        return Classes.from_labels([names.pop() if len(names) == 1 else LABELLED], background=background)
    rasters = [source.source for source in found if isinstance(source, _FoundRaster)]
    # Where some masks are in colours, the palettes of the others are colours too.
    colours = any(raster.is_coloured for raster in rasters)
    labels = {label for source in polygons for label in source.labels()}
    labels |= {label for raster in rasters for label in raster.labels(colours=colours)}
    kinds = {type(label) for label in labels}
    if len(kinds) > 1:
        raise ClassError(
            "the scenes' labels are words in some and numbers in others. One kind for all was expected. "
            "Write a class table into the recipe."
        )
    if not labels:
        raise LabelError("the label rasters hold nothing but nodata. At least one class was expected.")
    classes = Classes.from_labels(sorted(labels, key=str), background=background)
    return Classes(tuple(replace(entry, colour=_colour_of(entry.label, entry.colour)) for entry in classes))


def _entry(row: ClassSpec, place: int, *, words: bool) -> ClassEntry:
    label = row.label if row.label is not None else (row.name if words else row.value)
    colour = row.colour or _colour_of(label, default_colour(place, background=row.value == 0))
    return ClassEntry(row.value, row.name, colour, label)


def _colour_of(label: Label, otherwise: str) -> str:
    """A class of coloured masks is shown in its own colour."""
    return str(label) if is_colour(label) else otherwise


def class_rows(classes: Classes) -> list[ClassSpec]:
    """A class table as a person would write it, what is not known included."""
    rows = [ClassSpec(name=entry.name, value=entry.value, colour=entry.colour, label=entry.label) for entry in classes]
    return rows + [ClassSpec(name=f"unknown {label}", value=IGNORE, label=label) for label in classes.unknown]


def fill_value(image: Raster) -> float | None:
    """The value that marks pixels which are not valid in copies of the image.

    Returns:
        Its nodata if its type holds that, else NaN for floating types, else None: whole numbers have no value to spare.
    """
    dtype = np.dtype(image.dtype)
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    if image.nodata is not None and float(limits.min) <= image.nodata <= float(limits.max):
        return image.nodata
    return math.nan if dtype.kind == "f" else None
