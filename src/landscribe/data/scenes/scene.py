"""Scenes: imagery and labels on one grid, read together by window."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from landscribe import progress
from landscribe.data.scenes.label_formats import (
    ClippedLabels,
    LabelSource,
    OpenedLabels,
    label_format,
    off_image,
    require_fitting_settings,
)
from landscribe.data.scenes.polygon_files import PolygonFiles
from landscribe.data.scenes.spec import ClassSpec, SceneSpec, SplitName
from landscribe.errors import (
    ClassError,
    EmptyError,
    GridError,
    LabelError,
    OutsideError,
    RasterError,
    RecipeError,
    counted,
    is_printable,
    listed,
)
from landscribe.geo.classes import (
    BACKGROUND,
    IGNORE,
    ClassEntry,
    Classes,
    Label,
    default_colour,
    label_key,
    plain_labels,
)
from landscribe.geo.features import Features
from landscribe.geo.grid import Window
from landscribe.geo.inputs import distinct_names, open_imagery, raster_names
from landscribe.geo.rasters.derived.clipped import clip
from landscribe.geo.rasters.derived.converted import like
from landscribe.geo.rasters.derived.located import SizeError, refuse_other_sizes
from landscribe.geo.rasters.derived.resampling import at_pixel_size
from landscribe.geo.rasters.raster import CHOOSE_BANDS, Pixels, Raster, Valid
from landscribe.texts import is_colour

log = logging.getLogger(__name__)

_EXAMPLES = 8
_MANY = 100
"""Scenes from which opening them takes long enough to show progress."""
_NO_LABEL = "they give no labelled pixel"
_ALL_BACKGROUND = "they are background. Leave out images that are not labelled"
"""What images without a polygon are."""
FOREGROUND = "foreground"
"""Name of the class of a mask that has background and one class."""
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
    group: str | None = None
    """Region that the scene belongs to."""

    def read(self, window: Window) -> Sample:
        """The imagery and labels of a window, which may reach outside the grid."""
        pixels, valid = self.image.read(window)
        mask = self.labels.read(window)
        return Sample(pixels, valid, np.where(valid, mask, np.uint8(IGNORE)))

    def read_objects(self, window: Window, valid: Valid | None = None) -> NDArray[np.uint32]:
        """The object numbers (height, width) of a window, 0 where there is none; see `LabelSource.objects`.

        Args:
            window: it may reach outside the grid.
            valid: of the image in this window, outside of which there is no object; None to read it.
        """
        valid = self.image.read(window)[1] if valid is None else valid
        return np.where(valid, self.labels.objects(window), np.uint32(0))


def open_scenes(
    specs: Sequence[SceneSpec],
    table: Sequence[ClassSpec] = (),
    polygons: PolygonFiles | None = None,
    names: Sequence[str] = (),
) -> tuple[list[Scene], Classes]:
    """Open scenes with one class table for all.

    Args:
        specs: at least one, each with labels.
        table: the class table; if empty, all labels become classes, in sorted order.
        polygons: files that may have been read before; new ones if None.
        names: of the scenes; if empty, as of `open_images`.

    Raises:
        LandscribeError: the files cannot be used together.
    """
    if not specs:
        raise RecipeError("there are no scenes. Expected at least one image with labels. Add a scene to the recipe.")
    require_fitting_settings(specs)
    polygons = polygons or PolygonFiles()
    images = open_images(specs, polygons, names)
    _require_same_bands(list(images.values()))
    if not names:  # scenes of existing chips have names
        _refuse_bands_as_scenes(specs, list(images.values()))
    opened = _open_all_labels(specs, list(images.values()), polygons)
    classes = _classes(table, opened, _ignored(specs))
    labels = _clip_all(specs, list(images.values()), [source.with_classes(classes) for source in opened], polygons)
    scenes = [
        Scene(name, image, own, spec.split, spec.group)
        for (name, image), own, spec in zip(images.items(), labels, specs, strict=True)
    ]
    return scenes, classes


def open_images(
    specs: Sequence[SceneSpec], polygons: PolygonFiles | None = None, names: Sequence[str] = ()
) -> dict[str, Raster]:
    """The images by scene name: that of the raster (`raster_names`), with the scene's index if several have the same.

    Args:
        specs: of the scenes.
        polygons: as of `open_scenes`.
        names: other names of the scenes.
    """
    polygons, opened = polygons or PolygonFiles(), []
    with progress.task("opening images", len(specs), least=_MANY) as advance:
        for spec in specs:
            opened.append(open_image(spec, polygons))
            advance()
    own = distinct_names(raster_names([spec.image for spec in specs]))
    titled = [
        replace(image, title=name) if len(spec.image) > 1 else image
        for spec, name, image in zip(specs, own, opened, strict=True)
    ]
    # Stored numbers of one training mean the same.
    return dict(zip(names or own, [like(image, titled[0]) for image in titled], strict=True))


def open_image(spec: SceneSpec, polygons: PolygonFiles | None = None) -> Raster:
    """The image of a scene, with the bands, their names, the area and the pixel size of `spec`."""
    image = open_imagery(spec.image, spec, resample=spec.resample)
    image = image if spec.band_numbers is None else image.select(spec.band_numbers)
    image = image if spec.bands is None else image.with_band_names(spec.bands)
    if not is_printable("".join(image.bands)):
        raise RasterError(
            f"{image.paths[0]} has a control character in the name of a band ({', '.join(image.bands)}). Expected "
            "names that files can hold. Name its bands (--bands; in a recipe: bands)."
        )
    if not is_printable(image.name):
        raise RasterError(f"{image.paths[0]} has a control character in its name. Rename the file.")
    if spec.image_area is not None:
        # Before resampling: a coarser pixel is the mean of the pixels inside.
        image = clip(image, _area(spec.image_area, spec, image, polygons or PolygonFiles()))
    return image if spec.pixel_size is None else at_pixel_size(image, spec.pixel_size)


def open_labels(spec: SceneSpec, image: Raster, classes: Classes, polygons: PolygonFiles | None = None) -> LabelSource:
    """The labels of `spec` on the grid of `image`, with an existing class table."""
    require_fitting_settings([spec])
    polygons = polygons or PolygonFiles()
    classes = replace(classes, unknown=classes.unknown + (_ignored([spec]) or ()))
    return _clipped(spec, image, _open_labels(spec, image, polygons).with_classes(classes), polygons)


def _clipped(spec: SceneSpec, image: Raster, labels: LabelSource, polygons: PolygonFiles) -> LabelSource:
    if spec.labelled_area is None:
        return labels
    return ClippedLabels(labels, _area(spec.labelled_area, spec, image, polygons), image.grid)


def _area(path: str, spec: SceneSpec, image: Raster, polygons: PolygonFiles) -> Features:
    """The polygons of an area in the CRS of the image, which any of them overlaps."""
    return polygons.on(image, path, **_area_options(spec))


def _area_options(spec: SceneSpec) -> dict[str, Any]:
    """How an area is read: options of `Features.read`."""
    return {"fix_geometries": spec.fix_geometries, "crs": spec.label_crs}


def _require_same_bands(images: Sequence[Raster]) -> None:
    """Raise GridError if scenes differ in the number of bands or the dtype: one network is trained on all."""
    first = images[0]
    for other in images[1:]:
        if len(other.bands) != len(first.bands) or other.dtype != first.dtype:
            least, most = sorted((first, other), key=lambda image: len(image.bands))
            may_be_mask = len(least.bands) == 1 < len(most.bands) and "int" in least.dtype
            mask = f" If {least.paths[0]} is a mask, leave it out (--without)." if may_be_mask else ""
            same = other.dtype == first.dtype
            remedy = f"{CHOOSE_BANDS}." if same else "Convert one (gdal_translate)."
            raise GridError(
                f"{other.paths[0]} has {counted(len(other.bands), 'band')} of {other.dtype}, but {first.paths[0]} has "
                f"{len(first.bands)} of {first.dtype}. Expected the same for all scenes. {remedy}{mask}"
            )


def _refuse_bands_as_scenes(specs: Sequence[SceneSpec], images: Sequence[Raster]) -> None:
    """Raise RecipeError for scenes that are the bands of one: files of one band each, with other names, on one grid."""
    first, names = images[0], {image.bands for image in images}
    if len(names) == 1 or len(names) < len(images) or len(first.bands) != 1 or len({spec.labels for spec in specs}) > 1:
        return
    if all(image.grid.is_aligned(first.grid) for image in images):
        raise RecipeError(
            f"{len(images)} scenes have one band each ({listed(image.bands[0] for image in images)}), one grid and the "
            f"same labels, such as {first.paths[0]}. Are they the bands of one scene? Then stack them (--stack "
            "for a folder or pattern, commas between files). If each is a scene, give their band one name (--bands)."
        )


def _open_labels(spec: SceneSpec, image: Raster, polygons: PolygonFiles) -> OpenedLabels:
    if spec.labels is None:
        raise LabelError(
            f"{image.paths[0]} has no labels. Expected polygons or a label raster. Set labels = … for this scene."
        )
    return label_format(spec.labels).open(spec.labels, image, spec, polygons)


def _open_all_labels(
    specs: Sequence[SceneSpec], images: Sequence[Raster], polygons: PolygonFiles
) -> list[OpenedLabels]:
    """The labels of each scene. An image without a polygon is background, or unlabelled if labels are sparse.

    Raises:
        OutsideError: a file has no polygon or pixel on any of its images.
        EmptyError: the files of all images hold no polygon.
        GridError: label rasters without a CRS differ in size from their images.
    """
    opened: list[OpenedLabels] = []
    outside: list[OutsideError | None] = []
    off: list[OutsideError | None] = []
    empty: dict[str, EmptyError] = {}
    without: list[OpenedLabels] = []
    other_sizes: list[SizeError] = []
    for spec, image in zip(specs, images, strict=True):
        outside.append(None)
        off.append(None)
        try:
            opened.append(_open_labels(spec, image, polygons))
            off[-1] = off_image(opened[-1], str(spec.labels), image)
        except (OutsideError, EmptyError) as error:
            open_without = label_format(str(spec.labels)).without
            if open_without is None:
                raise
            without.append(open_without(str(spec.labels), image, spec, polygons))
            opened.append(without[-1])
            if isinstance(error, OutsideError):
                outside[-1] = error
            else:
                empty[image.name] = error
        except SizeError as error:
            other_sizes.append(error)
    refuse_other_sizes(other_sizes, ", or leave images of a folder out with --without {} (in a recipe: without)")
    effect = _ALL_BACKGROUND if any(source.has_background for source in without) else _NO_LABEL
    _require_some_overlap([spec.labels for spec in specs], images, outside, effect)
    _require_some_overlap([spec.labels for spec in specs], images, off, _NO_LABEL, noun="pixel")
    if len(empty) == len(specs):
        raise next(iter(empty.values()))
    if empty:
        log.warning(
            "the label files of %d of %d images hold no features (%s): %s",
            len(empty),
            len(specs),
            listed(empty),
            effect,
        )
    return opened


def _clip_all(
    specs: Sequence[SceneSpec], images: Sequence[Raster], labels: Sequence[LabelSource], polygons: PolygonFiles
) -> list[LabelSource]:
    """The labels inside the labelled area of each scene; none where an area lies on other scenes only.

    Raises:
        OutsideError: an area lies on none of its images.
    """
    clipped: list[LabelSource] = []
    outside: list[OutsideError | None] = []
    for spec, image, source in zip(specs, images, labels, strict=True):
        outside.append(None)
        try:
            clipped.append(_clipped(spec, image, source, polygons))
        except OutsideError as error:
            area = polygons.reprojected(image, str(spec.labelled_area), **_area_options(spec))
            clipped.append(ClippedLabels(source, area, image.grid))
            outside[-1] = error
    _require_some_overlap([spec.labelled_area for spec in specs], images, outside, _NO_LABEL)
    return clipped


def _require_some_overlap(
    paths: Sequence[str | None],
    images: Sequence[Raster],
    outside: Sequence[OutsideError | None],
    effect: str,
    *,
    noun: str = "polygon",
) -> None:
    """Warn of the images on which a file has no polygon, or no pixel.

    Args:
        paths: of the file of each image.
        images: one for each scene.
        outside: the error of each image without a polygon or pixel.
        effect: what images without one are.
        noun: what the file has.

    Raises:
        OutsideError: a file has no polygon or pixel on any of its images.
    """
    for path in dict.fromkeys(path for path, error in zip(paths, outside, strict=True) if error):
        errors = [error for own, error in zip(paths, outside, strict=True) if own == path]
        missed = [image.name for image, own, error in zip(images, paths, outside, strict=True) if own == path and error]
        if len(missed) == len(errors) and errors[0] is not None:
            raise errors[0]
        log.warning(
            "%s has no %s on %d of %d images (%s): %s", path, noun, len(missed), len(errors), listed(missed), effect
        )


def _ignored(specs: Sequence[SceneSpec]) -> tuple[str, ...] | None:
    """Labels that the scenes ignore; None if no scene says so, empty if none is ignored."""
    stated = [spec.label_ignore for spec in specs if spec.label_ignore is not None]
    return tuple(dict.fromkeys(label for own in stated for label in own if label != "none")) if stated else None


def _classes(table: Sequence[ClassSpec], opened: Sequence[OpenedLabels], ignored: tuple[str, ...] | None) -> Classes:
    if table:
        names = any(source.has_names for source in opened)
        rows = [_entry(row, index, names=names) for index, row in enumerate(table)]
        unknown = tuple(row.label for row in rows if row.value == IGNORE)
        return Classes(tuple(row for row in rows if row.value != IGNORE), unknown=unknown + (ignored or ()))
    # If all labels are sparse, no pixel is background.
    background = any(source.has_background for source in opened)
    # If one mask has bands of colours, the palettes of the other masks are colours too.
    colours = any(source.has_colours for source in opened)
    by_source = [source.labels(colours=colours) for source in opened]
    left_out = set(map(label_key, ignored or ()))
    labels = {label for own in by_source for label in own if label_key(label) not in left_out}
    if all(source.is_one_class for source in opened):
        # Without a class column, the polygons of all files are one class.
        return Classes.from_labels([labels.pop() if len(labels) == 1 else LABELLED], background=background)
    labels = plain_labels(labels)
    kinds = {type(label) for label in labels}
    if len(kinds) > 1:
        raise ClassError(
            "labels are text in some scenes and numbers in others. Expected one kind for all scenes. Write a class "
            "table into the recipe."
        )
    # Words are numbered from 1, so only numbers meet the background's value.
    zeros = [source.zero_is_class for source in opened if kinds == {int}]
    numbers = {label for source, own in zip(opened, by_source, strict=True) if not source.has_names for label in own}
    if labels <= {0, 1} and any(source.is_thresholded for source in opened):
        return _foreground(1)
    other = [label for label in labels if isinstance(label, int) and label != 0]
    if labels == {0, *other} and len(other) == 1 and other[0] not in range(IGNORE) and not any(zeros):
        return _foreground(other[0])
    if numbers == labels == {IGNORE} and background:
        # The 0 of such masks is their nodata.
        return _foreground(IGNORE)
    if not labels - {IGNORE}:
        remedy = (
            " Pass --label-nodata-as background if they are masks whose nodata is the background." if labels else ""
        )
        raise LabelError(
            f"the label rasters are all nodata or 255. Expected at least one class.{remedy} Check their values."
        )
    if IGNORE in numbers & labels and ignored is None:
        others = ", ".join(str(label) for label in sorted(labels - {IGNORE}, key=str)[:_EXAMPLES])
        raise ClassError(
            f"the label rasters hold {IGNORE} beside {others}: a class, or unlabelled pixels? Pass --label-ignore "
            f"{IGNORE} if it marks unlabelled pixels, --label-ignore none if it is a class, or write a class table."
        )
    entries = Classes.from_labels(sorted(labels, key=str), background=background, zero_is_background=not any(zeros))
    coloured = tuple(replace(entry, colour=_colour_of(entry.label, entry.colour)) for entry in entries)
    return Classes(coloured, unknown=ignored or ())


def _foreground(label: int) -> Classes:
    """Background (label 0) and one class: what masks of 0 and 255 mean in most programs, and thresholds."""
    log.info("labels: 0 is the class background, %d the class foreground", label)
    return Classes((
        ClassEntry(0, BACKGROUND, default_colour(0, background=True), 0),
        ClassEntry(1, FOREGROUND, default_colour(1, background=False), label),
    ))  # fmt: skip


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
