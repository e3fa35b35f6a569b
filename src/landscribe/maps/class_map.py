"""ClassMap: a finished map as a noun, with its raster, classes, areas and the run that wrote it.

A map of ours carries its class table, areas and fingerprint as tags of its GeoTIFF. Any other raster of whole numbers
from 0 to 254 opens as well: its classes are the values that occur, with the names that other programs keep beside it.
"""

import json
import logging
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from landscribe.data.chips.chips import Chips
from landscribe.errors import ClassError, LandscribeError, RasterError, counted, first_line, listed
from landscribe.geo.access import open_dataset
from landscribe.geo.classes import IGNORE, ClassEntry, Classes, values_that_occur
from landscribe.geo.grid import grid_label
from landscribe.geo.rasters.derived.converted import as_class_values
from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.maps.areas import Areas
from landscribe.maps.legends.attribute_tables import AttributeTable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from landscribe.model import Model

log = logging.getLogger(__name__)

CLASSES_TAG = "LANDSCRIBE_CLASSES"
AREAS_TAG = "LANDSCRIBE_AREAS"
RUN_TAG = "LANDSCRIBE_RUN"
FINGERPRINT_TAG = "LANDSCRIBE_PLAN"
TRAINED_TAG = "LANDSCRIBE_TRAINED_SPLITS"
_OF_TRAINING = "this is training accuracy. Expect lower accuracy in new areas."
CAVEAT_OF_LABELS = f"The network was trained on labels of this file: where they were in train chips, {_OF_TRAINING}"
"""Why measures against a file that models of the map were trained on are too high for new areas."""


def model_tags(models: "Iterable[Model]") -> dict[str, str]:
    """The tags of a file of pixels that name the models which predicted them, and this version."""
    return {
        "LANDSCRIBE_MODEL_SHA256": ", ".join(model.sha256 for model in models),
        "LANDSCRIBE_VERSION": version("landscribe"),
        "AREA_OR_POINT": "Area",
    }


def trained_tag(models: "Iterable[Model]") -> dict[str, str]:
    """The tag of a map by all of these models: the splits that they were trained on, by the hash of the chips."""
    splits: dict[str, set[str]] = {}
    for model in models:
        chips = model.provenance.get("chips_sha256", "")
        splits.setdefault(chips, set()).update(model.provenance.get("trained_splits", ()))
    return {TRAINED_TAG: json.dumps({chips: sorted(names) for chips, names in splits.items()})}


@dataclass(frozen=True)
class ClassMap:
    """One band of class values (uint8), and what its tags say."""

    raster: Raster
    tags: dict[str, str]
    class_table: str | None = None
    """A CSV file with a class table, in place of that of the map."""

    @classmethod
    def open(cls, path: str | Path) -> "ClassMap":
        """Open a class raster, of Landscribe or of any other program.

        Raises:
            RasterError: it cannot be read, or has several bands.
        """
        return cls.of(Raster.open([path]))

    @classmethod
    def of(cls, raster: Raster, class_table: str | None = None) -> "ClassMap":
        """From an open raster of any dtype, see `as_class_values`."""
        if len(raster.bands) != 1:
            raise RasterError(
                f"{raster.paths[0]} has {counted(len(raster.bands), 'band')} of {raster.dtype}. Expected a class "
                "raster: one band of whole numbers. Choose another file."
            )
        return cls(as_class_values(raster), read_tags(Path(raster.paths[0])), class_table)

    @cached_property
    def classes(self) -> Classes:
        """The class table; of a map without one, the values that occur or have a name (all of it is read).

        Raises:
            RasterError: the tag holds no class table, or a map without one has no valid pixel.
        """
        if self.table is not None:
            return self.table
        require_values(self.values, self.raster)
        return self.attributes.classes(self.values)

    @cached_property
    def table(self) -> Classes | None:
        """The class table of `class_table` or of the map's tags; None without one.

        Raises:
            ClassError: the file holds no class table.
            RasterError: the tag holds no class table.
        """
        if self.class_table is not None:
            return Classes.read(self.class_table)
        return class_table_in(self.tags, self.raster.paths[0])

    @cached_property
    def attributes(self) -> AttributeTable:
        """Names and colours that other programs keep for the values, without the nodata value."""
        return AttributeTable.of(self.raster.paths[0]).without(self.raster.nodata)

    @cached_property
    def values(self) -> list[int]:
        """The class values that occur, ascending (all of the map is read); empty if all pixels are nodata."""
        strips = map(self.raster.read, self.raster.grid.strips())
        return values_that_occur(pixels[0][valid] for pixels, valid in strips)

    @property
    def areas(self) -> Areas:
        """Area of each class; empty if the map does not carry them."""
        return areas_in(self.tags)

    @property
    def run(self) -> str | None:
        """Hash of the fingerprint by which the map was predicted; None if Landscribe did not write it."""
        return self.tags.get(RUN_TAG)


def require_values(values: "Collection[int]", *maps: Raster) -> None:
    """Raise RasterError if no class value occurs in maps."""
    if not values:
        raise RasterError(
            f"{listed(mapped.paths[0] for mapped in maps)}: no valid pixel, all are nodata. Expected class values. "
            "Choose another map."
        )


def warn_of_overlaps(maps: "Sequence[Raster]") -> None:
    """Warn of maps whose grids overlap by half a pixel or more: pixels there count in each of them."""
    boxes = []
    for mapped in maps:
        left, bottom, right, top = mapped.grid.bounds
        x, y = (right - left) / mapped.grid.width / 4, (top - bottom) / mapped.grid.height / 4
        boxes.append(shapely.box(left + x, bottom + y, right - x, top - y))
    pairs = shapely.STRtree(boxes).query(boxes, predicate="intersects").T.tolist()
    overlaps = [(a, b) for a, b in sorted(pairs) if a < b and maps[a].grid.crs == maps[b].grid.crs]
    if overlaps:
        names = [maps[index].paths[0] for index in overlaps[0]]
        log.warning(
            "%s overlap (%s of maps in all): pixels there count in both. Join the maps to count each once "
            "(gdalbuildvrt)", listed(names), counted(len(overlaps), "pair"),
        )  # fmt: skip


def class_values(pixels: Pixels, valid: Valid) -> NDArray[np.uint8]:
    """Class values (rows, cols) of a class raster's pixels as they were read: 255 where it has no value."""
    return np.where(valid, pixels[0], np.uint8(IGNORE))


def read_tags(path: Path) -> dict[str, str]:
    """The tags of a raster file; empty if there is none."""
    if not path.exists():
        return {}
    try:
        with open_dataset(str(path)) as dataset:
            return dict(dataset.tags())
    except RasterError:
        return {}


def areas_in(tags: dict[str, str]) -> Areas:
    """The areas that tags hold; empty if none."""
    areas: Areas = _object_in(tags, AREAS_TAG)
    is_complete = all(isinstance(own, dict) and own.keys() >= {"pixels", "km2"} for own in areas.values())
    return areas if is_complete else {}


def fingerprint_in(tags: dict[str, str]) -> dict[str, Any]:
    """The fields of the fingerprint that tags hold; empty if none."""
    return _object_in(tags, FINGERPRINT_TAG)


def trained_splits_in(tags: dict[str, str], chips_sha256: str) -> list[str]:
    """The splits of these chips that models of the map were trained on; empty if the tags do not say it."""
    splits = _object_in(tags, TRAINED_TAG).get(chips_sha256)
    return splits if isinstance(splits, list) else []


def caveat_of_split(split: str | None, trained: "Collection[str]") -> str:
    """Why measures on the chips of a split are too high for new areas; empty if they are not known to be.

    Args:
        split: of the compared chips; None for another reference.
        trained: splits of these chips that models of the maps were trained on.

    >>> caveat_of_split("train", ["train"])
    'The network was trained on these chips: this is training accuracy. Expect lower accuracy in new areas.'
    >>> caveat_of_split("gap", ["train"]).startswith("The gap chips are in no split")
    True
    >>> caveat_of_split("test", ["train"])
    ''
    """
    if split in trained:
        return f"The network was trained on these chips: {_OF_TRAINING}"
    if split == "train":
        return f"These are train chips: if the network was trained on them, {_OF_TRAINING}"
    if split == "val" and trained:
        return (
            "The val chips were not used for training, but the epoch was chosen on them: expect somewhat lower "
            "accuracy in new areas."
        )
    if split == "gap":
        return (
            "The gap chips are in no split, and many of them may lie next to chips that the network was trained on: "
            "expect lower accuracy in new areas."
        )
    return ""


def is_trained_on(path: Path, reference: Path) -> bool:
    """True if models of a map were trained on labels of a file, or on its file of a folder.

    The chips of the map's run folder say it, if their hash is that of the map's tag. Other maps do not say it.

    Args:
        path: of the map.
        reference: the file, or a folder with a file for each map.
    """
    tags = read_tags(path)
    for folder in path.absolute().parents[:3]:  # of map.tif, maps/NAME.tif or assessed/maps/NAME.tif
        try:
            chips = Chips.open(folder / "chips")
        except (LandscribeError, OSError):
            continue
        trained = set(chips.scene_names[np.isin(chips.splits, trained_splits_in(tags, chips.sha256))].tolist())
        scenes = zip(chips.metadata.scene_names, chips.metadata.sources, strict=True)
        labels = {Path(source.labels).resolve() for name, source in scenes if source.labels and name in trained}
        own = {file for file in labels if scene_in_name(path.stem, [file.stem]) is not None}
        if reference.resolve() in labels | {file.parent for file in own}:
            return True
    return False


def _object_in(tags: dict[str, str], name: str) -> dict[str, Any]:
    """The JSON object of a tag; empty if there is none, or another program wrote the tag."""
    try:
        fields = json.loads(tags.get(name, "{}"))
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def classes_as_tag(classes: Classes) -> str:
    """The class table as JSON. Law: `classes_from_tag(classes_as_tag(c)) == c`."""
    return json.dumps([asdict(entry) for entry in classes])


def class_table_of(path: str) -> Classes | None:
    """The class table in the tags of a raster file; None without one.

    Raises:
        RasterError: the tag holds no class table.
    """
    return class_table_in(read_tags(Path(path)), path)


def class_table_in(tags: dict[str, str], path: str) -> Classes | None:
    """The class table that tags hold; None without one.

    Args:
        tags: of a map.
        path: of the map, for the message.

    Raises:
        RasterError: the tag holds no class table.
    """
    text = tags.get(CLASSES_TAG)
    try:
        return None if text is None else classes_from_tag(text)
    except (ValueError, TypeError, ClassError) as error:
        raise RasterError(
            f"{path}: its tag {CLASSES_TAG} holds no class table ({first_line(error)}). Expected the tag that "
            f"Landscribe wrote. Map again, or remove it: gdal_edit.py -unsetmd {CLASSES_TAG} {path}"
        ) from error


def classes_from_tag(text: str) -> Classes:
    """The class table in a map's tag."""
    return Classes(tuple(ClassEntry(**entry) for entry in json.loads(text)))


def bands_of_classes(probabilities: Raster, mapped: Raster, names: "Sequence[str]") -> NDArray[np.int64]:
    """Index of the band of each class, which has its name, in a raster of probabilities.

    Args:
        probabilities: as `predict` writes them beside a map.
        mapped: the map.
        names: of the classes, K.

    Returns:
        (K,) indices of bands, from 0.

    Raises:
        RasterError: grids differ, or a class has no band.
    """
    require_probabilities_of(mapped, probabilities)
    absent = [name for name in names if name not in probabilities.bands]
    if absent:
        raise RasterError(
            f"{probabilities.paths[0]} has the bands {', '.join(probabilities.bands)}, but no band {absent[0]}. "
            f"Expected a band for each class of {mapped.paths[0]}, named like it. Name the bands, or leave "
            "--probabilities out."
        )
    return np.array([probabilities.bands.index(name) for name in names], np.int64)


def require_probabilities_of(mapped: Raster, probabilities: Raster) -> None:
    """Raise RasterError for probabilities on another grid than that of their map."""
    if not probabilities.grid.is_aligned(mapped.grid):
        raise RasterError(
            f"{probabilities.paths[0]} ({grid_label(probabilities.grid)}) and {mapped.paths[0]} "
            f"({grid_label(mapped.grid)}) lie on different grids. Expected the probabilities that predict wrote beside "
            "the map. Predict both in one command."
        )


def match_maps(maps: "Sequence[Raster]", images: "Mapping[str, Raster]") -> dict[str, Raster]:
    """The class map of each scene, by scene name; a scene without a map is left out.

    A map belongs to a scene if its grid is aligned to that of the scene's imagery. Scenes without a CRS may all lie on
    the same grid. Then the best of these wins: a map named after the scene (`000_NAME`), a map named after no scene,
    the map with the scene's index if there are as many maps as scenes, the first map.

    Args:
        maps: class maps.
        images: imagery of each scene, by scene name.
    """
    namesakes = [scene_in_name(mapped.name, images) for mapped in maps]
    matched: dict[str, Raster] = {}
    for scene_index, (scene, image) in enumerate(images.items()):
        ranks = {
            index: (
                namesakes[index] == scene,
                namesakes[index] is None,
                len(maps) == len(images) and index == scene_index,
            )
            for index, mapped in enumerate(maps)
            if mapped.grid.is_aligned(image.grid)
        }
        if ranks:
            matched[scene] = maps[max(ranks, key=ranks.__getitem__)]
    return matched


def scene_in_name(map_name: str, scenes: "Iterable[str]") -> str | None:
    """The scene that a map is named after: the longest scene name between underscores or at an end.

    >>> scene_in_name("001_field_north", ["field", "field_north", "north_2"])
    'field_north'
    """
    return max((scene for scene in scenes if f"_{scene}_" in f"_{map_name}_"), key=len, default=None)
