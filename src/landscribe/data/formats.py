"""Formats: the folders that people have, read as scenes.

Images and masks of the same names in two folders, or in one where masks have an ending (`name_m.png`); ArcGIS
*Classified Tiles*; bands in files of their own; text files that name images.
"""

import glob
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from landscribe.data.classified_tiles import TEMPLATE, read_classes
from landscribe.data.scene import VECTOR_SUFFIXES, ClassSpec, SceneSpec
from landscribe.errors import LabelError, RasterError
from landscribe.geo.access import is_local

log = logging.getLogger(__name__)

IMAGE_FOLDER = "images"
LABEL_FOLDERS = ("labels", "masks")
"""Beside `images` in a folder that is given as a whole."""
RASTER_SUFFIXES = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".vrt", ".img", ".bmp"}
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
    if len(spec.image) > 1 or not any(stands_for_many(path) for path in (given, spec.labels) if path):
        return [spec]
    images, labels = _images_and_labels(given, spec.labels)
    files = _without(images_in(images), spec.without, images)
    if spec.stack:
        return [spec.model_copy(update={"image": tuple(map(str, files))})]
    if labels is None or not stands_for_many(labels):
        return [spec.model_copy(update={"image": (str(file),), "labels": labels}) for file in files]
    masks = _listed(labels, RASTER_SUFFIXES | VECTOR_SUFFIXES)
    pairs = _pairs(files, masks, labels)
    if Path(images).is_dir() and not spec.without:
        # Of a pattern, or with some left out, masks are left over on purpose.
        _say_what_is_idle(set(masks) - {mask for _, mask in pairs} - set(files), labels)
    return [spec.model_copy(update={"image": (str(image),), "labels": str(mask)}) for image, mask in pairs]


def images_in(place: str) -> list[Path]:
    """The images of a folder or pattern, sorted as people number them.

    Raises:
        RasterError: there are none.
    """
    files = _listed(place, RASTER_SUFFIXES)
    if not files:
        raise RasterError(
            f"{place} holds no image. Files ending in {', '.join(sorted(RASTER_SUFFIXES))} were expected. "
            "Check the folder or pattern."
        )
    return files


def stands_for_many(path: str) -> bool:
    """True for a folder, or a pattern of files."""
    return is_local(path) and (Path(path).is_dir() or (glob.has_magic(path) and not Path(path).exists()))


def is_list(path: str) -> bool:
    """True for a text file that names rasters, one a line: files.txt, or @ before a name."""
    return path.startswith("@") or (is_local(path) and Path(path).suffix.lower() == ".txt")


def listed_in(path: str) -> list[list[str]]:
    """The files of each raster that a text file names, one raster a line; commas stack files as bands.

    What is not absolute is relative to the text file; empty lines and those that begin with # say nothing.

    Raises:
        RasterError: the text file cannot be read, or names a file that is not there, or none at all.
    """
    place = Path(path.removeprefix("@"))
    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise RasterError(f"{place} cannot be read: {reason}. A list of images was expected, one a line.") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            # Windows copies paths within quotes.
            files = [_beside(place, part.strip().strip('"')) for part in line.split(",")]
            _require_there(files, f"{place}, line {number},")
            found.append(files)
    if not found:
        raise RasterError(f"{place} names no image. One a line was expected.")
    return found


def _beside(place: Path, name: str) -> str:
    return str(place.parent / name) if is_local(name) else name


def _require_there(files: Sequence[str], where: str) -> None:
    for file in files:
        if is_local(file) and not Path(file).exists() and not stands_for_many(file):
            raise RasterError(f"{where} names {file}, which is not there. Correct the line, or put # before it.")


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


def _listed(place: str, suffixes: set[str]) -> list[Path]:
    """Files of a folder or pattern, or one alone, sorted as people number them: B2 before B10."""
    if Path(place).is_file():
        return [Path(place)]
    pattern = f"{glob.escape(place)}/*" if Path(place).is_dir() else place
    found = (Path(path) for path in glob.iglob(pattern, recursive=True))  # noqa: PTH207 patterns may be absolute
    files = [path for path in found if path.suffix.lower() in suffixes]
    return sorted(files, key=lambda path: [int(part) if part.isdigit() else part for part in _parts(path.name)])


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


def _parts(name: str) -> list[str]:
    """Text and numbers by turns, always text first: so that names can be compared."""
    return re.split(r"(\d+)", name)


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
