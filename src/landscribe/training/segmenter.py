"""Segmenter: one training step and one validation step, as Lightning runs them."""

import math
import time
from collections.abc import Callable
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from landscribe.confusion import Confusion
from landscribe.data.augment import Labelled, augment
from landscribe.data.augment_spec import AugmentSpec
from landscribe.data.dataset import Batch
from landscribe.errors import NetworkError
from landscribe.geo.classes import IGNORE
from landscribe.model import Model
from landscribe.nn.freezing import encoders_of, freeze, parts_of, unfreeze
from landscribe.nn.losses import weighted_sum
from landscribe.nn.segmentation import Segmentation
from landscribe.training.spec import TrainSpec

_WARM_UP = 0.2


class Segmenter(lightning.LightningModule):
    """Trains a Model's network; keeps the history and the weights of the best epoch.

    The best epoch is the one with the highest mean F1 over classes on the validation chips; the last one
    where there are none.
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
        self.spec = spec
        self.loss = weighted_sum(spec.loss)
        self.frozen = parts_of(self.network, spec.freeze)
        self.total_steps = total_steps
        self.rng = torch.Generator().manual_seed(seed)
        self.history: list[dict[str, Any]] = []
        """One row per epoch: epoch, step, training and validation loss, measures by class."""
        self.best: tuple[float, dict[str, Tensor]] = (-math.inf, {})
        """Mean F1 and weights of the best epoch so far."""
        self._losses: list[Tensor] = []
        self._validation_losses: list[Tensor] = []
        self._confusion = Confusion.zeros(model.classes)

    def on_fit_start(self) -> None:
        """Start the clock that a budget in minutes is measured by; freeze what is not to learn yet."""
        self._started = time.monotonic()
        for part in self.frozen:
            freeze(part)

    def on_train_batch_start(self, *_: Any) -> None:
        """Let frozen parts learn once their time has come."""
        # 1 is to the end, also where a budget of time is used up before the last step.
        if self.spec.freeze_until < 1 and self.share_done() >= self.spec.freeze_until:
            self.thaw()

    def thaw(self) -> None:
        """Let all parts learn."""
        for part in self.frozen:
            unfreeze(part)
        self.frozen = []

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one augmented batch."""
        changed = augment(Labelled(batch["image"], batch["valid"], batch["label"]), self.augmentation, self.rng)
        images = self.model.scaled(changed.images, changed.valid)
        loss = self.network.training_loss(images, changed.labels, self._criterion)
        if not torch.isfinite(loss):
            raise NetworkError(
                f"the loss is {loss.item()} at step {self.global_step}. A finite one was expected. "
                f"Lower the learning rate (it is {self.spec.learning_rate:g})."
            )
        self._losses.append(loss.detach())
        return loss

    def _criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        # Borders and inner parts are no classes of the table.
        weights = self.weights if logits.shape[1] == len(self.weights) else None
        return self.loss(logits.float(), labels, IGNORE, weights)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Count predictions against labels."""
        logits = self.model.logits(batch["image"], batch["valid"]).float()
        self._validation_losses.append(self._criterion(logits, batch["label"]).detach())
        predicted = logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
        reference = batch["label"].to(torch.uint8).cpu().numpy()
        self._confusion += Confusion.of(self.model.classes, reference, predicted)

    @property
    def is_epoch_open(self) -> bool:
        """True if steps were taken that no row of the history tells of yet."""
        return bool(self._losses)

    def on_train_epoch_end(self) -> None:
        """Write the epoch into the history, unless its validation is still to come."""
        if self._confusion.total or not self.validates:
            self.close_epoch()

    def close_epoch(self) -> None:
        """Write the epoch into the history; keep its weights if it is the best."""
        if not self.is_epoch_open:
            return
        confusion = self._confusion
        row: dict[str, Any] = {
            "epoch": len(self.history) + 1,
            "step": self.global_step,
            "train_loss": _mean(self._losses),
            "val_loss": _mean(self._validation_losses),
            "val_mean_f1": _finite(confusion.mean_f1),
            "val_mean_iou": _finite(confusion.mean_iou),
            "val_overall_accuracy": _finite(confusion.overall_accuracy),
        }
        row |= {f"val_f1_{name}": _finite(f1) for name, f1 in zip(self.model.classes.names, confusion.f1, strict=True)}
        self.history.append(row)
        score = confusion.mean_f1 if confusion.total else float(len(self.history))
        if score > self.best[0]:
            self.best = (
                score,
                {name: value.detach().clone() for name, value in self.network.state_dict().items()},
            )
        self._losses, self._validation_losses = [], []
        self._confusion = Confusion.zeros(self.model.classes)
        if self._has_waited_enough():
            self.trainer.should_stop = True

    def _has_waited_enough(self) -> bool:
        """True if the best of the validated epochs lies `patience` epochs back."""
        scores = [row["val_mean_f1"] for row in self.history]
        if self.spec.patience is None or None in scores:
            return False
        return len(scores) - 1 - scores.index(max(scores)) >= self.spec.patience

    def configure_optimizers(self) -> Any:
        """The optimiser and the schedule that were asked for."""
        groups, rate = _groups(self.network, self.spec), self.spec.learning_rate
        optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(groups, lr=rate)
            if self.spec.optimizer == "adamw"
            else torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
        )
        factor = SCHEDULES[self.spec.schedule]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: factor(self.share_done()))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def share_done(self) -> float:
        """How much of the budget is used, 0 to 1."""
        if self.total_steps is not None:
            return min(1.0, self.global_step / self.total_steps)
        assert self.spec.minutes is not None
        started = getattr(self, "_started", time.monotonic())
        return min(1.0, (time.monotonic() - started) / (60 * self.spec.minutes))


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


def _groups(network: nn.Module, spec: TrainSpec) -> list[dict[str, Any]]:
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
            "lr": spec.learning_rate * (spec.encoder_rate if is_slow else 1.0),
            "weight_decay": spec.weight_decay if decays else 0.0,
        }
        for (is_slow, decays), parameters in groups.items()
    ]


def _mean(losses: list[Tensor]) -> float | None:
    return float(torch.stack(losses).mean()) if losses else None


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
