"""What is seen of a training while it runs: the progress bar, and its logs."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from landscribe import progress
from landscribe.outputs import refuse_file, require_writable

log = logging.getLogger(__name__)


class Report(lightning.Callback):
    """Tells the progress bar about steps and the last epoch's F1."""

    def __init__(self, advance: progress.Advance, *, by_time: bool) -> None:
        self.advance = advance
        self.by_time = by_time
        self._done = 0

    def on_train_start(self, trainer: Any, segmenter: Any) -> None:
        """A training that goes on does not begin at nothing."""
        self._tell(trainer, segmenter, "")

    def on_train_batch_end(self, trainer: Any, segmenter: Any, *_: Any) -> None:
        """One batch is done, and perhaps a step."""
        note = f"epoch {len(segmenter.history) + 1}, loss {float(segmenter.losses[-1]):.2f}"
        if segmenter.history and segmenter.history[-1]["val_mean_f1"] is not None:
            last = segmenter.history[-1]
            measured = [(entry.name, last[f"val_f1_{entry.name}"]) for entry in segmenter.model.classes.foreground]
            # A class that the validation chips do not have has no F1.
            scores = ", ".join(f"{name} {f1:.2f}" for name, f1 in measured if f1 is not None)
            note += f", F1 {last['val_mean_f1']:.2f}: {scores}"
        self._tell(trainer, segmenter, note)

    def _tell(self, trainer: Any, segmenter: Any, note: str) -> None:
        seconds = int(segmenter.share_done() * 60 * segmenter.spec.minutes) if self.by_time else 0
        done = seconds if self.by_time else trainer.global_step
        steps, self._done = done - self._done, done
        self.advance(steps, note)


class StepLog(lightning.Callback):
    """Writes loss and learning rate of each step to the loggers; epochs are written when their row is."""

    def __init__(self) -> None:
        self._written = 0

    def on_train_batch_end(self, trainer: Any, segmenter: Any, *_: Any) -> None:
        """Write when the optimiser has taken a step."""
        step = trainer.global_step
        if step == self._written:
            return
        self._written = step
        # The encoder's may be lower; the schedule is that of the highest.
        rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        for logger in trainer.loggers:
            logger.log_metrics({"train_loss": float(segmenter.losses[-1]), "learning_rate": rate}, step)


def loggers(folder: str | None) -> list[Logger]:
    """Where a training is logged: `metrics.csv`, and TensorBoard's files where it is installed.

    Each training gets a folder of its own in `folder`: version_0, version_1 and so on; one that goes on a new one.

    Raises:
        OutputError: the folder cannot be written.
    """
    if folder is None:
        return []
    refuse_file(Path(folder))
    require_writable(Path(folder) / "metrics.csv")
    csv = CSVLogger(folder, name="")
    if importlib.util.find_spec("tensorboard") is None:
        log.info("log: %s, as CSV only (for TensorBoard: pip install landscribe[tensorboard])", csv.log_dir)
        return [csv]
    log.info("log: %s, as CSV and for TensorBoard", csv.log_dir)
    return [csv, TensorBoardLogger(folder, name="", version=csv.version)]


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning announces devices and tips; a user of this package gets its own lines."""
    quietened = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in quietened]
    for logger in quietened:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(quietened, levels, strict=True):
            logger.setLevel(level)
