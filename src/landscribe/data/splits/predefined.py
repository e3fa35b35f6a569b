"""Splits that people tell: lists of scenes, and a column of the label polygons."""

from collections.abc import Sequence
from pathlib import Path

from landscribe.data.scenes.scene import SceneSpec, is_vector
from landscribe.data.splits.groups import Split
from landscribe.data.splits.split import SplitSpec
from landscribe.errors import ChipError
from landscribe.geo.features import Features
from landscribe.geo.rasters.raster import Raster


def read_lists(spec: SplitSpec, images: Sequence[Raster]) -> list[Split]:
    """The split of each image by the lists of `spec`; "gap" for those in no list.

    A line names an image by its stem, by a file name with any suffix, or by the end of its path. Blank lines and
    what follows a # are passed over.

    Raises:
        ChipError: a list that cannot be read, a name that no image has or several have, an image in two lists.
    """
    by_name: dict[str, list[int]] = {}
    for number, image in enumerate(images):
        by_name.setdefault(image.name, []).append(number)
    told: dict[int, Split] = {}
    for split, path in spec.lists.items():
        for line in _lines(path):
            number = _image_named(line, by_name, images, path)
            if told.get(number, split) != split:
                raise ChipError(
                    f"{path}: '{line}' is in the lists of {told[number]} and {split}. Each scene in one list at most "
                    "was expected. Take it out of one."
                )
            told[number] = split
    return [told.get(number, "gap") for number in range(len(images))]


def _lines(path: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ChipError(
            f"{path} cannot be read as a list of scenes ({type(error).__name__}). A text file with a scene's name on "
            "each line was expected. Check the path."
        ) from error
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _image_named(line: str, by_name: dict[str, list[int]], images: Sequence[Raster], path: str) -> int:
    """Number of the image that a line names."""
    name = Path(line.replace("\\", "/"))
    # A stem may have dots of its own, so that what looks like a suffix need not be one.
    found = by_name.get(name.name) or by_name.get(name.stem) or []
    if len(found) > 1:
        ends = tuple(name.with_suffix("").parts)
        found = [
            number for number in found if Path(images[number].paths[0]).with_suffix("").parts[-len(ends) :] == ends
        ]
    if len(found) != 1:
        is_what = f"names {len(found)} scenes" if found else "names no scene"
        some = ", ".join(list(by_name)[:3])
        raise ChipError(
            f"{path}: '{line}' {is_what} of {len(images)} ({some}, …). The name of one image, with or without its "
            "folder and suffix, was expected. Correct or remove that line."
        )
    return found[0]


def read_areas(spec: SplitSpec, source: SceneSpec, image: Raster) -> Features:
    """The label polygons of a scene with what the column `spec.attribute` says as their labels.

    Raises:
        ChipError: labels that are no polygons.
        LabelError: no such column.
    """
    if source.labels is None or not is_vector(source.labels):
        raise ChipError(
            f"the labels of {image.paths[0]} are {source.labels}, which have no column '{spec.attribute}' to split by. "
            "Polygons were expected. Split by block or scene instead."
        )
    features = Features.read(source.labels, field=spec.attribute, fix_geometries=source.repair)
    return features.to_crs(image.grid.crs, image.paths[0])
