"""Pruning: cost and accuracy of each branch of a UNet++, and the smaller model of one branch."""

import copy
import statistics
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from landscribe.agreement import plain
from landscribe.data.chips.chips import Chips
from landscribe.errors import ModelError
from landscribe.inference.benchmark import synthetic_images, time_in_turns
from landscribe.inference.device import place_network, resolve_device
from landscribe.inference.evaluation import score
from landscribe.model import Model
from landscribe.nn.architectures.unetplusplus import UNetPlusPlus, pruned

_TRIALS = 5
_TRIAL_SIDE = 512


@dataclass(frozen=True)
class Branch:
    """Cost of one branch, and its accuracy on held-out chips."""

    branch: int | None
    """Its number, from 1; None for the mean of all branches."""
    parameters: int
    seconds_per_megapixel: float
    """Median of five trials on this machine."""
    mean_f1: float
    mean_iou: float
    f1: dict[str, float]
    """By class."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; null for classes that do not occur."""
        row = asdict(self)
        f1 = {name: plain(value) for name, value in self.f1.items()}
        return row | {"f1": f1, "mean_f1": plain(self.mean_f1), "mean_iou": plain(self.mean_iou)}


def branches(model: Model, chips: Chips) -> list[Branch]:
    """Measure each trained branch, and the mean of all branches.

    Args:
        model: a UNet++ with deep supervision.
        chips: of one split, to measure the accuracy on.

    Raises:
        ModelError: the architecture is another, the classes or bands differ, or there are no chips.
    """
    network = _nested(model)
    if not len(chips):
        raise ModelError("there are no chips to measure the branches on. Choose another --split.")
    if chips.classes.names != model.classes.names or chips.metadata.bands != model.bands:
        raise ModelError(
            f"{chips.folder} has classes {', '.join(chips.classes.names)} and bands {', '.join(chips.metadata.bands)}, "
            f"the model {', '.join(model.classes.names)} and {', '.join(model.bands)}. Expected the same."
        )
    choices: dict[int | None, UNetPlusPlus] = {int(branch): pruned(network, int(branch)) for branch in network.heads}
    if len(choices) > 1:
        choices[None] = _mean_of_branches(network)
    seconds = _seconds_per_megapixel(choices, len(model.bands))
    rows = []
    for branch, choice in choices.items():
        confusion = score(replace(model, network=choice), chips, f"branch {branch}" if branch else "mean of all")
        f1 = dict(zip(model.classes.names, map(float, confusion.f1), strict=True))
        size = sum(parameter.numel() for parameter in choice.parameters())
        rows.append(Branch(branch, size, seconds[branch], confusion.mean_f1, confusion.mean_iou, f1))
    return rows


def _mean_of_branches(network: UNetPlusPlus) -> UNetPlusPlus:
    """A copy whose logits are the mean of all branches, whichever branch the network was set to."""
    copied = copy.deepcopy(network)
    copied.branch = None
    return copied


def prune(model: Model, branch: int) -> Model:
    """Cut a UNet++ down to one branch; its maps are those of that branch in the whole network.

    Args:
        model: a UNet++ with deep supervision; it is not changed.
        branch: 1, the smallest, to the number of branches.

    Raises:
        ModelError: the model is no UNet++.
        NetworkError: this branch was not trained.
    """
    small = pruned(_nested(model), branch)
    arguments = dict(small.built_from)
    arguments.pop("architecture")
    changes = {
        "arguments": arguments,
        # The measures of the whole network are not those of one branch.
        "measures": {name: value for name, value in model.measures.items() if name in ("epoch", "step")},
        "val_threshold": None,
        "provenance": model.provenance | {"pruned_from": model.sha256, "branch": branch},
    }
    return replace(model, network=small, config=model.config.model_copy(update=changes))


def _nested(model: Model) -> UNetPlusPlus:
    if not isinstance(model.network, UNetPlusPlus):
        raise ModelError(f"the model is {model.architecture}, which has no branches. Expected unetplusplus.")
    return model.network


def _seconds_per_megapixel(networks: dict[int | None, UNetPlusPlus], bands: int) -> dict[int | None, float]:
    """Median seconds of each network, on the device of inference and in 32 bits."""
    device = resolve_device()
    images = synthetic_images((1, bands, _TRIAL_SIDE, _TRIAL_SIDE), device)
    calls = {branch: partial(place_network(network, device), images) for branch, network in networks.items()}
    with torch.inference_mode():
        times = time_in_turns(calls, device, rounds=1 + _TRIALS)
    # The first round warms up.
    return {branch: statistics.median(measured[1:]) / _TRIAL_SIDE**2 * 1e6 for branch, measured in times.items()}
