"""Checks of chips, settings and machine before a training starts."""

import torch

from landscribe.data.chips.chips import Chips
from landscribe.errors import ChipError, RecipeError, counted
from landscribe.machine import cores, require_memory
from landscribe.nn import Segmentation, require_memory_to_build
from landscribe.nn.meta_device import BYTES_PER_WEIGHT, count_weights
from landscribe.training.parallel import Processes, chip_sampler, require_shareable_batches
from landscribe.training.spec import TrainSpec

_READERS_A_CORE = 16
"""Reader processes wait for disks and servers; more than these only take memory."""


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
        splits = chips.table["split"].value_counts().to_dict()
        raise ChipError(
            f"{chips.folder} has no chip in split train (it has {splits}). Hold out fewer chips, or cut more."
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
    if spec.schedule == "plateau" and not len(validation):
        raise RecipeError(
            "schedule = plateau needs validation chips, but split val has none. "
            "Hold out validation chips (--val), or choose another schedule."
        )
    if spec.precision == "16" and not torch.cuda.is_available():
        raise RecipeError("precision = 16 needs a CUDA GPU, but this machine has none. Choose 32, bf16 or auto.")
    require_workers(spec, group)
    _require_memory(spec, group, training)
    require_shareable_batches(spec, group, drawn=len(chip_sampler(training, spec, 0)), validation=len(validation))


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
            4 * values * spec.batch // group.nodes * size**2,
            f"a batch of {counted(spec.batch, 'chip')} of {size} x {size} pixels",
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
    moments = 2 if spec.optimizer == "adamw" else 1
    copies = 1 if torch.cuda.is_available() else 2 + moments + bool(spec.ema_decay)
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
