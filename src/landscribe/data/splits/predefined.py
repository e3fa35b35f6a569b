"""Predefined splits: read from text files that list scenes or chips, or from a column of the label polygons."""

import re
from collections.abc import Sequence
from pathlib import Path

from landscribe.data.chips.spec import ChipSpec
from landscribe.data.scenes.polygon_files import label_options
from landscribe.data.scenes.spec import SceneSpec
from landscribe.data.splits.groups import Split
from landscribe.data.splits.spec import SplitSpec
from landscribe.errors import ChipError
from landscribe.geo.access import read_utf8
from landscribe.geo.features import Features
from landscribe.geo.grid import size_label
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.vector_files import is_vector

ChipSplits = dict[tuple[int, int], Split]
"""Splits of the chips of a scene, by row and col of their windows."""

_CHIP = re.compile(r"(.+)_([0-9]{1,9})")
"""A chip in a list: its scene and its number."""


def read_lists(spec: SplitSpec, images: Sequence[Raster], chips: ChipSpec) -> list[Split | ChipSplits]:
    """The split of each image, or of its chips, by the lists of `spec`; "gap" for those in no list.

    A line names an image by its stem, by a file name with any suffix, or by the end of its path. A line that names no
    image may name a chip, `<image>_<n>`: windows are counted from 0 row by row, the partial ones at the right and
    bottom edges too, as by the script of LandCover.ai (Boguszewski et al. 2021, arXiv:2005.02264), which writes whole
    ones only. Blank lines and comments (# …) are skipped.

    Raises:
        ChipError: a list cannot be read, a line names no image or chip or several, an image or chip is in two lists,
            or chips are not cut as the lists count them.
    """
    by_name: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        by_name.setdefault(image.name, []).append(index)
    whole: dict[int, Split] = {}
    parts: dict[int, ChipSplits] = {}
    for split, path in spec.lists.items():
        for line in _lines(path):
            index, number = _named(line, by_name, images, path)
            if number is None:
                previous = {whole.get(index, split), *parts.get(index, {}).values()}
                whole[index] = split
            else:
                corner = _corner(number, images[index], chips, f"{path}: '{line}'")
                of_image = parts.setdefault(index, {})
                previous = {of_image.get(corner, split), whole.get(index, split)}
                of_image[corner] = split
            if others := previous - {split}:
                raise ChipError(
                    f"{path}: '{line}' is in the lists of {min(others)} and {split}. Expected each scene or chip in "
                    "one list at most. Remove it from one."
                )
    return [whole.get(index) or parts.get(index) or "gap" for index in range(len(images))]


def _lines(path: str) -> list[str]:
    text = read_utf8(path, "a list with one scene name per line", ChipError)
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _named(line: str, by_name: dict[str, list[int]], images: Sequence[Raster], path: str) -> tuple[int, int | None]:
    """Index of the image that a line names, and the number of the chip if it names a chip of that image."""
    file = Path(line.replace("\\", "/"))
    matches, number = _matches(file, by_name, images), None
    for text in () if matches else (file.name, file.stem):
        chip = _CHIP.fullmatch(text)
        if chip and (matches := _matches(file.parent / chip[1], by_name, images)):
            number = int(chip[2])
            break
    if len(matches) != 1:
        count = f"{len(matches)} scenes" if matches else "no scene"
        examples = ", ".join(list(by_name)[:3])
        raise ChipError(
            f"{path}: '{line}' names {count} of {len(images)} ({examples}, …). Expected the name of one image, with or "
            "without its folder and suffix, or of a chip of it (its name, _ and a number). Correct or remove that line."
        )
    return matches[0], number


def _matches(file: Path, by_name: dict[str, list[int]], images: Sequence[Raster]) -> list[int]:
    """Indices of the images with a name; with its folder too, if several have the name."""
    # A stem may contain dots: "scene.1" has no suffix.
    matches = by_name.get(file.name) or by_name.get(file.stem) or []
    if len(matches) < 2:
        return matches
    ends = tuple(file.with_suffix("").parts)
    return [index for index in matches if Path(images[index].paths[0]).with_suffix("").parts[-len(ends) :] == ends]


def _corner(number: int, image: Raster, spec: ChipSpec, line: str) -> tuple[int, int]:
    """Row and col of the chip with this number in its image.

    Raises:
        ChipError: there is no whole chip of that number, or chips are not cut as lists count them.
    """
    (height, width), size, stride = image.grid.shape, spec.size, spec.stride or spec.size
    if spec.edge != "drop" or stride != size:
        raise ChipError(
            f"{line} names chip {number} of {image.name}, but edge is {spec.edge} and stride is {stride}. Expected "
            "chips side by side, without those that reach outside, as lists count them. Set edge = drop and stride = "
            f"{size}."
        )
    rows, cols = -(-height // size), -(-width // size)
    row, col = divmod(number, cols)
    if row < height // size and col < width // size:
        return row * size, col * size
    held = "is partial" if row < rows else f"does not exist: the numbers are 0 to {rows * cols - 1}"
    raise ChipError(
        f"{line} names chip {number} of {image.name} ({size_label(image.grid.shape)} pixels), which {held}. Expected "
        f"a whole chip of {size} pixels. Set size to that of the list, or correct that line."
    )


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
