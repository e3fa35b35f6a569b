"""Trainings: several models of one chips folder in one folder, which an interrupted call completes."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscribe.errors import OutputError
from landscribe.fingerprint import Fingerprint, read_fingerprint
from landscribe.outputs import os_errors, refuse_file, remove_whole, require_writable, write_text
from landscribe.runs import FOLDS
from landscribe.verbs import train_chips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from landscribe.data.batches.augment_spec import AugmentSpec
    from landscribe.data.chips.chips import Chips
    from landscribe.model import Model
    from landscribe.training.spec import TrainSpec

log = logging.getLogger(__name__)

SETTINGS = "settings.json"
RESULTS = {"fold": FOLDS, "group": "transfer.json"}
"""File of the result, by the word that the names of the model folders begin with."""
_CHIPS = {"chips_sha256": "other chips", "chips": "other chips", "table": "other splits"}
"""Fields of the settings that are hashes and a count, in words."""
_MODEL = re.compile(rf"({'|'.join(RESULTS)})_([0-9]+|all)(\.training)?")


@dataclass(frozen=True)
class Trainings:
    """A folder for models that are trained on parts of the same chips with the same settings."""

    folder: Path
    chips: Chips
    spec: TrainSpec
    augmentation: AugmentSpec
    seed: int
    overwrite: bool = False
    """Remove the models and results of other settings, and unfinished trainings."""

    def claim(self, **rest: Any) -> None:
        """Make the folder that of these settings, or resume it.

        Args:
            rest: what else decides the models.

        Raises:
            RecipeError: several processes were asked for.
            OutputError: the folder holds trainings with other settings, or other files.
        """
        from landscribe.training.parallel import require_one_process

        require_one_process(self.spec.devices)
        with os_errors(self.folder):
            refuse_file(self.folder)
        _claim(self.folder, self._fingerprint(**rest), overwrite=self.overwrite)

    def model(self, name: str, splits: Sequence[str]) -> Model:
        """The model in the subfolder `name`, trained if it is not there.

        Args:
            name: of the subfolder.
            splits: the split of each chip.
        """
        from landscribe.model import Model
        from landscribe.training.checkpoint import remove_leftover

        folder = self.folder / name
        if folder.exists():
            remove_leftover(folder)
        else:
            counts = split_counts(splits).items()
            log.info("%s: %s", name, ", ".join(f"{count} {split}" for split, count in counts if count))
            train_chips(
                self.chips.with_splits(splits), self._spec_with_weights(), self.augmentation,
                out=folder, seed=self.seed, overwrite=self.overwrite,
            )  # fmt: skip
        # The user named the class in the settings.
        return Model.load(folder, trust=self.spec.architecture)

    def _spec_with_weights(self) -> TrainSpec:
        """With the initial weights of the models that are there: the hub of weights may answer differently later."""
        from landscribe.model import Model

        names = sorted(path.name for path in self.folder.iterdir() if _MODEL.fullmatch(path.name))
        first = next((name for name in names if not name.endswith(".training")), None)
        if first is None:
            return self.spec
        model = Model.load(self.folder / first, trust=self.spec.architecture)
        return self.spec.model_copy(update={"weights": initial_weights(self.spec, model)})

    def _fingerprint(self, **rest: Any) -> Fingerprint:
        """All that decides the models."""
        from landscribe.inference.device import training_precision

        fields = {
            "chips_sha256": self.chips.sha256,
            "chips": len(self.chips),
            "table": self.chips.table_sha256,
            "seed": self.seed,
            **rest,
            "train": self.spec.decisive | {"precision": training_precision(self.spec.precision)},
            "augment": self.augmentation.model_dump(mode="json"),
        }
        return Fingerprint.of(fields)


def initial_weights(spec: TrainSpec, model: Model) -> str:
    """The weights from which a model with these settings started: where auto is set, those that it stood for."""
    source: str = model.provenance["encoder_weights"]["source"]
    return source if spec.weights == "auto" else spec.weights


def split_counts(splits: Sequence[str]) -> dict[str, int]:
    """How many chips each split has."""
    return {name: list(splits).count(name) for name in ("train", "val", "test", "gap")}


def _claim(out: Path, fingerprint: Fingerprint, *, overwrite: bool) -> None:
    """Make `out` the folder of these settings, or resume it.

    Raises:
        OutputError: it holds trainings with other settings, or other files.
    """
    from landscribe.training.spec import with_weights_of

    path = out / SETTINGS
    with os_errors(out):
        is_empty = not out.exists() or not any(out.iterdir())
    if not is_empty:
        previous = read_fingerprint(path)
        if "chips_sha256" not in previous:
            # Any program may write a settings.json: files that are not ours are never removed.
            raise OutputError(f"{out} holds other files. Nothing was changed. Choose another path.")
        train = with_weights_of(previous["train"], fingerprint.fields["train"])
        differences = fingerprint.other_than(previous | {"train": train}, _CHIPS)
        if not differences:
            return
        if not overwrite:
            raise OutputError(
                f"{out} holds models trained with {differences}. Nothing was changed. Choose another path, "
                "or pass --overwrite."
            )
        _remove(out)
    require_writable(path)
    write_text(path, fingerprint.text)


def _remove(out: Path) -> None:
    """Remove the files of earlier trainings, and nothing else."""
    with os_errors(out):
        for folder in out.iterdir():
            if _MODEL.fullmatch(folder.name):
                remove_whole(folder)
        for name in (SETTINGS, *RESULTS.values()):
            (out / name).unlink(missing_ok=True)
