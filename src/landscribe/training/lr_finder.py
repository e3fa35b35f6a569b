"""Learning rate range test: train with a growing rate, and suggest one from the steepest fall of the loss."""

import io
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.tuner.tuning import Tuner
from lightning.pytorch.utilities.seed import isolate_rng

from landscribe.data.batches.read_ahead import ReadAhead
from landscribe.errors import NetworkError
from landscribe.inference.device import training_precision
from landscribe.training.callbacks import compiled, quiet_lightning
from landscribe.training.segmenter import Segmenter
from landscribe.training.spec import TrainSpec

# One step at each of 100 rates, from too low to learn to so high that training diverges.
_LOWEST, _HIGHEST, _RATES = 1e-6, 1.0, 100
# The running mean is unreliable over its first steps; a slope is fitted to this many losses on either side of a rate,
# about half a decade.
_WARM_UP, _HALF_WIDTH = 10, 8
# The running mean lags behind a fall of the loss: the suggested rate is a third of the steepest one.
_LAG_FACTOR = 3


class LRFinderModule(Segmenter):
    """A Segmenter for the range test: its loss may diverge, and it records nothing.

    Its learning rate is 1, so that the rates of its parameter groups are their factors.
    """

    def configure_optimizers(self) -> Any:
        """The optimiser of the settings, whose groups keep their factors of the rate."""
        configured = super().configure_optimizers()
        groups = (configured["optimizer"] if isinstance(configured, dict) else configured).param_groups
        self._factors = [group.get("initial_lr", group["lr"]) for group in groups]
        return configured

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Apply the factors: Lightning's test gives all groups the tested rate, before each step."""
        for group, factor in zip(optimizer.param_groups, self._factors, strict=True):
            group["lr"] *= factor

    def require_finite(self) -> None:
        """Accept any loss: the test ends at rates that are too high."""

    def close_epoch(self) -> None:
        """Discard the losses of the epoch."""
        self.losses = []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add nothing to the state that Lightning saves before the test and restores after it."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore nothing: nothing was added."""


def find_learning_rate(module: Callable[[], LRFinderModule], batches: ReadAhead, spec: TrainSpec) -> float:
    """A third of the rate at which the loss falls most steeply while the rate grows from 1e-6 to 1, batch by batch.

    Smith 2017, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186. The losses are Lightning's,
    smoothed by a running mean, which lags; their slope is fitted over a decade of rates. Lightning's own suggestion is
    the steepest single step, often that of an easy batch (docs/LOG.md). Steps are those of the training: with its
    accumulated batches, gradient clipping and factor of the encoder's rate.

    Args:
        module: builds the module to train, on a copy of the network.
        batches: of training chips.
        spec: the settings of the training.

    Raises:
        NetworkError: the loss is not finite within the first steps.
    """
    # Lightning's own checkpoint is deleted with the folder; its progress bar, which has no switch, is redirected.
    with tempfile.TemporaryDirectory() as folder, isolate_rng(), quiet_lightning(), redirect_stderr(io.StringIO()):
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=1,
            precision=training_precision(spec.precision),
            max_epochs=-1,
            accumulate_grad_batches=spec.accumulate,
            gradient_clip_val=spec.gradient_clip or None,
            default_root_dir=folder,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trained = module()
        with compiled(trained.network, spec, processes=1):
            finder = Tuner(trainer).lr_find(
                trained, train_dataloaders=batches, min_lr=_LOWEST, max_lr=_HIGHEST, num_training=_RATES,
                update_attr=False,
            )  # fmt: skip
    rate = None if finder is None else suggest_learning_rate(finder.results["lr"], finder.results["loss"])
    if rate is None:
        raise NetworkError(
            f"no learning rate from {_LOWEST:g} to {_HIGHEST:g} gave a finite loss for long enough. "
            "Set learning_rate to a number; if that fails too, check the pixels."
        )
    return rate


def suggest_learning_rate(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """A third of the rate at which the smoothed losses fall most steeply; None if too few of them are finite."""
    not_finite = np.flatnonzero(~np.isfinite(losses))
    end = int(not_finite[0]) if not_finite.size else len(losses)
    indices = range(_WARM_UP + _HALF_WIDTH, end - _HALF_WIDTH)
    if not indices:
        return None
    log_rates = np.log10(rates)
    windows = [slice(index - _HALF_WIDTH, index + _HALF_WIDTH + 1) for index in indices]
    slopes = [np.polyfit(log_rates[window], np.array(losses)[window], 1)[0] for window in windows]
    return float(rates[indices[int(np.argmin(slopes))]]) / _LAG_FACTOR
