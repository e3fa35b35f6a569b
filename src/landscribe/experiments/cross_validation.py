"""Cross-validation: a model for each fold, assessed on the chips that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from landscribe.errors import machine_errors
from landscribe.experiments.trainings import RESULTS, Trainings, split_counts
from landscribe.outputs import claim, output_path, write_json
from landscribe.spec import Pixels, Seed, checked
from landscribe.verbs.sources import PathLike, open_chips, training_specs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from landscribe.confusion import Confusion
    from landscribe.data.chips.chips import Chips
    from landscribe.data.splits.folds import Whole
    from landscribe.data.splits.groups import Split
    from landscribe.training.spec import TrainSpec
    from landscribe.verbs.keywords import TrainKeywords


@dataclass(frozen=True)
class HeldOut:
    """The chips that a fold holds out, and those that its model learns from."""

    number: int
    """From 1."""
    name: str
    """Name of the scene or group that the fold holds out; empty for folds of blocks."""
    splits: tuple[Split, ...]
    """The split of each chip; the fold's own are test."""

    @property
    def model(self) -> str:
        """Name of the model folder."""
        return f"fold_{self.number}"


@dataclass(frozen=True, eq=False)
class Fold:
    """One model, and how it did on the chips of its fold."""

    model: Path
    chips: dict[str, int]
    """How many, by split."""
    confusion: Confusion
    held_out: str = ""
    """Name of the scene or group that the fold holds out; empty for folds of blocks."""

    def as_dict(self) -> dict[str, Any]:
        """All measures, ready for JSON."""
        name = {"held_out": self.held_out} if self.held_out else {}
        return {"model": self.model.name, **name, "chips": self.chips, **self.confusion.as_dict()}


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The measures of the models of all folds."""

    folds: tuple[Fold, ...]
    of_maps: Confusion | None = None
    """Of out-of-fold maps: each pixel once, also where chips overlap."""

    @property
    def pooled(self) -> Confusion:
        """All chips together, each by the model that has not seen it."""
        if self.of_maps is not None:
            return self.of_maps
        first, *others = (fold.confusion for fold in self.folds)
        return sum(others, start=first)

    def as_dict(self) -> dict[str, Any]:
        """All measures, ready for JSON: by fold, of all chips together, and the spread of F1 over the folds.

        The deviation over folds (n - 1) is of models that share most of their training chips, so that it is a lower
        bound of that over new ground (Bengio & Grandvalet 2004, "No unbiased estimator of the variance of K-fold
        cross-validation", Journal of Machine Learning Research 5).
        """
        names = self.folds[0].confusion.classes.names
        f1 = np.array([fold.confusion.f1 for fold in self.folds])
        return {
            "folds": [fold.as_dict() for fold in self.folds],
            "mean_f1": _spread(np.array([fold.confusion.mean_f1 for fold in self.folds])),
            "f1": {name: _spread(f1[:, number]) for number, name in enumerate(names)},
            "pooled": self.pooled.as_dict(),
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
    chips: Chips | PathLike,
    *,
    out: PathLike,
    folds: int | Whole = 5,
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

    Returns:
        Counts and measures of each fold, of all folds together, and the spread over folds.

    Raises:
        ChipError: fewer than three folds, or chips that cannot form them.
        RecipeError: an unknown setting, one out of range, or one that a fold without validation chips cannot have.
        OutputError: `out` holds a cross-validation with other settings, or cannot be written.
    """
    from landscribe.data.splits.folds import Whole

    seed, gap, folds = (
        checked("seed", seed, Seed),
        checked("gap", gap, Pixels | None),
        checked("folds", folds, int | Whole),
    )
    spec, augmentation = training_specs(dict(settings))
    opened, out = open_chips(chips), output_path(out)
    trainings = Trainings(out, opened, spec, augmentation, seed, overwrite)
    plan = plan_folds(opened, folds, gap=gap, seed=seed)
    require_validation_of(plan, opened, spec)
    with claim(out):
        trainings.claim(folds=folds, gap=gap)
        result = CrossValidation(tuple(_folds(trainings, plan)))
        write_json(out / RESULTS["fold"], result.as_dict())
    return result


def plan_folds(chips: Chips, folds: int | Whole, *, gap: int | None, seed: int) -> tuple[HeldOut, ...]:
    """The folds of chips; see `fold_splits` for the arguments, laws and errors."""
    from landscribe.data.splits.folds import fold_names, fold_splits

    splits = fold_splits(chips, folds, gap=gap, seed=seed)
    names = fold_names(chips, folds) or [""] * len(splits)
    return tuple(
        HeldOut(number, name, tuple(own)) for number, (name, own) in enumerate(zip(names, splits, strict=True), 1)
    )


def require_validation_of(plan: Sequence[HeldOut], chips: Chips, spec: TrainSpec) -> None:
    """Raise RecipeError, before any training, if a setting follows the F1 on validation chips that a fold lacks."""
    from landscribe.training.checks import require_validation

    for fold in plan:
        require_validation(spec, chips.with_splits(fold.splits).of_split("val").labelled_classes)


def _folds(trainings: Trainings, plan: Sequence[HeldOut]) -> Iterator[Fold]:
    """Train each fold, and assess its model on the chips that it holds out."""
    from landscribe.inference.evaluation import score

    for fold in plan:
        model = trainings.model(fold.model, fold.splits)
        confusion = score(model, trainings.chips.with_splits(fold.splits).of_split("test"), f"assess {fold.model}")
        yield Fold(trainings.folder / fold.model, split_counts(fold.splits), confusion, fold.name)
