"""Progress bar, logs and compilation of a running training."""

import importlib.util
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from landscribe import progress
from landscribe.nn.segmentation import Segmentation
from landscribe.outputs import refuse_file, require_writable
from landscribe.training.spec import TrainSpec

log = logging.getLogger(__name__)


# The progress bar and the logs look at losses this rarely, in seconds and steps: a look waits for the device.
_SECONDS_A_NOTE, _STEPS_A_FLUSH = 0.5, 50


class ProgressCallback(lightning.Callback):
    """Advances the progress bar by steps, with the last epoch's F1 as its note."""

    def __init__(self, advance: progress.Advance, *, by_time: bool) -> None:
        self.advance = advance
        self.by_time = by_time
        self._done = 0
        self._note, self._noted, self._epochs = "", 0.0, -1

    def on_train_start(self, trainer: Any, segmenter: Any) -> None:
        """Advance to the steps of a resumed training."""
        self._advance(trainer, segmenter, "")

    def on_train_batch_end(self, trainer: Any, segmenter: Any, *_: Any) -> None:
        """Advance by the steps of one batch, 0 or 1."""
        epochs = len(segmenter.history)
        if epochs != self._epochs or time.monotonic() - self._noted >= _SECONDS_A_NOTE:
            self._note, self._noted, self._epochs = self._described(segmenter), time.monotonic(), epochs
        self._advance(trainer, segmenter, self._note)

    def _described(self, segmenter: Any) -> str:
        note = f"epoch {len(segmenter.history) + 1}, loss {float(segmenter.losses[-1]):.2f}"
        if segmenter.history and segmenter.history[-1]["val_mean_f1"] is not None:
            last = segmenter.history[-1]
            f1_by_class = [(entry.name, last[f"val_f1_{entry.name}"]) for entry in segmenter.model.classes.foreground]
            # F1 is None for a class that the validation chips lack.
            scores = ", ".join(f"{name} {f1:.2f}" for name, f1 in f1_by_class if f1 is not None)
            note += f", F1 {last['val_mean_f1']:.2f}: {scores}"
        return note

    def _advance(self, trainer: Any, segmenter: Any, note: str) -> None:
        seconds = int(segmenter.fraction_done() * 60 * segmenter.spec.minutes) if self.by_time else 0
        done = seconds if self.by_time else trainer.global_step
        steps, self._done = done - self._done, done
        self.advance(steps, note)


class StepLogger(lightning.Callback):
    """Logs loss and learning rate of each step. The Segmenter logs the row of each epoch."""

    def __init__(self) -> None:
        self._noted = 0
        self._rows: list[tuple[int, Any, float]] = []

    def on_train_batch_end(self, trainer: Any, segmenter: Any, *_: Any) -> None:
        """Note the step, if the optimiser has taken one."""
        step = trainer.global_step
        if step == self._noted:
            return
        self._noted = step
        # The encoder's rate may be lower; the schedule defines the highest one.
        rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        self._rows.append((step, segmenter.losses[-1], rate))
        if len(self._rows) == _STEPS_A_FLUSH:
            self._flush(trainer)

    def on_train_epoch_end(self, trainer: Any, segmenter: Any) -> None:  # noqa: ARG002
        """Log the steps of the epoch before its row."""
        self._flush(trainer)

    def on_train_end(self, trainer: Any, segmenter: Any) -> None:  # noqa: ARG002
        """Log the steps of an epoch that the budget ends."""
        self._flush(trainer)

    def _flush(self, trainer: Any) -> None:
        for step, loss, rate in self._rows:
            for logger in trainer.loggers:
                logger.log_metrics({"train_loss": float(loss), "learning_rate": rate}, step)
        self._rows = []


def loggers(folder: str | None) -> list[Logger]:
    """Loggers to `metrics.csv`, and to TensorBoard's files if TensorBoard is installed.

    Each training, and each resumed one, logs into a new folder in `folder`: version_0, version_1 and so on.

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
    """Silence Lightning's messages about devices and tips, and those of torch's compiler: landscribe logs its own."""
    # The compiler warns of CUDA's compiler on a machine without a GPU, also where it compiles for the CPU.
    names = ("lightning.pytorch", "lightning.fabric", "torch.utils.cpp_extension")
    quietened = [logging.getLogger(name) for name in names]
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


@contextmanager
def compiled(network: Segmentation, spec: TrainSpec, processes: int) -> Iterator[None]:
    """Compile the network if the settings say so, until the context ends: the caller may run it on other sizes.

    Its weights and copies stay those of the network itself. The settings of torch.compile return to those of the
    caller, also after an error: a backend that is compiled later must say that it cannot be.
    """
    if not spec.compile:
        yield
    elif type(network).training_loss is not Segmentation.training_loss:
        log.warning("training: %s is not compiled: it is trained by several heads", spec.architecture)
        yield
    elif processes > 1:
        # Their synchronised normalisations cut it into many graphs; the gain is not measured.
        log.warning("training: %s is not compiled: several processes train it", spec.architecture)
        yield
    else:
        from torch._dynamo import config  # seconds

        # A CUDA graph overwrites what its last run returned, the gradients of an accumulated batch among it.
        mode = "reduce-overhead" if spec.accumulate == 1 else "default"
        network.compile(mode=mode, dynamic=False)
        try:
            # torch's documented switch: a network that cannot be compiled runs as it is.
            with config.patch(suppress_errors=True):
                yield
        finally:
            network._compiled_call_impl = None  # noqa: SLF001  torch has no public inverse of Module.compile
