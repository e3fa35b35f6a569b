"""Checkpoints: the state from which a killed training resumes, in a folder beside the model until the model is saved.

`last.ckpt` holds the state at the end of an epoch; `training.json` identifies the training. No state of a random number
generator is saved: each epoch has its own seed. Reading the folder executes nothing in it.
"""

import logging
import pickle
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO
from pydantic import ValidationError

from landscribe.data.batches.sampling import ChipSampler
from landscribe.errors import (
    EngineError,
    LandscribeError,
    ModelError,
    NetworkError,
    OutputError,
    UnfinishedError,
    machine_errors,
)
from landscribe.fingerprint import Fingerprint, read_fingerprint
from landscribe.model import Model, Scaling
from landscribe.model.folder import CONFIG, SavedModel, read_saved
from landscribe.outputs import atomic_file, os_errors, remove_empty, remove_stale, remove_whole, write_text
from landscribe.spec import Spec
from landscribe.training.parallel import Processes
from landscribe.training.spec import with_weights_of

log = logging.getLogger(__name__)

# At least this many seconds of training for each second of writing. A thread writes meanwhile.
_TRAIN_TO_SAVE_RATIO = 10
CHIPS = {"chips": "other chips", "table": "other splits"}
"""Hashes in the fingerprint of a training, in words."""


class InitialState(Spec):
    """Choices at the start of a training that a resumed one keeps: the hub may answer differently later."""

    weights: str
    """One line about the initial weights."""
    terms: dict[str, Any]
    """Source and license of these weights."""
    scaling: Scaling
    learning_rate: float | None
    """None until the learning rate finder has run."""


class _Record(Spec):
    """The content of `training.json`."""

    fingerprint: dict[str, Any]
    """Of the training: all that decides the resulting weights."""
    start: InitialState


class Checkpoints:
    """The folder of one training's checkpoints: M.training beside the model folder M."""

    def __init__(self, out: Path, fingerprint: Fingerprint) -> None:
        self.folder = checkpoint_folder(out)
        self.last = self.folder / "last.ckpt"
        self.fingerprint = fingerprint
        self._record = self.folder / "training.json"
        self._new_folders = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]

    def resume(self, *, overwrite: bool) -> InitialState | None:
        """The initial state of the unfinished training in the folder; None if there is none.

        Args:
            overwrite: ignore a training with other settings, or an unreadable one.

        Raises:
            OutputError: the folder holds a training with other settings, or cannot be read.
        """
        if not self.last.exists():
            return None
        try:
            record = _Record.model_validate_json(self._record.read_bytes())
        except (OSError, ValidationError) as error:
            if overwrite:
                return None
            raise OutputError(
                f"{self._record} cannot be read ({type(error).__name__}). Expected the record of a training. "
                "Remove the folder, or pass --overwrite to start again."
            ) from error
        differences = _differences(self.fingerprint, record.fingerprint, record.start.terms)
        if not differences:
            return record.start
        if overwrite:
            return None
        raise OutputError(
            f"{self.folder} holds an unfinished training with {differences}. Nothing was changed. Resume with "
            "the same settings, choose another --out, or pass --overwrite to start again."
        )

    @contextmanager
    def kept(self, out: Path, group: Processes) -> Iterator[None]:
        """Keep the checkpoint of a training that a full disk, a lost drive or the end of another process stopped.

        The checkpoint of a training whose loss is not finite is removed: resumed, it would fail again.

        Args:
            out: the model folder.
            group: the processes that train; rank 0 keeps and removes.

        Raises:
            EngineError: another process ended, and there is no checkpoint.
            UnfinishedError: the block failed, and a checkpoint is kept for the same call.
        """
        try:
            with machine_errors():
                yield
        except LandscribeError as error:
            if isinstance(error, NetworkError) and not group.is_rank_zero:
                # The loss is that of all processes: rank 0 reports it.
                raise SystemExit(2) from error
            is_of_disk = isinstance(error.__cause__, OSError)
            if not group.is_rank_zero or not (is_of_disk or isinstance(error, NetworkError)):
                raise
            if not is_of_disk or not self.last.exists():
                self.remove()
                raise
            raise UnfinishedError(
                f"{out} is not finished: {error} The state of its last epoch is kept in {self.folder.name}: fix the "
                "cause and repeat the same command, or remove that folder."
            ) from error
        except RuntimeError as error:
            if not group.is_rank_zero or not group.is_lost_to(error):
                raise
            ended = (
                f"{out} is not finished: another of the {group.count} processes that train it ended. Its message is "
                "above; without one, the system ended it, usually for lack of memory."
            )
            if not self.last.exists():
                self.remove()
                raise EngineError(f"{ended} Fix the cause and repeat the same command.") from error
            raise UnfinishedError(
                f"{ended} The state of the last epoch is kept in {self.folder.name}: fix the cause and repeat the same "
                "command, or remove that folder."
            ) from error

    def save(self, trainer: lightning.Trainer, start: InitialState) -> None:
        """Save the state of a training; all processes must call this."""
        if trainer.is_global_zero and not self._record.exists():
            record = _Record(fingerprint=self.fingerprint.fields, start=start)
            write_text(self._record, record.model_dump_json(indent=1) + "\n")
        trainer.save_checkpoint(self.last, weights_only=False)

    def remove(self) -> None:
        """Remove the folder, and those of its parents that were created for it."""
        with os_errors(self.folder):
            # The state first: it must never lie beside the record of another training.
            self.last.unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
        remove_empty(self._new_folders)

    def remove_finished(self, model: Model) -> None:
        """Remove what a kill left after the model was saved; the checkpoint of another training stays."""
        if read_fingerprint(self._record).get("fingerprint") == model.provenance["training"]["fingerprint"]:
            self.remove()

    def remove_stale(self) -> None:
        """Remove half-written files of a killed training."""
        remove_stale(self.last)
        remove_stale(self._record)


def checkpoint_folder(out: Path) -> Path:
    """The folder of the checkpoints of the model folder `out`."""
    return out.with_name(f"{out.name}.training")


def remove_leftover(out: Path) -> None:
    """Remove the checkpoints of a finished model: a kill came after the model was saved, and before they were gone."""
    remove_whole(checkpoint_folder(out))


def finished_model(out: Path, fingerprint: Fingerprint) -> Model | None:
    """The model that an earlier training with this fingerprint left in `out`; None if there is no model.

    Raises:
        OutputError: the model is of another training, or may be: it depends on a user's code, was changed after its
            training, or cannot be read.
    """
    if not (out / CONFIG).exists():
        return None
    try:
        saved = read_saved(out)
    except ModelError as error:
        raise _exists(out, f"a model that cannot be read: {str(error).split('. ', 1)[0]}") from error
    provenance = saved.config.provenance
    if reason := _doubt(saved):
        raise _exists(out, f"a model that {reason}")
    terms = provenance.get("encoder_weights", {})
    if differences := _differences(fingerprint, provenance["training"]["fingerprint"], terms):
        raise _exists(out, f"a model trained with {differences}")
    log.info("%s is trained already with these settings. Nothing was done", out)
    log.info(provenance["weights"])
    return Model.load(out)


def _doubt(saved: SavedModel) -> str:
    """Why the fingerprint of its training does not decide a model; empty if it does."""
    provenance = saved.config.provenance
    training = provenance.get("training", {})
    if saved.config.is_code or provenance.get("changed_by") is not None:
        return "was trained with code of your own, which may have changed"
    if not training:
        return "has no record of its training"
    return "" if training.get("model_sha256") == saved.sha256 else "was changed after its training"


def _exists(out: Path, content: str) -> OutputError:
    return OutputError(
        f"{out} exists already, as {content}. Nothing was changed. Choose another path, or pass --overwrite."
    )


def _differences(fingerprint: Fingerprint, other: dict[str, Any], terms: dict[str, Any]) -> str:
    """What differs from an earlier training, whose initial weights have these terms; empty if nothing does."""
    now = fingerprint.fields["train"]
    train = with_weights_of(other.get("train", {}), now)
    if train.get("weights") == "auto" and now["weights"] == terms.get("source"):
        train = train | {"weights": now["weights"]}
    return fingerprint.other_than(other | {"train": train}, CHIPS)


class EpochCheckpoint(Checkpoint):
    """Saves a checkpoint at the end of an epoch, and sets the order of chips at its start.

    Epochs are counted by the history. Lightning's counter is one ahead after a restart: Lightning runs the end of the
    last epoch again, without a step.
    """

    # A subclass of Checkpoint, because Lightning calls these after the module itself, which closes the epoch.

    def __init__(
        self, checkpoints: Checkpoints, files: "AtomicCheckpointIO", start: InitialState, order: ChipSampler
    ) -> None:
        self.checkpoints = checkpoints
        self.files = files
        self.start = start
        self.order = order
        self._saved = 0
        self._ended = 0.0

    def on_load_checkpoint(self, trainer: Any, segmenter: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Set the order of the next epoch: reader processes request its chips before it starts."""
        self.order.epoch = self._saved = len(checkpoint["landscribe"]["history"])

    def on_train_start(self, trainer: Any, segmenter: Any) -> None:
        """Without validation, start with a new epoch.

        After a restart, Lightning takes an epoch as finished once it is validated, and would draw one batch more.
        """
        if not segmenter.validates:
            trainer.fit_loop.reset_restart_stage()
            trainer.fit_loop.epoch_loop.restarting = False

    def on_train_epoch_start(self, trainer: Any, segmenter: Any) -> None:  # noqa: ARG002
        """Set the order of this epoch, which does not depend on earlier ones."""
        self.order.epoch = len(segmenter.history)

    def on_train_epoch_end(self, trainer: lightning.Trainer, segmenter: Any) -> None:
        """Save, unless the epoch is not yet validated, or too little time has passed since the last checkpoint."""
        if segmenter.has_unlogged_steps or len(segmenter.history) == self._saved or not self._is_due(trainer):
            return
        self.checkpoints.save(trainer, self.start)
        self._saved, self._ended = len(segmenter.history), time.monotonic()

    def _is_due(self, trainer: lightning.Trainer) -> bool:
        """True if writing takes a small part of the time; the clock of rank 0 decides for all processes."""
        is_due = time.monotonic() - self._ended >= _TRAIN_TO_SAVE_RATIO * self.files.seconds
        return bool(trainer.strategy.broadcast(is_due))


class AtomicCheckpointIO(CheckpointIO):
    """Writes checkpoints whole or not at all; reads only tensors and plain values from them."""

    def __init__(self) -> None:
        self._began, self._seconds = 0.0, 0.0
        self._is_writing = False

    @property
    def seconds(self) -> float:
        """Seconds of the last writing, or of the present one so far."""
        return time.monotonic() - self._began if self._is_writing else self._seconds

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write to a temporary file, flush it to the disk, rename it."""
        self._began, self._is_writing = time.monotonic(), True
        try:
            self._write(checkpoint, Path(path))
        finally:
            self._seconds, self._is_writing = self.seconds, False

    def _write(self, checkpoint: dict[str, Any], path: Path) -> None:
        with atomic_file(path) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:
                # torch's own writer does not name the reason, which is nearly always a full disk.
                free = shutil.disk_usage(temporary.parent).free
                raise OSError(f"torch cannot write the checkpoint ({free / 1e6:.3g} MB are free)") from error

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint into the CPU's memory; Lightning copies it to the device.

        Raises:
            OutputError: the file is damaged.
        """
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, LookupError, pickle.UnpicklingError) as error:
            raise OutputError(
                f"{path} cannot be read ({type(error).__name__}). Expected the checkpoint of an unfinished training. "
                f"Remove {Path(path).parent} to start again."
            ) from error
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)
