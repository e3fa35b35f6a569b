"""The whole pipeline: the verbs one after the other, each on the files that the one before left."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from landscribe.data.splits.spec import SplitSpec
from landscribe.errors import (
    ChipError,
    LandscribeError,
    RecipeError,
    UnfinishedError,
    counted,
    machine_errors,
)
from landscribe.machine import require_memory
from landscribe.outputs import atomic_folder, claim, output_path, refuse_file, remove_stale, remove_whole
from landscribe.preflight.check import check
from landscribe.recipe import SECTIONS, Recipe
from landscribe.runs import Run
from landscribe.spec import Seed, checked
from landscribe.verbs import assess, chip_scenes, new, report, train_chips, vectorize
from landscribe.verbs.sources import PathLike, recipe_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from landscribe.data.chips.chips import Chips
    from landscribe.experiments.cross_validation import HeldOut
    from landscribe.model import Model
    from landscribe.preflight.check import Check
    from landscribe.verbs.keywords import DemoKeywords, RunKeywords

log = logging.getLogger(__name__)

_WRONG_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)


@machine_errors()
def run(
    recipe: Recipe | PathLike | None = None,
    *,
    out: PathLike,
    images: Sequence[Any] = (),
    labels: Any = None,
    overwrite: bool = False,
    **settings: Unpack[RunKeywords],
) -> Path:
    """All of it: check, chip, train, predict, vectorize, assess, report.

    Steps whose files are there are not repeated, so that the same call resumes an interrupted run. A run whose
    source files have changed since is refused.

    Args:
        recipe: a recipe or its path; or give `images` and `labels`.
        out: the run folder.
        images: one file per scene, or a list of files to stack for each.
        labels: polygons or a label raster: one for all scenes, or a list with one for each.
        overwrite: replace a run of another recipe or of files that have changed (its chips and model stay where only
            settings of the maps differ), and an unfinished training of another version or machine.
        settings: settings of a recipe by plain name, or tables by section (`train={...}`).

    Returns:
        The run folder: recipe.toml, fingerprint.json, chips/, model/, map.tif (or maps/) and, if labels are polygons,
        the map as polygons (map.gpkg); with unet_id also its object probabilities (objects.tif); assessment.json (on
        held-out chips), assessment_reference.json (if the recipe names an independent reference), report.html. With
        `final="all"`, assessed/ holds the model and the map that are assessed on held-out chips. With `folds`, folds/
        holds a model for each fold, in place of model/, and the out-of-fold maps that are assessed on all chips.

    Raises:
        RecipeError: an unknown setting, or one out of range.
        LandscribeError: an error that `check` finds, or an error of a step.
        OutputError: the folder holds another run, or cannot be written.
        UnfinishedError: a disk is full, a drive is lost, or a part of a map failed; the same call resumes the run.
    """
    from landscribe.training.parallel import require_single_process

    require_single_process("landscribe run")
    out = output_path(out)
    files = Run(out)
    refuse_file(out)
    filled = recipe_of(recipe, images, labels, dict(settings), tuple(SECTIONS))
    with claim(out), _resumable(files):
        checked = check(filled, trial=False, out=out)
        _stop_on_errors(checked)
        assert checked.classes is not None
        filled = _decided(filled if filled.classes else filled.with_classes(checked.classes), checked, files)
        _run_steps(filled, checked, files, overwrite=overwrite)
    return out


def _decided(filled: Recipe, checked: Check, files: Run) -> Recipe:
    """The recipe with the effort and the batch that auto stands for, so that it can be repeated on any machine.

    A run of the same recipe that began on another machine keeps the effort and the batch of that machine.
    """
    from landscribe.experiments.run_folder import begun_settings
    from landscribe.training.checks import resolved_settings

    assert checked.classes is not None
    train, bands = filled.train, len(checked.scenes[0].image.bands)
    decides = ["batch"] if any((train.steps, train.epochs, train.minutes)) else ["batch", "effort"]
    auto = [name for name in decides if getattr(train, name) == "auto"]
    if not auto:
        return filled
    settings = begun_settings(files, filled, auto)
    if settings is None:
        resolved = resolved_settings(train, bands=bands, classes=len(checked.classes), size=filled.chips.size)
        settings = {name: getattr(resolved, name) for name in auto}
    return filled.model_copy(update={"train": train.model_copy(update=settings)})


@contextmanager
def _resumable(files: Run) -> Iterator[None]:
    """Raise UnfinishedError where a full disk or a lost drive stops a run of which finished steps are kept."""
    try:
        with machine_errors():
            yield
    except UnfinishedError:
        raise
    except LandscribeError as error:
        # Other errors would stop the same command again, as a wrong path does.
        cause = error.__cause__
        if not isinstance(cause, OSError) or isinstance(cause, _WRONG_PATH) or not files.chips_folder.exists():
            raise
        raise UnfinishedError(
            f"{files.folder} is not finished: {error} Its finished steps are kept: fix the cause and repeat the same "
            "command."
        ) from error


def _run_steps(filled: Recipe, checked: Check, files: Run, *, overwrite: bool) -> None:
    """The steps of a run whose files are not there. A scheduler that predicts also counts the independent reference."""
    from landscribe.assessment.references import counts_strips
    from landscribe.experiments.run_folder import take_folder
    from landscribe.geo.vectors.vector_files import is_vector

    assert checked.classes is not None
    for file in (
        files.recipe_file,
        files.fingerprint_file,
        files.assessment_file,
        files.reference_file,
        files.report_file,
    ):
        remove_stale(file)
    with take_folder(files, filled, overwrite=overwrite):
        chips, folds = _cut(filled, checked, files)
    measured = filled.assess.model_dump(exclude={"reference", "reference_field"}) | {"seed": filled.seed}
    if folds:
        maps = _of_folds(filled, chips, folds, files, measured, overwrite=overwrite)
    else:
        maps = _of_one_model(filled, chips, files, measured, overwrite=overwrite)
    if any(scene.labels is not None and is_vector(scene.labels) for scene in filled.scenes):
        for path in maps:
            _vectorize(path, filled, files)
    if filled.assess.reference is not None:
        # Points have neither strips nor blocks.
        measured = measured | {"dask": filled.predict.dask} if counts_strips(filled.assess) else {}
        column = filled.assess.reference_field
        assess(maps, reference=filled.assess.reference, label_field=column, out=files.reference_file, **measured)
    else:
        files.reference_file.unlink(missing_ok=True)
    report(files.folder)


def _cut(filled: Recipe, checked: Check, files: Run) -> tuple[Chips, Sequence[HeldOut]]:
    """The chips, cut if they are not there, and their folds if the recipe asks for some.

    Chips that were cut and cannot form the folds are removed, so that the same folder takes other folds.
    """
    assert checked.classes is not None
    is_new, has_folds = not files.chips_folder.exists(), filled.models.folds is not None
    if is_new:
        # Folds divide chips without a split, whose classes need not be in each of three.
        undivided = filled.model_copy(update={"split": SplitSpec(val=0, test=0)})
        opened = (checked.scenes, checked.classes)
        chip_scenes(undivided if has_folds else filled, files.chips_folder, opened=opened)
    chips = files.open_chips()
    if not has_folds:
        if is_new:
            _warn_of_overlaps(chips, checked)
        return chips, ()
    from landscribe.experiments.out_of_fold import folds_of_run

    try:
        return chips, folds_of_run(filled, chips)
    except (ChipError, RecipeError):
        if is_new:
            remove_whole(files.chips_folder)
        raise


def _warn_of_overlaps(chips: Chips, checked: Check) -> None:
    """Warn of chips of different splits that overlap, as of scenes with predefined splits."""
    from landscribe.data.splits.audit import overlapping_pairs

    if pairs := overlapping_pairs(chips, {scene.name: scene.image.grid for scene in checked.scenes}):
        log.warning(
            'chips of different splits overlap in %s, so that accuracy is too high: "landscribe check %s" says where',
            counted(pairs, "pair"), chips.folder,
        )  # fmt: skip


def _of_one_model(filled: Recipe, chips: Chips, files: Run, measured: dict[str, Any], *, overwrite: bool) -> list[Path]:
    """Train a model, assess its maps on held-out chips, and return the maps: its own, or those of a final model."""
    from landscribe.experiments.final import has_final, train_final
    from landscribe.prediction.compatibility import require_threshold_chips
    from landscribe.training.checkpoint import remove_leftover

    is_final = has_final(filled, chips, files)
    assessed = Run(files.assessed_folder) if is_final else files
    if assessed.model_folder.exists():
        remove_leftover(assessed.model_folder)
    else:
        require_threshold_chips(filled.predict, chips, chips.splits.tolist())
        train_chips(
            chips, filled.train, filled.augment, out=assessed.model_folder, seed=filled.seed, overwrite=overwrite
        )
    maps = _map_scenes(filled, chips, assessed, overwrite=overwrite)
    split = next((name for name in ("test", "val", "train") if len(chips.of_split(name))), "train")
    assess(maps, reference=chips, split=split, out=files.assessment_file, **measured)
    if is_final:
        if not files.model_folder.exists():
            first = assessed.load_model(trust=filled.train.architecture)
            train_final(chips, first, files, filled, overwrite=overwrite)
        remove_whole(files.final_folder)
        maps = _map_scenes(filled, chips, files, overwrite=overwrite)
    return maps


def _of_folds(
    filled: Recipe, chips: Chips, folds: Sequence[HeldOut], files: Run, measured: dict[str, Any], *, overwrite: bool
) -> list[Path]:
    """Train a model of each fold, assess each chip by the one that has not seen it, and return the maps by all."""
    from landscribe.experiments.out_of_fold import assess_folds, map_out_of_fold, train_folds

    models = train_folds(filled, chips, folds, files, overwrite=overwrite)
    maps = _map_scenes(filled, chips, files, models, overwrite=overwrite)
    unseen = map_out_of_fold(filled, chips, folds, models, files)
    assess_folds(unseen, chips, folds, files, measured)
    return maps


def _vectorize(mapped: Path, filled: Recipe, files: Run) -> None:
    """Write the polygons of a map beside it; each object is one where the network separates objects."""
    settings = filled.vectorize.model_dump()
    objects = files.object_file(mapped)
    if objects.exists() and not settings["split_touching"]:
        settings["object_probabilities"] = objects
    vectorize(mapped, out=mapped.with_suffix(".gpkg"), overwrite=True, **settings)


def _stop_on_errors(found: Check) -> None:
    """Say the warnings; raise the first error, and how many more there are."""
    for finding in found.findings:
        if finding.severity == "warning":
            log.warning(finding.text)
    if found.errors:
        more = len(found.errors) - 1
        raise LandscribeError(found.errors[0] + (f' ({more} more: "landscribe check" lists them.)' if more else ""))


def _map_scenes(
    filled: Recipe, chips: Chips, files: Run, models: Sequence[Model] = (), *, overwrite: bool
) -> list[Path]:
    """Map every scene by the run's model, or several models: `map.tif`, or `maps/` with one for each."""
    from landscribe.data.scenes.scene import open_image
    from landscribe.maps.output_paths import OutputPaths
    from landscribe.prediction.mapping import write_map
    from landscribe.prediction.plan import Planner

    # The user named the architecture in the recipe.
    model, *others = models or [files.load_model(trust=filled.train.architecture)]
    # Of chips of earlier versions, maps of stacked files have the name of the first file.
    names = chips.metadata.scenes or [None] * len(filled.scenes)
    rasters = [
        replace(open_image(scene), title=name if len(scene.image) > 1 else None)
        for scene, name in zip(filled.scenes, names, strict=True)
    ]
    paths = files.planned_map_files([raster.name for raster in rasters])
    separates_objects = {"border", "inner"} <= model.head_channels.keys()
    outputs = [
        OutputPaths(path, object_probabilities=files.object_file(path) if separates_objects else None) for path in paths
    ]
    planner, maps = Planner.of(model, filled.predict, outputs[0], others), []
    for raster, out in zip(rasters, outputs, strict=True):
        with out.claimed():
            maps.append(write_map(planner.plan(raster, out), overwrite=overwrite))
    return maps


@machine_errors()
def demo(
    out: PathLike = "demo",
    *,
    like: str | None = None,
    size: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    **settings: Unpack[DemoKeywords],
) -> Path:
    """The whole pipeline on data that is drawn here.

    Args:
        out: the folder for the data and the run.
        like: an example of the lecture (topodl, inria, landcoverai, wvlcdl): a small data set in its publisher's
            layout, and its recipe; default: a synthetic world.
        size: side of the world in pixels; default: 1024. An example has sizes of its own.
        seed: of the data and the run.
        overwrite: replace another run there.
        settings: settings of a recipe by plain name, or tables by section (`train={...}`).

    Returns:
        The run folder, `run` in `out`; see `run`.

    Raises:
        RecipeError: an unknown setting or example, or one out of range.
        LandscribeError: a size is given with an example, or an error of a step.
        OutputError: the folder holds another run, or cannot be written.
    """
    from landscribe.synthetic.layouts import LAYOUTS

    out, seed = output_path(out), checked("seed", seed, Seed)
    if like is None:
        world = _draw_world(out, 1024 if size is None else size, seed)
        # Roads cross rivers: the labels are in the order in which they were drawn.
        labelled = {"label_field": "class", "label_priority": "file-order", "classes": _world_classes()}
        defaults = {"size": 128, "steps": 100, "seed": seed, **labelled}
        given: dict[str, Any] = {"images": [world / "scene.tif"], "labels": world / "labels.geojson"}
    else:
        if size is not None:
            raise LandscribeError(f"size is {size}, but {like} has sizes of its own. Leave out --size or --like.")
        given = {"recipe": _draw_example(out, like, seed)}
        defaults = {**LAYOUTS[like].settings, "seed": seed}
    changed: dict[str, Any] = {**defaults, **settings}
    return run(**given, out=out / "run", overwrite=overwrite, **changed)


def _draw_world(out: Path, size: int, seed: int) -> Path:
    """The folder of a synthetic world, drawn if it is not there."""
    from landscribe.synthetic import BYTES_PER_PIXEL, WorldSide, draw, write

    size = checked("size", size, WorldSide)
    require_memory(size**2 * BYTES_PER_PIXEL, f"a world of {size} x {size} pixels", "Choose a smaller --size.")
    world = out / f"world-{size}px-seed{seed}"
    if not (world / "scene.tif").exists():
        with claim(world), atomic_folder(world) as folder:
            write(draw(size, size, seed=seed), folder)
    return world


def _draw_example(out: Path, name: str, seed: int) -> Path:
    """The recipe of an example, beside its small data set; both are written if they are not there."""
    from landscribe.synthetic.layouts import LAYOUTS

    data, recipe = out / f"{name}-seed{seed}", out / f"{name}-seed{seed}.toml"
    # An unknown name is refused before anything is drawn.
    Recipe.of_example(name, data)
    if not data.exists():
        with claim(data), atomic_folder(data) as folder:
            LAYOUTS[name].write(folder, seed=seed)
    return recipe if recipe.exists() else new(recipe, like=name, data=data)


def _world_classes() -> list[dict[str, Any]]:
    from landscribe.synthetic import CLASSES

    return [{"name": name, "value": value, "colour": colour} for name, value, colour in CLASSES]
