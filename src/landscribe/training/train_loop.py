"""Train a network on chips."""

import copy
import hashlib
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray

from landscribe import progress
from landscribe.data.batches.augment_spec import AugmentSpec
from landscribe.data.batches.dataset import ChipTransform
from landscribe.data.chips.chips import Chips
from landscribe.data.chips.stats import class_weights
from landscribe.errors import ChipError, NetworkError
from landscribe.model import Model
from landscribe.nn import Segmentation, build
from landscribe.nn.encoders.weights import choose_weights, licence
from landscribe.nn.losses import weighted_sum
from landscribe.outputs import refuse_existing
from landscribe.training.callbacks import Report, StepLog, loggers, quiet_lightning
from landscribe.training.checkpoint import Checkpoints, EveryEpoch, Start, WholeFiles
from landscribe.training.checks import precision_of, require_fits, require_learnable
from landscribe.training.dataloaders import order_of, training_batches, validation_batches
from landscribe.training.lr_finder import Trial, found_rate
from landscribe.training.parallel import Processes, end, only_the_leader_speaks, processes, without_launcher
from landscribe.training.scaling import scaling_of
from landscribe.training.segmenter import Segmenter
from landscribe.training.spec import WITHOUT_EFFECT, TrainSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    """One training: what learns, from what, and how."""

    model: Model
    network: Segmentation
    training: Chips
    validation: Chips
    spec: TrainSpec
    augmentation: AugmentSpec
    change: ChipTransform | None
    seed: int
    group: Processes


def train(
    chips: Chips,
    out: Path,
    *,
    spec: TrainSpec,
    augmentation: AugmentSpec,
    change: ChipTransform | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Model:
    """Train on the chips of split "train", choose the epoch by those of "val", and save the model.

    A training that is killed leaves the end of its last epoch in a folder beside `out`; the same call goes on from
    there to the same model.

    Args:
        chips: of all splits.
        out: the model folder to make.
        spec: network, budget, optimiser, loss.
        augmentation: how chips are changed, on the batch.
        change: a user's pipeline that changes each chip before. Its chance is its own: neither the seed nor a
            checkpoint reaches it.
        seed: of weights, order and augmentation. The same seed gives the same model on the same machine
            (unless the budget is in minutes).
        overwrite: replace a folder that holds something, and an unfinished training with other settings.

    Returns:
        The model of the best epoch, or of the last if that is to be kept.

    Raises:
        ChipError: no chip to train on, or none with one of the classes.
        NetworkError: unknown names, weights that do not fit, a loss that is not finite.
        OutputError: `out` holds something, or cannot be written; an unfinished training has other settings.
        RecipeError: settings that do not go with the chips, the machine or each other.
    """
    refuse_existing(out, overwrite=overwrite)
    group = processes(spec.devices)
    training, validation = chips.of_split("train"), chips.of_split("val")
    require_learnable(chips)
    require_fits(spec, group, training, validation)
    weighted_sum(spec.loss), _class_weights(training, spec)  # refused before a network is made for them
    checkpoints = Checkpoints(out, _identity(chips, spec, augmentation, change, seed, group))
    with only_the_leader_speaks(group):
        begun = checkpoints.found(overwrite=overwrite)
        lightning.seed_everything(seed, workers=True, verbose=False)
        network, start = _begin(chips, spec) if begun is None else _begin_again(chips, spec, begun)
        model = Model.wrap(
            network,
            bands=chips.metadata.bands,
            classes=chips.classes,
            scale=start.scaling,
            pixel_size=chips.metadata.pixel_size,
            dtype=chips.metadata.dtype,
            nodata=chips.metadata.nodata,
            chip_size=chips.metadata.size,
        )
        job = _Job(model, network, training, validation, spec, augmentation, change, seed, group)
        start = start if start.learning_rate else start.model_copy(update={"learning_rate": _tried_rate(job)})
        if group.leads:
            checkpoints.sweep() if begun else checkpoints.remove()
        with _nothing_kept_of_what_fails(checkpoints, group):
            segmenter = _fit(job, start, checkpoints, goes_on=begun is not None)
        _take_over(job, segmenter, start, chips)
        if group.leads:
            model.save(out, overwrite=overwrite)
            checkpoints.remove()
    end(group)
    return model


def _identity(
    chips: Chips, spec: TrainSpec, augmentation: AugmentSpec, change: ChipTransform | None, seed: int, group: Processes
) -> dict[str, Any]:
    """All that decides which weights come out, so that only the same training goes on."""
    return {
        "chips": chips.sha256,
        "table": hashlib.sha256(chips.table.to_csv().encode()).hexdigest(),
        "train": spec.model_dump(mode="json", exclude=WITHOUT_EFFECT),
        "augment": augmentation.model_dump(mode="json"),
        "changed_by": None if change is None else repr(change),
        "seed": seed,
        "processes": group.count,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA GPU",
        "precision": precision_of(spec),
        "versions": {
            "landscribe": version("landscribe"),
            "torch": torch.__version__,
            "lightning": version("lightning"),
        },
    }


def _begin(chips: Chips, spec: TrainSpec) -> tuple[Segmentation, Start]:
    """A network that has learned nothing here, and what is known of it."""
    network, said, terms = _network(chips, spec)
    log.info(said)
    pretrained = terms["source"] != "none"
    scaling = scaling_of(chips.of_split("train"), spec.scaling, encoder=spec.encoder, pretrained=pretrained)
    rate = None if spec.learning_rate == "auto" else spec.learning_rate
    return network, Start(weights=said, terms=terms, scaling=scaling, learning_rate=rate)


def _begin_again(chips: Chips, spec: TrainSpec, start: Start) -> tuple[Segmentation, Start]:
    """A network for the weights of a checkpoint, without asking for others."""
    log.info(start.weights)
    return _built(chips, spec, None), start


def _network(chips: Chips, spec: TrainSpec) -> tuple[Segmentation, str, dict[str, Any]]:
    """Build the network; say in one line which weights it starts from, and under which terms these are."""
    weights, said = choose_weights(spec.weights, spec.encoder)

    try:
        network = _built(chips, spec, weights)
    except NetworkError as error:
        if spec.weights != "auto" or weights is None:
            raise
        # The hub answered but did not deliver: "auto" goes on without, and says so.
        weights, said = None, f"weights: none ({str(error).split('. ', 1)[0]})"
        network = _built(chips, spec, None)
    if weights is None and spec.freeze:
        log.warning(
            "%s: frozen although it starts from random weights, so that nothing is learned there. "
            "Give weights, or leave out freeze.",
            ", ".join(spec.freeze),
        )
    if weights == "imagenet" and spec.architecture.startswith("smp:"):
        return network, said, {"source": "imagenet", "license": "that of segmentation-models-pytorch's weights"}
    return network, said, licence(spec.encoder, weights)


def _built(chips: Chips, spec: TrainSpec, weights: str | None) -> Segmentation:
    return build(
        spec.architecture, bands=chips.metadata.bands, classes=len(chips.classes),
        encoder=spec.encoder, weights=weights, **spec.options,
    )  # fmt: skip


def _tried_rate(job: _Job) -> float:
    """The learning rate that a trial on a copy of the network finds."""

    def trial() -> Trial:
        network = copy.deepcopy(job.network)
        # A budget without an end: what is frozen at first stays so. The rate is the trial's own.
        return _segmenter(Trial, replace(job, model=replace(job.model, network=network), network=network), 10**9, 1.0)

    order = order_of(job.training, job.spec, job.seed)
    batches = training_batches(job.training, order, job.spec, job.group, job.change)
    rate = found_rate(trial, batches, precision_of(job.spec))
    log.info("learning rate: %.3g (found by trying)", rate)
    return rate


def _fit(job: _Job, start: Start, checkpoints: Checkpoints, *, goes_on: bool) -> Segmenter:
    spec, group = job.spec, job.group
    job.model.network.to(memory_format=torch.channels_last)
    order = order_of(job.training, spec, job.seed, group)
    batches = training_batches(job.training, order, spec, group, job.change)
    held_out = validation_batches(job.validation, spec, group)
    total = spec.total_steps(math.ceil(len(batches) / spec.accumulate))
    assert start.learning_rate is not None
    segmenter = _segmenter(Segmenter, job, total, start.learning_rate)
    shown = progress.task("training", total or math.ceil(60 * (spec.minutes or 0)))
    with shown if group.leads else nullcontext(_unseen) as advance, quiet_lightning():
        watching = [Report(advance, by_time=total is None), *([StepLog()] if spec.log else [])]
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=group.count // group.machines,
            num_nodes=group.machines,
            strategy=_strategy(job, segmenter),
            sync_batchnorm=group.count > 1 and torch.cuda.is_available(),
            precision=precision_of(spec),
            max_steps=total or -1,
            max_epochs=-1,
            max_time={"seconds": math.ceil(60 * spec.minutes)} if spec.minutes else None,
            accumulate_grad_batches=spec.accumulate,
            gradient_clip_val=spec.gradient_clip or None,
            num_sanity_val_steps=0,
            callbacks=[*watching, EveryEpoch(checkpoints, start, order)],
            plugins=[WholeFiles(), *without_launcher(group)],
            use_distributed_sampler=False,
            logger=loggers(spec.log) if group.leads else False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(segmenter, batches, held_out, ckpt_path=checkpoints.last if goes_on else None)
            if held_out is not None and segmenter.is_epoch_open:
                # A budget that ends within an epoch leaves it without validation.
                trainer.validate(segmenter, held_out, verbose=False)
        except SystemExit:
            # On Ctrl-C Lightning ends the process; here whoever called decides.
            raise KeyboardInterrupt from None
    segmenter.close_epoch()
    segmenter.thaw()
    return segmenter


def _strategy(job: _Job, segmenter: Segmenter) -> str:
    """As Lightning's Trainer takes it: torch is told where parameters may have no gradient, which costs a little."""
    if job.group.count == 1:
        return "auto"
    return "ddp_find_unused_parameters_true" if job.spec.freeze or _has_idle_parts(job, segmenter) else "ddp"


def _has_idle_parts(job: _Job, segmenter: Segmenter) -> bool:
    """True if the loss of an image reaches only some parameters, as where a part of a network is not used."""
    with isolate_rng():
        network = copy.deepcopy(job.network).train()
        side = 2 * network.reduction
        images, labels = torch.rand(2, len(job.model.bands), side, side), torch.zeros(2, side, side, dtype=torch.long)
        loss: Any = network.training_loss(images, labels, segmenter.criterion)
        loss.backward()
    return any(parameter.grad is None for parameter in network.parameters() if parameter.requires_grad)


def _unseen(steps: int = 1, note: str = "") -> None:
    """The progress of a process that another one tells of."""


def _segmenter(kind: type[Segmenter], job: _Job, total: int | None, rate: float) -> Any:
    return kind(
        job.model, job.network, job.spec.model_copy(update={"learning_rate": rate}), total,
        seed=job.seed, validates=len(job.validation) > 0,
        weights=torch.from_numpy(_class_weights(job.training, job.spec)).float(), augmentation=job.augmentation,
    )  # fmt: skip


def _class_weights(training: Chips, spec: TrainSpec) -> NDArray[np.float64]:
    """(K,) weights that were given, or that the chips ask for."""
    if isinstance(spec.class_weights, str):
        return class_weights(training, spec.class_weights)
    names = training.classes.names
    if len(spec.class_weights) != len(names):
        raise ChipError(
            f"{len(spec.class_weights)} class weights were given for {len(names)} classes ({', '.join(names)}). "
            "One for each, in this order, was expected."
        )
    if not any(spec.class_weights):
        raise ChipError("all class weights are 0, so that nothing could be learned. One above 0 at least was expected.")
    return np.array(spec.class_weights, np.float64)


@contextmanager
def _nothing_kept_of_what_fails(checkpoints: Checkpoints, group: Processes) -> Iterator[None]:
    """Keep no checkpoint of a training that would fail again where it failed."""
    try:
        yield
    except NetworkError:
        if group.leads:
            checkpoints.remove()
        raise


def _take_over(job: _Job, segmenter: Segmenter, start: Start, chips: Chips) -> None:
    """Give the model what the training kept, and say where it comes from."""
    job.network.load_state_dict(segmenter.kept[1])
    job.model.network = job.network.cpu().eval()
    job.model.history = segmenter.history
    job.model.measures = _measures(segmenter)
    job.model.provenance = {
        "landscribe": version("landscribe"),
        "torch": torch.__version__,
        "chips_sha256": chips.sha256,
        "seed": job.seed,
        "weights": start.weights,
        "encoder_weights": start.terms,
        "learning_rate": start.learning_rate,
        "settings": job.spec.model_dump(mode="json"),
        "augment": job.augmentation.model_dump(mode="json", exclude_none=True),
        "changed_by": None if job.change is None else repr(job.change),
    }


def _measures(segmenter: Segmenter) -> dict[str, Any]:
    """The row of the epoch that was kept."""
    scored = [row for row in segmenter.history if row["val_mean_f1"] is not None]
    if segmenter.spec.keep == "last" or not scored:
        return segmenter.history[-1]
    return max(scored, key=lambda row: row["val_mean_f1"])
