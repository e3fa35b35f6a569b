"""Segmenter: the training step, the validation step and the epochs' history, as a LightningModule."""

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from landscribe.agreement import plain
from landscribe.confusion import Confusion, class_mean
from landscribe.data.batches.augment import LabelledBatch, augment
from landscribe.data.batches.augment_spec import AugmentSpec
from landscribe.data.batches.dataset import Batch, to_float
from landscribe.errors import NetworkError, counted
from landscribe.geo.classes import IGNORE
from landscribe.inference.device import as_held, training_precision
from landscribe.inference.evaluation import count_pairs
from landscribe.inference.threshold import BINS, ThresholdCurve, count_bins
from landscribe.maps.layers import head_probabilities
from landscribe.model import Model
from landscribe.nn.encoders.freezing import encoders_of, freeze, parts_of, unfreeze
from landscribe.nn.losses import weighted_sum
from landscribe.nn.segmentation import Segmentation
from landscribe.training.checks import best_row
from landscribe.training.spec import TrainSpec

log = logging.getLogger(__name__)

_WARM_UP = 0.2
# Half the rate after more than three epochs without improvement. torch's default, a tenth after ten epochs, suits
# trainings of hundreds of epochs.
_PLATEAU_FACTOR, _PLATEAU_PATIENCE = 0.5, 3
# A look at a loss waits for the device.
_STEPS_A_CHECK = 16


class Segmenter(lightning.LightningModule):
    """Trains a Model's network; records the history and the best weights.

    The best epoch has the highest mean F1 over the classes of the validation chips (`best_row`); without validation
    chips it is the last one. A class that these lack has no F1: else an epoch would win because it predicts no pixel of
    that class by chance.

    With several processes, losses and measures are those of the chips of all processes, the same in each process.
    """

    weights: Tensor
    """(K,) class weights."""
    _pairs: Tensor
    """(K, K) validation pixels by reference and predicted class."""
    _bins: Tensor
    """(2, BINS) of two classes: validation pixels by reference class and probability of the second."""

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
        self.averaged = copy.deepcopy(network).requires_grad_(requires_grad=False) if spec.ema_decay else None
        self.spec = spec
        self.loss = weighted_sum(spec.loss)
        self.frozen = parts_of(self.network, spec.freeze)
        self.total_steps = total_steps
        self.seed = seed
        self.rng = torch.Generator()
        self.plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self.history: list[dict[str, Any]] = []
        """One row per epoch: epoch, step, training and validation loss, measures, F1 by class."""
        self.best: dict[str, Tensor] = {}
        """Weights of the best epoch so far, or of the last epoch if that is chosen."""
        self.stopped: str | None = None
        """Where and why the training stopped before the end of its budget."""
        self.losses: list[Tensor] = []
        """Losses of the batches of this epoch."""
        self._validation: list[Tensor] = []
        """(2,) of each validation batch: loss times chips, and chips."""
        self._is_validated = False
        count = len(model.classes)
        # Counted on the device: pixels of validation chips do not travel back.
        self.register_buffer("_pairs", torch.zeros(count, count, dtype=torch.int64), persistent=False)
        self.register_buffer("_bins", torch.zeros(2, BINS, dtype=torch.int64), persistent=False)
        self._seconds_before = 0.0
        self._used_seconds = 0.0
        """Of the budget, at the last step, by the clock of rank 0."""
        self._plateau_before: dict[str, Any] = {}

    def on_fit_start(self) -> None:
        """Start the clock of a budget in minutes; freeze parts."""
        self._started = time.monotonic()
        self._read_clock()
        # The scaling depends on whether the hub responded; all processes take the scaling of rank 0.
        scaling = self.trainer.strategy.broadcast(self.model.scaling)
        self.model = replace(self.model, config=self.model.config.model_copy(update={"scaling": scaling}))
        self.frozen = parts_of(self.network, self.spec.freeze)
        for part in self.frozen:
            freeze(part)
        self._stop_without_progress()

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002 - Lightning's name
        """Convert what the device cannot hold."""
        return {name: as_held(tensor, self.device) for name, tensor in batch.items()}

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002 - Lightning's name
        """Convert pixels and labels to the types of training; they travel to the device in small types."""
        return to_float(batch)

    def on_train_batch_start(self, _: Batch, batch_idx: int) -> None:
        """Seed each epoch; unfreeze parts after `freeze_until` of the budget."""
        if batch_idx == 0:
            self._seed_epoch()
        # 1 means frozen to the end, even if a budget in minutes is used up before the last step.
        if self.spec.freeze_until < 1 and self.fraction_done() >= self.spec.freeze_until:
            self.unfreeze_parts()

    def _seed_epoch(self) -> None:
        """Seed an epoch by its index alone, so that a resumed training draws the same random numbers."""
        seeds = np.random.SeedSequence([self.seed, len(self.history), self.global_rank]).generate_state(2)
        lightning.seed_everything(int(seeds[0]), verbose=False)
        self.rng.manual_seed(int(seeds[1]))

    def unfreeze_parts(self) -> None:
        """Unfreeze all frozen parts."""
        for part in self.frozen:
            unfreeze(part)
        self.frozen = []

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one augmented batch."""
        given = LabelledBatch(batch["image"], batch["valid"], batch["label"], batch.get("objects"))
        augmented = augment(given, self.augmentation, self.rng)
        images = self.model.scaled(augmented.images, augmented.valid)
        loss = self.network.training_loss(images, augmented.labels, self.criterion, augmented.objects)
        if augmented.mixed_labels is not None or (self.trainer.world_size > 1 and self.augmentation.strength("mixup")):
            # Mixup: the loss against the labels of both images, weighted by their shares. Each process draws for
            # itself, but all run the network equally often.
            mixed = augmented.labels if augmented.mixed_labels is None else augmented.mixed_labels
            mixed_loss = self.network.training_loss(images, mixed, self.criterion, augmented.mixed_objects)
            loss = augmented.mix_ratio * loss + (1 - augmented.mix_ratio) * mixed_loss
        mean, weight = self._mean_over_processes(loss.detach(), len(images))
        self.losses.append(mean)
        if len(self.losses) % _STEPS_A_CHECK == 0:
            self.require_finite()
        return loss * weight

    def _mean_over_processes(self, loss: Tensor, chips: int) -> tuple[Tensor, Tensor | float]:
        """The mean loss of the whole batch, and the weight of this process's part, by its number of chips."""
        if self.trainer.world_size == 1:
            return loss, 1.0
        sums = torch.stack([loss.float() * chips, torch.full_like(loss, chips, dtype=torch.float32)])
        torch.distributed.all_reduce(sums)
        # DDP averages gradients over processes: the mean of these weights is 1.
        return sums[0] / sums[1], self.trainer.world_size * chips / sums[1]

    def require_finite(self) -> None:
        """Raise NetworkError if one of the last losses is infinite or not a number."""
        losses = torch.stack(self.losses[-_STEPS_A_CHECK:])
        if not torch.isfinite(losses).all():
            loss = losses[~torch.isfinite(losses)][0].item()
            raise NetworkError(
                f"the loss is {loss} before step {self.global_step + 1}. Expected a finite loss. "
                f"Lower the learning rate (it is {self.spec.learning_rate:g})."
            )

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of the settings, a scalar, for logits (B, K, H, W) and labels (B, H, W)."""
        # Class weights apply to the classes' head alone, not to heads such as border and inner.
        weights = self.weights if logits.shape[1] == len(self.weights) else None
        return self.loss(logits.float(), labels, IGNORE, weights)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002  Lightning passes it
    ) -> None:
        """Clip the norm of all gradients; Lightning refuses to before a step in one kernel, also in bfloat16."""
        if gradient_clip_val:
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            torch.nn.utils.clip_grad_norm_(weights, gradient_clip_val)

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Take a step, then update the moving average of the weights."""
        super().optimizer_step(*arguments, **named)
        if self.total_steps is None:
            self._read_clock()
        if self.averaged is not None:
            # Lightning counts this step after this hook.
            update_average(self.averaged, self.network, self.spec.ema_decay, steps=self.global_step)

    @property
    def eval_network(self) -> nn.Module:
        """The network that is validated and saved: that of the averaged weights if they are averaged."""
        return self.network if self.averaged is None else self.averaged

    def validation_step(self, batch: Batch, _: int) -> None:
        """Add a batch to the validation loss and the confusion matrix."""
        # A second compilation, for validation, would not pay.
        with torch.compiler.set_stance("force_eager"):
            logits = self.eval_network(self.model.scaled(batch["image"], batch["valid"])).float()
        chips = len(logits)
        loss = self.criterion(logits, batch["label"])
        self._validation.append(torch.stack([chips * loss, torch.full_like(loss, chips)]))
        self._pairs += count_pairs(batch["label"], logits.argmax(dim=1), (len(self._pairs), len(self._pairs)))
        if len(self.model.classes) == 2:
            self._bins += count_bins(batch["label"], head_probabilities(logits)[:, 1])

    def on_validation_epoch_start(self) -> None:
        """Copy the buffers of rank 0 to all processes: batch statistics differ until the next step."""
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def on_validation_epoch_end(self) -> None:
        """Note that the epoch is validated."""
        self._is_validated = True

    @property
    def has_unlogged_steps(self) -> bool:
        """True if steps were taken since the last row of the history."""
        return bool(self.losses)

    def on_train_epoch_end(self) -> None:
        """Close the epoch if it is validated, or if there are no validation chips."""
        if self._is_validated or not self.validates:
            self.close_epoch()

    def close_epoch(self) -> None:
        """Add the epoch to the history; copy its weights if it is the best, or if the last one is chosen."""
        if not self.has_unlogged_steps:
            return
        self.require_finite()
        confusion = Confusion(self.model.classes, self._sum_over_processes(self._pairs))
        validation = torch.stack(self._validation or [torch.zeros(2)]).cpu().double().sum(dim=0)
        row = self._row(confusion, self._sum_over_processes(validation))
        self.history.append(row)
        if self.spec.checkpoint == "last" or best_row(self.history) is row:
            self.best = {name: value.detach().clone() for name, value in self.eval_network.state_dict().items()}
        if self.plateau is not None:
            self.plateau.step(row["val_mean_f1"])
        self.losses, self._validation, self._is_validated = [], [], False
        self._pairs.zero_()
        self._bins.zero_()
        for logger in self.trainer.loggers:
            logger.log_metrics({name: value for name, value in row.items() if value is not None}, row["step"])
            logger.save()
        self._stop_without_progress()

    def _row(self, confusion: Confusion, validation: NDArray[Any]) -> dict[str, Any]:
        """The history's row of an epoch; `validation` is the sum of losses and the number of chips."""
        total, chips = validation.tolist()
        f1, iou = (confusion.of_reference_classes(values) for values in (confusion.f1, confusion.iou))
        row: dict[str, Any] = {
            "epoch": len(self.history) + 1,
            "step": self.global_step,
            "train_loss": float(torch.stack(self.losses).mean()),
            "val_loss": total / chips if chips else None,
            "val_mean_f1": plain(class_mean(f1)),
            "val_mean_iou": plain(class_mean(iou)),
            "val_overall_accuracy": plain(confusion.overall_accuracy),
        }
        by_class = zip(self.model.classes.names, f1, strict=True)
        return row | {f"val_f1_{name}": plain(f1) for name, f1 in by_class} | self._threshold()

    def _threshold(self) -> dict[str, float | None]:
        """Of two classes: the threshold with the highest F1-score of the second one, and that score."""
        if len(self.model.classes) != 2:
            return {}
        best = ThresholdCurve(self._sum_over_processes(self._bins)).best
        return dict(zip(("val_threshold", "val_threshold_f1"), best or (None, None), strict=True))

    def _sum_over_processes(self, values: Tensor) -> NDArray[Any]:
        if self.trainer.world_size > 1:
            # After the training, Lightning has moved this module to main memory, where NCCL adds nothing.
            values = values.clone().to(self.trainer.strategy.root_device)
            torch.distributed.all_reduce(values)
        return values.cpu().numpy().copy()

    def _stop_without_progress(self) -> None:
        """Stop before the end of the budget if the last `patience` epochs did not improve on the best one."""
        scores, patience = [row["val_mean_f1"] for row in self.history], self.spec.patience
        if patience is None or not scores or None in scores:
            return
        step = self.history[-1]["step"]  # a resumed training has not counted its own yet
        if len(scores) - 1 - scores.index(max(scores)) >= patience and step != self.total_steps:
            self.trainer.should_stop = True
            budget = f" of {self.total_steps}" if self.total_steps else ""
            self.stopped = f"stopped at step {step}{budget}: no better F1 for {counted(patience, 'epoch')}"
            log.info("training: %s", self.stopped)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state that Lightning does not save."""
        checkpoint["landscribe"] = {
            "history": self.history,
            "best": self.best,
            "seconds": self._seconds(),
            "plateau": {} if self.plateau is None else self.plateau.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the added state; Lightning restores weights, optimiser, schedule and counters."""
        saved = checkpoint["landscribe"]
        self.history, best = saved["history"], saved["best"]
        # An earlier version saved the score of the epoch, too.
        self.best = best[1] if isinstance(best, tuple) else best
        self._seconds_before, self._plateau_before = saved["seconds"], saved["plateau"]
        log.info("training: resuming at step %d, after epoch %d", self.history[-1]["step"], len(self.history))

    def configure_optimizers(self) -> Any:
        """The optimiser and the schedule of the settings."""
        rate = self.spec.learning_rate
        assert rate != "auto"  # the learning rate finder has run before
        optimizer = optimizer_of(self.network, self.spec, rate, self.device)
        if self.spec.schedule == "plateau":
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, mode="max", factor=_PLATEAU_FACTOR, patience=_PLATEAU_PATIENCE
            )
            self.plateau.load_state_dict(self._plateau_before)
            # Not given to Lightning, which would step it after the checkpoint of the epoch is saved.
            return optimizer
        factor = SCHEDULES[self.spec.schedule]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: factor(self.fraction_done()))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def fraction_done(self) -> float:
        """Fraction of the budget that is used, 0 to 1."""
        if self.total_steps is not None:
            return min(1.0, self.global_step / self.total_steps)
        assert self.spec.minutes is not None
        return min(1.0, self._used_seconds / (60 * self.spec.minutes))

    def _read_clock(self) -> None:
        """Note the used time. Learning rates by a clock of each process would make their weights differ."""
        self._used_seconds = self.trainer.strategy.broadcast(self._seconds())

    def _seconds(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return self._seconds_before + time.monotonic() - getattr(self, "_started", time.monotonic())


def one_cycle(fraction: float) -> float:
    """Factor of the learning rate when this fraction (0 to 1) of the budget is used.

    Rises as a cosine from 0.04 to 1 over the first fifth, then falls to 0. Smith & Topin 2018,
    "Super-Convergence", arXiv:1708.07120.
    """
    if fraction < _WARM_UP:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * fraction / _WARM_UP)) / 2
    return cosine((fraction - _WARM_UP) / (1 - _WARM_UP))


def cosine(fraction: float) -> float:
    """Factor of the learning rate, which falls from 1 to 0 as a cosine. Loshchilov & Hutter 2017, arXiv:1608.03983."""
    return (1 + math.cos(math.pi * fraction)) / 2


SCHEDULES: dict[str, Callable[[float], float]] = {
    "one_cycle": one_cycle,
    "cosine": cosine,
    "constant": lambda _: 1.0,
}
"""Schedules by name: from the used fraction of the budget (0 to 1) to the factor of the learning rate."""


def update_average(averaged: nn.Module, network: nn.Module, decay: float, steps: int) -> None:
    """Exponential moving average of the weights: `a <- d a + (1 - d) w` after each step, buffers included.

    The decay d rises to `decay` as `(1 + n) / (10 + n)` after n steps: the initial weights soon count little, as in
    TensorFlow's ExponentialMovingAverage. After the first step the weights are copied. `averaged`, a copy of the
    network, is changed; `steps` is n, without this step.
    """
    # Lightning's EMAWeightAveraging has a constant decay, averages the counters of normalisation too, and has swapped
    # the averaged weights out of the network again when an epoch is closed and its best weights are copied. torch's
    # AveragedModel counts the steps on the device, and waits for it to read them.
    kept = min(decay, (1 + steps) / (10 + steps)) if steps else 0.0
    both = [[*each.parameters(), *each.buffers()] for each in (averaged, network)]
    averages, weights = ([tensor for tensor in tensors if tensor.is_floating_point()] for tensors in both)
    old, new = ([tensor for tensor in tensors if not tensor.is_floating_point()] for tensors in both)
    with torch.no_grad():
        # Unlike a sum of products, lerp returns equal weights unchanged, bit by bit.
        torch._foreach_lerp_(averages, weights, 1 - kept)
        if old:  # counters
            torch._foreach_copy_(old, new)


def optimizer_of(network: nn.Module, spec: TrainSpec, rate: float, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser of the settings, with this learning rate. AdamW takes a step on all weights in one kernel."""
    groups = _parameter_groups(network, spec, rate)
    if spec.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    # With 16 bits, Lightning clips gradients between the two parts of a step.
    is_half = training_precision(spec.precision, device) == "16-mixed"
    is_fused = device.type in ("cpu", "cuda") and not is_half
    return torch.optim.AdamW(groups, lr=rate, fused=is_fused or None)


def _parameter_groups(network: nn.Module, spec: TrainSpec, rate: float) -> list[dict[str, Any]]:
    """Parameter groups: weight decay for weights, none for biases and normalisation; a factor for the encoder's rate.

    Frozen parameters are included, since they may be unfrozen later: the optimiser skips parameters without gradients.
    """
    in_encoder = {id(parameter) for encoder in encoders_of(network) for parameter in encoder.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        groups.setdefault((id(parameter) in in_encoder, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": rate * (spec.encoder_lr_factor if is_encoder else 1.0),
            "weight_decay": spec.weight_decay if decays else 0.0,
        }
        for (is_encoder, decays), parameters in groups.items()
    ]
