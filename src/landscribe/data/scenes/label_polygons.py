"""Label polygons: features with a class column, or of one class, burned by window."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from landscribe.data.scenes.polygon_files import PolygonFiles, label_options, require_stated_crs
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import ClassError, EmptyError, counted
from landscribe.geo.classes import Classes, Label, label_key
from landscribe.geo.features import Features
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.burning import burn
from landscribe.geo.vectors.columns import FILE_ORDER
from landscribe.geo.vectors.left_out import overlaps, without_pixel

_MOST_LISTED = 12
ALL_CLASSES = "all"
"""Every class, in `all_touched`."""


@dataclass(frozen=True)
class LabelPolygons:
    """Polygons on the grid of an image."""

    has_colours: ClassVar[bool] = False
    is_thresholded: ClassVar[bool] = False
    has_names: ClassVar[bool] = True
    file_grid: ClassVar[None] = None

    features: Features
    """In the CRS of `grid`."""
    image: Raster
    spec: SceneSpec

    @classmethod
    def open(cls, path: str, image: Raster, spec: SceneSpec, polygons: PolygonFiles) -> "LabelPolygons":
        """Open the labels of `image`.

        Raises:
            LabelError: the file cannot be used, or no polygon intersects the image.
        """
        require_stated_crs(polygons.read(path, **label_options(spec)), spec)
        return cls(polygons.on(image, path, **label_options(spec)), image, spec)

    @classmethod
    def without(cls, path: str, image: Raster, spec: SceneSpec, polygons: PolygonFiles) -> "LabelPolygons":
        """Open a file none of whose polygons intersects `image`, or that holds none."""
        try:
            require_stated_crs(polygons.read(path, **label_options(spec)), spec)
            features = polygons.reprojected(image, path, **label_options(spec))
        except EmptyError:
            features = Features.of_windows(path, [], image.grid)
        return cls(features, image, spec)

    @property
    def has_background(self) -> bool:
        """True unless the area between polygons is unlabelled."""
        return not self.spec.sparse

    @property
    def is_one_class(self) -> bool:
        """True without a class column."""
        return self.spec.label_field is None

    @property
    def zero_is_class(self) -> bool:
        """True if class 0 is a class of its own, not the area between polygons.

        Raises:
            ClassError: polygons have class 0, and the settings do not say what it is.
        """
        zeros = sum(count for label, count in Counter(self.features.labels).items() if label_key(label) == "0")
        if zeros and self.has_background and self.spec.label_zero is None:
            raise ClassError(
                f"{self.features.name} has {counted(zeros, 'polygon')} of class 0, and 0 is the value of the area "
                "between polygons. Pass --label-zero class if they are a class of their own (0 stays its label), or "
                "--label-zero background if they are the same as the area between polygons."
            )
        return self.has_background and self.spec.label_zero == "class"

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
        touched = _values_named(self.spec.all_touched, classes)
        return PolygonLabels(self.features, values, classes, self.image.grid, self.spec.sparse, touched,
                             self.image.paths[0])  # fmt: skip

    def _only_class(self, classes: Classes) -> NDArray[np.uint8] | None:
        """The value of the only class other than background, for all polygons; None if there are several."""
        if len(classes.foreground) != 1:
            return None
        return np.full(len(self.features), classes.foreground[0].value, np.uint8)


def _values_named(names: tuple[str, ...], classes: Classes) -> tuple[int, ...]:
    """The values of classes by name or label.

    Raises:
        ClassError: there is no such class.
    """
    if ALL_CLASSES in names:
        return classes.values
    values = {label_key(key): entry.value for entry in classes for key in (entry.label, entry.name)}
    unknown = [name for name in names if label_key(name) not in values]
    if unknown:
        raise ClassError(
            f"all_touched = {unknown[0]} is no class. Expected {', '.join(classes.names)}, or {ALL_CLASSES} for all of "
            "them. Correct --all-touched."
        )
    return tuple(values[label_key(name)] for name in names)


@dataclass(frozen=True)
class PolygonLabels:
    """Polygons, rasterized by window."""

    separates_objects: ClassVar[bool] = True

    features: Features
    """In the CRS of `grid`."""
    values: NDArray[np.uint8]
    """Class value of each polygon."""
    classes: Classes
    grid: Grid
    sparse: bool
    """The area between polygons is unlabelled."""
    all_touched: tuple[int, ...] = ()
    """Values of the classes that take every pixel that their polygons touch."""
    image_name: str = ""
    """Path of the image, for warnings."""

    @property
    def _order(self) -> tuple[int, ...]:
        return (*self.classes.values, self.classes.ignore)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class values (height, width); outside polygons background, or ignore if labels are sparse."""
        fill = self.classes.ignore if self.sparse else self.classes.background
        return burn(self.features, self.values, self._order, self.grid, fill, window, self.all_touched)

    def objects(self, window: Window) -> NDArray[np.uint32]:
        """Object numbers (height, width): each polygon of a class other than the background is one; 0 elsewhere."""
        is_object = (self.values != self.classes.background) & (self.values != self.classes.ignore)
        numbers = np.where(is_object, np.arange(1, len(self.values) + 1), 0).astype(np.uint32)
        return burn(self.features, self.values, self._order, self.grid, 0, window, self.all_touched, numbers)

    def without_pixel(self) -> Counter[str]:
        """The number of polygons by class that contain no pixel centre, and are not in the masks for that."""
        lost = without_pixel(self.features, self.grid)
        return self._by_class(lost[~np.isin(self.values[lost], self.all_touched)])

    def overlaps(self) -> tuple[Counter[str], bool]:
        """Pixels of polygons of different classes, by "HIGHEST over LOWEST"; and whether all were counted."""
        counted = overlaps(self.features, self.values, self._order, self.grid)
        names = {f"{self._name(high)} over {self._name(low)}": count for (low, high), count in counted.pixels.items()}
        return Counter(names), counted.complete

    def _by_class(self, indices: NDArray[np.intp]) -> Counter[str]:
        return Counter(self._name(value) for value in self.values[indices].tolist())

    def _name(self, value: int) -> str:
        return next((entry.name for entry in self.classes if entry.value == value), "unlabelled")

    def outside(self, scenes: Sequence["PolygonLabels"]) -> Counter[str]:
        """The number of polygons by class that lie on none of the scenes, which share these polygons."""
        inside = np.unique(np.concatenate([scene.features.intersecting(scene.grid) for scene in scenes]))
        return self._by_class(np.setdiff1d(np.arange(len(self.features)), inside))

    @staticmethod
    def warnings(scenes: "Sequence[PolygonLabels]") -> Iterator[str]:
        """What the masks of scenes do not hold of their polygons: at most one text for each reason."""
        return chain(_without_pixel(scenes), _overlaps(scenes), _outside(scenes))


def _without_pixel(scenes: Sequence[PolygonLabels]) -> Iterator[str]:
    counts = {index: scene.without_pixel() for index, scene in enumerate(scenes)}
    affected = [scenes[index] for index, count in counts.items() if count]
    total = sum(counts.values(), Counter())
    if total:
        yield (
            f"{_files(affected)}: the labels lack {counted(total.total(), 'polygon')} without a pixel centre: "
            f"{_listed(total)}. Pass --all-touched {','.join(total)} to label every pixel that these classes touch."
        )


def _overlaps(scenes: Sequence[PolygonLabels]) -> Iterator[str]:
    """Overlaps of classes where no priority decides which of them lies on top."""
    undecided = [scene for scene in scenes if scene.features.priorities is None]
    overlaps = [scene.overlaps() for scene in undecided]
    affected = [scene for scene, (pixels, _) in zip(undecided, overlaps, strict=True) if pixels]
    total = sum((pixels for pixels, _ in overlaps), Counter())
    if total:
        at_least = "" if all(complete for _, complete in overlaps) else "at least "
        yield (
            f"polygons of different classes of {_files(affected)} overlap in {at_least}"
            f"{counted(total.total(), 'pixel')}: {_listed(total)}. The class that is later in the class table lies on "
            f"top. Pass --label-priority COLUMN to let a column of numbers or dates decide, or --label-priority "
            f"{FILE_ORDER}."
        )


def _outside(scenes: Sequence[PolygonLabels]) -> Iterator[str]:
    """Polygons of each file that lie on none of the images that share it."""
    files = dict.fromkeys(scene.features.name for scene in scenes)
    for name in files:
        sharing = [scene for scene in scenes if scene.features.name == name]
        outside = sharing[0].outside(sharing)
        if outside:
            images = sharing[0].image_name if len(sharing) == 1 else f"all {len(sharing)} images"
            yield (
                f"{outside.total()} of {len(sharing[0].features)} polygons of {name} lie outside {images} and are not "
                f"used: {_listed(outside)}. Check that image and labels belong together."
            )


def _files(scenes: Sequence[PolygonLabels]) -> str:
    """The polygon files of scenes and the images that they lie on, for messages."""
    more = f" and {counted(len(scenes) - 1, 'more image')}" if len(scenes) > 1 else ""
    return f"{scenes[0].features.name} on {scenes[0].image_name}{more}"


def _listed(counts: Counter[str]) -> str:
    listed = ", ".join(f"{name} {count}" for name, count in counts.most_common(_MOST_LISTED))
    return listed + (", …" if len(counts) > _MOST_LISTED else "")
