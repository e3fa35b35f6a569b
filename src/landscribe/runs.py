"""A run folder as a noun: the recipe, chips, model, maps, assessment and report of one `landscribe run`.

This module lies below the steps and above the nouns that it opens: the pipeline writes a run, the report reads it, and
neither imports the other.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from landscribe.errors import RecipeError
from landscribe.outputs import remove_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from landscribe.data.chips.chips import Chips
    from landscribe.model import Model
    from landscribe.model.folder import SavedModel

FOLDS = "folds.json"
"""File of the measures of a cross-validation, in the folder of its models."""
_LEARNT = ("chips", "model", "model.training", "assessed", "final", "final.training")
_MAPS = ("map.tif", "map.tif.parts", "map.qml", "map.tif.aux.xml", "map.gpkg", "maps", "objects", "objects.tif")
_FOLD = re.compile("fold_([0-9]+)")


@dataclass(frozen=True)
class Run:
    """Where the files of a run lie. A file need not exist yet."""

    folder: Path

    @property
    def recipe_file(self) -> Path:
        """The recipe that the run follows, complete and with absolute paths."""
        return self.folder / "recipe.toml"

    @property
    def chips_folder(self) -> Path:
        """Chips of all splits."""
        return self.folder / "chips"

    @property
    def fingerprint_file(self) -> Path:
        """What decided the chips, models and maps: settings, and states of the files that were cut, as JSON."""
        return self.folder / "fingerprint.json"

    @property
    def model_folder(self) -> Path:
        """The trained model."""
        return self.folder / "model"

    @property
    def final_folder(self) -> Path:
        """The final model while it is not yet the run's model."""
        return self.folder / "final"

    @property
    def assessed_folder(self) -> Path:
        """Model and maps that are assessed, where a final model makes the maps of the run."""
        return self.folder / "assessed"

    @property
    def assessed(self) -> Run:
        """The run whose maps are assessed: this one, unless it has folds or there is an `assessed_folder`."""
        if self.has_folds:
            return self.out_of_fold
        return Run(self.assessed_folder) if self.assessed_folder.exists() else self

    @property
    def has_folds(self) -> bool:
        """True if models of folds are in place of the run's model."""
        return self.folds_folder.exists() and not self.model_folder.exists()

    @property
    def folds_folder(self) -> Path:
        """Models and out-of-fold maps of a cross-validation, where all models together make the maps of the run."""
        return self.folder / "folds"

    @property
    def out_of_fold(self) -> Run:
        """The run that holds the out-of-fold maps: each chip by the model that has not seen it."""
        return Run(self.folds_folder)

    @property
    def parts_folder(self) -> Path:
        """Maps by the model of each fold, while the out-of-fold maps are not finished."""
        return self.folds_folder / "parts"

    @property
    def folds_file(self) -> Path:
        """Accuracy measures of each fold, as JSON."""
        return self.folds_folder / FOLDS

    @property
    def fold_table(self) -> Path:
        """The fold that holds out each chip, as CSV."""
        return self.folds_folder / "chips.csv"

    @property
    def assessment_file(self) -> Path:
        """Accuracy measures, as JSON."""
        return self.folder / "assessment.json"

    @property
    def reference_file(self) -> Path:
        """Accuracy measures against an independent reference, if the recipe names one, as JSON."""
        return self.folder / "assessment_reference.json"

    @property
    def sample_file(self) -> Path:
        """Accuracy and areas that a reference sample of the map estimates, as JSON: `assess -o` may write it there."""
        return self.folder / "assessment_sample.json"

    @property
    def report_file(self) -> Path:
        """The report, one HTML page."""
        return self.folder / "report.html"

    @property
    def map_files(self) -> list[Path]:
        """The class maps that exist: `map.tif`, or all in `maps/`, in the order of the scenes."""
        single = self.folder / "map.tif"
        return [single] if single.exists() else sorted((self.folder / "maps").glob("*.tif"))

    @property
    def polygon_files(self) -> list[Path]:
        """The polygons of the maps that exist, beside them."""
        return [path.with_suffix(".gpkg") for path in self.map_files if path.with_suffix(".gpkg").exists()]

    def planned_map_files(self, scenes: Sequence[str]) -> list[Path]:
        """Where the map of each scene goes: `map.tif` for a single scene, else `maps/INDEX_NAME.tif`."""
        if len(scenes) == 1:
            return [self.folder / "map.tif"]
        return [self.folder / "maps" / f"{index:03d}_{scene}.tif" for index, scene in enumerate(scenes)]

    def object_file(self, mapped: Path) -> Path:
        """Where the object probabilities of a map go: `objects.tif`, or `objects/` with one for each map."""
        if mapped.parent == self.folder:
            return self.folder / "objects.tif"
        return self.folder / "objects" / mapped.name

    @property
    def example(self) -> str | None:
        """The example of the lecture that the recipe follows; None if it follows none, or there is no recipe."""
        try:
            return tomllib.loads(self.recipe_file.read_text(encoding="utf-8")).get("like")
        except (OSError, ValueError):
            return None

    def open_chips(self) -> Chips:
        """The chips.

        Raises:
            ChipError: the folder is missing or damaged.
        """
        from landscribe.data.chips.chips import Chips

        return Chips.open(self.chips_folder)

    def load_model(self, *, trust: str = "") -> Model:
        """The model; `trust` is as for `Model.load`.

        Raises:
            ModelError: the folder is missing or damaged.
        """
        from landscribe.model import Model

        return Model.load(self.model_folder, trust=trust)

    def read_model(self) -> SavedModel:
        """The model's config and hash; its network is not built.

        Raises:
            ModelError: the folder is missing or damaged.
        """
        from landscribe.model.folder import read_saved

        return read_saved(self.model_folder)

    def read_assessment(self) -> dict[str, Any]:
        """The accuracy measures on the held-out chips, as `Assessment.as_dict` gave them.

        Assessed maps that are not the run's own, but have the same names, are named with their folder.

        Raises:
            RecipeError: the file is missing or damaged, or holds other measures.
        """
        measures = self._read_measures(self.assessment_file)
        if self.assessed != self:
            measures["maps"] = [path.relative_to(self.folder).as_posix() for path in self.assessed.map_files]
        return measures

    def read_folds(self) -> dict[str, Any] | None:
        """The accuracy measures of each fold, as `CrossValidation.as_dict` gave them; None if the run has no folds.

        Raises:
            RecipeError: the file is missing or damaged.
        """
        return self._read_measures(self.folds_file, "folds") if self.has_folds else None

    def read_reference_assessment(self) -> dict[str, Any] | None:
        """The accuracy measures against the independent reference; None if the run has none.

        Raises:
            RecipeError: the file is damaged.
        """
        return self._read_measures(self.reference_file) if self.reference_file.exists() else None

    def read_sample_assessment(self) -> dict[str, Any] | None:
        """What a reference sample estimates; None if the run folder has no `sample_file`.

        Raises:
            RecipeError: the file is damaged.
        """
        return self._read_measures(self.sample_file, "estimator") if self.sample_file.exists() else None

    def _read_measures(self, path: Path, key: str = "confusion") -> dict[str, Any]:
        """The measures in a file, which are those of the kind that has this key."""
        try:
            measures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RecipeError(
                f"{self.folder} has no readable {path.name} ({error}). Expected the folder of a "
                'finished "landscribe run". Check the path, or repeat the run.'
            ) from error
        if not isinstance(measures, dict) or key not in measures:
            raise RecipeError(
                f"{path} does not hold the measures that its name says: it has no '{key}'. Write other measures to "
                "another file, remove this one, and repeat the run."
            )
        return measures

    @property
    def content(self) -> list[Path]:
        """The files and folders that exist and that steps of a run write; those of folds only if it has folds."""
        folds = ("folds",) if self.has_folds else ()
        names = (*_LEARNT, *folds, *_MAPS, *(file.name for file in self._measures))
        return [self.folder / name for name in names if (self.folder / name).exists()]

    @property
    def _measures(self) -> tuple[Path, ...]:
        """What the assessment and the report write."""
        return (self.assessment_file, self.reference_file, self.sample_file, self.report_file)

    def remove(self) -> None:
        """Remove the files of a run, and no others."""
        for path in (*self.content, self.recipe_file, self.fingerprint_file):
            remove_whole(path)

    def remove_maps(self) -> None:
        """Remove the maps, finished or not, and the measures of them."""
        folders = {self.folder, self.assessed.folder}
        for path in (*(folder / name for folder in folders for name in _MAPS), self.parts_folder, *self._measures):
            remove_whole(path)


def fold_models(folder: Path) -> list[Path]:
    """The model folders of a finished cross-validation, in the order of its folds; empty if the folder holds none."""
    if not (folder / FOLDS).is_file():
        return []
    numbers = {path: _FOLD.fullmatch(path.name) for path in folder.iterdir()}
    found = [(int(match[1]), path) for path, match in numbers.items() if match is not None]
    return [path for _, path in sorted(found)]
