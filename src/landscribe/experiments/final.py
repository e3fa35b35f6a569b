"""The final model of a run: trained with the settings of the assessed model, but on all labelled ground."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from landscribe.experiments.trainings import initial_weights
from landscribe.model import Model
from landscribe.training.checkpoint import remove_leftover
from landscribe.training.parallel import chip_sampler
from landscribe.training.spec import TrainSpec
from landscribe.verbs import train_chips

if TYPE_CHECKING:
    from landscribe.data.chips.chips import Chips
    from landscribe.recipe import Recipe
    from landscribe.runs import Run

log = logging.getLogger(__name__)


def has_final(recipe: Recipe, chips: Chips, run: Run) -> bool:
    """True if the run gets a final model. A run that has begun keeps to what it has."""
    if run.assessed_folder.exists() or run.model_folder.exists():
        return run.assessed_folder.exists()
    training = chips.of_split("train")
    holds_out = 0 < len(training) < len(chips)
    pass_length = chip_sampler(training, recipe.train, recipe.seed).pass_length if holds_out else 1
    return recipe.has_final(recipe.train, pass_length=pass_length, holds_out=holds_out)


def train_final(chips: Chips, assessed: Model, run: Run, recipe: Recipe, *, overwrite: bool) -> Model:
    """Train the final model on all labelled ground, and save it as the run's model.

    No chip is left to choose an epoch or a threshold: the weights are those after the last step, and the threshold is
    that of the assessed model. The same call resumes a stopped one.

    Args:
        chips: of all splits.
        assessed: the model that was trained on the split train.
        run: gets the model.
        recipe: the settings of the assessed model's training.
        overwrite: replace an unfinished training with other settings.
    """
    if run.final_folder.exists():
        remove_leftover(run.final_folder)
    else:
        everything = final_chips(chips, recipe)
        log.info(
            "final model, which makes the map: training on all %d chips, after %d of split train",
            len(everything), len(chips.of_split("train")),
        )  # fmt: skip
        spec = final_spec(recipe.train, chips, everything, assessed)
        # Which preset `auto` stands for is decided once.
        augmentation = recipe.augment.model_copy(update={"preset": assessed.provenance["augment"]["preset"]})
        train_chips(everything, spec, augmentation, out=run.final_folder, seed=recipe.seed, overwrite=overwrite)
    model = Model.load(run.final_folder, trust=recipe.train.architecture)
    final = replace(model, config=model.config.model_copy(update={"val_threshold": assessed.val_threshold}))
    final.save(run.model_folder)
    return final


def final_chips(chips: Chips, recipe: Recipe) -> Chips:
    """All chips as split train, but for those that the user's lists or areas leave out."""
    used = chips.take(chips.splits != "gap") if recipe.split.by in ("attribute", "list") else chips
    return used.with_splits(["train"] * len(used))


def final_spec(spec: TrainSpec, chips: Chips, everything: Chips, assessed: Model) -> TrainSpec:
    """The settings of the final training: steps in proportion to its ground; weights and learning rate of the first.

    A training that stopped early, or had a budget in minutes, counts with the steps that it took.

    Law: as many passes over all of the ground as the assessed model had over its part.
    """
    first, final = (chip_sampler(part, spec, 0).pass_length for part in (chips.of_split("train"), everything))
    settings = {
        "steps": round(assessed.history[-1]["step"] * final / first),
        "learning_rate": assessed.provenance["learning_rate"],
        "weights": initial_weights(spec, assessed),
        "checkpoint": "last",
    }
    return spec.model_copy(update=settings | dict.fromkeys(("epochs", "minutes", "patience")))
