"""The verbs of chips: check, chip, describe, export."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from landscribe.errors import MissingPartsError, OutputError, RecipeError
from landscribe.outputs import claim, output_path, require_output_folder
from landscribe.recipe import SECTIONS, Recipe
from landscribe.spec import Seed, checked, nearest
from landscribe.verbs.sources import PathLike, augmentation_of, map_files, open_chips, recipe_of

if TYPE_CHECKING:
    from landscribe.data.chips.chips import Chips
    from landscribe.data.scenes.scene import Scene
    from landscribe.geo.classes import Classes
    from landscribe.preflight.check import Check
    from landscribe.reports.description import Description
    from landscribe.verbs.keywords import ChipKeywords, RunKeywords

log = logging.getLogger(__name__)


def check(
    recipe: Recipe | Chips | PathLike | None = None,
    *,
    images: Sequence[Any] = (),
    labels: Any = None,
    trial: bool = True,
    **settings: Unpack[RunKeywords],
) -> Check:
    """Look for problems and forecast chips, disk, memory and time. Writes nothing.

    Args:
        recipe: a recipe or its path, instead of `images` and `labels`; or chips or their folder, to audit for leaks
            between their splits.
        images: one file per scene, or a list of files to stack for each.
        labels: polygons or a label raster: one for all scenes, or a list with one for each.
        trial: time one training step and one tile with the real network.
        settings: settings of a recipe by plain name, or tables by section (`train={...}`).

    Returns:
        The findings (errors and warnings) and the forecast, or the audit of chips. Problems of scenes are findings.

    Raises:
        RecipeError: an unknown setting, one out of range, or a recipe that cannot be read.
        ChipError: a chips folder that cannot be read.
    """
    from landscribe.data.chips.chips import Chips
    from landscribe.preflight.check import Check, check, check_chips
    from landscribe.preflight.findings import Finding

    if isinstance(recipe, Chips) or (isinstance(recipe, (str, Path)) and (Path(recipe) / "chips.json").exists()):
        if images or labels or settings:
            raise RecipeError("chips were given with images, labels or settings. Give the chips alone.")
        return check_chips(open_chips(recipe))
    try:
        filled = recipe_of(recipe, images, labels, dict(settings), tuple(SECTIONS))
    except MissingPartsError as error:
        return Check(tuple(Finding("error", line) for line in error.lines), None)
    return check(filled, trial=trial)


def chip(
    recipe: Recipe | PathLike | None = None,
    *,
    out: PathLike,
    images: Sequence[Any] = (),
    labels: Any = None,
    overwrite: bool = False,
    **settings: Unpack[ChipKeywords],
) -> Chips:
    """Cut scenes into image chips and masks.

    Args:
        recipe: a recipe or its path, whose scenes are cut; or give `images` and `labels`.
        images: one file per scene, or a list of files to stack for each.
        labels: polygons or a label raster: one for all scenes, or a list with one for each.
        out: the chips folder to write.
        overwrite: replace existing output.
        settings: fields of ChipSpec, SplitSpec and SceneSpec, `seed`, and `classes` or the CSV file `class_table`.

    Returns:
        The chips of all splits: an index of windows, classes and splits; pixels and masks stay in the folder.

    Raises:
        RecipeError: an unknown setting, or one out of range.
        RasterError, LabelError, ClassError: imagery, labels or class table cannot be read, or do not fit.
        ChipError: no chip can be cut, or the splits cannot be formed.
        OutputError: `out` is not empty or cannot be written.

    >>> import landscribe as ls
    >>> from tempfile import TemporaryDirectory
    >>> from landscribe.synthetic import draw, write
    >>> with TemporaryDirectory() as folder:
    ...     scene, labels, _ = write(draw(256, 192, seed=0), Path(folder) / "world")
    ...     chips = ls.chip(images=[scene], labels=labels, label_field="class", size=64, out=f"{folder}/chips")
    >>> len(chips), chips.metadata.size, chips.metadata.bands  # 4 x 3 windows of 64 x 64 pixels
    (12, 64, ('red', 'green', 'blue'))
    >>> chips.counts.shape  # labelled pixels, by chip and class
    (12, 5)
    """
    filled = recipe_of(recipe, images, labels, dict(settings), ("scenes", "chips", "split"))
    return chip_scenes(filled, output_path(out), overwrite=overwrite)


def chip_scenes(
    recipe: Recipe, out: Path, *, opened: tuple[Sequence[Scene], Classes] | None = None, overwrite: bool = False
) -> Chips:
    """Cut the scenes of a recipe into chips; `opened` are its scenes and classes, where a check opened them before."""
    from landscribe.data.chips.cutting import chip
    from landscribe.data.scenes.label_formats import label_warnings
    from landscribe.data.scenes.scene import open_scenes
    from landscribe.preflight.pixels import warn_undeclared_nodata
    from landscribe.preflight.scenes import check_band_names

    with claim(out):
        require_output_folder(out, mark="chips.json", overwrite=overwrite)
        if opened is None:
            opened = open_scenes(recipe.scenes, recipe.classes)
            for warning in label_warnings(scene.labels for scene in opened[0]):
                log.warning(warning)
            images = [scene.image for scene in opened[0]]
            for finding in check_band_names(images):
                log.warning(finding.text)
            warn_undeclared_nodata(images)
        scenes, classes = opened
        return chip(
            scenes, classes, recipe.scenes, out,
            spec=recipe.chips, split=recipe.split, seed=recipe.seed, overwrite=overwrite,
        )  # fmt: skip


def describe(
    chips: Chips | PathLike,
    *,
    sheet: PathLike | None = None,
    augment: Any = "none",
    seed: int = 0,
    overwrite: bool = False,
) -> Description:
    """Describe chips: class shares, band statistics, class weights; draw a contact sheet.

    Args:
        chips: a chips folder.
        sheet: also write a PNG of some chips with their labels, examples of augmentation, and a legend.
        augment: of the sheet: a preset's name (auto shows light), or a table of AugmentSpec.
        seed: random seed of the sheet.
        overwrite: replace an existing sheet.

    Returns:
        Chips by split, shares of classes (0 to 1), statistics of bands in stored values, class weights.

    Raises:
        ChipError: a chips folder that cannot be read, or that has no chips.
        RecipeError: an unknown setting of augmentation, or a setting of the sheet without a sheet.
        OutputError: the sheet exists, cannot be written, or does not end in .png.
    """
    from landscribe.reports.description import describe
    from landscribe.reports.sheet import contact_sheet

    opened, seed, augmentation = open_chips(chips), checked("seed", seed, Seed), augmentation_of(augment)
    if sheet is None:
        of_sheet = {"augment": augmentation.changes_anything, "seed": seed != 0, "overwrite": overwrite}
        if names := ", ".join(f"--{name}" for name, is_given in of_sheet.items() if is_given):
            raise RecipeError(f"there is no contact sheet for {names}. Pass --sheet too, or leave out {names}.")
        return describe(opened)
    page = output_path(sheet)
    with claim(page):
        # First, so that a path that cannot be written is refused before the chips are read.
        contact_sheet(opened, page, augmentation=augmentation, seed=seed, overwrite=overwrite)
        return describe(opened)


def export(
    source: Chips | PathLike | Sequence[PathLike],
    *,
    out: PathLike,
    to: str = "esri",
    split: str | None = None,
    nodata_as: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Export chips or maps for other programs.

    Args:
        source: a chips folder; for a format of maps a class map, several, or a folder of maps.
        out: the folder to write.
        to: format, a key of `landscribe.exports.CHIP_EXPORTS` or `MAP_EXPORTS`; esri is ArcGIS Classified Tiles, labels
            are maps as rasters of the training labels.
        split: export only chips of this split.
        nodata_as: class of pixels that are nodata in the maps; they are refused if None.
        overwrite: replace existing output.

    Returns:
        The folder `out`.

    Raises:
        RecipeError: an unknown format, or a setting that is not of the format.
        ChipError, RasterError: chips or maps cannot be read, or no chip is of the split.
        ClassError: a class or a pixel of a map that the format cannot hold.
        OutputError: `out` is not empty, cannot be written, or holds the maps.
    """
    from landscribe.exports import CHIP_EXPORTS, MAP_EXPORTS

    out = output_path(out)
    sources: list[Chips | PathLike]
    sources = [*source] if isinstance(source, Sequence) and not isinstance(source, str) else [source]
    if to in MAP_EXPORTS:
        if split is not None:
            raise RecipeError(f"--split is {split}, but maps have no splits. Leave it out.")
        maps = map_files(sources)
        if out.resolve() in {folder for path in maps for folder in path.resolve().parents}:
            raise OutputError(f"{out} holds the maps to export. Nothing was changed. Choose another path.")
        with claim(out):
            require_output_folder(out, mark=MAP_EXPORTS[to].mark, overwrite=overwrite)
            return MAP_EXPORTS[to].write(maps, out, nodata_as=nodata_as, overwrite=overwrite)
    if to not in CHIP_EXPORTS:
        raise RecipeError(f"there is no export '{to}'{nearest(to, [*CHIP_EXPORTS, *MAP_EXPORTS])}")
    if nodata_as is not None:
        raise RecipeError(f"--nodata-as is for maps, and '{to}' is a format of chips. Leave it out.")
    for each in sources:
        if isinstance(each, (str, Path)) and Path(each).is_file():
            raise RecipeError(
                f"{each} is a file, and '{to}' is a format of chips. Give a chips folder, or export maps with --to "
                f"{' or '.join(MAP_EXPORTS)}."
            )
    if len(sources) != 1:
        raise RecipeError(f"{len(sources)} folders were given, but '{to}' exports one chips folder at a time.")
    opened = open_chips(sources[0])
    with claim(out):
        require_output_folder(out, mark=CHIP_EXPORTS[to].mark, overwrite=overwrite)
        return CHIP_EXPORTS[to].write(opened if split is None else opened.of_split(split), out, overwrite=overwrite)
