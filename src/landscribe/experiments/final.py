"""The final model of a run: trained with the settings of the assessed model, but on all labelled ground."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from landscribe.model import Model
from landscribe.training.checks import resolved_settings
from landscribe.training.spec import TrainSpec
from landscribe.verbs import train

if TYPE_CHECKING:
    from landscribe.data.chips.chips import Chips
    from landscribe.recipe import Recipe
    from landscribe.runs import Run

log = logging.getLogger(__name__)


def has_final(recipe: Recipe, chips: Chips, run: Run) -> bool:
    """True if the run gets a final model. A run that has begun keeps to what it has."""
    if run.assessed_folder.exists() or run.model_folder.exists():
        return run.assessed_folder.exists()
    metadata = chips.metadata
    train = resolved_settings(recipe.train, bands=len(metadata.bands), classes=len(chips.classes), size=metadata.size)
    return recipe.has_final(train, chips=len(chips), train_chips=len(chips.of_split("train")))


def train_final(chips: Chips, assessed: Model, run: Run, recipe: Recipe) -> Model:
    """Train the final model on the chips of all splits, and save it as the run's model.

    No chip is left to choose an epoch or a threshold: the weights are those after the last step, and the threshold is
    that of the assessed model. The same call resumes a stopped one.

    Args:
        chips: of all splits.
        assessed: the model that was trained on the split train.
        run: gets the model.
        recipe: the settings of the assessed model's training.
    """
    if not run.final_folder.exists():
        everything, spec = (
            replace(chips, table=chips.table.assign(split="train")),
            final_spec(recipe.train, chips, assessed),
        )
        log.info(
            "final model, which makes the map: trained on all %d chips (split train: %d)",
            len(chips),
            len(chips.of_split("train")),
        )
        # Which preset `auto` stands for is decided once.
        augment = recipe.augment.model_copy(update={"preset": assessed.config.provenance["augment"]["preset"]})
        train(everything, out=run.final_folder, seed=recipe.seed, augment=augment, **spec.model_dump())
    model = Model.load(run.final_folder, trust=recipe.train.architecture)
    final = replace(model, config=model.config.model_copy(update={"val_threshold": assessed.val_threshold}))
    final.save(run.model_folder)
    shutil.rmtree(run.final_folder)
    return final


def final_spec(spec: TrainSpec, chips: Chips, assessed: Model) -> TrainSpec:
    """The settings of the final training: its steps, or minutes, grow with the labelled pixels.

    A training that stopped early counts with the steps that it took. The learning rate and the batch are those
    of that training.

    Law: each labelled pixel is drawn as often as in the training of the assessed model.
    """
    growth = float(chips.counts.sum() / chips.of_split("train").counts.sum())
    taken = assessed.history[-1]["step"]
    budget: dict[str, Any] = {"steps": round(taken * growth), "epochs": None}
    if spec.minutes is not None:
        budget = {"minutes": spec.minutes * growth}
    found = {
        "learning_rate": assessed.config.provenance["learning_rate"],
        "batch": assessed.config.provenance["settings"]["batch"],
    }
    return spec.model_copy(update={"checkpoint": "last", "patience": None, **found, **budget})
