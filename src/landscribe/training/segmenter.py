"""Segmenter: one training step and one validation step, as Lightning runs them."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from landscribe.confusion import Confusion
from landscribe.data.batches.augment import LabelledBatch, augment
from landscribe.data.batches.augment_spec import AugmentSpec
from landscribe.data.batches.dataset import Batch, to_float
from landscribe.errors import NetworkError
from landscribe.geo.classes import IGNORE
from landscribe.model import Model
from landscribe.nn.encoders.freezing import encoders_of, freeze, parts_of, unfreeze
from landscribe.nn.losses import weighted_sum
from landscribe.nn.segmentation import Segmentation
from landscribe.training.spec import TrainSpec

log = logging.getLogger(__name__)

_WARM_UP = 0.2
# Halved after more than three epochs without a better one: gentler than torch's tenth after ten, since few trainings
# have the hundreds of epochs which that is meant for.
_PLATEAU_FACTOR, _PLATEAU_PATIENCE = 0.5, 3


class Segmenter(lightning.LightningModule):
    """Trains a Model's network; keeps the history and the weights of the epoch that is to be kept.

    The best epoch is the one with the highest mean F1 over classes on the validation chips; the last one
    where there are none. With several processes all of this is of all their chips together, in each of them.
    """

    weights: Tensor
    """(K,) class weights."""

    def __init__(
        self, model: Model, network: Segmentation, spec: TrainSpec, total_steps: int | None, *, seed: int,
        validates: bool, weights: Tensor, augmentation: AugmentSpec,
    ) -> None:  # fmt: skip
        super().__init__()
        self.augmentation = augmentation
        self.register_buffer("weights", weights, persistent=False)
        self.validates = validates
        self.model = model
        self.network: Segmentation = network
        self.averaged = _running_average(network, spec.ema) if spec.ema else None
        self.spec = spec
        self.loss = weighted_sum(spec.loss)
        self.frozen = parts_of(self.network, spec.freeze)
        self.total_steps = total_steps
        self.seed = seed
        self.rng = torch.Generator()
        self.plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self.history: list[dict[str, Any]] = []
        """One row per epoch: epoch, step, training and validation loss, measures by class."""
        self.kept: tuple[float, dict[str, Tensor]] = (-math.inf, {})
        """Mean F1 and weights of the epoch that is kept so far."""
        self.losses: list[Tensor] = []
        """Of the batches of this epoch."""
        self._validation = np.zeros(2)
        """Sum of the chips' validation losses, and number of these chips."""
        self._is_validated = False
        self._confusion = Confusion.zeros(model.classes)
        self._seconds_before = 0.0
        self._plateau_before: dict[str, Any] = {}

    def on_fit_start(self) -> None:
        """Start the clock that a budget in minutes is measured by; freeze what is not to learn yet."""
        self._started = time.monotonic()
        # The processes asked the hub each for itself; what the first has found holds for all.
        self.model.scaling = self.trainer.strategy.broadcast(self.model.scaling)
        self.frozen = parts_of(self.network, self.spec.freeze)
        for part in self.frozen:
            freeze(part)
        if self._has_waited_enough():
            self.trainer.should_stop = True

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002 - Lightning's name
        """Widen what was kept small for the way to the device."""
        return to_float(batch)

    def on_train_batch_start(self, _: Batch, number: int) -> None:
        """Draw anew in each epoch; let frozen parts learn once their time has come."""
        if number == 0:
            self._seed_epoch()
        # 1 is to the end, also where a budget of time is used up before the last step.
        if self.spec.freeze_until < 1 and self.share_done() >= self.spec.freeze_until:
            self.thaw()

    def _seed_epoch(self) -> None:
        """Make chance in an epoch depend on nothing before it, so that a killed training goes on as if it were not."""
        drawn = np.random.SeedSequence([self.seed, len(self.history), self.global_rank]).generate_state(2)
        lightning.seed_everything(int(drawn[0]), verbose=False)
        self.rng.manual_seed(int(drawn[1]))

    def thaw(self) -> None:
        """Let all parts learn."""
        for part in self.frozen:
            unfreeze(part)
        self.frozen = []

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one augmented batch."""
        changed = augment(LabelledBatch(batch["image"], batch["valid"], batch["label"]), self.augmentation, self.rng)
        images = self.model.scaled(changed.images, changed.valid)
        loss = self.network.training_loss(images, changed.labels, self.criterion)
        if changed.mixed_labels is not None:
            # What two images show together is judged by both.
            other = self.network.training_loss(images, changed.mixed_labels, self.criterion)
            loss = changed.mix_ratio * loss + (1 - changed.mix_ratio) * other
        mean, weight = self._mean_over_processes(loss.detach(), len(images))
        self.require_finite(mean)
        self.losses.append(mean)
        return loss * weight

    def _mean_over_processes(self, loss: Tensor, chips: int) -> tuple[Tensor, Tensor | float]:
        """The loss of the whole batch, and how much this process's part of it counts: by its chips."""
        if self.trainer.world_size == 1:
            return loss, 1.0
        sums = torch.stack([loss.float() * chips, torch.full_like(loss, chips, dtype=torch.float32)])
        of_all = self.trainer.strategy.reduce(sums, reduce_op="sum")
        # Gradients are averaged over the processes, so that the mean of these weights is 1.
        return of_all[0] / of_all[1], self.trainer.world_size * chips / of_all[1]

    def require_finite(self, loss: Tensor) -> None:
        """Raise NetworkError if the loss is infinite or not a number."""
        if not torch.isfinite(loss):
            raise NetworkError(
                f"the loss is {loss.item()} at step {self.global_step}. A finite one was expected. "
                f"Lower the learning rate (it is {self.spec.learning_rate:g})."
            )

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss that was asked for."""
        # Borders and inner parts are no classes of the table.
        weights = self.weights if logits.shape[1] == len(self.weights) else None
        return self.loss(logits.float(), labels, IGNORE, weights)

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Take a step, and let the running average follow."""
        super().optimizer_step(*arguments, **named)
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: with the running average of the weights if there is one."""
        return self.network if self.averaged is None else self.averaged.module

    def validation_step(self, batch: Batch, _: int) -> None:
        """Count predictions against labels."""
        logits = self.judged(self.model.scaled(batch["image"], batch["valid"])).float()
        chips = len(logits)
        self._validation += [chips * float(self.criterion(logits, batch["label"])), chips]
        predicted = logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
        reference = batch["label"].to(torch.uint8).cpu().numpy()
        self._confusion += Confusion.of(self.model.classes, reference, predicted)

    def on_validation_epoch_start(self) -> None:
        """Let all processes judge one network: statistics of batches are each one's own until the next step."""
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def on_validation_epoch_end(self) -> None:
        """All chips were looked at."""
        self._is_validated = True

    @property
    def is_epoch_open(self) -> bool:
        """True if steps were taken that no row of the history tells of yet."""
        return bool(self.losses)

    def on_train_epoch_end(self) -> None:
        """Write the epoch into the history, unless its validation is still to come."""
        if self._is_validated or not self.validates:
            self.close_epoch()

    def close_epoch(self) -> None:
        """Write the epoch into the history; keep its weights if it is the best, or the last is to be kept."""
        if not self.is_epoch_open:
            return
        confusion = Confusion(self.model.classes, self._sum_over_processes(self._confusion.counts))
        row = self._row(confusion, self._sum_over_processes(self._validation))
        self.history.append(row)
        score = confusion.mean_f1 if confusion.total else float(len(self.history))
        if self.spec.keep == "last" or score > self.kept[0]:
            self.kept = (
                score,
                {name: value.detach().clone() for name, value in self.judged.state_dict().items()},
            )
        if self.plateau is not None:
            self.plateau.step(score)
        self.losses, self._validation, self._is_validated = [], np.zeros(2), False
        self._confusion = Confusion.zeros(self.model.classes)
        for logger in self.trainer.loggers:
            logger.log_metrics({name: value for name, value in row.items() if value is not None}, row["step"])
            logger.save()
        if self._has_waited_enough():
            self.trainer.should_stop = True

    def _row(self, confusion: Confusion, validation: NDArray[Any]) -> dict[str, Any]:
        """What the history tells of an epoch; validation is the sum of losses and the number of chips."""
        total, chips = validation.tolist()
        row: dict[str, Any] = {
            "epoch": len(self.history) + 1,
            "step": self.global_step,
            "train_loss": float(torch.stack(self.losses).mean()),
            "val_loss": total / chips if chips else None,
            "val_mean_f1": _finite(confusion.mean_f1),
            "val_mean_iou": _finite(confusion.mean_iou),
            "val_overall_accuracy": _finite(confusion.overall_accuracy),
        }
        by_class = zip(self.model.classes.names, confusion.f1, strict=True)
        return row | {f"val_f1_{name}": _finite(f1) for name, f1 in by_class}

    def _sum_over_processes(self, numbers: NDArray[Any]) -> NDArray[Any]:
        if self.trainer.world_size == 1:
            return numbers
        tensor = torch.from_numpy(numbers).to(self.trainer.strategy.root_device)
        total: Tensor = self.trainer.strategy.reduce(tensor, reduce_op="sum")
        return total.cpu().numpy()

    def _has_waited_enough(self) -> bool:
        """True if the best of the validated epochs lies `patience` epochs back."""
        scores = [row["val_mean_f1"] for row in self.history]
        if self.spec.patience is None or not scores or None in scores:
            return False
        return len(scores) - 1 - scores.index(max(scores)) >= self.spec.patience

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not know of."""
        checkpoint["landscribe"] = {
            "history": self.history,
            "kept": self.kept,
            "seconds": self._seconds(),
            "plateau": {} if self.plateau is None else self.plateau.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what was added; Lightning restores weights, optimiser, schedule and counters."""
        saved = checkpoint["landscribe"]
        self.history, self.kept = saved["history"], saved["kept"]
        self._seconds_before, self._plateau_before = saved["seconds"], saved["plateau"]
        log.info("training: goes on at step %d, after epoch %d", self.history[-1]["step"], len(self.history))

    def configure_optimizers(self) -> Any:
        """The optimiser and the schedule that were asked for."""
        rate = self.spec.learning_rate
        assert rate != "auto"  # one was found before
        groups = _groups(self.network, self.spec, rate)
        optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(groups, lr=rate)
            if self.spec.optimizer == "adamw"
            else torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
        )
        if self.spec.schedule == "plateau":
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, mode="max", factor=_PLATEAU_FACTOR, patience=_PLATEAU_PATIENCE
            )
            self.plateau.load_state_dict(self._plateau_before)
            # Lightning is not told of it: it would step it after the checkpoint of the epoch.
            return optimizer
        factor = SCHEDULES[self.spec.schedule]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: factor(self.share_done()))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def share_done(self) -> float:
        """How much of the budget is used, 0 to 1."""
        if self.total_steps is not None:
            return min(1.0, self.global_step / self.total_steps)
        assert self.spec.minutes is not None
        return min(1.0, self._seconds() / (60 * self.spec.minutes))

    def _seconds(self) -> float:
        """Of training so far, those before a kill included."""
        return self._seconds_before + time.monotonic() - getattr(self, "_started", time.monotonic())


def one_cycle(share: float) -> float:
    """Factor of the learning rate when `share` (0 to 1) of the budget is used.

    Rises as a cosine from 0.04 to 1 over the first fifth, then falls to 0. Smith & Topin 2018,
    "Super-Convergence", arXiv:1708.07120.
    """
    if share < _WARM_UP:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * share / _WARM_UP)) / 2
    return cosine((share - _WARM_UP) / (1 - _WARM_UP))


def cosine(share: float) -> float:
    """Factor of the learning rate that falls from 1 to 0. Loshchilov & Hutter 2017, arXiv:1608.03983."""
    return (1 + math.cos(math.pi * share)) / 2


SCHEDULES: dict[str, Callable[[float], float]] = {
    "one_cycle": one_cycle,
    "cosine": cosine,
    "constant": lambda _: 1.0,
}
"""By name: the factor of the learning rate when a share of the budget is used."""


def _running_average(network: nn.Module, decay: float) -> AveragedModel:
    """A network whose weights are `a <- d a + (1 - d) w` after each step, buffers included.

    The decay d rises to `decay` as `(1 + n) / (10 + n)` with n steps averaged, so that the first weights are soon
    forgotten (as TensorFlow's ExponentialMovingAverage does it).
    """

    def average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        if not averaged.is_floating_point():
            return current  # a counter
        steps = torch.as_tensor(count, device=averaged.device)
        kept = ((1 + steps) / (10 + steps)).clamp(max=decay).to(averaged.dtype)
        # Unlike the sum of products, this leaves alone what does not change.
        return torch.lerp(averaged, current, 1 - kept)

    averaged = AveragedModel(network, avg_fn=average, use_buffers=True)
    averaged.requires_grad_(requires_grad=False)
    return averaged


def _groups(network: nn.Module, spec: TrainSpec, rate: float) -> list[dict[str, Any]]:
    """Weights decay; biases and normalisation do not. The encoder may learn more slowly.

    Frozen parts are among them, since they may learn later: what has no gradient is passed over.
    """
    slow = {id(parameter) for encoder in encoders_of(network) for parameter in encoder.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        groups.setdefault((id(parameter) in slow, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": rate * (spec.encoder_rate if is_slow else 1.0),
            "weight_decay": spec.weight_decay if decays else 0.0,
        }
        for (is_slow, decays), parameters in groups.items()
    ]


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
