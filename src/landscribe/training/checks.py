"""What a training needs of its chips, its settings and the machine, looked at before anything starts."""

from typing import Any

import torch

from landscribe.data.chips.chips import Chips
from landscribe.errors import ChipError, RecipeError
from landscribe.inference.device import training_precision
from landscribe.training.dataloaders import order_of
from landscribe.training.parallel import Processes, require_fair_shares
from landscribe.training.spec import TrainSpec


def require_learnable(chips: Chips) -> None:
    """Raise ChipError without training chips, or if a class stands in other chips alone."""
    pixels = {name: chips.of_split(name).counts.sum(axis=0) for name in ("train", "val", "test")}
    if not len(chips.of_split("train")):
        splits = chips.table["split"].value_counts().to_dict()
        raise ChipError(
            f"{chips.folder} has no chip of split train (it has {splits}). Hold out less, or cut more chips."
        )
    for index, entry in enumerate(chips.classes):
        held_out = {name: int(counts[index]) for name, counts in pixels.items() if counts[index]}
        if held_out and "train" not in held_out:
            where = " and ".join(
                f"{count} labelled pixels in the chips of split {name}" for name, count in held_out.items()
            )
            raise ChipError(
                f"class '{entry.name}' (value {entry.value}) has {where}, but none in those of split train, so that it "
                "cannot be learned. Cut the chips with another --seed, a smaller --block or less held out, label more "
                "of it, or leave it out of the classes."
            )


def require_fits(spec: TrainSpec, group: Processes, training: Chips, validation: Chips) -> None:
    """Raise RecipeError where settings do not go with the chips or the machine."""
    if spec.schedule == "plateau" and not len(validation):
        raise RecipeError(
            "schedule = plateau lowers the learning rate when the validation chips are mapped no better, but there is "
            "no chip of split val. Hold some out (--val), or choose another schedule."
        )
    if spec.precision == "16" and not torch.cuda.is_available():
        raise RecipeError("precision = 16 needs a CUDA GPU, and this machine shows none. Choose 32, bf16 or auto.")
    require_fair_shares(spec, group, drawn=len(order_of(training, spec, 0)), validation=len(validation))


def precision_of(spec: TrainSpec) -> Any:
    """As Lightning's Trainer takes it."""
    return training_precision(spec.precision)
