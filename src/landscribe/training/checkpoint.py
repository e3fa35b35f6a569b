"""Checkpoints: what a killed training goes on from, in a folder beside the model until that is whole.

`last.ckpt` is all that the end of an epoch leaves to the next; `training.json` says which training it is of. Chance
needs no state, since each epoch draws from a seed of its own. Nothing in the folder is executed when it is read.
"""

import json
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO
from pydantic import ValidationError

from landscribe.data.batches.sampling import ChipSampler
from landscribe.errors import OutputError
from landscribe.model import Scaling
from landscribe.outputs import atomic_file, os_errors, remove_empty, remove_stale, write_text
from landscribe.spec import Spec

# Training takes at least as many times longer than saving, so that saving takes less than a tenth of the whole.
_PAUSE = 10


class Start(Spec):
    """What a training began with and does not look for again when it goes on: a hub may answer otherwise then."""

    weights: str
    """In one line, which weights the network started from."""
    terms: dict[str, Any]
    """Under which terms these are."""
    scaling: Scaling
    learning_rate: float | None
    """None while it is to be found."""


class _Record(Spec):
    """What `training.json` holds."""

    identity: dict[str, Any]
    """All that decides the result."""
    start: Start


class Checkpoints:
    """The folder of one training's checkpoints: M.training beside the model M."""

    def __init__(self, out: Path, identity: dict[str, Any]) -> None:
        self.folder = out.with_name(f"{out.name}.training")
        self.last = self.folder / "last.ckpt"
        self.identity = identity
        self._record = self.folder / "training.json"
        self._made = [place for place in (self.folder, *self.folder.parents) if not place.exists()]

    def found(self, *, overwrite: bool) -> Start | None:
        """What the same training began with, if it was ended before its model was whole; None if there is nothing.

        Args:
            overwrite: pass over another training.

        Raises:
            OutputError: what stands there is of another training, or unreadable.
        """
        if not self.last.exists():
            return None
        try:
            record = _Record.model_validate_json(self._record.read_bytes())
        except (OSError, ValidationError) as error:
            if overwrite:
                return None
            raise OutputError(
                f"{self._record} cannot be read ({type(error).__name__}). What an unfinished training left was "
                "expected. Remove the folder, or pass --overwrite to begin anew."
            ) from error
        other = _differences(record.identity, json.loads(json.dumps(self.identity)))
        if not other:
            return record.start
        if overwrite:
            return None
        raise OutputError(
            f"{self.folder} holds an unfinished training with other settings: {'; '.join(other[:3])}"
            f"{f' and {len(other) - 3} more' if len(other) > 3 else ''}. Nothing was changed. Go on with the same "
            "settings, choose another --out, or pass --overwrite to begin anew."
        )

    def save(self, trainer: lightning.Trainer, start: Start) -> None:
        """Write the state of a training; all its processes take part."""
        if trainer.is_global_zero and not self._record.exists():
            write_text(self._record, _Record(identity=self.identity, start=start).model_dump_json(indent=1) + "\n")
        trainer.save_checkpoint(self.last, weights_only=False)

    def remove(self) -> None:
        """Take the folder away, and what was made to hold it."""
        with os_errors(self.folder):
            # First what is gone on from, so that no moment leaves it beside another training's record.
            self.last.unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
        remove_empty(self._made)

    def sweep(self) -> None:
        """Take away what a kill left half-written."""
        remove_stale(self.last)
        remove_stale(self._record)


def _differences(there: dict[str, Any], here: dict[str, Any], where: str = "") -> list[str]:
    """What of two nested tables is not the same, in words."""
    found = []
    for name in dict.fromkeys((*there, *here)):
        one, other, place = there.get(name), here.get(name), f"{where}{name}"
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differences(one, other, f"{place}.")
        elif one != other:
            found.append(f"{place} is {_short(one)} there and {_short(other)} here")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 16 else f"{text[:12]}…"


class EveryEpoch(Checkpoint):
    """Saves at the end of an epoch, of each that is not short, and begins each with its own order of chips.

    Epochs are counted by the history. Lightning's counter is one ahead after a restart: it goes through the end of the
    last epoch once more, without a step.
    """

    # Lightning calls what is a Checkpoint after the module itself, which closes the epoch.

    def __init__(self, checkpoints: Checkpoints, start: Start, order: ChipSampler) -> None:
        self.checkpoints = checkpoints
        self.start = start
        self.order = order
        self._saved = 0
        self._seconds, self._ended = 0.0, 0.0

    def on_load_checkpoint(self, trainer: Any, segmenter: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Go on with the next epoch; readers ask for its chips before it starts."""
        self.order.epoch = self._saved = len(checkpoint["landscribe"]["history"])

    def on_train_epoch_start(self, trainer: Any, segmenter: Any) -> None:  # noqa: ARG002
        """Draw the order of this epoch, whatever was drawn before."""
        self.order.epoch = len(segmenter.history)

    def on_train_epoch_end(self, trainer: lightning.Trainer, segmenter: Any) -> None:
        """Save, unless the epoch's validation is still to come, or epochs are too short to save each."""
        if segmenter.is_epoch_open or len(segmenter.history) == self._saved or not self._is_time(trainer):
            return
        began = time.monotonic()
        self.checkpoints.save(trainer, self.start)
        self._saved, self._ended = len(segmenter.history), time.monotonic()
        self._seconds = self._ended - began

    def _is_time(self, trainer: lightning.Trainer) -> bool:
        """True if this does not take too much of the time; the first process's clock decides for all."""
        return bool(trainer.strategy.broadcast(time.monotonic() - self._ended >= _PAUSE * self._seconds))


class WholeFiles(CheckpointIO):
    """Writes checkpoints whole or not at all, and reads nothing from them but tensors and plain values."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write under a temporary name, flush to the disk, rename."""
        with atomic_file(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read onto the CPU; what is needed elsewhere is copied there.

        Raises:
            OutputError: the file is damaged.
        """
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, LookupError, pickle.UnpicklingError) as error:
            raise OutputError(
                f"{path} cannot be read ({type(error).__name__}). The state of an unfinished training was expected. "
                f"Remove {Path(path).parent} to begin anew."
            ) from error
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Take a checkpoint away."""
        Path(path).unlink(missing_ok=True)
