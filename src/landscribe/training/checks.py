"""Checks of chips, settings and machine before a training starts; settings that the machine decides."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch

from landscribe.data.chips.chips import Chips
from landscribe.errors import ChipError, RecipeError, ResourceError, counted
from landscribe.geo.classes import BACKGROUND, Classes
from landscribe.inference.device import resolve_device
from landscribe.inference.memory import step_memory
from landscribe.machine import bytes_text, cores, require_memory
from landscribe.nn import Segmentation, build, require_memory_to_build
from landscribe.nn.architectures.external import require_image_side
from landscribe.nn.meta_device import BYTES_PER_WEIGHT, count_weights
from landscribe.training.parallel import Processes, chip_sampler, require_shareable_batches
from landscribe.training.spec import TrainSpec

log = logging.getLogger(__name__)

_READERS_A_CORE = 16
"""Reader processes wait for disks and servers; more than these only take memory."""

_BATCHES = (64, 32, 16, 8, 4, 2, 1)
"""Those that auto chooses from. More chips in a batch save hardly any time, and small batches generalise better
(Masters & Luschi 2018, arXiv:1804.07612)."""
_GPU_SHARE = 0.6
"""Of a GPU's memory that a step may need: convolutions need workspace, and the allocator leaves gaps."""


def resolved_settings(spec: TrainSpec, *, bands: int, classes: int, size: int, processes: int = 1) -> TrainSpec:
    """The settings with the effort and the batch that this machine takes for auto.

    Args:
        spec: the settings.
        bands: number C of bands.
        classes: number K of classes.
        size: side of the chips, in pixels.
        processes: that train together.

    Raises:
        RecipeError: batch is auto on a GPU, and several processes train, or the memory of a step is not foreseeable.
        NetworkError: the network cannot be built.
        ResourceError: the step of one chip does not fit into the GPU's memory.
    """
    if spec.batch != "auto" or not torch.cuda.is_available():
        return spec.resolved(has_gpu=resolve_device().type != "cpu")
    if processes > 1:
        raise RecipeError(f"batch = auto needs one process, but there are {processes}. Give a number.")
    return spec.resolved(has_gpu=True, batch=_largest_batch(spec, bands, classes, size))


def _largest_batch(spec: TrainSpec, bands: int, classes: int, size: int) -> int:
    """The largest power of two of chips whose training step fits into the GPU's memory."""
    network = network_of(spec, bands=bands, classes=classes)
    kept = _copies(spec) * count_weights(network) * BYTES_PER_WEIGHT
    memory = _GPU_SHARE * torch.cuda.get_device_properties(resolve_device()).total_memory
    needed = None
    for batch in _BATCHES:
        step = step_memory(network, (batch, bands, size, size))
        if step is None:  # normalisation over a single value may be refused
            break
        needed = step + kept
        if needed <= memory:
            return batch
    if needed is None:
        raise RecipeError(f"batch = auto cannot foresee the memory of {spec.architecture}. Give a number.")
    raise ResourceError(
        f"the smallest training step, of chips of {size} x {size} pixels, needs {bytes_text(needed)}, but at most "
        f"{bytes_text(memory)} of the GPU are for it. Choose smaller chips or a smaller network."
    )


def network_of(
    spec: TrainSpec, *, bands: int | Sequence[str], classes: int, weights: str | None = None
) -> Segmentation:
    """The network of a training, whatever it needs; see `nn.build` for the arguments."""
    return build(
        spec.architecture, bands=bands, encoder=spec.encoder, weights=weights,
        weights_bands=spec.weights_bands, **{"classes": classes, **spec.options},
    )  # fmt: skip


def trainable_network(
    spec: TrainSpec, *, bands: Sequence[str], classes: int, size: int, weights: str | None
) -> Segmentation:
    """The network of a training, which this machine can train on chips of this size.

    Args:
        spec: the network and its optimizer.
        bands: names of the bands.
        classes: number K of classes.
        size: side of the chips, in pixels.
        weights: see `nn.build`.

    Raises:
        NetworkError: it cannot be built, or takes no chips of this size.
        ResourceError: the training needs more memory than this machine has.
    """
    require_memory_to_train(spec, bands=len(bands), classes=classes)
    network = network_of(spec, bands=bands, classes=classes, weights=weights)
    require_memory_to_train(spec, bands=len(bands), classes=classes, network=network)
    require_image_side(network, len(bands), size)
    return network


def _copies(spec: TrainSpec) -> int:
    """Numbers for each weight: itself, its gradient, the optimizer's moments, its moving average."""
    return 2 + (2 if spec.optimizer == "adamw" else 1) + bool(spec.ema_decay)


def require_two_classes(chips: Chips) -> None:
    """Raise ChipError if all labelled pixels have one class."""
    pixels = chips.counts.sum(axis=0)
    present = [entry for entry, count in zip(chips.classes, pixels.tolist(), strict=True) if count]
    if len(present) < 2:
        names = ", ".join(f"'{entry.name}' (value {entry.value})" for entry in present) or "none"
        raise ChipError(
            f"{chips.folder} has labelled pixels of one class only: {names}. Expected at least two. Check the labels."
        )


def require_learnable(chips: Chips) -> None:
    """Raise ChipError if no chip is in split train, or if a class occurs in other splits only."""
    pixels = {name: chips.of_split(name).counts.sum(axis=0) for name in ("train", "val", "test")}
    if not len(chips.of_split("train")):
        raise ChipError(
            f"{chips.folder} has no chip in split train (it has {chips.split_counts}). Hold out fewer chips, or cut "
            "more."
        )
    for index, entry in enumerate(chips.classes):
        held_out = {name: int(counts[index]) for name, counts in pixels.items() if counts[index]}
        if held_out and "train" not in held_out:
            pixels_by_split = " and ".join(
                f"{count} labelled pixels in split {name}" for name, count in held_out.items()
            )
            raise ChipError(
                f"class '{entry.name}' (value {entry.value}) has {pixels_by_split}, but none in split train. "
                "Cut the chips with another --seed, a smaller --block or fewer held out, label more of the class, or "
                "remove it from the classes."
            )


def require_compatible(spec: TrainSpec, group: Processes, training: Chips, validation: Chips) -> None:
    """Raise RecipeError if settings are not possible with these chips or on this machine."""
    require_settings(spec, training.classes)
    require_validation(spec, validation.labelled_classes)
    require_workers(spec, group)
    _require_memory(spec, group, training)
    require_shareable_batches(spec, group, drawn=len(chip_sampler(training, spec, 0)), validation=len(validation))


def require_settings(spec: TrainSpec, classes: Classes) -> None:
    """Raise RecipeError if settings are not possible with these classes or on this machine."""
    _require_background(spec, classes)
    if spec.precision == "16" and not torch.cuda.is_available():
        raise RecipeError("precision = 16 needs a CUDA GPU, but this machine has none. Choose 32, bf16 or auto.")
    if isinstance(spec.class_weights, str):
        return
    if len(spec.class_weights) != len(classes):
        raise RecipeError(
            f"class_weights has {counted(len(spec.class_weights), 'number')} for {len(classes)} classes "
            f"({', '.join(classes.names)}). Expected one number for each class, in this order."
        )
    if not any(spec.class_weights):
        raise RecipeError("class_weights are all 0. Expected at least one above 0.")


def _require_background(spec: TrainSpec, classes: Classes) -> None:
    """Raise RecipeError for a network that learns objects, if the first class is not the background.

    Such a network takes the pixels of all other classes as objects.
    """
    first = next(iter(classes))
    if spec.learns_objects and first.value != classes.background and first.name.lower() != BACKGROUND:
        raise RecipeError(
            f"{spec.architecture} learns the objects of all classes but the first, which is '{first.name}' (value "
            f"{first.value}). Expected the background there. Put a class of value 0 for the pixels without an object "
            "first in the class table, or train another architecture."
        )


def require_validation(spec: TrainSpec, classes: Sequence[str]) -> None:
    """Raise RecipeError if a setting follows the F1 on validation chips, and these have only these classes."""
    follows = {"schedule = plateau": spec.schedule == "plateau", f"patience = {spec.patience}": bool(spec.patience)}
    setting = next((name for name, is_given in follows.items() if is_given), None)
    if setting is not None and len(classes) < 2:
        raise RecipeError(
            f"{setting} follows the mean F1 on the validation chips, but split val has {_only(classes)}. Hold out "
            "validation chips with more classes (--val, --seed), or leave that setting out."
        )


def with_kept_epoch(spec: TrainSpec, validation: Chips) -> TrainSpec:
    """The settings, with the last epoch to keep where the validation chips cannot choose one.

    With one class, an epoch that finds nothing has the highest F1.
    """
    classes = validation.labelled_classes
    if spec.checkpoint == "last" or not len(validation) or len(classes) > 1:
        return spec
    log.warning(
        "split val has %s, and cannot choose the best epoch: the last one is kept. Hold out other or more validation "
        "chips (--val, --seed)", _only(classes),
    )  # fmt: skip
    return spec.model_copy(update={"checkpoint": "last"})


def best_row(history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of the best epoch: of the highest mean F1 on the validation chips, without these the last one.

    Of equal F1s, as where each epoch finds background alone, the lowest validation loss decides, then the later epoch.
    A loss that is not finite counts as the highest.
    """
    validated = [row for row in reversed(history) if row["val_mean_f1"] is not None]
    return max(validated, key=_rank) if validated else history[-1]


def _rank(row: dict[str, Any]) -> tuple[float, float]:
    """F1 and loss of an epoch; better is higher. NaN has no order: the best would depend on the order of epochs."""
    loss = row["val_loss"]
    return row["val_mean_f1"], -loss if math.isfinite(loss) else -math.inf


def _only(classes: Sequence[str]) -> str:
    return f"no class but {classes[0]}" if classes else "no labelled pixels"


def require_workers(spec: TrainSpec, group: Processes) -> None:
    """Raise RecipeError for more reader processes than the cores of this machine can serve."""
    most = _READERS_A_CORE * max(1, cores() // (group.count // group.nodes))
    if spec.workers is not None and spec.workers > most:
        raise RecipeError(
            f"workers is {spec.workers}, but this machine has {cores()} cores for {group.count // group.nodes} "
            f"training processes. Expected at most {most}, {_READERS_A_CORE} for each core. Choose fewer --workers."
        )


def _require_memory(spec: TrainSpec, group: Processes, training: Chips) -> None:
    """Raise ResourceError if one batch, its logits and their gradients alone need more memory than there is."""
    size, values = training.metadata.size, len(training.metadata.bands) + 2 * len(training.classes)
    if not torch.cuda.is_available():
        require_memory(
            4 * values * spec.chips_a_batch // group.nodes * size**2,
            f"a batch of {counted(spec.chips_a_batch, 'chip')} of {size} x {size} pixels",
            "Choose a smaller --batch (with --accumulate, gradients are as of a larger one) or smaller chips.",
        )


def require_memory_to_train(spec: TrainSpec, *, bands: int, classes: int, network: Segmentation | None = None) -> None:
    """Raise ResourceError if the weights, their gradients and the optimizer's moments alone need more memory than is.

    Args:
        spec: the network and its optimizer.
        bands: number C of bands.
        classes: number K of classes.
        network: the network, if it is built. Before, only one with large options is measured.
    """
    # On a GPU, its own memory holds all but the first copy of the weights.
    copies = 1 if torch.cuda.is_available() else _copies(spec)
    if network is None:
        arguments = {"bands": bands, "classes": classes, "encoder": spec.encoder, **spec.options}
        require_memory_to_build(spec.architecture, arguments, purpose="training", copies=copies)
        return
    weights = count_weights(network)
    require_memory(
        copies * weights * BYTES_PER_WEIGHT,
        f"training {spec.architecture} on {spec.encoder} with {weights:,} weights",
        "Choose a smaller encoder or architecture.",
    )
