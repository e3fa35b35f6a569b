"""Chips: pairs of image and mask that a network trains on, and their index.

A chips folder holds `chips.parquet` (one row per chip: scene, window, split, class counts, band statistics),
`chips.json` (classes, bands, dtype, nodata, sources) and, unless virtual, `images/` and `masks/`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pydantic import ValidationError

from landscribe.data.chips.files import NUMBERS, PICTURE_FILL, dense_numbers
from landscribe.data.scenes.scene import Sample, Scene, class_rows, open_images, open_scenes
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import ChipError, first_line
from landscribe.geo.access import require_file
from landscribe.geo.classes import IGNORE, ClassEntry, Classes, Label
from landscribe.geo.grid import Window
from landscribe.geo.inputs import distinct_names
from landscribe.geo.rasters.encoding import Encoding
from landscribe.geo.rasters.metadata import stem
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.whole_files import read_band, read_copy
from landscribe.geo.spec import NodataValue
from landscribe.spec import Spec, StoredName


class ChipsMetadata(Spec):
    """The content of `chips.json`: everything that is the same for all chips."""

    landscribe_chips: Literal[1] = 1
    """Version of the layout."""
    classes: tuple[ClassEntry, ...]
    unknown: tuple[Label, ...] = ()
    """Labels that mark unlabelled pixels."""
    bands: tuple[StoredName, ...]
    dtype: str
    nodata: NodataValue
    """The nodata value of the scenes, or one for each band."""
    encoding: tuple[Encoding, ...] = ()
    """What stored numbers mean, for each band; empty if no tag of the scenes declares it."""
    pixel_size: float | None
    """Pixel size in metres."""
    pixel_sides: tuple[float, float] | None = None
    """Height and width of a pixel in metres."""
    size: int
    """Side of a chip in pixels."""
    virtual: bool
    """Chips have no files of their own; pixels are read from the scenes."""
    background_share: float = 1
    """Share of the background chips of split train that are kept; val and test keep all."""
    sources: tuple[SceneSpec, ...]
    """Files of the scenes."""
    scenes: tuple[str, ...] = ()
    """Their names; empty in folders of earlier versions, which named stacked files by the first."""

    @property
    def scene_names(self) -> tuple[str, ...]:
        """The names of the scenes, as the table has them."""
        return self.scenes or tuple(distinct_names([stem(source.image[0]) for source in self.sources]))


@dataclass(frozen=True, eq=False)
class Chips:
    """A table of windows, with or without copied pixels.

    `len(chips)` is the number of chips; all arrays below are in the table's order.
    """

    folder: Path
    metadata: ChipsMetadata
    table: pd.DataFrame
    """One row per chip: chip, scene, group ("" for none), row, col, height, width, split, positive, valid_pixels,
    image, mask (paths in the folder, empty if virtual), objects (as mask; only with object numbers), count_<value> and
    count_ignore (pixels), mean_<n> and std_<n> (band n, valid pixels)."""

    @classmethod
    def of(cls, chips: "Chips | str | Path") -> "Chips":
        """Open a chips folder; `Chips` are returned as they are.

        Raises:
            ChipError: the folder is not a chips folder.
        """
        return chips if isinstance(chips, Chips) else cls.open(chips)

    @classmethod
    def open(cls, folder: str | Path) -> "Chips":
        """Open a chips folder.

        Raises:
            ChipError: the folder is not a chips folder, or is incomplete.
        """
        folder = Path(folder)
        for name in ("chips.json", "chips.parquet"):
            require_file(str(folder / name))
            if not (folder / name).exists():
                missing = f"there is no {name} in it" if folder.is_dir() else f"there is no folder {folder}"
                raise ChipError(_no_chips(folder, missing))
        try:
            metadata = ChipsMetadata.model_validate_json((folder / "chips.json").read_bytes())
            # pandas takes a folder ~ for the home.
            return cls(folder, metadata, pd.read_parquet(folder.absolute() / "chips.parquet"))
        except (OSError, ValueError) as error:
            raise ChipError(_no_chips(folder, _reason(error))) from error

    @cached_property
    def classes(self) -> Classes:
        """The class table of the masks."""
        return Classes(self.metadata.classes, unknown=self.metadata.unknown)

    def __len__(self) -> int:
        return len(self.table)

    def of_split(self, split: str) -> "Chips":
        """The chips of one split."""
        return self.take(self.table["split"] == split)

    def take(self, rows: Any) -> "Chips":
        """The chips of these rows: a mask (chips,) or a slice."""
        return replace(self, table=self.table[rows].reset_index(drop=True))

    def with_splits(self, splits: Sequence[str]) -> "Chips":
        """The same chips, with the split of each."""
        return replace(self, table=self.table.assign(split=list(splits)))

    @property
    def ids(self) -> list[str]:
        """The name of each chip."""
        return self.table["chip"].tolist()

    @property
    def splits(self) -> NDArray[np.str_]:
        """(chips,) train, val, test or gap (not used)."""
        return self.table["split"].to_numpy(str)

    @property
    def split_counts(self) -> dict[str, int]:
        """Chips of each split that has any, the largest split first."""
        return dict(Counter(self.splits.tolist()).most_common())

    @property
    def scene_names(self) -> NDArray[np.str_]:
        """(chips,) the name of each chip's scene."""
        return self.table["scene"].to_numpy(str)

    @property
    def group_names(self) -> NDArray[np.str_]:
        """(chips,) the group of each chip's scene; "" for none, as in folders that were written without groups."""
        if "group" not in self.table:
            return np.full(len(self), "")
        return self.table["group"].to_numpy(str)

    @property
    def windows(self) -> list[Window]:
        """The window of each chip in its scene."""
        return windows_of(self.table)

    @property
    def boxes(self) -> NDArray[Any]:
        """(chips,) the windows as boxes of shapely: x is the column, y the row."""
        return np.array([box_of(window) for window in self.windows], object)

    def overlapping(self, scene: str, window: Window) -> NDArray[np.int64]:
        """The indices of a scene's chips that touch a window."""
        indices, tree = self._trees[scene]
        found: NDArray[np.int64] = indices[tree.query(box_of(window))]
        return found

    @cached_property
    def _trees(self) -> dict[str, tuple[NDArray[np.int64], Any]]:
        """The chips of each scene, and a search tree of their boxes."""
        boxes = self.boxes
        return {name: (indices, shapely.STRtree(boxes[indices])) for name, indices in self.by_scene.items()}

    @property
    def by_scene(self) -> dict[str, NDArray[np.int64]]:
        """The indices of each scene's chips, by its name."""
        names = self.scene_names
        return {name: np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())}

    @property
    def counts(self) -> NDArray[np.int64]:
        """(chips, K) labelled pixels by class index."""
        return counts_of(self.table, self.classes)

    @property
    def sha256(self) -> str:
        """Hash of `chips.json` and `chips.parquet`; identifies the data."""
        parts = (self.folder / name for name in ("chips.json", "chips.parquet"))
        return hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()

    @property
    def labelled_classes(self) -> list[str]:
        """Names of the classes with labelled pixels in these chips."""
        return [name for name, pixels in zip(self.classes.names, self.counts.sum(axis=0), strict=True) if pixels]

    def stored_splits(self) -> list[str]:
        """The splits that these chips have in the folder, which may differ from those in memory."""
        stored = Chips.open(self.folder).table.set_index("chip")["split"]
        return sorted(set(stored.loc[self.ids]))

    @property
    def table_sha256(self) -> str:
        """Hash of the rows in memory, whose splits and groups may differ from those in the folder."""
        return hashlib.sha256(self.table.to_csv().encode()).hexdigest()

    @property
    def has_objects(self) -> bool:
        """True if each chip has object numbers beside its mask."""
        return NUMBERS in self.table

    def images(self) -> dict[str, Raster]:
        """The images of the scenes, by scene name."""
        return open_images(self.metadata.sources, names=self.metadata.scene_names)

    def scenes(self) -> dict[str, Scene]:
        """The scenes, with their labels, by name."""
        names = self.metadata.scene_names
        scenes, _ = open_scenes(self.metadata.sources, class_rows(self.classes), names=names)
        return {scene.name: scene for scene in scenes}


def windows_of(table: pd.DataFrame) -> list[Window]:
    """The windows of the rows of an index of chips."""
    return [Window(*row) for row in table[["row", "col", "height", "width"]].to_numpy().tolist()]


def counts_of(table: pd.DataFrame, classes: Classes) -> NDArray[np.int64]:
    """(chips, K) labelled pixels by class index, of the rows of an index of chips."""
    return table[[f"count_{value}" for value in classes.values]].to_numpy(np.int64)


def ground_of(windows: Sequence[Window]) -> Any:
    """The area that windows of one scene cover, as a shape of shapely: x is the column, y the row."""
    return shapely.union_all([box_of(window) for window in windows])


def covering_windows(grounds: Iterable[Any], windows: Sequence[Window]) -> float:
    """How many windows, of the mean size of these, have the area of the grounds of all scenes."""
    pixels = float(np.mean([window.height * window.width for window in windows]))
    return float(sum(ground.area for ground in grounds)) / pixels


def box_of(window: Window) -> Any:
    """A window as a box of shapely: x is the column, y the row."""
    return shapely.box(window.col, window.row, window.col_stop, window.row_stop)


class ChipReader:
    """Reads the pixels of chips, from their files or from the scenes. Can be pickled."""

    def __init__(self, chips: Chips) -> None:
        self.chips = chips
        self._rows = chips.table.to_dict("records")
        self.scenes = chips.scenes() if chips.metadata.virtual else {}

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> Sample:
        """The pixels and labels of a chip."""
        row = self._rows[index]
        if self.chips.metadata.virtual:
            return self.scenes[row["scene"]].read(Window(row["row"], row["col"], row["height"], row["width"]))
        pixels, valid = read_copy(self.chips.folder / row["image"], PICTURE_FILL)
        mask = read_band(self.chips.folder / row["mask"])
        # Labelled pixels are valid, also those that are black in pictures of before, which have no mask file.
        valid |= mask != IGNORE
        if row["valid_pixels"] == valid.size:
            valid[:] = True
        return Sample(pixels, valid, mask)

    def read_objects(self, index: int) -> NDArray[Any]:
        """The object numbers (height, width) of a chip, 1 to the number of objects, 0 where there is none."""
        row = self._rows[index]
        if self.chips.metadata.virtual:
            window = Window(row["row"], row["col"], row["height"], row["width"])
            return dense_numbers(self.scenes[row["scene"]].read_objects(window))
        return read_band(self.chips.folder / row[NUMBERS])


def _no_chips(folder: Path, reason: str) -> str:
    return (
        f'{folder} is not a chips folder ({reason}). Expected a folder written by "landscribe chip". Check the path, '
        "or chip again."
    )


def _reason(error: Exception) -> str:
    """One line; of metadata, the first field that is damaged."""
    if not isinstance(error, ValidationError):
        return getattr(error, "strerror", None) or first_line(error)
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    return f"chips.json: {name}{': ' if name else ''}{first['msg']}"
