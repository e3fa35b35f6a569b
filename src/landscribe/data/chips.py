"""Chips: image and mask pairs that a network trains on, and the index that knows where each is from.

A chips folder holds `chips.parquet` (one row per chip: scene, window, split, class counts, band statistics),
`chips.json` (classes, bands, dtype, nodata, sources) and, unless virtual, `images/` and `masks/`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from landscribe import progress
from landscribe.data.lots import Split
from landscribe.data.scene import Scene, SceneSpec, class_rows, fill_value, open_images, open_scenes
from landscribe.data.split import ScenePart, SplitSpec, say_what_is_missing, split_scenes
from landscribe.data.told import read_areas, read_lists
from landscribe.errors import ChipError
from landscribe.geo.classes import IGNORE, ClassEntry, Classes, Label
from landscribe.geo.grid import Window
from landscribe.geo.raster import Pixels, Raster, Valid, read_band, read_copy, write_raster
from landscribe.geo.tiling import EdgePolicy, chip_windows
from landscribe.outputs import whole_folder
from landscribe.spec import Spec

Mode = Literal["all", "positive", "divided"]
Format = Literal["tif", "png", "jpg"]

PICTURE_FILL = 0
"""Marks pixels that are not valid in PNG and JPEG chips, which cannot say so themselves as GeoTIFFs do."""


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


def chip(
    scenes: Sequence[Scene],
    classes: Classes,
    sources: Sequence[SceneSpec],
    out: Path,
    *,
    spec: ChipSpec,
    split: SplitSpec,
    seed: int = 0,
    overwrite: bool = False,
) -> Chips:
    """Cut scenes into chips.

    Args:
        scenes: at least one, with one class table.
        classes: that table.
        sources: where the scenes' files are, kept in the folder.
        out: the folder to make.
        spec: size, stride, edge, mode, format.
        split: what is held out, shares, gap.
        seed: the same seed gives the same bytes.
        overwrite: replace a folder that holds something.

    Returns:
        The chips, opened. Chips without any labelled, valid pixel are not cut unless asked for.

    Raises:
        ChipError: nothing to cut, a format that cannot hold the bands, or a split that cannot be made.
        LabelError: a column to split by that is not there.
        OutputError: `out` holds something, or cannot be written.
    """
    _require_format_fits(spec, scenes[0].image)
    parts = _without_chips(scenes, sources, split)
    with whole_folder(out, overwrite=overwrite) as folder:
        rows = [row for scene in scenes for row in _cut(scene, classes, spec, folder)]
        if not rows:
            raise ChipError(_why_none(scenes, spec))
        table = pd.DataFrame(rows)
        table["split"] = _splits(table, parts, classes, spec, split, seed)
        _write_head(folder, scenes, classes, sources, spec)
        # Compression and row groups are set, so that the bytes do not depend on a library's defaults.
        table.to_parquet(folder / "chips.parquet", index=False, compression="zstd", row_group_size=2**16)
    return Chips.open(out)


def _cut(scene: Scene, classes: Classes, spec: ChipSpec, folder: Path) -> Iterator[dict[str, Any]]:
    """Cut one scene; yields the index rows of the chips that were kept."""
    grid = scene.image.grid
    windows = chip_windows(grid.height, grid.width, size=spec.size, stride=spec.stride or spec.size, edge=spec.edge)
    digits = len(str(max(grid.shape)))
    with progress.task(f"chips of {scene.name}", len(windows)) as advance:
        for window in windows:
            pixels, valid, mask = scene.read(window)
            counts = np.bincount(mask.ravel(), minlength=256)
            positive = any(counts[entry.value] for entry in classes.foreground)
            labelled = counts[IGNORE] < mask.size or (spec.unlabelled and valid.any())
            if labelled and (positive or spec.mode != "positive"):
                name = f"{scene.name}_r{window.row:0{digits}d}_c{window.col:0{digits}d}"
                paths = _paths(name, spec, positive=positive)
                if not spec.virtual:
                    _write_pair(folder, paths, scene.image, window, (pixels, valid, mask), spec.format)
                yield {
                    "chip": name,
                    "scene": scene.name,
                    **asdict(window),
                    "split": "",
                    "positive": positive,
                    "valid_pixels": int(valid.sum()),
                    **paths,
                    **{f"count_{value}": int(counts[value]) for value in classes.values},
                    "count_ignore": int(counts[IGNORE]),
                    **_band_statistics(pixels, valid),
                }
            advance()


def _paths(name: str, spec: ChipSpec, *, positive: bool) -> dict[str, str]:
    """Image and mask share their file name; a mask beside a JPEG is a PNG."""
    if spec.virtual:
        return {"image": "", "mask": ""}
    group = ("positive/" if positive else "background/") if spec.mode == "divided" else ""
    mask_format = "png" if spec.format == "jpg" else spec.format
    return {"image": f"images/{group}{name}.{spec.format}", "mask": f"masks/{group}{name}.{mask_format}"}


def _band_statistics(pixels: Pixels, valid: Valid) -> dict[str, float]:
    """Mean and standard deviation of each band over valid pixels; they merge exactly with `valid_pixels`."""
    values = pixels[:, valid].astype(np.float64)
    means, deviations = values.mean(axis=1), values.std(axis=1)
    return {f"mean_{n}": float(mean) for n, mean in enumerate(means, 1)} | {
        f"std_{n}": float(deviation) for n, deviation in enumerate(deviations, 1)
    }


def _write_pair(
    folder: Path,
    paths: dict[str, str],
    image: Raster,
    window: Window,
    arrays: tuple[Pixels, Valid, NDArray[np.uint8]],
    file_format: Format,
) -> None:
    pixels, valid, mask = arrays
    fill = fill_value(image) if file_format == "tif" else PICTURE_FILL
    if fill is not None and not valid.all():
        pixels = np.where(valid, pixels, np.array(fill, pixels.dtype))
    mask_band = valid if fill is None and not valid.all() else None
    place = image.grid[window] if file_format == "tif" else None
    for path, array, own_mask, options in (
        (folder / paths["image"], pixels, mask_band, _image_options(file_format, fill)),
        (folder / paths["mask"], mask[None], None, _mask_options(file_format)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_raster(path, array, place, own_mask, **options)


def _image_options(file_format: Format, fill: float | None) -> dict[str, Any]:
    if file_format == "tif":
        return {"driver": "GTiff", "compress": "deflate", "zlevel": 1, "predictor": 1, "nodata": fill}
    if file_format == "png":
        return {"driver": "PNG", "zlevel": 1}
    return {"driver": "JPEG", "quality": 95}


def _mask_options(file_format: Format) -> dict[str, Any]:
    if file_format == "tif":
        return {"driver": "GTiff", "compress": "deflate", "zlevel": 1, "nodata": IGNORE}
    return {"driver": "PNG", "zlevel": 1}


def _require_format_fits(spec: ChipSpec, image: Raster) -> None:
    bands = len(image.bands)
    fits = {
        "tif": True,
        "png": bands in (1, 3, 4) and image.dtype in ("uint8", "uint16"),
        "jpg": bands in (1, 3) and image.dtype == "uint8",
    }
    if not fits[spec.format] and not spec.virtual:
        raise ChipError(
            f"{spec.format} chips cannot hold {bands} bands of {image.dtype}. png takes 1, 3 or 4 bands of uint8 or "
            "uint16, jpg 1 or 3 of uint8. Use tif."
        )


def _without_chips(scenes: Sequence[Scene], sources: Sequence[SceneSpec], split: SplitSpec) -> list[ScenePart]:
    """What people told of the split, read before hours are spent on cutting."""
    told: Sequence[Split | None] = [scene.split for scene in scenes]
    if split.by == "list":
        listed = read_lists(split, [scene.image for scene in scenes])
        told = [scene.split or by_list for scene, by_list in zip(scenes, listed, strict=True)]
    parts = []
    for scene, source, its_split in zip(scenes, sources, told, strict=True):
        areas = read_areas(split, source, scene.image) if split.by == "attribute" and its_split is None else None
        none = np.zeros((0, 0), np.int64)
        parts.append(ScenePart((), none, scene.name, scene.image.grid, its_split, areas))
    return parts


def _splits(
    table: pd.DataFrame,
    parts: Sequence[ScenePart],
    classes: Classes,
    spec: ChipSpec,
    split: SplitSpec,
    seed: int,
) -> list[str]:
    """The split of each row; rows stand scene by scene, in the order of `parts`."""
    counts = table[[f"count_{value}" for value in classes.values]].to_numpy(np.int64)
    windows = [Window(*place) for place in table[["row", "col", "height", "width"]].to_numpy().tolist()]
    rows_of = table.groupby("scene", sort=False).indices
    none = np.zeros(0, np.intp)
    filled = []
    for part in parts:
        rows = rows_of.get(part.name, none)
        filled.append(replace(part, windows=[windows[row] for row in rows], counts=counts[rows]))
    names: list[str] = [name for some in split_scenes(filled, split, size=spec.size, seed=seed) for name in some]
    say_what_is_missing(names, counts, classes, split)
    return names


def _write_head(
    folder: Path, scenes: Sequence[Scene], classes: Classes, sources: Sequence[SceneSpec], spec: ChipSpec
) -> None:
    image = scenes[0].image
    head = ChipsHead(
        classes=classes.entries,
        unknown=classes.unknown,
        bands=image.bands,
        dtype=image.dtype,
        nodata=image.nodata,
        pixel_size=image.grid.pixel_size,
        size=spec.size,
        virtual=spec.virtual,
        sources=tuple(sources),
    )
    (folder / "chips.json").write_text(head.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _why_none(scenes: Sequence[Scene], spec: ChipSpec) -> str:
    names = ", ".join(scene.image.paths[0] for scene in scenes)
    if spec.edge == "drop" and all(min(scene.image.grid.shape) < spec.size for scene in scenes):
        return (
            f"{names}: smaller than one chip of {spec.size} pixels, and edge = drop. Use a smaller size or edge = pad."
        )
    if spec.mode == "positive":
        return f"{names}: mode = positive, but no chip holds a class other than background. Check the labels."
    return (
        f"{names}: no chip holds a labelled pixel that is valid (all nodata, or all unlabelled). "
        "Imagery and labels that meet were expected. Check nodata and the labels' place."
    )


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
