"""Transfer: a model of each group of scenes, assessed on the held-out chips of every group.

The table says how a network that was trained in some cities or states does in others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from landscribe.errors import ChipError, listed, machine_errors
from landscribe.experiments.trainings import RESULTS, Trainings
from landscribe.outputs import claim, output_path, write_json
from landscribe.spec import Seed, checked
from landscribe.verbs.sources import PathLike, open_chips, training_specs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from landscribe.confusion import Confusion
    from landscribe.data.chips.chips import Chips
    from landscribe.verbs.keywords import TrainKeywords


@dataclass(frozen=True, eq=False)
class Trained:
    """One model, and how it did on the held-out chips of each group."""

    groups: tuple[str, ...]
    """The groups that it was trained on."""
    model: Path
    confusions: Mapping[str, Confusion]
    """By the name of the assessed group."""

    def as_dict(self) -> dict[str, Any]:
        """All measures, ready for JSON."""
        assessed = {name: confusion.as_dict() for name, confusion in self.confusions.items()}
        return {"trained_on": list(self.groups), "model": self.model.name, "groups": assessed}


@dataclass(frozen=True, eq=False)
class Transfer:
    """The transfer table: a row for each model, a column for each assessed group.

    Law: all models are assessed on the same chips of a group.
    """

    models: tuple[Trained, ...]
    """One for each group with training chips; the last is of all these groups together, if there are several."""
    splits: Mapping[str, str]
    """The assessed split of each group: test, or val if it has no test chips."""

    def as_dict(self) -> dict[str, Any]:
        """All measures, ready for JSON."""
        return {"assessed": dict(self.splits), "models": [model.as_dict() for model in self.models]}


@machine_errors()
def transfer(
    chips: Chips | PathLike, *, out: PathLike, seed: int = 0, overwrite: bool = False, **settings: Unpack[TrainKeywords]
) -> Transfer:
    """Train a model on each group of scenes, and on all groups together, and assess each on every group.

    A model trains on the chips of its group in split train, and its epoch is chosen on those in split val. Each group
    is assessed on its chips in split test, or in split val if it has none: then the numbers of its own model are a
    little too high. A group without training chips is only assessed. Models that are there are not trained again.

    Args:
        chips: a chips folder whose scenes name their groups.
        out: the folder to make: a model folder for each row, settings.json, transfer.json.
        seed: of the trainings.
        overwrite: replace models that were trained with other settings.
        settings: of TrainSpec, and `augment`: a preset's name, or a table of AugmentSpec.

    Returns:
        Counts and measures of each model on each group.

    Raises:
        RecipeError: an unknown setting, or one out of range.
        ChipError: scenes without a group, fewer than two groups, none with training or none with held-out chips.
    """
    seed = checked("seed", seed, Seed)
    spec, augmentation = training_specs(dict(settings))
    opened, out = open_chips(chips), output_path(out)
    trained_on, assessed = _groups(opened)
    trainings = Trainings(out, opened, spec, augmentation, seed, overwrite)
    with claim(out):
        trainings.claim(transfer=True)
        result = Transfer(tuple(_models(trainings, trained_on, assessed)), assessed)
        write_json(out / RESULTS["group"], result.as_dict())
    return result


def _groups(chips: Chips) -> tuple[list[str], dict[str, str]]:
    """Groups with training chips, and the split on which each group with held-out chips is assessed."""
    without = np.unique(chips.scene_names[chips.group_names == ""]).tolist()
    names = np.unique(chips.group_names).tolist()
    if without or len(names) < 2:
        found = f"{listed(without)} name no group" if without else f"all are of group {names[0]}"
        raise ChipError(
            f"scenes of {chips.folder}: {found}. Expected at least two groups, such as cities, and one for each scene. "
            "Set group on the scenes of the recipe and chip again."
        )
    splits = chips.splits
    held = {name: set(splits[chips.group_names == name].tolist()) for name in names}
    trained_on = [name for name in names if "train" in held[name]]
    assessed = {name: "test" if "test" in held[name] else "val" for name in names if held[name] & {"test", "val"}}
    if not trained_on or not assessed:
        missing = "train" if not trained_on else "test or val"
        raise ChipError(f"no group of {chips.folder} has chips in split {missing}. Chip again with other splits.")
    return trained_on, assessed


def _models(trainings: Trainings, trained_on: list[str], assessed: Mapping[str, str]) -> Iterator[Trained]:
    from landscribe.inference.evaluation import score
    from landscribe.training.checks import require_learnable

    chips = trainings.chips
    splits, names = chips.splits, chips.group_names
    held_out = {name: chips.take((names == name) & (splits == split)) for name, split in assessed.items()}
    rows = [(name,) for name in trained_on] + ([tuple(trained_on)] if len(trained_on) > 1 else [])
    # "gap" marks chips that are not used.
    used = [np.where(np.isin(names, groups) & (splits != "test"), splits, "gap") for groups in rows]
    for own_splits in used:
        require_learnable(trainings.chips.with_splits(own_splits.tolist()))
    for number, (groups, own_splits) in enumerate(zip(rows, used, strict=True), 1):
        folder = f"group_{number}" if len(groups) == 1 else "group_all"
        model = trainings.model(folder, own_splits.tolist())
        confusions = {name: score(model, own, f"assess {folder} on {name}") for name, own in held_out.items()}
        yield Trained(groups, trainings.folder / folder, confusions)
