"""Finding a learning rate by trying many."""

import io
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any

import lightning
import numpy as np
from lightning.pytorch.tuner.tuning import Tuner
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader

from landscribe.data.batches.dataset import Batch
from landscribe.errors import NetworkError
from landscribe.training.callbacks import quiet_lightning
from landscribe.training.segmenter import Segmenter

# From where nothing is learned to where all is lost, a step for each of 100 rates.
_LOWEST, _HIGHEST, _RATES = 1e-6, 1.0, 100
# As many losses are averaged until their mean says something; and they lie within half a decade of rates.
_UNSURE, _AROUND = 10, 8
# The mean tells late of a fall.
_LATE = 3


class Trial(Segmenter):
    """A Segmenter whose loss may grow beyond all bounds, and that keeps nothing."""

    def require_finite(self, loss: Tensor) -> None:
        """A rate that is too high is what the trial looks for."""

    def close_epoch(self) -> None:
        """Forget the epoch."""
        self.losses = []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning saves the state before the trial and takes it up after it; nothing is added."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Nothing was added."""


def found_rate(trial: Callable[[], Trial], batches: DataLoader[Batch], precision: Any) -> float:
    """A third of the rate at which the loss falls most steeply while the rate grows from 1e-6 to 1, batch by batch.

    Smith 2017, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186. The losses are Lightning's,
    smoothed by a running mean, which tells late of a fall; their slope is taken over a decade of rates. Lightning's own
    choice, the steepest of all single steps, is that of a batch that happens to be easy (docs/LOG.md).

    Args:
        trial: makes what is trained, on a copy of the network.
        batches: of training chips.
        precision: as Lightning's Trainer takes it.

    Raises:
        NetworkError: the loss was not finite from the start.
    """
    # What Lightning saves for itself goes with the folder; its bar, which cannot be turned off, is not shown.
    with tempfile.TemporaryDirectory() as folder, isolate_rng(), quiet_lightning(), redirect_stderr(io.StringIO()):
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=1,
            precision=precision,
            max_epochs=-1,
            default_root_dir=folder,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        finder = Tuner(trainer).lr_find(
            trial(), train_dataloaders=batches, min_lr=_LOWEST, max_lr=_HIGHEST, num_training=_RATES, update_attr=False
        )
    rate = None if finder is None else chosen_rate(finder.results["lr"], finder.results["loss"])
    if rate is None:
        raise NetworkError(
            f"no learning rate from {_LOWEST:g} to {_HIGHEST:g} gave a finite loss for long enough. "
            "Give learning_rate a number, and check the pixels if that fails too."
        )
    return rate


def chosen_rate(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """A third of the rate around which smoothed losses fall most steeply; None if too few of them are finite."""
    wild = np.flatnonzero(~np.isfinite(losses))
    end = int(wild[0]) if wild.size else len(losses)
    places = range(_UNSURE + _AROUND, end - _AROUND)
    if not places:
        return None
    steps = np.log10(rates)
    around = [slice(place - _AROUND, place + _AROUND + 1) for place in places]
    slopes = [np.polyfit(steps[some], np.array(losses)[some], 1)[0] for some in around]
    return float(rates[places[int(np.argmin(slopes))]]) / _LATE
