"""Scenes become chips: cut unit by unit, here or on many machines, and divided into splits."""

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray

from landscribe import progress
from landscribe.data.chips.chips import Chips, ChipsHead
from landscribe.data.chips.files import make_folders, pair_names, require_format_fits, write_pair
from landscribe.data.chips.spec import ChipSpec
from landscribe.data.scenes.scene import Scene
from landscribe.data.scenes.spec import SceneSpec
from landscribe.data.splits.groups import Split
from landscribe.data.splits.predefined import read_lists, read_zones
from landscribe.data.splits.spec import SplitSpec
from landscribe.data.splits.split import SplitInput, split_scenes, warn_missing_classes
from landscribe.errors import ChipError
from landscribe.executor import run_on_dask, run_units
from landscribe.geo.classes import IGNORE, Classes
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Pixels, Valid
from landscribe.geo.tiling import chip_windows
from landscribe.outputs import atomic_folder

Arrays = tuple[Pixels, Valid, NDArray[np.uint8]]
"""Pixels (bands, rows, cols), valid (rows, cols), class values (rows, cols)."""

_UNIT_SIDE = 1024
"""Pixels across which chips are cut in one piece: what they share is read and burned once. Larger chips go alone."""
_EXACT_PIXELS = 2**20
"""The squares of so many 16-bit numbers add up without rounding in floating point of 64 bits."""


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
        out: the folder to make. With `spec.dask` it is where all workers see it.
        spec: size, stride, edge, mode, format, and who does the work.
        split: what is held out, shares, gap.
        seed: the same seed gives the same bytes, whoever does the work.
        overwrite: replace a folder that holds something.

    Returns:
        The chips, opened. Chips without any labelled, valid pixel are not cut unless asked for.

    Raises:
        ChipError: nothing to cut, a format that cannot hold the bands, or a split that cannot be made.
        LabelError: a column to split by that is not there.
        EngineError: dask is not installed, no scheduler answers, or its workers die.
        OutputError: `out` holds something, or cannot be written.
    """
    if not spec.virtual:
        require_format_fits(spec.format, scenes[0].image)
    parts = _without_chips(scenes, sources, split)
    with atomic_folder(out, overwrite=overwrite) as folder:
        table = _cut(_Cutting(tuple(scenes), classes, spec, folder.absolute()))
        if table.empty:
            raise ChipError(_why_none(scenes, spec))
        table["split"] = _splits(table, parts, classes, spec, split, seed)
        _write_head(folder, scenes, classes, sources, spec)
        # Compression and row groups are set, so that the bytes do not depend on a library's defaults.
        table.to_parquet(folder / "chips.parquet", index=False, compression="zstd", row_group_size=2**16)
    return Chips.open(out)


@dataclass(frozen=True)
class _Unit:
    """Chips that lie close together, to be read and written in one piece."""

    scene: int
    """Its place among the scenes."""
    windows: tuple[Window, ...]
    numbers: tuple[int, ...]
    """The place of each window among all windows of all scenes."""

    @property
    def window(self) -> Window:
        """All that its windows cover."""
        row, col = min(one.row for one in self.windows), min(one.col for one in self.windows)
        stops = max(one.row_stop for one in self.windows), max(one.col_stop for one in self.windows)
        return Window(row, col, stops[0] - row, stops[1] - col)


def _units(scenes: Sequence[Scene], spec: ChipSpec) -> list[_Unit]:
    """The windows of all scenes in squares of `_UNIT_SIDE` pixels."""
    stride = spec.stride or spec.size
    step = stride * max(1, 1 + (_UNIT_SIDE - spec.size) // stride)
    numbers = count()
    squares: dict[tuple[int, int, int], dict[int, Window]] = {}
    for place, scene in enumerate(scenes):
        for window in chip_windows(*scene.image.grid.shape, size=spec.size, stride=stride, edge=spec.edge):
            square = (place, window.row // step, window.col // step)
            squares.setdefault(square, {})[next(numbers)] = window
    return [_Unit(place, tuple(some.values()), tuple(some)) for (place, _, _), some in squares.items()]


@dataclass(frozen=True)
class _Cutting:
    """A unit's work: read imagery and labels, choose and describe the chips, write them."""

    scenes: tuple[Scene, ...]
    classes: Classes
    spec: ChipSpec
    folder: Path

    def read(self, unit: _Unit) -> Arrays:
        # One environment of GDAL for all that follows: each file would set up its own.
        with rasterio.Env():
            return self.scenes[unit.scene].read(unit.window)

    def compute(self, unit: _Unit, read: Arrays) -> list[tuple[int, dict[str, Any], Arrays]]:
        """Number, index row and arrays of the chips that are kept."""
        pixels, valid, mask = read
        kept = []
        for number, window in zip(unit.numbers, unit.windows, strict=True):
            place = window.relative_to(unit.window).slices
            arrays = (pixels[:, *place], valid[place], mask[place])
            row = self._row(self.scenes[unit.scene], window, arrays)
            if row is not None:
                kept.append((number, row, arrays))
        return kept

    def write(self, unit: _Unit, computed: list[tuple[int, dict[str, Any], Arrays]]) -> pd.DataFrame:
        """The rows of the index, by number."""
        if not self.spec.virtual:
            image = self.scenes[unit.scene].image
            # The formats' options are ours: to look each up in a list for every file takes a tenth of all the time.
            with rasterio.Env(GDAL_VALIDATE_CREATION_OPTIONS="NO"):
                for _, row, arrays in computed:
                    window = Window(row["row"], row["col"], row["height"], row["width"])
                    write_pair(self.folder / row["image"], self.folder / row["mask"], image, window, arrays)
        return pd.DataFrame([row for _, row, _ in computed], index=[number for number, _, _ in computed])

    def _row(self, scene: Scene, window: Window, arrays: Arrays) -> dict[str, Any] | None:
        """What the index says of a chip; None if it is not kept."""
        pixels, valid, mask = arrays
        counts = np.bincount(mask.ravel(), minlength=256)
        positive = any(counts[entry.value] for entry in self.classes.foreground)
        labelled = counts[IGNORE] < mask.size or (self.spec.unlabelled and valid.any())
        if not labelled or (self.spec.mode == "positive" and not positive):
            return None
        digits = len(str(max(scene.image.grid.shape)))
        name = f"{scene.name}_r{window.row:0{digits}d}_c{window.col:0{digits}d}"
        return {
            "chip": name,
            "scene": scene.name,
            **asdict(window),
            "split": "",
            "positive": positive,
            "valid_pixels": int(np.count_nonzero(valid)),
            **self._paths(name, positive=positive),
            **{f"count_{value}": int(counts[value]) for value in self.classes.values},
            "count_ignore": int(counts[IGNORE]),
            **_band_statistics(pixels, valid),
        }

    def _paths(self, name: str, *, positive: bool) -> dict[str, str]:
        if self.spec.virtual:
            return {"image": "", "mask": ""}
        return pair_names(name, self.spec.format, self.groups[not positive] if self.groups else "")

    @property
    def groups(self) -> tuple[str, ...]:
        """The folders that chips are divided into."""
        return ("positive", "background") if self.spec.mode == "divided" else ()


def _cut(cutting: _Cutting) -> pd.DataFrame:
    """Cut all scenes; gives the index in the order of the windows, whoever cut them and when."""
    units = _units(cutting.scenes, cutting.spec)
    if not cutting.spec.virtual:
        # Made once, here: a worker that is late must not make the folder again when it was given up.
        make_folders(cutting.folder, cutting.groups)
    dask = cutting.spec.dask
    outcomes = run_units(cutting, units) if dask is None else run_on_dask(cutting, units, dask)
    tables = []
    # Closed on the way out, also of an interruption: nobody is to write any more when the folder is removed.
    with closing(outcomes), progress.task("cutting chips", sum(len(unit.windows) for unit in units)) as advance:
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
            tables.append(outcome.result)
            advance(len(outcome.unit.windows))
    kept = [table for table in tables if not table.empty]
    return pd.concat(kept).sort_index().reset_index(drop=True) if kept else pd.DataFrame()


def _band_statistics(pixels: Pixels, valid: Valid) -> dict[str, float]:
    """Mean and standard deviation of each band over valid pixels; they merge exactly with `valid_pixels`."""
    if pixels.dtype.kind in "ui" and pixels.dtype.itemsize <= 2:
        means, deviations = _exact_statistics(pixels, int(np.count_nonzero(valid)))
    else:
        values = pixels[:, valid].astype(np.float64)
        means, deviations = values.mean(axis=1).tolist(), values.std(axis=1).tolist()
    return {f"mean_{n}": mean for n, mean in enumerate(means, 1)} | {
        f"std_{n}": deviation for n, deviation in enumerate(deviations, 1)
    }


def _exact_statistics(pixels: Pixels, valid_pixels: int) -> tuple[list[float], list[float]]:
    """Means and standard deviations of bands from sums of whole numbers; what is not valid is 0 and adds nothing."""
    bands, height, width = pixels.shape
    sums, squares = [0] * bands, [0] * bands
    step = max(1, _EXACT_PIXELS // width)
    for row in range(0, height, step):
        for band, values in enumerate(pixels[:, row : row + step].reshape(bands, -1).astype(np.float64)):
            sums[band] += int(values.sum())
            squares[band] += int(values @ values)
    both = list(zip(sums, squares, strict=True))
    deviations = [math.sqrt(valid_pixels * square - total**2) / valid_pixels for total, square in both]
    return [total / valid_pixels for total in sums], deviations


def _without_chips(scenes: Sequence[Scene], sources: Sequence[SceneSpec], split: SplitSpec) -> list[SplitInput]:
    """What people told of the split, read before hours are spent on cutting."""
    told: Sequence[Split | None] = [scene.split for scene in scenes]
    if split.by == "list":
        listed = read_lists(split, [scene.image for scene in scenes])
        told = [scene.split or by_list for scene, by_list in zip(scenes, listed, strict=True)]
    parts = []
    for scene, source, its_split in zip(scenes, sources, told, strict=True):
        areas = read_zones(split, source, scene.image) if split.by == "attribute" and its_split is None else None
        none = np.zeros((0, 0), np.int64)
        parts.append(SplitInput((), none, scene.name, scene.image.grid, its_split, areas))
    return parts


def _splits(
    table: pd.DataFrame,
    parts: Sequence[SplitInput],
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
    warn_missing_classes(names, counts, classes, split, all_predefined=all(part.split for part in parts))
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
