"""Settings of a recipe that a run would refuse only after it has cut the chips or trained the network."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from landscribe.data.chips.units import units_of
from landscribe.data.scenes.scene import Scene
from landscribe.data.splits.folds import fold_groups
from landscribe.errors import LandscribeError
from landscribe.geo.classes import Classes
from landscribe.geo.grid import crs_label
from landscribe.geo.rasters.derived.resampling import parse_crs
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.tiling import aligned, units
from landscribe.preflight.findings import Finding
from landscribe.recipe import Recipe

if TYPE_CHECKING:
    from landscribe.nn import Segmentation


def check_settings(recipe: Recipe, image: Raster, classes: Classes) -> Iterator[Finding]:
    """Errors in settings that a run would meet only after it has cut the chips or trained the network."""
    try:
        _require_training(recipe, classes)
        yield from _check_crs(recipe, image)
        network = _network(recipe, image, classes)
        yield from _check_chip_size(recipe, network)
        size = aligned(recipe.predict.nominal_tile, network.reduction)
        margin, side = recipe.predict.nominal_margin, recipe.predict.unit
        next(units(1, 1, size=size, margin=margin, align=network.reduction, side=side))
    except LandscribeError as error:
        yield Finding("error", str(error))


def _require_training(recipe: Recipe, classes: Classes) -> None:
    """Raise LandscribeError for settings of the training or of its use that do not fit the classes or the splits."""
    from landscribe.nn.losses import weighted_sum
    from landscribe.prediction.compatibility import require_threshold_classes
    from landscribe.training.checks import require_settings, require_validation, require_workers
    from landscribe.training.parallel import Processes, require_one_process

    train = recipe.train
    weighted_sum(train.loss)
    require_threshold_classes(recipe.predict, classes)
    require_settings(train, classes)
    if not _may_hold(recipe, "val"):
        require_validation(train, ())
    require_workers(train, Processes())
    if recipe.models.final == "all":
        require_one_process(train.devices)


def _check_crs(recipe: Recipe, image: Raster) -> Iterator[Finding]:
    crs = recipe.predict.crs
    if crs is not None and parse_crs(crs) != image.grid.crs:
        yield Finding(
            "error",
            f"crs is {crs}, but a run assesses its maps with the chips, on the grid of the scenes "
            f"({crs_label(image.grid.crs)}). Leave it out; landscribe predict makes a map of another CRS from the "
            "run's model.",
        )


def _network(recipe: Recipe, image: Raster, classes: Classes) -> "Segmentation":
    """The network of a recipe; LandscribeError if it cannot be built or trained."""
    from landscribe.nn.encoders.freezing import parts_of
    from landscribe.nn.encoders.weights import require_weights
    from landscribe.training.checks import resolved_settings, trainable_network
    from landscribe.training.scaling import of_range

    train, bands = recipe.train, len(image.bands)
    # Weights from a file are loaded now; weights from a hub are downloaded later, if it responds.
    weights = None if train.weights in ("auto", "imagenet", "none") else train.weights
    if train.scaling == "range":
        of_range(np.dtype(image.dtype), bands=bands)
    require_weights(train.encoder, "imagenet" if train.weights == "imagenet" else None)
    network = trainable_network(train, bands=image.bands, classes=len(classes), size=recipe.chips.size, weights=weights)
    resolved_settings(
        train, bands=bands, classes=len(classes), size=recipe.chips.size,
        processes=1 if train.devices == "auto" else train.devices,
    )  # fmt: skip
    parts_of(network, train.freeze)
    return network


def _check_chip_size(recipe: Recipe, network: "Segmentation") -> Iterator[Finding]:
    align, train = network.reduction, recipe.train
    if recipe.chips.size < align + (train.batch == 1):
        yield Finding(
            "error",
            f"chips of {recipe.chips.size} pixels are too small for {train.architecture} on {train.encoder}: one "
            f"pixel of its deepest features covers {align} x {align} pixels. Use chips.size {2 * align} or more.",
        )


def check_held_out(recipe: Recipe) -> Iterator[Finding]:
    """Errors in settings that need held-out chips, and splits that leave nothing to train on or to assess."""
    if not _may_hold(recipe, "train"):
        yield Finding("error", "every scene has split val or test, so nothing is left to train on. Leave out split.")
    if recipe.predict.threshold == "val" and not _may_hold(recipe, "val"):
        yield Finding("error", "threshold is val, but split val has no chips. Hold out some (--val), or give a number.")
    if any(_may_hold(recipe, split) for split in ("val", "test")):
        return
    why, settings = _why_none_is_held_out(recipe)
    if recipe.models.final != "all":
        yield Finding(
            "warning",
            f"no chip is held out ({why}): the map is assessed with the chips that the network is trained on, and its "
            f"accuracy is too high. Hold out chips ({settings}), or name a reference.",
        )
    else:
        yield Finding(
            "error",
            f"final is all, but {why}: the first model has learned from all labelled ground. Hold out chips to assess "
            f"it ({settings}), or leave out final.",
        )


def _why_none_is_held_out(recipe: Recipe) -> tuple[str, str]:
    """What leaves val and test without a chip, and the settings that hold chips out."""
    if recipe.split.by == "list":
        return "only train_list is given", "--val-list, --test-list"
    if all(scene.split for scene in recipe.scenes):
        return "every scene has split train", "split of a scene"
    return "val and test are 0", "--val, --test"


def _may_hold(recipe: Recipe, split: Literal["train", "val", "test"]) -> bool:
    """False if no chip will be in this split, whatever the scenes hold."""
    given = recipe.split.by == "attribute" or split in recipe.split.lists
    is_drawn = recipe.split.by not in ("attribute", "list") and any(scene.split is None for scene in recipe.scenes)
    shares = is_drawn and (split == "train" or getattr(recipe.split, split) > 0)
    return recipe.models.folds is not None or given or shares or any(scene.split == split for scene in recipe.scenes)


def check_folds(recipe: Recipe, scenes: Sequence[Scene]) -> Iterator[Finding]:
    """Errors in the folds of a cross-validation that do not depend on the labels; a note on those that do."""
    from landscribe.training.parallel import require_one_process

    folds, units = recipe.models.folds, units_of(scenes, recipe.chips)
    if folds is None:
        return
    index = [unit.scene for unit in units for _ in unit.windows]
    names, groups = (
        np.array(texts, str)[index] for texts in zip(*((s.name, s.group or "") for s in scenes), strict=True)
    )
    try:
        require_one_process(recipe.train.devices)
        fold_groups(folds, names, groups, [window for unit in units for window in unit.windows], recipe.chips.size)
    except LandscribeError as error:
        yield Finding("error", str(error))
    else:
        held_out = f"{folds}" if isinstance(folds, str) else "folds"
        yield Finding(
            "note",
            f"folds is {folds}: each class must occur in several {held_out}, which is known only when the chips are "
            "cut. A run then refuses folds of which one lacks a class.",
        )
    if recipe.split.by in ("attribute", "list") or any(scene.split for scene in scenes):
        yield Finding(
            "warning",
            f"folds is {folds}, which divides all chips: their splits are ignored, and models are trained on test "
            "chips. Leave the scenes that no model may see out of the recipe.",
        )
