"""Folds in a report: the models of a cross-validated run, the fold of each chip, and their curves."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex

from landscribe.data.chips.chips import Chips
from landscribe.errors import RecipeError
from landscribe.model.folder import SavedModel, read_saved
from landscribe.reports.figures import SPLIT_COLOURS, Line
from landscribe.runs import Run, fold_models

_FEW = 10
"""Folds up to which each has a colour of Matplotlib's qualitative palette."""


@dataclass(frozen=True)
class Folds:
    """The folds of a run."""

    summary: Mapping[str, Any]
    """`CrossValidation.as_dict()`."""
    models: Sequence[SavedModel]
    """One for each fold."""
    of_chip: Sequence[int]
    """Of each chip, the number of the fold that holds it out, from 1."""

    @classmethod
    def of_run(cls, run: Run, chips: Chips) -> "Folds | None":
        """Read the folds of a run; None if it has none.

        Raises:
            LandscribeError: a model, the measures or the table of chips are missing or damaged.
        """
        summary = run.read_folds()
        if summary is None:
            return None
        models = [read_saved(folder) for folder in fold_models(run.folds_folder)]
        try:
            rows = csv.DictReader(run.fold_table.read_text(encoding="utf-8").splitlines())
            numbers = {row["chip"]: int(row["fold"]) for row in rows}
            return cls(summary, models, [numbers[chip] for chip in chips.ids])
        except (OSError, KeyError, ValueError) as error:
            raise RecipeError(
                f"{run.fold_table} does not name the fold of each chip ({type(error).__name__}: {error}). Repeat the "
                "run."
            ) from error

    @property
    def names(self) -> list[str]:
        """Of each fold: the scene or group that it holds out, or its number."""
        return [fold.get("held_out") or f"fold {number}" for number, fold in enumerate(self.summary["folds"], 1)]

    @property
    def colours(self) -> dict[str, str]:
        """By name."""
        count = len(self.names)
        palette = mpl.colormaps["tab10" if count <= _FEW else "turbo"]
        shades = [palette(index if count <= _FEW else index / (count - 1)) for index in range(count)]
        return {name: to_hex(shade) for name, shade in zip(self.names, shades, strict=True)}

    @property
    def splits(self) -> list[str]:
        """The name of each chip's fold."""
        return [self.names[number - 1] for number in self.of_chip]

    @property
    def epochs(self) -> list[int]:
        """Of the longest training."""
        return list(range(1, 1 + max((len(model.config.history) for model in self.models), default=0)))

    @property
    def losses(self) -> list[Line]:
        """Training and validation loss of each fold, with the same two labels."""
        quantities = (("training", "train_loss", "train"), ("validation", "val_loss", "val"))
        return [
            Line(label, SPLIT_COLOURS[split], self._values(model, quantity))
            for model in self.models
            for label, quantity, split in quantities
        ]

    @property
    def scores(self) -> list[Line]:
        """Mean F1 on the validation chips of each fold."""
        named = zip(self.colours.items(), self.models, strict=True)
        return [Line(name, colour, self._values(model, "val_mean_f1")) for (name, colour), model in named]

    def _values(self, model: SavedModel, quantity: str) -> list[float | None]:
        measured = [row.get(quantity) for row in model.config.history]
        return measured + [None] * (len(self.epochs) - len(measured))
