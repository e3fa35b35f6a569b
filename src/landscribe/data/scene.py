"""Scene: imagery and labels on one grid, read together by window."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from pydantic import field_validator
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from landscribe.errors import ClassError, GridError, LabelError, RecipeError
from landscribe.geo.classes import IGNORE, ClassEntry, Classes, Label, default_colour
from landscribe.geo.features import Features, burn, meets, window_of
from landscribe.geo.grid import Grid, Window, name_of
from landscribe.geo.raster import Pixels, Raster, Valid
from landscribe.spec import Spec

SplitName = Literal["train", "val", "test"]
LABELLED = "labelled"
"""The one class of polygons without a class column that come in files of different names."""

VECTOR_SUFFIXES = {".geojson", ".json", ".gpkg", ".shp", ".fgb", ".parquet", ".gml", ".kml"}


class SceneSpec(Spec):
    """Where a scene's files are."""

    image: tuple[str, ...]
    """One file, or several on the same grid, stacked as bands in this order."""
    labels: str | None = None
    """Polygons or a label raster."""
    label_field: str | None = None
    """The polygons' class column; without one they are all one class, named like the file."""
    split: SplitName | None = None
    """Put the whole scene into one split; without this, spatial blocks decide."""
    nodata: float | None = None
    """Overrides what the image files declare; nan covers all pixels that are not finite."""
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
    """What the labels hold for this class; the value for label rasters, the name for polygons, if left out."""


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
        return burn(self.features, self.values, order, self.grid[window], fill)


@dataclass(frozen=True)
class RasterLabels:
    """A label raster, read on the image's grid; where it lies on another one, by its nearest pixel."""

    raster: Raster
    classes: Classes
    grid: Grid
    on_grid: bool
    """Its pixels are the image's."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class values; what the raster does not know is ignore."""
        values = np.full(window.shape, self.classes.ignore, np.uint8)
        inside = window & self.grid.window
        if not inside.is_empty:
            raw, known = _read_labels(self.raster, self.grid, inside, on_grid=self.on_grid)
            part = np.full(inside.shape, self.classes.ignore, np.uint8)
            part[known] = self._values(raw[known])
            values[inside.relative_to(window).slices] = part
        return values

    def _values(self, raw: NDArray[Any]) -> NDArray[np.uint8]:
        distinct, places, counts = np.unique(raw, return_inverse=True, return_counts=True)
        table = np.full(len(distinct), self.classes.ignore, np.uint8)
        labelled = distinct != self.classes.ignore
        occurring = dict(zip(distinct[labelled].tolist(), counts[labelled].tolist(), strict=True))
        table[labelled] = self.classes.value_of(list(occurring), self.raster.paths[0], occurring)
        return table[places]


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
        ones = np.ones(len(self.area), np.uint8)
        inside = burn(self.area, ones, (1,), self.grid[window], 0) == 1
        return np.where(inside, self.labels.read(window), np.uint8(IGNORE))


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
    found = [_find_labels(spec, image) for spec, image in zip(specs, images, strict=True)]
    classes = _classes(table, found)
    scenes = [
        Scene(name, image, _within(spec, image, source.with_classes(classes)), spec.split)
        for (name, image), source, spec in zip(opened.items(), found, specs, strict=True)
    ]
    return scenes, classes


def open_images(specs: Sequence[SceneSpec]) -> dict[str, Raster]:
    """The images alone, by the scenes' names: their stems, numbered where one stands twice."""
    images = [Raster.open(spec.image, nodata=spec.nodata) for spec in specs]
    stems = [image.name for image in images]
    names = [stem if stems.count(stem) == 1 else f"{stem}_{place}" for place, stem in enumerate(stems)]
    if len(set(names)) < len(names):
        # A stem may look like a numbered one.
        names = [f"{stem}_{place}" for place, stem in enumerate(stems)]
    return dict(zip(names, images, strict=True))


def open_labels(spec: SceneSpec, image: Raster, classes: Classes) -> LabelSource:
    """The labels of `spec` on the grid of `image`, with a class table that is given."""
    return _within(spec, image, _find_labels(spec, image).with_classes(classes))


def _within(spec: SceneSpec, image: Raster, labels: LabelSource) -> LabelSource:
    if spec.labelled_area is None:
        return labels
    area = _on_image(Features.read(spec.labelled_area, repair=spec.repair), image)
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
            values = classes.value_of(self.features.labels, self.features.name)
        return PolygonLabels(self.features, values, classes, self.grid, self.sparse)

    def _only_class(self, classes: Classes) -> NDArray[np.uint8] | None:
        """Without a label field, all polygons are the one class that is not background."""
        if len(classes.foreground) != 1:
            return None
        return np.full(len(self.features), classes.foreground[0].value, np.uint8)


@dataclass(frozen=True)
class _FoundRaster:
    raster: Raster
    grid: Grid
    on_grid: bool

    def labels(self) -> list[Label]:
        """Every number that occurs, found by reading all blocks once."""
        found: set[Label] = set()
        for window in _strips(self.grid):
            raw, known = _read_labels(self.raster, self.grid, window, on_grid=self.on_grid)
            found |= {int(value) for value in np.unique(raw[known])}
        return [label for label in found if label != IGNORE]

    def with_classes(self, classes: Classes) -> LabelSource:
        return RasterLabels(self.raster, classes, self.grid, self.on_grid)


def _find_labels(spec: SceneSpec, image: Raster) -> "_FoundPolygons | _FoundRaster":
    if spec.labels is None:
        raise LabelError(f"{image.paths[0]} has no labels. Give polygons or a label raster (labels = …).")
    if not is_vector(spec.labels):
        return _find_label_raster(spec.labels, image)
    features = _on_image(Features.read(spec.labels, field=spec.label_field, repair=spec.repair), image)
    return _FoundPolygons(features, image.grid, spec.label_field is not None, spec.sparse)


def _on_image(features: Features, image: Raster) -> Features:
    """Polygons in the image's CRS, some of which lie on it."""
    features = features.to_crs(image.grid.crs, image.paths[0])
    if not meets(features, image.grid):
        away = window_of(features, image.grid)
        raise LabelError(
            f"no polygon of {features.name} lies on {image.paths[0]}: they cover rows {away.row} to {away.row_stop}, "
            f"cols {away.col} to {away.col_stop} of a raster of {image.grid.height} x {image.grid.width} pixels. "
            "Overlapping extents were expected. Check the pair and the CRS of each."
        )
    return features


def _find_label_raster(path: str, image: Raster) -> _FoundRaster:
    labels = Raster.open([path])
    if len(labels.bands) != 1:
        raise LabelError(
            f"{path} has {len(labels.bands)} bands. A label raster with one band of class values was expected."
        )
    if np.dtype(labels.dtype).kind == "f":
        raise LabelError(
            f"{path} holds {labels.dtype}. Whole class values were expected. Convert it (gdal_translate -ot Byte)."
        )
    grid = labels.grid
    unplaced = grid.crs is None and grid.shape == image.grid.shape
    if grid.crs is None and not unplaced:
        raise GridError(
            f"{path} has no CRS and {grid.height} x {grid.width} pixels, but {image.paths[0]} has "
            f"{image.grid.height} x {image.grid.width}. Without a CRS, sizes must be equal. Check the pair."
        )
    if not unplaced and image.grid.crs is None:
        raise GridError(f"{image.paths[0]} has no CRS, but {path} is in {name_of(grid.crs)}. Assign the image its CRS.")
    return _FoundRaster(labels, image.grid, on_grid=unplaced or grid.same_place(image.grid))


def _read_labels(labels: Raster, grid: Grid, window: Window, *, on_grid: bool) -> tuple[NDArray[Any], Valid]:
    """Raw label values of a window of `grid`, and where they are known."""
    if on_grid:
        pixels, known = labels.read(window)
        return pixels[0], known
    part = RasterioWindow(window.col, window.row, window.width, window.height)
    place = {"crs": grid.crs, "transform": grid.transform, "width": grid.width, "height": grid.height}
    try:
        # The alpha band says where the warped labels have anything at all.
        with (
            rasterio.open(labels.paths[0]) as source,
            WarpedVRT(source, **place, resampling=Resampling.nearest, add_alpha=True) as warped,
        ):
            return warped.read(1, window=part), warped.read(warped.count, window=part) > 0
    except (RasterioError, OSError) as error:
        raise LabelError(
            f"{labels.paths[0]} cannot be read: {error.__cause__ or error}. Copy the file again."
        ) from error


def _strips(grid: Grid) -> Iterator[Window]:
    rows = max(1, 2**24 // grid.width)
    for row in range(0, grid.height, rows):
        yield Window(row, 0, min(rows, grid.height - row), grid.width)


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
    labels = {label for source in found for label in source.labels()}
    kinds = {type(label) for label in labels}
    if len(kinds) > 1:
        raise ClassError(
            "the scenes' labels are words in some and numbers in others. One kind for all was expected. "
            "Write a class table into the recipe."
        )
    if not labels:
        raise LabelError("the label rasters hold nothing but nodata. At least one class was expected.")
    return Classes.from_labels(sorted(labels, key=str), background=background)


def _entry(row: ClassSpec, place: int, *, words: bool) -> ClassEntry:
    label = row.label if row.label is not None else (row.name if words else row.value)
    colour = row.colour or default_colour(place, background=row.value == 0)
    return ClassEntry(row.value, row.name, colour, label)


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
