"""Pairing: folders and patterns of images and labels, expanded into scenes.

Supported: images and masks with the same names in two folders, or in one folder where masks have a suffix
(`name_m.png`); ArcGIS *Classified Tiles*; one file per band; text files that list images; polygons of areas with the
names of the images.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from landscribe.data.scenes.arcgis_classes import TEMPLATE, read_classes
from landscribe.data.scenes.label_formats import LABEL_FILES, require_fitting_settings
from landscribe.data.scenes.label_raster import located_labels
from landscribe.data.scenes.spec import ClassSpec, SceneSpec
from landscribe.errors import LabelError, RasterError, counted, listed
from landscribe.geo.inputs import files_in, images_in, is_collection
from landscribe.geo.rasters.derived.located import SizeError, refuse_other_sizes
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.vector_files import VECTOR_SUFFIXES, is_vector

log = logging.getLogger(__name__)

IMAGE_FOLDER = "images"
LABEL_FOLDERS = ("labels", "masks")
"""Next to `images`, if their parent folder is given."""
LABEL_SUFFIXES = ("", "_m", "_mask", "_label", "_labels", "_gt")
"""Added to the image's name in the name of its mask, in small or capital letters."""
_AREAS = ("labelled_area", "image_area")
"""Settings of scenes whose files have the names of the images."""


def expand_scenes(
    specs: Sequence[SceneSpec], table: Sequence[ClassSpec] = ()
) -> tuple[tuple[SceneSpec, ...], tuple[ClassSpec, ...]]:
    """Expand folders and patterns into one spec per scene, in the order of the file names.

    Args:
        specs: as written in a recipe.
        table: the class table; if empty, the one of ArcGIS Classified Tiles, if there is one.

    Raises:
        RasterError: a folder or pattern has no images.
        LabelError: an image has no mask, or no file of an area.
        RecipeError: a setting of labels would do nothing.
    """
    classes = list(table)
    for spec in specs:
        definition = Path(spec.image[0]) / TEMPLATE
        if not classes and definition.is_file():
            classes = read_classes(definition)
    scenes = tuple(scene for spec in specs for scene in _scenes_of(spec))
    require_fitting_settings(scenes)
    return scenes, tuple(classes)


def _scenes_of(spec: SceneSpec) -> list[SceneSpec]:
    given = spec.image[0]
    paths = (given, spec.labels, *(getattr(spec, area) for area in _AREAS))
    if not any(is_collection(path) for path in paths if path):
        return [spec]
    if len(spec.image) > 1:
        return _with_areas([spec], warns=False)
    images, labels = _images_and_labels(given, spec.labels)
    files = _without(images_in(images), spec.without, images)
    if spec.stack:
        return _with_areas([spec.model_copy(update={"image": tuple(map(str, files))})], warns=False)
    # With a pattern or left-out images, files without an image are intended.
    warns = Path(images).is_dir() and not spec.without
    pairs: Sequence[tuple[Path, str | None]] = [(file, labels) for file in files]
    if labels is not None and is_collection(labels):
        masks = files_in(labels, LABEL_FILES)
        pairs = [(image, str(mask)) for image, mask in _pairs(files, masks, labels)]
        if warns:
            _warn_unmatched(set(masks) - {Path(str(mask)) for _, mask in pairs} - set(files), "mask", labels)
    scenes = [spec.model_copy(update={"image": (str(image),), "labels": mask}) for image, mask in pairs]
    return _with_areas(scenes, warns=warns)


def _with_areas(scenes: list[SceneSpec], *, warns: bool) -> list[SceneSpec]:
    for setting in _AREAS:
        scenes = _with_area(scenes, setting, warns=warns)
    return scenes


def _with_area(scenes: list[SceneSpec], setting: str, *, warns: bool) -> list[SceneSpec]:
    """The scenes, each with the file of an area that has the stem of its (first) image file."""
    where = getattr(scenes[0], setting)
    if where is None or not is_collection(where):
        return scenes
    by_stem: dict[str, list[Path]] = {}
    for file in files_in(where, VECTOR_SUFFIXES):
        by_stem.setdefault(file.stem, []).append(file)
    stems = [Path(scene.image[0]).stem for scene in scenes]
    missing = [stem for stem in stems if stem not in by_stem]
    if missing:
        raise LabelError(
            f"{where} has no {setting} for {listed(missing)} ({len(missing)} of {counted(len(stems), 'image')}). "
            f"Expected a file such as {missing[0]}.shp or {missing[0]}.gpkg for each. Add the files, or remove these "
            "images."
        )
    several = next((by_stem[stem] for stem in stems if len(by_stem[stem]) > 1), None)
    if several is not None:
        raise LabelError(
            f"{where} has {len(several)} files for the {setting} of {several[0].stem}: "
            f"{', '.join(file.name for file in several)}. Expected one. Remove the others."
        )
    if warns:
        _warn_unmatched({file for stem in by_stem.keys() - set(stems) for file in by_stem[stem]}, "area", where)
    return [
        scene.model_copy(update={setting: str(by_stem[stem][0])}) for scene, stem in zip(scenes, stems, strict=True)
    ]


def _images_and_labels(given: str, labels: str | None) -> tuple[str, str | None]:
    """Paths of images and labels; a parent folder may have a folder for each."""
    root = Path(given)
    if not root.is_dir():
        return given, labels
    if labels is None:
        labels = next((str(root / name) for name in LABEL_FOLDERS if (root / name).is_dir()), None)
    if (root / IMAGE_FOLDER).is_dir():
        return str(root / IMAGE_FOLDER), labels
    # Masks may be in the folder of the images.
    return given, labels or given


def _without(files: list[Path], names: Sequence[str], where: str) -> list[Path]:
    left_out = [file for file in files if {file.name, file.stem} & set(names)]
    matched = {name for file in left_out for name in (file.name, file.stem)}
    unmatched = [name for name in names if name not in matched]
    if unmatched:
        raise RasterError(
            f"without = {', '.join(unmatched)}, but {where} has no such image. Expected names of its images. "
            "Correct or remove them."
        )
    return [file for file in files if file not in left_out]


def _warn_unmatched(files: set[Path], kind: str, where: str) -> None:
    if files:
        log.warning(
            "%s: %s without an image, not used (%s)",
            where,
            counted(len(files), kind),
            listed(file.name for file in sorted(files)),
        )


def _require_one_image_a_mask(pairs: list[tuple[Path, Path]]) -> None:
    """Raise LabelError for images that share a mask, such as a scene and its preview."""
    by_mask: dict[Path, list[Path]] = {}
    for image, mask in pairs:
        by_mask.setdefault(mask, []).append(image)
    shared = [(mask, images) for mask, images in by_mask.items() if len(images) > 1]
    if shared:
        mask, images = shared[0]
        raise LabelError(
            f"{listed(image.name for image in images)} in {images[0].parent} share the mask {mask.name} "
            f"({counted(len(shared), 'such mask')}). Expected one image for each mask. Give a pattern, such as "
            f"{images[0].parent / ('*' + images[-1].suffix)}."
        )


def _pairs(images: list[Path], masks: list[Path], where: str) -> list[tuple[Path, Path]]:
    """Each image with its mask; masks among the images are no images."""
    by_image: dict[str, list[Path]] = {}
    for suffix in LABEL_SUFFIXES:
        for mask in masks:
            if mask.stem.lower().endswith(suffix):
                by_image.setdefault(mask.stem[: len(mask.stem) - len(suffix)], []).append(mask)
    pairs, without_mask = [], []
    for image in images:
        matches = [mask for mask in by_image.get(image.stem, []) if mask != image]
        if len(matches) > 1:
            raise LabelError(
                f"{image} has {len(matches)} masks: {', '.join(mask.name for mask in matches)}. Expected one. "
                "Remove the others."
            )
        if matches:
            pairs.append((image, matches[0]))
        else:
            without_mask.append(image)
    used = {mask for _, mask in pairs}
    missing = [image for image in without_mask if image not in used]
    if missing:
        suffix = next((mask.suffix for mask in masks if mask not in images), ".png")
        examples = f"{missing[0].stem}{suffix} or {missing[0].stem}_mask{suffix}"
        remedy = f"Expected a file such as {examples} for each. Add the masks, or remove these images."
        if not pairs and set(images) <= set(masks):
            remedy = (
                "Images and labels are of one folder, and no name is that of a mask. If a file is a mask all the same, "
                "name the files of images and labels; otherwise add masks, such as "
                f"{missing[0].stem}_mask{missing[0].suffix}."
            )
        raise LabelError(
            f"{where} has no masks for {listed(image.name for image in missing)} ({len(missing)} of "
            f"{counted(len(pairs) + len(missing), 'image')}). {remedy}"
        )
    _require_one_image_a_mask(pairs)
    return pairs


def require_same_sizes(specs: Sequence[SceneSpec], images: Sequence[Raster], remedy: str) -> None:
    """Raise GridError about all label rasters without a CRS that differ in size from their images.

    Args:
        specs: each with labels.
        images: one for each of `specs`.
        remedy: what to do, as `refuse_other_sizes` takes it.
    """
    errors = []
    for spec, image in zip(specs, images, strict=True):
        if spec.labels is not None and not is_vector(spec.labels):
            try:
                located_labels(spec.labels, image, spec)
            except SizeError as error:
                errors.append(error)
    refuse_other_sizes(errors, remedy)
