"""Cut scenes into chips, unit by unit, on this machine or many, and assign them to splits."""

import hashlib
import logging
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray

from landscribe import progress
from landscribe.data.chips.chips import Chips, ChipsMetadata, counts_of, windows_of
from landscribe.data.chips.files import (
    NUMBERS,
    make_folders,
    numbers_name,
    pair_names,
    require_format_fits,
    write_numbers,
    write_pair,
)
from landscribe.data.chips.spec import ChipSpec
from landscribe.data.chips.units import ChipUnit, require_feasible, units_of
from landscribe.data.scenes.scene import Sample, Scene
from landscribe.data.scenes.spec import SceneSpec
from landscribe.data.splits.groups import Split
from landscribe.data.splits.predefined import ChipSplits, read_lists, read_zones
from landscribe.data.splits.spec import SplitSpec
from landscribe.data.splits.split import SplitInput, require_groups, split_scenes, warn_missing_classes
from landscribe.errors import ChipError, listed
from landscribe.executor import run_on_dask, run_units
from landscribe.geo.classes import IGNORE, Classes
from landscribe.geo.features import bounding_window
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.geo.rasters.source_files import FileState, file_state, raster_state, require_unchanged
from landscribe.geo.rasters.whole_files import mask_file, require_geotiff_holds
from landscribe.outputs import atomic_folder

log = logging.getLogger(__name__)

_EXACT_PIXELS = 2**20
"""The squares of this many 16-bit numbers add up in float64 without rounding."""


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
        scenes: at least one; all have the same class table.
        classes: the class table.
        sources: the files of the scenes, recorded in the folder.
        out: the folder to write. With `spec.dask`, all workers must see it.
        spec: size, stride, edge, mode, share of background, format and executor.
        split: fractions, gap and the kind of group.
        seed: the same seed gives the same bytes, with any executor.
        overwrite: replace a folder that is not empty.

    Returns:
        The chips, opened. Chips without a labelled, valid pixel are not cut unless `spec.unlabelled` is set.

    Raises:
        ChipError: there is nothing to cut, the format cannot hold the bands, or the split is impossible.
        LabelError: the column to split by does not exist.
        EngineError: dask is not installed, no scheduler answers, or its workers die.
        OutputError: `out` is not empty, or cannot be written.
    """
    if not spec.virtual:
        require_format_fits(spec.format, scenes[0].image)
        if spec.format == "tif":
            for scene in scenes:
                require_geotiff_holds(scene.image.grid, scene.image.paths[0])
    require_feasible(scenes, sources, spec, out)
    if spec.objects:
        _warn_of_joined_objects(scenes)
    inputs = split_inputs(scenes, sources, spec, split)
    paths = sorted({path for scene in scenes for path in scene.image.paths})
    states = [raster_state(path) for path in paths]
    labels = _label_files(sources)
    label_states = [file_state(path) for path in labels]
    with atomic_folder(out, overwrite=overwrite) as folder:
        table = _cut(_Cutting(tuple(scenes), classes, spec, folder.absolute()))
        require_unchanged(paths, states, "cut into chips")
        _require_unchanged_labels(labels, label_states)
        if table.empty:
            raise ChipError(_why_no_chips(scenes, spec))
        table["split"] = _splits(table, inputs, classes, spec, split, seed)
        table = _without_undrawn(folder, table, spec, seed)
        is_predefined = all(scene.split or scene.chips for scene in inputs)
        warn_missing_classes(
            table["split"].tolist(), counts_of(table, classes), classes, split, all_predefined=is_predefined
        )
        _write_metadata(folder, scenes, classes, sources, spec)
        # Compression and row groups are explicit, so that the bytes do not depend on the library's defaults.
        # pandas takes a folder ~ for the home.
        table.to_parquet(folder.absolute() / "chips.parquet", index=False, compression="zstd", row_group_size=2**16)
    return Chips.open(out)


def _warn_of_joined_objects(scenes: Sequence[Scene]) -> None:
    """Warn of scenes whose labels are a raster of classes."""
    joined = [scene.name for scene in scenes if not scene.labels.separates_objects]
    if joined:
        log.warning(
            "%s: a raster of classes does not separate objects, so that touching objects count as one. Pass "
            "--label-objects if its values are object numbers, or label with polygons", listed(joined),
        )  # fmt: skip


def _label_files(sources: Sequence[SceneSpec]) -> list[str]:
    """The files of labels and of areas."""
    files = {path for source in sources for path in (source.labels, source.labelled_area, source.image_area)}
    return sorted(path for path in files if path is not None)


def _require_unchanged_labels(labels: Sequence[str], states: Sequence[FileState]) -> None:
    """Raise ChipError if a file of labels or areas changed since its state was taken."""
    for path, state in zip(labels, states, strict=True):
        if file_state(path) != state:
            raise ChipError(
                f"{path} changed while chips were cut, so the chips would mix two files. Nothing was written. Repeat "
                "the command once the file no longer changes."
            )


@dataclass(frozen=True)
class _Read:
    """Of a unit or a chip."""

    sample: Sample
    numbers: NDArray[np.uint32] | None
    """(rows, cols) object numbers; None if they are not written."""

    def __getitem__(self, part: tuple[slice, slice]) -> "_Read":
        pixels, valid, mask = self.sample
        numbers = None if self.numbers is None else self.numbers[part]
        return _Read(Sample(pixels[:, *part], valid[part], mask[part]), numbers)


@dataclass(frozen=True)
class _Cutting:
    """The stages of a unit: read imagery and labels, select and describe the chips, write them."""

    scenes: tuple[Scene, ...]
    classes: Classes
    spec: ChipSpec
    folder: Path

    def read(self, unit: ChipUnit) -> _Read:
        scene = self.scenes[unit.scene]
        # One GDAL environment for all reads: otherwise each file sets up its own.
        with rasterio.Env():
            writes_numbers = self.spec.objects and not self.spec.virtual
            sample = scene.read(unit.window)
            return _Read(sample, scene.read_objects(unit.window, sample.valid) if writes_numbers else None)

    def compute(self, unit: ChipUnit, read: _Read) -> list[tuple[int, dict[str, Any], _Read]]:
        """Index, table row and pixels of the selected chips."""
        selected = []
        for index, window in zip(unit.indices, unit.windows, strict=True):
            chip = read[window.relative_to(unit.window).slices]
            row = self._row(self.scenes[unit.scene], window, chip.sample)
            if row is not None:
                selected.append((index, row, chip))
        return selected

    def write(self, unit: ChipUnit, computed: list[tuple[int, dict[str, Any], _Read]]) -> pd.DataFrame:
        """The table rows, by index."""
        if not self.spec.virtual:
            image = self.scenes[unit.scene].image
            # Checking our fixed creation options for every file takes a tenth of the time.
            with rasterio.Env(GDAL_VALIDATE_CREATION_OPTIONS="NO"):
                for _, row, chip in computed:
                    window = Window(row["row"], row["col"], row["height"], row["width"])
                    write_pair(self.folder / row["image"], self.folder / row["mask"], image, window, chip.sample)
                    if chip.numbers is not None:
                        write_numbers(self.folder / row[NUMBERS], chip.numbers, image.grid[window])
        return pd.DataFrame([row for _, row, _ in computed], index=[index for index, _, _ in computed])

    def _row(self, scene: Scene, window: Window, sample: Sample) -> dict[str, Any] | None:
        """The table row of a chip; None if the chip is not selected."""
        pixels, valid, mask = sample
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
            "group": scene.group or "",
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
        subfolder = self.subfolders[not positive] if self.subfolders else ""
        paths = {"image": "", "mask": ""} if self.spec.virtual else pair_names(name, self.spec.format, subfolder)
        return paths | ({NUMBERS: numbers_name(paths["mask"])} if self.spec.objects else {})

    @property
    def subfolders(self) -> tuple[str, ...]:
        """Folders within images/ and masks/, for chips with and without a class other than background."""
        return ("positive", "background") if self.spec.mode == "separate" else ()


def _cut(cutting: _Cutting) -> pd.DataFrame:
    """Cut all scenes; returns the table in the order of the windows, with any executor."""
    units = units_of(cutting.scenes, cutting.spec)
    if not cutting.spec.virtual:
        # Created here only: a late worker must not create the folder again after it was removed.
        make_folders(cutting.folder, cutting.subfolders, objects=cutting.spec.objects)
    dask = cutting.spec.dask
    outcomes = run_units(cutting, units) if dask is None else run_on_dask(cutting, units, dask)
    tables = []
    # Closed in any case, also when interrupted: no worker may write after the folder is removed.
    with closing(outcomes), progress.task("cutting chips", sum(len(unit.windows) for unit in units)) as advance:
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
            tables.append(outcome.result)
            advance(len(outcome.unit.windows))
    tables = [table for table in tables if not table.empty]
    return pd.concat(tables).sort_index().reset_index(drop=True) if tables else pd.DataFrame()


def _band_statistics(pixels: Pixels, valid: Valid) -> dict[str, float]:
    """Mean and standard deviation of each band over valid pixels; with `valid_pixels` they merge exactly."""
    if pixels.dtype.kind in "ui" and pixels.dtype.itemsize <= 2:
        means, deviations = _exact_statistics(pixels, int(np.count_nonzero(valid)))
    else:
        values = pixels[:, valid].astype(np.float64)
        means, deviations = values.mean(axis=1).tolist(), values.std(axis=1).tolist()
    return {f"mean_{n}": mean for n, mean in enumerate(means, 1)} | {
        f"std_{n}": deviation for n, deviation in enumerate(deviations, 1)
    }


def _exact_statistics(pixels: Pixels, valid_pixels: int) -> tuple[list[float], list[float]]:
    """Means and standard deviations of bands from integer sums; pixels that are not valid are 0 and add nothing."""
    bands, height, width = pixels.shape
    sums, squares = [0] * bands, [0] * bands
    step = max(1, _EXACT_PIXELS // width)
    for row in range(0, height, step):
        for band, values in enumerate(pixels[:, row : row + step].reshape(bands, -1).astype(np.float64)):
            sums[band] += int(values.sum())
            squares[band] += int(values @ values)
    deviations = [
        math.sqrt(valid_pixels * square - total**2) / valid_pixels for total, square in zip(sums, squares, strict=True)
    ]
    return [total / valid_pixels for total in sums], deviations


def split_inputs(
    scenes: Sequence[Scene], sources: Sequence[SceneSpec], spec: ChipSpec, split: SplitSpec
) -> list[SplitInput]:
    """Split inputs still without chips; predefined splits are read before hours are spent on cutting.

    Raises:
        ChipError: a list has an error, scenes lack a group, or labels lack zones, as `split` needs them.
    """
    predefined: Sequence[Split | ChipSplits | None] = [scene.split for scene in scenes]
    if split.by == "list":
        from_lists = read_lists(split, [scene.image for scene in scenes], spec)
        predefined = [scene.split or from_list for scene, from_list in zip(scenes, from_lists, strict=True)]
    inputs = []
    for scene, source, either in zip(scenes, sources, predefined, strict=True):
        own, chips = (None, either) if isinstance(either, dict) else (either, None)
        zones = read_zones(split, source, scene.image) if split.by == "attribute" and own is None else None
        no_counts = np.zeros((0, 0), np.int64)
        grid, middle = scene.image.grid, _middle(scene.image)
        inputs.append(SplitInput((), no_counts, scene.name, grid, middle, own, scene.group, chips, zones))
    if split.by == "group":
        require_groups(inputs)
    return inputs


def _middle(image: Raster) -> Grid | None:
    """The middle half of the box around the image area; None without one."""
    if image.area is None:
        return None
    box = bounding_window(image.area, image.grid)
    side = Window(box.row + box.height // 4, box.col + box.width // 4, max(1, box.height // 2), max(1, box.width // 2))
    return image.grid[side]


def _splits(
    table: pd.DataFrame,
    inputs: Sequence[SplitInput],
    classes: Classes,
    spec: ChipSpec,
    split: SplitSpec,
    seed: int,
) -> list[str]:
    """The split of each row; rows are ordered by scene, as `inputs` are."""
    counts = counts_of(table, classes)
    windows = windows_of(table)
    rows_of = table.groupby("scene", sort=False).indices
    no_rows = np.zeros(0, np.intp)
    with_chips = []
    for scene in inputs:
        rows = rows_of.get(scene.name, no_rows)
        with_chips.append(replace(scene, windows=[windows[row] for row in rows], counts=counts[rows]))
    return [name for own in split_scenes(with_chips, split, size=spec.size, seed=seed) for name in own]


def _without_undrawn(folder: Path, table: pd.DataFrame, spec: ChipSpec, seed: int) -> pd.DataFrame:
    """The table without the background chips of train that are not drawn; their files are removed.

    Chips are written before their split is known: it is drawn by the classes of all chips. Val and test keep all
    chips, so that they measure the accuracy over the ground.

    Raises:
        ChipError: no chip of train is left.
    """
    if spec.background_share == 1:
        return table
    in_train = (table["split"] == "train").to_numpy()
    is_drawn = [
        _is_drawn(scene, row, col, spec, seed) for scene, row, col in table[["scene", "row", "col"]].to_numpy().tolist()
    ]
    is_kept = ~in_train | table["positive"].to_numpy(bool) | np.array(is_drawn)
    if in_train.any() and not (in_train & is_kept).any():
        raise ChipError(
            f"background_share = {spec.background_share:g} leaves no chip in train, where no chip has a class other "
            "than background. Check the labels, or raise background_share."
        )
    if not spec.virtual:
        files = [column for column in ("image", "mask", NUMBERS) if column in table]
        for name in table.loc[~is_kept, files].to_numpy().ravel().tolist():
            (folder / name).unlink()
            mask_file(folder / name).unlink(missing_ok=True)
    return table[is_kept].reset_index(drop=True)


def _is_drawn(scene: str, row: int, col: int, spec: ChipSpec, seed: int) -> bool:
    """True if a background chip of train is kept.

    The draw is a hash of the chip: it depends on no other chip and no order.
    """
    digest = hashlib.sha256(f"{seed}/{row}/{col}/{scene}".encode()).digest()
    return int.from_bytes(digest[:8]) < spec.background_share * 2**64


def _write_metadata(
    folder: Path, scenes: Sequence[Scene], classes: Classes, sources: Sequence[SceneSpec], spec: ChipSpec
) -> None:
    image = scenes[0].image
    metadata = ChipsMetadata(
        classes=classes.entries,
        unknown=classes.unknown,
        bands=image.bands,
        dtype=image.dtype,
        nodata=image.nodata,
        encoding=image.encoding,
        pixel_size=image.grid.pixel_size,
        pixel_sides=image.grid.pixel_sides,
        size=spec.size,
        virtual=spec.virtual,
        background_share=spec.background_share,
        sources=tuple(sources),
        scenes=tuple(scene.name for scene in scenes),
    )
    (folder / "chips.json").write_text(metadata.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _why_no_chips(scenes: Sequence[Scene], spec: ChipSpec) -> str:
    names = listed(scene.image.paths[0] for scene in scenes)
    if spec.edge == "drop" and all(min(scene.image.grid.shape) < spec.size for scene in scenes):
        return (
            f"{names}: smaller than one chip of {spec.size} pixels, and edge = drop. Use a smaller size or edge = pad."
        )
    if spec.mode == "positive":
        return f"{names}: mode = positive, but no chip has a class other than background. Check the labels."
    return (
        f"{names}: no chip has a labelled, valid pixel (all nodata, or all unlabelled). "
        "Expected imagery and labels that overlap. Check nodata and the CRS of the labels."
    )
