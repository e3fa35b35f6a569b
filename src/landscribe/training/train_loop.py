"""Train a network on chips."""

import copy
import logging
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray

from landscribe import progress
from landscribe.data.batches.augment_spec import AugmentSpec
from landscribe.data.batches.dataset import ChipTransform
from landscribe.data.batches.sampling import ChipSampler
from landscribe.data.chips.chips import Chips
from landscribe.data.chips.stats import class_weights
from landscribe.errors import NetworkError
from landscribe.fingerprint import Fingerprint
from landscribe.inference.device import resolve_device, takes_threads, training_precision
from landscribe.model import Model
from landscribe.model.folder import CONFIG
from landscribe.nn import Segmentation
from landscribe.nn.encoders.weights import Weights, license_terms, resolve_weights
from landscribe.nn.losses import weighted_sum
from landscribe.outputs import require_absent
from landscribe.training.callbacks import ProgressCallback, StepLogger, compiled, loggers, quiet_lightning
from landscribe.training.checkpoint import (
    AtomicCheckpointIO,
    Checkpoints,
    EpochCheckpoint,
    InitialState,
    finished_model,
)
from landscribe.training.checks import (
    best_row,
    require_compatible,
    require_learnable,
    resolved_settings,
    trainable_network,
    with_kept_epoch,
)
from landscribe.training.lr_finder import LRFinderModule, find_learning_rate
from landscribe.training.parallel import (
    Processes,
    chip_sampler,
    leave_group,
    process_batches,
    process_plugins,
    processes,
    report_on_rank_zero,
    sampling_of,
    validation_batches,
)
from landscribe.training.scaling import scaling_of
from landscribe.training.segmenter import Segmenter
from landscribe.training.spec import EFFORT_STEPS, TrainSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    """One training: network, chips and settings."""

    model: Model
    network: Segmentation
    training: Chips
    validation: Chips
    spec: TrainSpec
    augmentation: AugmentSpec
    change: ChipTransform | None
    order: ChipSampler
    seed: int
    group: Processes


@contextmanager
def _own_seeds() -> Iterator[None]:
    """Keep the seeds of a training from the caller: random states and variables are as before, also after an error."""
    variables = {name: os.environ.get(name) for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")}
    isolation = isolate_rng()
    isolation.__enter__()
    try:
        yield
    finally:
        # With an error passed in, Lightning would restore nothing.
        isolation.__exit__(None, None, None)
        for name, value in variables.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


@_own_seeds()
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
    """Train on the chips of split "train", choose the best epoch by those of split "val", and save the model.

    A checkpoint of the last epoch lies in a folder beside `out` until the model is saved. After a kill, the same call
    resumes from it, and gives the same model. The random states of the caller stay as they are.

    Args:
        chips: the chips of all splits.
        out: the model folder to write.
        spec: network, budget, optimiser, loss.
        augmentation: augmentation of batches, on the device.
        change: a user's pipeline, called on each chip before the augmentation. It draws its own random numbers: neither
            the seed nor a checkpoint covers them.
        seed: random seed of initial weights, order and augmentation. The same seed gives the same model on the same
            CPU, unless the budget is in minutes; on a GPU, kernels add in changing order.
        overwrite: overwrite a folder that is not empty, and an unfinished training with other settings.

    Returns:
        The model of the best epoch, or of the last one if the settings choose it. If `out` holds the model of the same
        call, it is loaded, and nothing is trained, unless that model depends on a user's code.

    Raises:
        ChipError: split train has no chips, or lacks a class of another split.
        NetworkError: unknown names, weights that do not fit, a loss that is not finite.
        OutputError: `out` cannot be written, or holds another model or other files; an unfinished training has other
            settings.
        RecipeError: settings that are not possible with the chips, the machine or each other.
        EngineError: another process of this training ended in the first epoch.
        UnfinishedError: a disk is full or lost, or another process ended, and the checkpoint is kept for the same call.
    """
    require_absent(out, overwrite=overwrite or (out / CONFIG).exists())
    group = processes(spec.devices)
    training, validation = chips.of_split("train"), chips.of_split("val")
    require_learnable(chips)
    bands, size = len(chips.metadata.bands), chips.metadata.size
    spec = resolved_settings(spec, bands=bands, classes=len(chips.classes), size=size, processes=group.count)
    require_compatible(spec, group, training, validation)
    with report_on_rank_zero(group):
        spec = with_kept_epoch(spec, validation)
    weighted_sum(spec.loss), _class_weights(training, spec)  # refused before a network is built
    order = chip_sampler(training, spec, seed, group)
    spec = spec.model_copy(update={"sampling": sampling_of(order, spec)})
    passes = spec.passes(order.pass_length)
    pixels = spec.chips_a_batch * spec.accumulate * size**2
    augmentation = augmentation.resolved(passes, spec.total_steps(spec.steps_a_pass(order.pass_length)), pixels)
    fingerprint = _fingerprint(chips, spec, augmentation, change, seed, group)
    checkpoints = Checkpoints(out, fingerprint)
    if not overwrite and (finished := finished_model(out, fingerprint)):
        if group.is_rank_zero:
            checkpoints.remove_finished(finished)
        return finished
    with report_on_rank_zero(group):
        resumed = checkpoints.resume(overwrite=overwrite)
        log.info(_budget_label(spec, "by the user's pipeline" if change else augmentation.preset, passes))
        lightning.seed_everything(seed, workers=True, verbose=False)
        network, start = _new_network(chips, spec) if resumed is None else _resumed_network(chips, spec, resumed)
        model = Model.wrap(
            network,
            bands=chips.metadata.bands,
            classes=chips.classes,
            scale=start.scaling,
            pixel_size=chips.metadata.pixel_size,
            dtype=chips.metadata.dtype,
            nodata=chips.metadata.nodata,
            encoding=chips.metadata.encoding,
            pixel_sides=chips.metadata.pixel_sides,
            chip_size=chips.metadata.size,
        )
        assert isinstance(model.network, Segmentation)
        job = _Job(model, model.network, training, validation, spec, augmentation, change, order, seed, group)
        start = start if start.learning_rate else start.model_copy(update={"learning_rate": _find_learning_rate(job)})
        if group.is_rank_zero:
            checkpoints.remove_stale() if resumed else checkpoints.remove()
        with checkpoints.kept(out, group):
            segmenter = _fit(job, start, checkpoints, is_resumed=resumed is not None)
            model = _trained_model(job, segmenter, start, chips, fingerprint)
            if group.is_rank_zero:
                model.save(out, overwrite=overwrite)
        if group.is_rank_zero:
            checkpoints.remove()
        leave_group(group)
    return model


def _budget_label(spec: TrainSpec, augmentation: str, passes: float | None) -> str:
    """One line about the settings that the effort decides."""
    if passes is None:
        return f"training: {spec.minutes:g} minutes, in batches of {spec.batch}; augmentation {augmentation}"
    budget = next((f"{name} {value}" for name in ("steps", "epochs") if (value := getattr(spec, name))), None)
    budget = budget or f"effort {spec.effort}, {EFFORT_STEPS[spec.effort]} steps"
    number = f"{passes:.0f}" if passes >= 10 else f"{passes:.2g}"
    more = spec.chips_a_batch / TrainSpec().chips_a_batch
    effect = f" ({more:g} times the chips of the default, in as many steps)" if more > 1 and not spec.epochs else ""
    return (
        f"training: {budget}, in batches of {spec.batch}{effect}; passes over the training ground: about {number}; "
        f"augmentation {augmentation}"
    )


def _fingerprint(
    chips: Chips, spec: TrainSpec, augmentation: AugmentSpec, change: ChipTransform | None, seed: int, group: Processes
) -> Fingerprint:
    """All that decides the resulting weights: only a training with the same fingerprint is resumed."""
    fields = {
        "chips": chips.sha256,
        "table": chips.table_sha256,
        "train": spec.decisive,
        "augment": augmentation.model_dump(mode="json"),
        "changed_by": _pipeline_text(change),
        "seed": seed,
        "processes": group.count,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA GPU",
        "precision": training_precision(spec.precision),
        "versions": {
            "landscribe": version("landscribe"),
            "torch": torch.__version__,
            "lightning": version("lightning"),
        },
    }
    return Fingerprint.of(fields)


def _pipeline_text(change: ChipTransform | None) -> str | None:
    """A user's pipeline by its repr, or the name of its function or class; the same in every process."""
    return None if change is None else re.sub(r" at 0x[0-9a-fA-F]+", "", repr(change))


def _new_network(chips: Chips, spec: TrainSpec) -> tuple[Segmentation, InitialState]:
    """A network before its first step, and the initial state of the training."""
    network, note, terms = _network(chips, spec)
    log.info(note)
    weights = None if terms["source"] == "none" else Weights(spec.weights, spec.weights_bands)
    scaling = scaling_of(chips.of_split("train"), spec.scaling, encoder=spec.encoder, weights=weights)
    rate = None if spec.learning_rate == "auto" else spec.learning_rate
    return network, InitialState(weights=note, terms=terms, scaling=scaling, learning_rate=rate)


def _resumed_network(chips: Chips, spec: TrainSpec, start: InitialState) -> tuple[Segmentation, InitialState]:
    """A network for the weights of a checkpoint; no pretrained weights are loaded."""
    log.info(start.weights)
    return _build(chips, spec, None), start


def _network(chips: Chips, spec: TrainSpec) -> tuple[Segmentation, str, dict[str, Any]]:
    """Build the network; one line about its initial weights; their source and license."""
    weights, note = resolve_weights(spec.weights, spec.encoder)
    note += f" (bands {', '.join(spec.weights_bands)})" if spec.weights_bands else ""
    try:
        network = _build(chips, spec, weights)
    except NetworkError as error:
        if spec.weights != "auto" or weights is None:
            raise
        # The hub responded, but the download failed: "auto" trains without pretrained weights.
        weights, note = None, f"weights: none ({str(error).split('. ', 1)[0]})"
        network = _build(chips, spec, None)
    if weights is None and spec.freeze:
        how_long = "" if spec.freeze_until == 1 else f" in the first {100 * spec.freeze_until:g} % of the training"
        log.warning(
            "freeze: %s starts from random weights and will not learn%s. Choose pretrained weights, or leave out "
            "freeze.", ", ".join(spec.freeze), how_long,
        )  # fmt: skip
    if weights == "imagenet" and spec.architecture.startswith("smp:"):
        return network, note, {"source": "imagenet", "license": "that of segmentation-models-pytorch's weights"}
    pretrained = None if weights is None else Weights(weights, spec.weights_bands)
    return network, note, license_terms(spec.encoder, pretrained)


def _build(chips: Chips, spec: TrainSpec, weights: str | None) -> Segmentation:
    metadata = chips.metadata
    network = trainable_network(
        spec, bands=metadata.bands, classes=len(chips.classes), size=metadata.size, weights=weights
    )
    network.pixel_size = metadata.pixel_size
    if network.learns_objects and not chips.has_objects:
        log.warning(
            "%s learns objects, but the chips have no object numbers: touching objects count as one. Cut the chips "
            "with --objects", spec.architecture,
        )  # fmt: skip
    return network


def _find_learning_rate(job: _Job) -> float:
    """Run the learning rate finder on a copy of the network."""

    def module() -> LRFinderModule:
        network = copy.deepcopy(job.network)
        # With a practically endless budget, frozen parts stay frozen. The finder sets its own rates.
        return _segmenter(
            LRFinderModule, replace(job, model=replace(job.model, network=network), network=network), 10**9, 1.0
        )

    order = chip_sampler(job.training, job.spec, job.seed)
    batches = process_batches(job.training, job.spec, job.group, order=order, change=job.change)
    rate = find_learning_rate(module, batches, job.spec)
    log.info("learning rate: %.3g (by the learning rate finder)", rate)
    return rate


def _fit(job: _Job, start: InitialState, checkpoints: Checkpoints, *, is_resumed: bool) -> Segmenter:
    spec, group = job.spec, job.group
    job.model.network.to(memory_format=torch.channels_last)
    batches = process_batches(job.training, spec, group, order=job.order, change=job.change)
    held_out = validation_batches(job.validation, spec, group)
    total = spec.total_steps(math.ceil(len(batches) / spec.accumulate))
    assert start.learning_rate is not None
    segmenter = _segmenter(Segmenter, job, total, start.learning_rate)
    job.order.prepare()
    files = AtomicCheckpointIO()
    writer = AsyncCheckpointIO(files) if takes_threads(resolve_device()) else files
    task = progress.task("training", total or math.ceil(60 * (spec.minutes or 0)))
    with task as advance, quiet_lightning():
        callbacks = [ProgressCallback(advance, by_time=total is None), *([StepLogger()] if spec.log else [])]
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=group.count // group.nodes,
            num_nodes=group.nodes,
            strategy=_strategy(job, segmenter),
            precision=training_precision(spec.precision),
            max_steps=total or -1,
            max_epochs=-1,
            max_time={"seconds": math.ceil(60 * spec.minutes)} if spec.minutes else None,
            accumulate_grad_batches=spec.accumulate,
            gradient_clip_val=spec.gradient_clip or None,
            num_sanity_val_steps=0,
            callbacks=[*callbacks, EpochCheckpoint(checkpoints, files, start, job.order)],
            plugins=[writer, *process_plugins(group)],
            use_distributed_sampler=False,
            logger=loggers(spec.log) if group.is_rank_zero else False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            with compiled(job.network, spec, group.count):
                trainer.fit(segmenter, batches, held_out, ckpt_path=checkpoints.last if is_resumed else None)
            if held_out is not None and segmenter.has_unlogged_steps:
                # If the budget ends within an epoch, Lightning does not validate it.
                trainer.validate(segmenter, held_out, verbose=False)
        except SystemExit:
            # On Ctrl-C Lightning exits the process; landscribe leaves that to the caller.
            raise KeyboardInterrupt from None
    segmenter.close_epoch()
    segmenter.unfreeze_parts()
    return segmenter


def _strategy(job: _Job, segmenter: Segmenter) -> str:
    """The strategy of Lightning's Trainer. DDP searches for parameters without gradients only if there may be some."""
    if job.group.count == 1:
        return "auto"
    return "ddp_find_unused_parameters_true" if job.spec.freeze or _has_unused_parameters(job, segmenter) else "ddp"


def _has_unused_parameters(job: _Job, segmenter: Segmenter) -> bool:
    """True if some parameters have no gradient of the loss, as in a network with an unused part."""
    with isolate_rng():
        network = copy.deepcopy(job.network).train()
        side = 2 * network.reduction
        images, labels = torch.rand(2, len(job.model.bands), side, side), torch.zeros(2, side, side, dtype=torch.long)
        loss: Any = network.training_loss(images, labels, segmenter.criterion)
        loss.backward()
    return any(parameter.grad is None for parameter in network.parameters() if parameter.requires_grad)


def _segmenter(kind: type[Segmenter], job: _Job, total: int | None, rate: float) -> Any:
    return kind(
        job.model, job.network, job.spec.model_copy(update={"learning_rate": rate}), total,
        seed=job.seed, validates=len(job.validation) > 0,
        weights=torch.from_numpy(_class_weights(job.training, job.spec)).float(), augmentation=job.augmentation,
    )  # fmt: skip


def _class_weights(training: Chips, spec: TrainSpec) -> NDArray[np.float64]:
    """Class weights (K,), given or computed from the chips."""
    if isinstance(spec.class_weights, str):
        return class_weights(training, spec.class_weights)
    return np.array(spec.class_weights, np.float64)


def _trained_model(
    job: _Job, segmenter: Segmenter, start: InitialState, chips: Chips, fingerprint: Fingerprint
) -> Model:
    """The model with the best weights of the training, its history and its provenance."""
    job.network.load_state_dict(segmenter.best)
    model = replace(segmenter.model, network=job.network.cpu().eval())
    provenance = {
        "landscribe": version("landscribe"),
        "torch": torch.__version__,
        "chips_sha256": chips.sha256,
        "trained_splits": job.training.stored_splits(),
        "seed": job.seed,
        "weights": start.weights,
        "encoder_weights": start.terms,
        "learning_rate": start.learning_rate,
        "stopped": segmenter.stopped,
        "settings": job.spec.model_dump(mode="json"),
        "augment": job.augmentation.model_dump(mode="json", exclude_none=True),
        "changed_by": _pipeline_text(job.change),
        "training": {"fingerprint": fingerprint.fields, "model_sha256": model.sha256},
        "sampling": job.spec.sampling,
    }
    measures = _best_measures(segmenter)
    outcome = {
        "history": segmenter.history,
        "measures": measures,
        "val_threshold": measures.get("val_threshold"),
        "provenance": provenance,
    }
    config = model.config.model_copy(update=outcome)
    if warning := config.collapse or config.threshold_advice:
        log.warning("%s", warning)
    return replace(model, config=config)


def _best_measures(segmenter: Segmenter) -> dict[str, Any]:
    """The history's row of the epoch whose weights are saved."""
    return segmenter.history[-1] if segmenter.spec.checkpoint == "last" else best_row(segmenter.history)
