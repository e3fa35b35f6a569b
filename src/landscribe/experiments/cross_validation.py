"""Cross-validation: a model for each fold, assessed on the chips that it has not seen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from landscribe.errors import machine_errors
from landscribe.experiments.trainings import RESULTS, Trainings, split_counts
from landscribe.outputs import claim, output_path, write_text
from landscribe.spec import Pixels, Seed, checked
from landscribe.verbs.sources import Source, open_chips

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from landscribe.confusion import Confusion
    from landscribe.data.chips.chips import Chips
    from landscribe.verbs.keywords import TrainKeywords


@dataclass(frozen=True, eq=False)
class Fold:
    """One model, and how it did on the chips of its fold."""

    model: Path
    chips: dict[str, int]
    """How many, by split."""
    confusion: Confusion
    held_out: str = ""
    """Name of the scene or group that the fold holds out; empty for folds of blocks."""

    def summary(self) -> dict[str, Any]:
        """All measures, ready for JSON."""
        name = {"held_out": self.held_out} if self.held_out else {}
        return {"model": self.model.name, **name, "chips": self.chips, **self.confusion.summary()}


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What the models of all folds measured."""

    folds: tuple[Fold, ...]

    @property
    def pooled(self) -> Confusion:
        """Every chip once, by the model that has not seen it."""
        first, *others = (fold.confusion for fold in self.folds)
        return sum(others, start=first)

    def summary(self) -> dict[str, Any]:
        """All measures, ready for JSON: by fold, of all chips together, and the spread of F1 over the folds.

        The deviation over folds (n - 1) is of models that share most of their training chips, so that it is a lower
        bound of that over new ground (Bengio & Grandvalet 2004, "No unbiased estimator of the variance of K-fold
        cross-validation", Journal of Machine Learning Research 5).
        """
        names = self.folds[0].confusion.classes.names
        f1 = np.array([fold.confusion.f1 for fold in self.folds])
        return {
            "folds": [fold.summary() for fold in self.folds],
            "mean_f1": _spread(np.array([fold.confusion.mean_f1 for fold in self.folds])),
            "f1": {name: _spread(f1[:, number]) for number, name in enumerate(names)},
            "pooled": self.pooled.summary(),
        }


def _spread(values: Any) -> dict[str, float | None]:
    """Mean and standard deviation of the finite values; None where there are too few."""
    finite = values[~np.isnan(values)]
    return {
        "mean": float(finite.mean()) if finite.size else None,
        "standard_deviation": float(finite.std(ddof=1)) if finite.size > 1 else None,
    }


@machine_errors()
def cross_validate(
    chips: Chips | Source,
    *,
    out: Source,
    folds: int | Literal["scenes", "groups"] = 5,
    gap: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    **settings: Unpack[TrainKeywords],
) -> CrossValidation:
    """Train and assess a model for each fold of the chips, whatever splits these have.

    The same call resumes an interrupted one: a fold that has a model is not trained again.

    Args:
        chips: a chips folder.
        out: the folder to make: a model folder for each fold, settings.json, folds.json.
        folds: how many, at least 3, of spatial blocks; or "scenes" or "groups" to leave one scene
            or one group of scenes out at a time.
        gap: chips of different splits are at least this many pixels apart; a quarter of a chip if left out.
        seed: of the folds and the trainings.
        overwrite: replace a cross-validation with other settings.
        settings: of TrainSpec, and `augment`: a preset's name, or a table of AugmentSpec.
    """
    from landscribe.data.splits.folds import fold_names, fold_splits

    seed, gap = checked("seed", seed, Seed), checked("gap", gap, Pixels | None)
    opened, out = open_chips(chips), output_path(out)
    trainings = Trainings(out, opened, seed, dict(settings))
    splits = fold_splits(opened, folds, gap=gap, seed=seed)
    names = fold_names(opened, folds) or [""] * len(splits)
    with claim(out):
        trainings.claim(overwrite=overwrite, folds=folds, gap=gap)
        result = CrossValidation(tuple(_folds(trainings, list(zip(names, splits, strict=True)))))
        write_text(out / RESULTS["fold"], json.dumps(result.summary(), indent=1) + "\n")
    return result


def _folds(trainings: Trainings, folds: Sequence[tuple[str, Sequence[str]]]) -> Iterator[Fold]:
    """Train and assess each fold, given as the name that it holds out and the split of each chip."""
    from landscribe.inference.evaluation import score

    for number, (held_out, splits) in enumerate(folds, 1):
        name = f"fold_{number}"
        model = trainings.model(name, splits)
        confusion = score(model, trainings.divided(splits).of_split("test"), f"assess {name}")
        yield Fold(trainings.folder / name, split_counts(splits), confusion, held_out)
