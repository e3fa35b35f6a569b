"""Out-of-fold maps of a run: each chip is mapped by the model that has not seen it, with its surroundings."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from landscribe.assessment.accuracy import Assessment
from landscribe.data.scenes.scene import open_image
from landscribe.errors import GridError
from landscribe.experiments.cross_validation import CrossValidation, Fold, HeldOut, plan_folds, require_validation_of
from landscribe.experiments.trainings import Trainings, split_counts
from landscribe.maps.assembly.cog import BandMetadata, merge
from landscribe.maps.class_map import CLASSES_TAG, classes_as_tag, model_tags
from landscribe.maps.layers import CLASS
from landscribe.maps.legends.style import colormap, new_side_files
from landscribe.maps.output_paths import OutputPaths
from landscribe.outputs import claim, write_json, write_text
from landscribe.prediction.compatibility import require_threshold_chips
from landscribe.prediction.mapping import write_map
from landscribe.prediction.plan import Planner
from landscribe.verbs import assess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from landscribe.data.chips.chips import Chips
    from landscribe.geo.grid import Grid, Window
    from landscribe.model import Model
    from landscribe.recipe import Recipe
    from landscribe.runs import Run

log = logging.getLogger(__name__)

ALL_FOLDS = "folds"
"""Stands for the split of the assessed chips where all chips are assessed, each in its fold."""


def folds_of_run(recipe: Recipe, chips: Chips) -> tuple[HeldOut, ...]:
    """The folds of a run's chips.

    Raises:
        ChipError: the chips cannot form them, or a fold cannot give the threshold that the recipe asks for.
        RecipeError: a setting follows validation chips that a fold lacks.
    """
    assert recipe.models.folds is not None
    plan = plan_folds(chips, recipe.models.folds, gap=recipe.split.gap, seed=recipe.seed)
    for fold in plan:
        require_threshold_chips(recipe.predict, chips, fold.splits, f" of fold {fold.number} of {len(plan)}")
    require_validation_of(plan, chips, recipe.train)
    return plan


def train_folds(recipe: Recipe, chips: Chips, plan: Sequence[HeldOut], run: Run, *, overwrite: bool) -> list[Model]:
    """Train a model of each fold into the run's `folds_folder`; a fold that has a model is not trained again.

    Args:
        recipe: settings and seed of the trainings.
        chips: of all folds.
        plan: by `folds_of_run`.
        run: gets a model folder for each fold, and a table of the fold that holds out each chip.
        overwrite: replace models and unfinished trainings of another machine or version, unless all are finished.
    """
    trainings = Trainings(run.folds_folder, chips, recipe.train, recipe.augment, recipe.seed, overwrite)
    if not all((run.folds_folder / fold.model).exists() for fold in plan):
        trainings.claim(folds=recipe.models.folds, gap=recipe.split.gap)
    held_out_by = np.array([np.array(fold.splits) == "test" for fold in plan]).argmax(axis=0)
    rows = [f"{chip},{plan[index].number}" for chip, index in zip(chips.ids, held_out_by.tolist(), strict=True)]
    write_text(run.fold_table, "\n".join(["chip,fold", *rows]) + "\n")
    return [trainings.model(fold.model, fold.splits) for fold in plan]


def map_out_of_fold(
    recipe: Recipe, chips: Chips, plan: Sequence[HeldOut], models: Sequence[Model], run: Run
) -> list[Path]:
    """Map each scene as the run does, but each chip by the model of the fold that holds it out.

    Maps that are there are not made again, and unfinished ones go on. An area of interest does not limit them.

    Args:
        recipe: scenes, and settings of the maps.
        chips: of all folds.
        plan: by `folds_of_run`.
        models: by `train_folds`.
        run: gets the maps, in its `folds_folder`.

    Returns:
        A class map on the grid of each scene that has chips; pixels outside of chips are nodata.

    Raises:
        GridError: the settings give a map another grid than its scene.
    """
    images = chips.images()
    paths = dict(zip(images, run.out_of_fold.planned_map_files(list(images)), strict=True))
    rasters = dict(zip(images, map(open_image, recipe.scenes), strict=True))
    mapped = [name for name in images if name in chips.by_scene]
    missing = [name for name in mapped if not paths[name].exists()]
    parts: dict[str, list[tuple[Path, list[Window]]]] = {name: [] for name in missing}
    scratch, spec = run.parts_folder, recipe.predict.model_copy(update={"area": None, "check_seams": False})
    for fold, model in zip(plan, models, strict=True):
        windows = {name: own for name, own in _windows(chips, fold).items() if name in missing}
        if not windows:
            continue
        outputs = {name: OutputPaths(scratch / f"{paths[name].stem}_{fold.model}.tif") for name in windows}
        log.info("%s: mapping the chips that it holds out", fold.model)
        planner = Planner.of(model, spec, next(iter(outputs.values())))
        for name, out in outputs.items():
            with out.claimed():
                planned = planner.plan(rasters[name], out, windows[name])
                if not planned.raster.grid.is_aligned(images[name].grid):
                    raise GridError(
                        f"the map of scene '{name}' has another grid than the scene, so it cannot be assessed with its "
                        "chips. Leave out --crs and --resample."
                    )
                parts[name].append((write_map(planned), windows[name]))
    metadata = _metadata(models)
    for name, own in parts.items():
        _write_merged(own, images[name].grid, models[0], metadata, paths[name])
    shutil.rmtree(scratch, ignore_errors=True)
    return [paths[name] for name in mapped]


def _windows(chips: Chips, fold: HeldOut) -> dict[str, list[Window]]:
    """By scene, the windows of the chips that a fold holds out and that have a valid pixel."""
    is_own = (np.array(fold.splits) == "test") & (chips.table["valid_pixels"].to_numpy() > 0)
    windows: dict[str, list[Window]] = {}
    for name, window, own in zip(chips.scene_names.tolist(), chips.windows, is_own.tolist(), strict=True):
        if own:
            windows.setdefault(name, []).append(window)
    return windows


def _metadata(models: Sequence[Model]) -> BandMetadata:
    classes = models[0].classes
    tags = model_tags(models) | {CLASSES_TAG: classes_as_tag(classes)}
    return BandMetadata((CLASS.kind,), tags, colormap(classes))


def _write_merged(
    parts: Sequence[tuple[Path, Sequence[Window]]], grid: Grid, model: Model, metadata: BandMetadata, out: Path
) -> None:
    out.parent.mkdir(exist_ok=True)
    with claim(out):
        merge(parts, grid, CLASS, metadata, out, new_side_files(out, model.classes))


def assess_folds(
    maps: Sequence[Path], chips: Chips, plan: Sequence[HeldOut], run: Run, settings: Mapping[str, Any]
) -> CrossValidation:
    """Assess the out-of-fold maps on all chips, and on those of each fold.

    Args:
        maps: by `map_out_of_fold`.
        chips: of all folds.
        plan: by `folds_of_run`.
        run: gets the measures of all chips, with intervals, as its assessment, and those of each fold.
        settings: of `assess`, for all chips.
    """
    everything = chips.with_splits([ALL_FOLDS] * len(chips))
    assessment = assess(maps, reference=everything, split=ALL_FOLDS, out=run.assessment_file, **settings)
    assert isinstance(assessment, Assessment)
    folds = tuple(_assessed(maps, chips, fold, run) for fold in plan)
    result = CrossValidation(folds, of_maps=assessment.confusion)
    write_json(run.folds_file, result.as_dict())
    return result


def _assessed(maps: Sequence[Path], chips: Chips, fold: HeldOut, run: Run) -> Fold:
    own = chips.with_splits(fold.splits)
    assessment = assess(maps, reference=own, split="test")
    assert isinstance(assessment, Assessment)
    return Fold(run.folds_folder / fold.model, split_counts(fold.splits), assessment.confusion, fold.name)
