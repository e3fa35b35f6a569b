"""Chips: image and mask pairs that a network trains on, and the index that knows where each is from.

A chips folder holds `chips.parquet` (one row per chip: scene, window, split, class counts, band statistics),
`chips.json` (classes, bands, dtype, nodata, sources) and, unless virtual, `images/` and `masks/`.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from landscribe.data.chips.files import PICTURE_FILL, Format
from landscribe.data.scenes.scene import Scene, SceneSpec, class_rows, open_images, open_scenes
from landscribe.errors import ChipError
from landscribe.geo.classes import ClassEntry, Classes, Label
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.geo.rasters.whole_files import read_band, read_copy
from landscribe.geo.tiling import EdgePolicy
from landscribe.spec import Spec

Mode = Literal["all", "positive", "divided"]


class ChipSpec(Spec):
    """How chips are cut."""

    size: int = Field(256, ge=8, le=8192)
    """Side in pixels."""
    stride: int | None = Field(None, ge=1)
    """Step between chips in pixels; the size (no overlap) if left out."""
    edge: EdgePolicy = "shift"
    """A chip that would reach outside the scene is moved inward (shift), filled up (pad), or left out (drop)."""
    mode: Mode = "all"
    """all; positive: only chips with a class other than background; divided: both, in folders of their own."""
    unlabelled: bool = False
    """Also cut chips without a single labelled pixel; what is partly labelled always is."""
    format: Format = "tif"
    """tif keeps CRS and transform; png takes 1, 3 or 4 bands, jpg 1 or 3 of uint8. Masks are never lossy."""
    virtual: bool = False
    """Keep only the index and read windows from the scenes."""
    dask: str | None = None
    """Cut on many processes or machines: auto for the cores of this one, or a scheduler's address or file."""


class ChipsHead(Spec):
    """What `chips.json` holds: everything about the chips that is the same for all of them."""

    landscribe_chips: Literal[1] = 1
    """Version of the layout."""
    classes: tuple[ClassEntry, ...]
    unknown: tuple[Label, ...] = ()
    """What the labels hold where the class is not known."""
    bands: tuple[str, ...]
    dtype: str
    nodata: float | None
    """What the scenes declare."""
    pixel_size: float | None
    """Metres on the ground."""
    size: int
    """Side of a chip in pixels."""
    virtual: bool
    """Pixels are read from the sources."""
    sources: tuple[SceneSpec, ...]


@dataclass(frozen=True, eq=False)
class Chips:
    """A table of windows, with or without copied pixels."""

    folder: Path
    head: ChipsHead
    table: pd.DataFrame
    """chip, scene, row, col, height, width, split, positive, valid_pixels, image, mask (paths in the folder,
    empty when virtual), count_<value> and count_ignore (pixels), mean_<n> and std_<n> of band n over valid pixels."""

    @classmethod
    def open(cls, folder: str | Path) -> "Chips":
        """Open a chips folder.

        Raises:
            ChipError: it is no chips folder, or is incomplete.
        """
        folder = Path(folder)
        try:
            head = ChipsHead.model_validate_json((folder / "chips.json").read_bytes())
            return cls(folder, head, pd.read_parquet(folder / "chips.parquet"))
        except (OSError, ValueError) as error:
            raise ChipError(
                f"{folder} is no chips folder ({type(error).__name__}: {str(error).splitlines()[0]}). "
                'A folder made by "landscribe chip" was expected.'
            ) from error

    @cached_property
    def classes(self) -> Classes:
        """Of the masks."""
        return Classes(self.head.classes, unknown=self.head.unknown)

    def __len__(self) -> int:
        return len(self.table)

    def of_split(self, split: str) -> "Chips":
        """The chips of one split."""
        return replace(self, table=self.table[self.table["split"] == split].reset_index(drop=True))

    @property
    def windows(self) -> list[Window]:
        """Where each chip lies in its scene."""
        return [Window(*place) for place in self.table[["row", "col", "height", "width"]].to_numpy().tolist()]

    @property
    def counts(self) -> NDArray[np.int64]:
        """(chips, K) labelled pixels by class index."""
        return self.table[[f"count_{value}" for value in self.classes.values]].to_numpy(np.int64)

    @property
    def sha256(self) -> str:
        """Identifies the data: of the index and its description."""
        parts = (self.folder / name for name in ("chips.json", "chips.parquet"))
        return hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()

    def images(self) -> dict[str, Raster]:
        """The images that the chips are from, by the scenes' names."""
        return open_images(self.head.sources)

    def scenes(self) -> dict[str, Scene]:
        """The scenes that the chips are from, with their labels, by name."""
        scenes, _ = open_scenes(self.head.sources, class_rows(self.classes))
        return {scene.name: scene for scene in scenes}


class ChipReader:
    """Reads the pixels of chips, from their own files or from the scenes. Safe to pickle."""

    def __init__(self, chips: Chips) -> None:
        self.chips = chips
        self._rows = chips.table.to_dict("records")
        self._scenes = chips.scenes() if chips.head.virtual else {}

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, number: int) -> tuple[Pixels, Valid, NDArray[np.uint8]]:
        """Pixels (bands, rows, cols), valid (rows, cols) and class values (rows, cols) of a chip."""
        row = self._rows[number]
        if self.chips.head.virtual:
            return self._scenes[row["scene"]].read(Window(row["row"], row["col"], row["height"], row["width"]))
        pixels, valid = read_copy(self.chips.folder / row["image"], PICTURE_FILL)
        if row["valid_pixels"] == valid.size:
            # Here black is a pixel like any other.
            valid[:] = True
        return pixels, valid, read_band(self.chips.folder / row["mask"])
