"""Formats: the folders that people have, read as scenes.

Images and masks of the same names in two folders, or in one where masks have an ending (`name_m.png`); ArcGIS
*Classified Tiles*; bands in files of their own; text files that name images.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from landscribe.data.chips.classified_tiles import TEMPLATE, read_classes
from landscribe.data.scenes.scene import VECTOR_SUFFIXES
from landscribe.data.scenes.spec import ClassSpec, SceneSpec
from landscribe.errors import LabelError, RasterError
from landscribe.geo.inputs import RASTER_SUFFIXES, files_in, images_in, is_collection

log = logging.getLogger(__name__)

IMAGE_FOLDER = "images"
LABEL_FOLDERS = ("labels", "masks")
"""Beside `images` in a folder that is given as a whole."""
LABEL_ENDINGS = ("", "_m", "_mask", "_label", "_labels", "_gt")
"""What the name of a mask adds to that of its image."""

_NAMED = 3


def each_scene(
    specs: Sequence[SceneSpec], table: Sequence[ClassSpec] = ()
) -> tuple[tuple[SceneSpec, ...], tuple[ClassSpec, ...]]:
    """Scenes one by one, in the order of their files' names, where folders and patterns stand for many.

    Args:
        specs: as a person wrote them.
        table: the class table; if empty, that of ArcGIS Classified Tiles is taken where there is one.

    Raises:
        RasterError: a folder or pattern without images.
        LabelError: an image without its mask.
    """
    found = list(table)
    for spec in specs:
        definition = Path(spec.image[0]) / TEMPLATE
        if not found and definition.is_file():
            found = read_classes(definition)
    return tuple(scene for spec in specs for scene in _scenes_of(spec)), tuple(found)


def _scenes_of(spec: SceneSpec) -> list[SceneSpec]:
    given = spec.image[0]
    if len(spec.image) > 1 or not any(is_collection(path) for path in (given, spec.labels) if path):
        return [spec]
    images, labels = _images_and_labels(given, spec.labels)
    files = _without(images_in(images), spec.without, images)
    if spec.stack:
        return [spec.model_copy(update={"image": tuple(map(str, files))})]
    if labels is None or not is_collection(labels):
        return [spec.model_copy(update={"image": (str(file),), "labels": labels}) for file in files]
    masks = files_in(labels, RASTER_SUFFIXES | VECTOR_SUFFIXES)
    pairs = _pairs(files, masks, labels)
    if Path(images).is_dir() and not spec.without:
        # Of a pattern, or with some left out, masks are left over on purpose.
        _say_what_is_idle(set(masks) - {mask for _, mask in pairs} - set(files), labels)
    return [spec.model_copy(update={"image": (str(image),), "labels": str(mask)}) for image, mask in pairs]


def _images_and_labels(given: str, labels: str | None) -> tuple[str, str | None]:
    """Where images and labels are; a folder that is given as a whole may hold a folder for each."""
    root = Path(given)
    if not root.is_dir():
        return given, labels
    if labels is None:
        labels = next((str(root / name) for name in LABEL_FOLDERS if (root / name).is_dir()), None)
    if (root / IMAGE_FOLDER).is_dir():
        return str(root / IMAGE_FOLDER), labels
    # Masks may lie among the images.
    return given, labels or given


def _without(files: list[Path], names: Sequence[str], where: str) -> list[Path]:
    left_out = [file for file in files if {file.name, file.stem} & set(names)]
    known = {name for file in left_out for name in (file.name, file.stem)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RasterError(
            f"without names {', '.join(unknown)}, which {where} does not hold. Names of its images were expected. "
            "Correct or remove them."
        )
    return [file for file in files if file not in left_out]


def _say_what_is_idle(masks: set[Path], where: str) -> None:
    if masks:
        some = ", ".join(sorted(mask.name for mask in masks)[:_NAMED]) + (" …" if len(masks) > _NAMED else "")
        log.warning("%s: %d masks have no image and are not used (%s)", where, len(masks), some)


def _pairs(images: list[Path], masks: list[Path], where: str) -> list[tuple[Path, Path]]:
    """Each image with the mask of its name; images that are another's mask are left out."""
    by_stem: dict[str, list[Path]] = {}
    for mask in masks:
        by_stem.setdefault(mask.stem, []).append(mask)
    pairs, alone = [], []
    for image in images:
        found = [mask for ending in LABEL_ENDINGS for mask in by_stem.get(image.stem + ending, []) if mask != image]
        if len(found) > 1:
            raise LabelError(
                f"{image} has {len(found)} masks: {', '.join(mask.name for mask in found)}. One was expected. "
                "Take the others away."
            )
        if found:
            pairs.append((image, found[0]))
        else:
            alone.append(image)
    taken = {mask for _, mask in pairs}
    missing = [image for image in alone if image not in taken]
    if missing:
        some = ", ".join(image.name for image in missing[:_NAMED]) + (" …" if len(missing) > _NAMED else "")
        raise LabelError(
            f"{where} has no masks for {some} ({len(missing)} of {len(pairs) + len(missing)} images). "
            f"A file such as {missing[0].stem}.png or {missing[0].stem}_mask.png was expected for each. "
            "Add the masks, or take those images away."
        )
    return pairs
