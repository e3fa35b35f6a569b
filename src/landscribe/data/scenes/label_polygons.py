"""Label polygons: features with a class column, or of one class, burned by window."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from landscribe.data.scenes.polygon_files import PolygonFiles, label_options
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import ClassError
from landscribe.geo.classes import Classes, Label, label_key
from landscribe.geo.features import Features
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.burning import burn
from landscribe.geo.vectors.left_out import overlaps, without_pixel

ALL_CLASSES = "all"
"""Every class, in `all_touched`."""


@dataclass(frozen=True)
class LabelPolygons:
    """Polygons on the grid of an image."""

    has_colours: ClassVar[bool] = False
    has_names: ClassVar[bool] = True

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
        return cls(polygons.on(image, path, **label_options(spec)), image, spec)

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
        zeros = sum(label_key(label) == "0" for label in self.features.labels)
        if zeros and self.has_background and self.spec.label_zero is None:
            raise ClassError(
                f"{self.features.name} has {zeros} polygons of class 0, and 0 is the value of the area between "
                "polygons. Pass --label-zero class if they are a class of their own (0 stays its label), or "
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

    def warnings(self) -> Iterator[str]:
        """What the masks do not hold of the polygons: those without a pixel, and those under other classes."""
        lost = without_pixel(self.features, self.grid)
        lost = lost[~np.isin(self.values[lost], self.all_touched)]
        if lost.size:
            counts = self.counts(lost)
            yield (
                f"{lost.size} of {len(self.features)} polygons of {self.features.name} contain no pixel centre of "
                f"{self.image_name} and are not in its labels: {_listed(counts)}. Pass --all-touched "
                f"{','.join(counts)} to "
                "label every pixel that these classes touch."
            )
        found = overlaps(self.features, self.values, self._order, self.grid)
        if found.pixels:
            listed = ", ".join(
                f"{self._name(high)} over {self._name(low)} {count}"
                for (low, high), count in found.pixels.most_common(5)
            )
            rule = (
                "The class that is later in the class table lies on top. Pass --label-priority COLUMN to let a column "
                "of numbers decide, or --label-priority file-order"
                if self.features.priorities is None
                else "--label-priority decides which lies on top"
            )
            yield (
                f"polygons of different classes overlap in {self.features.name}, in "
                f"{'' if found.complete else 'at least '}{found.pixels.total()} pixels of {self.image_name}: {listed}. "
                f"{rule}."
            )

    def counts(self, indices: NDArray[np.intp]) -> Counter[str]:
        """The number of features by class."""
        return Counter(self._name(value) for value in self.values[indices].tolist())

    def _name(self, value: int) -> str:
        return next((entry.name for entry in self.classes if entry.value == value), "unlabelled")


def outside_warnings(scenes: Sequence[PolygonLabels]) -> Iterator[str]:
    """The polygons of one file that lie on none of its scenes."""
    features = scenes[0].features
    inside = np.unique(np.concatenate([scene.features.intersecting(scene.grid) for scene in scenes]))
    outside = np.setdiff1d(np.arange(len(features)), inside)
    if outside.size:
        images = scenes[0].image_name if len(scenes) == 1 else f"all {len(scenes)} images"
        yield (
            f"{outside.size} of {len(features)} polygons of {features.name} lie outside {images} and are not used: "
            f"{_listed(scenes[0].counts(outside))}. Check that image and labels belong together."
        )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())
