"""Cross-validation: a model for each fold, assessed on the chips that it has not seen."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from landscribe.errors import OutputError, RecipeError, machine_errors
from landscribe.fingerprint import Fingerprint, read_fingerprint
from landscribe.outputs import claim, os_errors, output_path, refuse_file, require_writable, write_text
from landscribe.spec import Pixels, Seed, checked
from landscribe.verbs import train
from landscribe.verbs.sources import Source, augmentation_of, open_chips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from landscribe.confusion import Confusion
    from landscribe.data.chips.chips import Chips
    from landscribe.verbs.keywords import TrainKeywords

log = logging.getLogger(__name__)

SETTINGS, RESULT = "settings.json", "folds.json"


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

    Folds whose model is there are not trained again, so that an interrupted call goes on with the same call.

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
    _require_one_process(dict(settings))
    fingerprint = _fingerprint(opened, dict(settings), folds=folds, gap=gap, seed=seed)
    splits = fold_splits(opened, folds, gap=gap, seed=seed)
    names = fold_names(opened, folds) or [""] * len(splits)
    with os_errors(out):
        refuse_file(out)
    with claim(out):
        return _train_folds(
            opened, out, list(zip(names, splits, strict=True)), fingerprint, seed=seed, overwrite=overwrite, **settings
        )


def _train_folds(
    opened: Chips,
    out: Path,
    folds: Sequence[tuple[str, Sequence[str]]],
    fingerprint: Fingerprint,
    *,
    seed: int,
    overwrite: bool,
    **settings: Unpack[TrainKeywords],
) -> CrossValidation:
    """Train and assess each fold, given as the name that it holds out and the split of each chip."""
    from landscribe.inference.evaluation import score
    from landscribe.model import Model

    _claim(out, fingerprint, overwrite=overwrite)
    done = []
    for number, (held_out, names) in enumerate(folds, 1):
        folder = out / f"fold_{number}"
        divided = replace(opened, table=opened.table.assign(split=names))
        counts = {name: names.count(name) for name in ("train", "val", "test", "gap")}
        if not folder.exists():
            summary = ", ".join(f"{count} {name}" for name, count in counts.items())
            log.info("%s of %d: %s", folder.name, len(folds), summary)
            train(divided, out=folder, seed=seed, **settings)
        # The user named the class in the settings.
        model = Model.load(folder, trust=settings.get("architecture", ()))
        confusion = score(model, divided.of_split("test"), f"assess {folder.name}")
        done.append(Fold(folder, counts, confusion, held_out))
    result = CrossValidation(tuple(done))
    write_text(out / RESULT, json.dumps(result.summary(), indent=1) + "\n")
    return result


def _require_one_process(settings: dict[str, Any]) -> None:
    """Refuse several processes: they end with a training, and here one follows the other."""
    from landscribe.training.parallel import processes

    count = processes(settings.get("devices", "auto")).count
    if count > 1:
        raise RecipeError(
            f"cross-validation trains its folds in one process, but {count} were asked for. Leave out devices, or "
            "train each fold with a command of its own."
        )


def _fingerprint(chips: Chips, settings: dict[str, Any], **rest: Any) -> Fingerprint:
    """All that decides the folds and their models."""
    from landscribe.inference.device import training_precision
    from landscribe.training.spec import WITHOUT_EFFECT, TrainSpec

    own = {name: value for name, value in settings.items() if name != "augment"}
    spec = TrainSpec.of(own)
    fields = {
        "chips_sha256": chips.sha256,
        "chips": len(chips),
        **rest,
        "train": spec.model_dump(mode="json", exclude=WITHOUT_EFFECT)
        | {"precision": training_precision(spec.precision)},
        "augment": augmentation_of(settings.get("augment", {})).model_dump(mode="json"),
    }
    return Fingerprint.of(fields)


def _claim(out: Path, fingerprint: Fingerprint, *, overwrite: bool) -> None:
    """Make `out` the folder of these settings, or resume it.

    Raises:
        OutputError: it holds a cross-validation with other settings, or other files.
    """
    path = out / SETTINGS
    with os_errors(out):
        is_empty = not out.exists() or not any(out.iterdir())
    if not is_empty:
        previous = read_fingerprint(path)
        if "chips_sha256" not in previous:
            # Any program may write a settings.json: files that are not ours are never removed.
            raise OutputError(f"{out} holds other files. Nothing was changed. Choose another path.")
        differences = fingerprint.differences(previous)
        if not differences:
            return
        if not overwrite:
            raise OutputError(
                f"{out} holds a cross-validation with another {differences}. Nothing was changed. Choose another path, "
                "or pass --overwrite."
            )
        _remove(out)
    require_writable(path)
    write_text(path, fingerprint.text)


def _remove(out: Path) -> None:
    """Remove the files of an earlier cross-validation, and nothing else."""
    for folder in out.glob("fold_*"):
        shutil.rmtree(folder, ignore_errors=True)
    for name in (SETTINGS, RESULT):
        (out / name).unlink(missing_ok=True)
