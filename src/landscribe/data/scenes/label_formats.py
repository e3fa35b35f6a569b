"""LABEL_FORMATS lists the formats of labels; the suffix of a file chooses one.

A new format is a file with a class of `OpenedLabels` and one of `LabelSource`, and a line in LABEL_FORMATS.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import shapely
from numpy.typing import NDArray

from landscribe.data.scenes.label_numbers import LabelNumbers
from landscribe.data.scenes.label_polygons import LabelPolygons
from landscribe.data.scenes.label_raster import NODATA_IGNORED, LabelRaster
from landscribe.data.scenes.polygon_files import PolygonFiles
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import OutsideError, RecipeError
from landscribe.geo.access import is_local
from landscribe.geo.classes import IGNORE, Classes, Label
from landscribe.geo.features import Features, extent_label
from landscribe.geo.grid import Grid, Window, crs_label
from landscribe.geo.inputs import RASTER_SUFFIXES
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.burning import rasterize_mask
from landscribe.geo.vectors.reprojection import box_around
from landscribe.geo.vectors.vector_files import VECTOR_SUFFIXES, is_vector


class LabelSource(Protocol):
    """Labels on a grid, read by window. Can be pickled."""

    @property
    def separates_objects(self) -> bool:
        """True if each object has a number of its own, also where objects touch."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class values (height, width) of a window, which may reach outside the grid."""

    def objects(self, window: Window) -> NDArray[np.uint32]:
        """Object numbers (height, width) of a window, 0 where there is none; their order has no meaning.

        Law: a pixel has a number exactly where its class is another one than the background.
        """


@runtime_checkable
class IncompleteSource(Protocol):
    """A source whose masks may lack labels of its file."""

    @staticmethod
    def warnings(sources: Sequence[Any]) -> Iterator[str]:
        """What the masks of such sources lack: at most one text for each reason."""


class OpenedLabels(Protocol):
    """The labels of a scene on the grid of its image, before the class table is complete."""

    @property
    def file_grid(self) -> Grid | None:
        """The grid of the file itself; None of labels without pixels."""

    @property
    def has_background(self) -> bool:
        """True if pixels without a label are background, not ignore."""

    @property
    def is_one_class(self) -> bool:
        """True if all labels are one class, named like the file."""

    @property
    def has_colours(self) -> bool:
        """True if the labels can only be colours."""

    @property
    def zero_is_class(self) -> bool:
        """True if label 0 of features is a class of its own, not the background."""

    @property
    def is_thresholded(self) -> bool:
        """True if label 1 stands for all values from a threshold up."""

    @property
    def has_names(self) -> bool:
        """True if labels are the names of classes where a class table has no labels; False if they are the values."""

    def labels(self, *, colours: bool) -> set[Label]:
        """Every label; as "#rrggbb" if `colours`, where the format has a palette."""

    def with_classes(self, classes: Classes) -> LabelSource:
        """The labels with a class table."""


@dataclass(frozen=True)
class LabelFormat:
    """A format of labels."""

    suffixes: set[str]
    """Lower case, with the dot."""
    open: Callable[[str, Raster, SceneSpec, PolygonFiles], OpenedLabels]
    """Opens a file on the grid of an image. The spec is that of the scene; polygon files are shared by all scenes."""
    plural: str
    """What such labels are, for messages."""
    settings: frozenset[str]
    """Fields of SceneSpec that say how such labels are read."""
    is_raster: bool = False
    """True if its files are rasters, with a grid and pixels that may be nodata."""
    holds: Callable[[str], bool] | None = None
    """True for the path of such labels; None: the suffix decides."""
    without: Callable[[str, Raster, SceneSpec, PolygonFiles], OpenedLabels] | None = None
    """Opens a file for an image without labels, where `open` raises OutsideError or EmptyError; None where it never
    does."""


def _open_raster(path: str, image: Raster, spec: SceneSpec, polygons: PolygonFiles) -> OpenedLabels:
    """A raster of object numbers if the scene says so, else of classes."""
    return (LabelNumbers if spec.label_objects else LabelRaster).open(path, image, spec, polygons)


_OF_POLYGONS = frozenset({
    "label_field", "label_layer", "label_crs", "label_priority", "label_zero", "all_touched", "label_ignore", "sparse",
    "fix_geometries",
})  # fmt: skip
_OF_RASTERS = frozenset({"label_threshold", "label_objects", "label_nodata_as", "label_ignore"})
_OF_AREAS = frozenset({"label_crs", "fix_geometries"})
"""How the polygons of a labelled area or an image area are read, too."""

LABEL_FORMATS: dict[str, LabelFormat] = {
    "polygons": LabelFormat(
        VECTOR_SUFFIXES, LabelPolygons.open, "polygons", _OF_POLYGONS, holds=is_vector, without=LabelPolygons.without
    ),
    "raster": LabelFormat(RASTER_SUFFIXES, _open_raster, "rasters", _OF_RASTERS, is_raster=True),
}

LABEL_FILES = set().union(*(label_format.suffixes for label_format in LABEL_FORMATS.values()))
"""The suffixes of all formats."""


def label_format(path: str) -> LabelFormat:
    """The format with the suffix of `path`, else a raster, of which GDAL reads many formats."""
    suffix = Path(path).suffix.lower()
    matches = (own for own in LABEL_FORMATS.values() if (own.holds(path) if own.holds else suffix in own.suffixes))
    return next(matches, LABEL_FORMATS["raster"])


def require_fitting_settings(specs: Sequence[SceneSpec]) -> None:
    """Refuse settings of labels that no scene has, such as the class column of polygons for label rasters.

    A setting of several scenes, as a command line gives it, needs one scene that has such labels.

    Raises:
        RecipeError: a setting would do nothing.
    """
    for name in sorted(set().union(*(each.settings for each in LABEL_FORMATS.values()))):
        given = [spec for spec in specs if spec.labels is not None and _is_given(spec, name)]
        formats = [label_format(str(spec.labels)) for spec in given]
        if not given or any(name in each.settings for each in formats):
            continue
        value, more = getattr(given[0], name), f" and {len(given) - 1} more" if len(given) > 1 else ""
        fitting = next(each.plural for each in LABEL_FORMATS.values() if name in each.settings)
        raise RecipeError(
            f"{name}{'' if value is True else f' = {_as_text(value)}'} is a setting of label {fitting}, but the labels "
            f"are {formats[0].plural}: {given[0].labels}{more}. Leave it out (--{name.replace('_', '-')})."
        )


def _is_given(spec: SceneSpec, name: str) -> bool:
    """True if a setting is not as it is without being given, and is only for labels."""
    value, labels = getattr(spec, name), str(spec.labels)
    if is_local(labels) and not Path(labels).exists():
        return False  # the format is that of no file; whoever opens it says what is wrong
    is_for_areas = name in _OF_AREAS and (spec.labelled_area is not None or spec.image_area is not None)
    return value not in (SceneSpec.model_fields[name].default, NODATA_IGNORED) and not is_for_areas


def _as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


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

    @property
    def separates_objects(self) -> bool:
        """As the labels."""
        return self.labels.separates_objects

    def objects(self, window: Window) -> NDArray[np.uint32]:
        """Object numbers (height, width); 0 outside the area."""
        return np.where(rasterize_mask(self.area, self.grid, window), self.labels.objects(window), np.uint32(0))


def label_warnings(labels: Iterable[LabelSource]) -> Iterator[str]:
    """What the labels of scenes leave out: how much, of which classes, and what to do."""
    # Labels that are clipped to an area hold those of the file.
    sources = [source.labels if isinstance(source, ClippedLabels) else source for source in labels]
    incomplete = [source for source in sources if isinstance(source, IncompleteSource)]
    for kind in dict.fromkeys(map(type, incomplete)):
        own = [source for source in incomplete if type(source) is kind]
        yield from own[0].warnings(own)


def off_image(labels: OpenedLabels, path: str, image: Raster) -> OutsideError | None:
    """The error of labels with pixels of which none lies on an image; None of other labels."""
    own, grid = labels.file_grid, image.grid
    if own is None or own.crs is None or shapely.intersects(box_around(grid, own.crs), shapely.box(*own.bounds)):
        return None
    return OutsideError(
        f"{path} has no pixel on {image.paths[0]}: the labels cover {_extent(own)}, the image {_extent(grid)}. Check "
        "that the files belong together, and the CRS of each."
    )


def _extent(grid: Grid) -> str:
    return f"{extent_label(shapely.box(*grid.bounds))} in {crs_label(grid.crs)}"
