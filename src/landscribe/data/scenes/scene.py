"""Scenes: imagery and labels on one grid, read together by window."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from landscribe.data.scenes.label_formats import LabelSource, OpenedLabels, label_format
from landscribe.data.scenes.polygon_files import PolygonFiles
from landscribe.data.scenes.spec import ClassSpec, SceneSpec, SplitName, is_colour
from landscribe.errors import ClassError, GridError, LabelError, RasterError, RecipeError, is_printable
from landscribe.geo.classes import IGNORE, ClassEntry, Classes, Label, default_colour
from landscribe.geo.features import Features, rasterize_mask
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.raster import Pixels, Raster, Valid

LABELLED = "labelled"
"""Name of the only class of polygons without a class column, if their files have different names."""


class Sample(NamedTuple):
    """Imagery and labels of a window."""

    pixels: Pixels
    """(bands, rows, cols), as stored; 0 where not valid."""
    valid: Valid
    """(rows, cols)."""
    mask: NDArray[np.uint8]
    """(rows, cols) class values; ignore where unlabelled or not valid."""


@dataclass(frozen=True)
class Scene:
    """Imagery + labels + split."""

    name: str
    image: Raster
    labels: LabelSource
    split: SplitName | None = None

    def read(self, window: Window) -> Sample:
        """The imagery and labels of a window, which may reach outside the grid."""
        pixels, valid = self.image.read(window)
        mask = self.labels.read(window)
        return Sample(pixels, valid, np.where(valid, mask, np.uint8(IGNORE)))


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


def open_scenes(
    specs: Sequence[SceneSpec], table: Sequence[ClassSpec] = (), polygons: PolygonFiles | None = None
) -> tuple[list[Scene], Classes]:
    """Open scenes with one class table for all.

    Args:
        specs: at least one, each with labels.
        table: the class table; if empty, all labels become classes, in sorted order.
        polygons: files that may have been read before; new ones if None.

    Raises:
        LandscribeError: the files cannot be used together.
    """
    if not specs:
        raise RecipeError("there are no scenes. Expected at least one image with labels. Add a scene to the recipe.")
    images = open_images(specs)
    _require_same_bands(list(images.values()))
    polygons = polygons or PolygonFiles()
    opened = [_open_labels(spec, image, polygons) for spec, image in zip(specs, images.values(), strict=True)]
    classes = _classes(table, opened)
    scenes = [
        Scene(name, image, _clipped(spec, image, source.with_classes(classes), polygons), spec.split)
        for (name, image), source, spec in zip(images.items(), opened, specs, strict=True)
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
    image = image if spec.bands is None else image.with_band_names(spec.bands)
    if not is_printable("".join(image.bands)):
        raise RasterError(
            f"{image.paths[0]} has a control character in the name of a band ({', '.join(image.bands)}). Expected "
            "names that files can hold. Name its bands (--bands; in a recipe: bands)."
        )
    if not is_printable(image.name):
        raise RasterError(f"{image.paths[0]} has a control character in its name. Rename the file.")
    return image


def open_labels(spec: SceneSpec, image: Raster, classes: Classes) -> LabelSource:
    """The labels of `spec` on the grid of `image`, with an existing class table."""
    polygons = PolygonFiles()
    return _clipped(spec, image, _open_labels(spec, image, polygons).with_classes(classes), polygons)


def _clipped(spec: SceneSpec, image: Raster, labels: LabelSource, polygons: PolygonFiles) -> LabelSource:
    if spec.labelled_area is None:
        return labels
    area = polygons.on(image, spec.labelled_area, fix_geometries=spec.fix_geometries)
    return ClippedLabels(labels, area, image.grid)


def _require_same_bands(images: Sequence[Raster]) -> None:
    """Raise GridError if scenes differ in the number of bands or the dtype: one network is trained on all."""
    first = images[0]
    for other in images[1:]:
        if len(other.bands) != len(first.bands) or other.dtype != first.dtype:
            raise GridError(
                f"{other.paths[0]} has {len(other.bands)} bands of {other.dtype}, but {first.paths[0]} has "
                f"{len(first.bands)} of {first.dtype}. Expected the same for all scenes. Convert one (gdal_translate)."
            )


def _open_labels(spec: SceneSpec, image: Raster, polygons: PolygonFiles) -> OpenedLabels:
    if spec.labels is None:
        raise LabelError(
            f"{image.paths[0]} has no labels. Expected polygons or a label raster. Set labels = … for this scene."
        )
    return label_format(spec.labels).open(spec.labels, image, spec, polygons)


def _classes(table: Sequence[ClassSpec], opened: Sequence[OpenedLabels]) -> Classes:
    if table:
        names = any(source.has_names for source in opened)
        rows = [_entry(row, index, names=names) for index, row in enumerate(table)]
        unknown = tuple(row.label for row in rows if row.value == IGNORE)
        return Classes(tuple(row for row in rows if row.value != IGNORE), unknown=unknown)
    # If all labels are sparse, no pixel is background.
    background = any(source.has_background for source in opened)
    # If one mask has bands of colours, the palettes of the other masks are colours too.
    colours = any(source.has_colours for source in opened)
    labels = {label for source in opened for label in source.labels(colours=colours)}
    if all(source.is_one_class for source in opened):
        # Without a class column, the polygons of all files are one class.
        return Classes.from_labels([labels.pop() if len(labels) == 1 else LABELLED], background=background)
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


def _entry(row: ClassSpec, index: int, *, names: bool) -> ClassEntry:
    label = row.label if row.label is not None else (row.name if names else row.value)
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
