"""Predefined splits: read from text files that list scenes, or from a column of the label polygons."""

from collections.abc import Sequence
from pathlib import Path

from landscribe.data.scenes.polygon_files import label_options
from landscribe.data.scenes.spec import SceneSpec
from landscribe.data.splits.groups import Split
from landscribe.data.splits.spec import SplitSpec
from landscribe.errors import ChipError
from landscribe.geo.features import Features
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.vector_files import is_vector


def read_lists(spec: SplitSpec, images: Sequence[Raster]) -> list[Split]:
    """The split of each image by the lists of `spec`; "gap" for those in no list.

    A line names an image by its stem, by a file name with any suffix, or by the end of its path. Blank lines and
    comments (# …) are skipped.

    Raises:
        ChipError: a list cannot be read, a line names no image or several, or an image is in two lists.
    """
    by_name: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        by_name.setdefault(image.name, []).append(index)
    listed: dict[int, Split] = {}
    for split, path in spec.lists.items():
        for line in _lines(path):
            index = _image_index(line, by_name, images, path)
            if listed.get(index, split) != split:
                raise ChipError(
                    f"{path}: '{line}' is in the lists of {listed[index]} and {split}. Expected each scene in one list "
                    "at most. Remove it from one."
                )
            listed[index] = split
    return [listed.get(index, "gap") for index in range(len(images))]


def _lines(path: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ChipError(
            f"{path} cannot be read as a list of scenes ({type(error).__name__}). Expected a text file with one scene "
            "name per line. Check the path."
        ) from error
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _image_index(line: str, by_name: dict[str, list[int]], images: Sequence[Raster], path: str) -> int:
    """Index of the image that a line names."""
    name = Path(line.replace("\\", "/"))
    # A stem may contain dots: "scene.1" has no suffix.
    matches = by_name.get(name.name) or by_name.get(name.stem) or []
    if len(matches) > 1:
        ends = tuple(name.with_suffix("").parts)
        matches = [
            index for index in matches if Path(images[index].paths[0]).with_suffix("").parts[-len(ends) :] == ends
        ]
    if len(matches) != 1:
        count = f"{len(matches)} scenes" if matches else "no scene"
        examples = ", ".join(list(by_name)[:3])
        raise ChipError(
            f"{path}: '{line}' names {count} of {len(images)} ({examples}, …). Expected the name of one image, with or "
            "without its folder and suffix. Correct or remove that line."
        )
    return matches[0]


def read_zones(spec: SplitSpec, source: SceneSpec, image: Raster) -> Features:
    """The label polygons of a scene in its CRS; their labels are the values of the column `spec.attribute`.

    Raises:
        ChipError: the labels are not polygons.
        LabelError: the column does not exist.
    """
    if source.labels is None or not is_vector(source.labels):
        raise ChipError(
            f"the labels of {image.paths[0]} ({source.labels}) have no column '{spec.attribute}' to split by. Expected "
            "polygons. Split by block or scene instead."
        )
    features = Features.read(source.labels, **label_options(source) | {"field": spec.attribute})
    return features.on(image.grid, image.paths[0])
