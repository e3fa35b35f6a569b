"""Pruning: what each branch of a UNet++ costs and is worth, and the smaller model that one of them is."""

import copy
import math
import statistics
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from landscribe.data.chips.chips import Chips
from landscribe.errors import ModelError
from landscribe.inference.evaluation import score
from landscribe.model import Model
from landscribe.nn.architectures.unetplusplus import UNetPlusPlus, pruned

_TRIALS = 5
_TRIAL_SIDE = 512


@dataclass(frozen=True)
class Branch:
    """What one branch costs, and what it is worth on chips that were held out."""

    branch: int | None
    """Its number; None for the mean of all, if there are several."""
    parameters: int
    seconds_per_megapixel: float
    """On this machine, now."""
    mean_f1: float
    mean_iou: float
    f1: dict[str, float]
    """By class."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; null where a class does not occur."""
        row = asdict(self)
        f1 = {name: _finite(value) for name, value in self.f1.items()}
        return row | {"f1": f1, "mean_f1": _finite(self.mean_f1), "mean_iou": _finite(self.mean_iou)}


def branches(model: Model, chips: Chips) -> list[Branch]:
    """Measure every branch that was trained, and the mean of all.

    Args:
        model: a UNet++ with deep supervision.
        chips: to score them on, of one split.

    Raises:
        ModelError: another architecture, other classes, or no chips.
    """
    network = _nested(model)
    if not len(chips):
        raise ModelError("there are no chips to score the branches on. Choose another --split.")
    if chips.classes.names != model.classes.names or chips.metadata.bands != model.bands:
        raise ModelError(
            f"{chips.folder} has classes {', '.join(chips.classes.names)} and bands {', '.join(chips.metadata.bands)}, "
            f"the model {', '.join(model.classes.names)} and {', '.join(model.bands)}. Chips like its were expected."
        )
    choices: dict[int | None, UNetPlusPlus] = {int(branch): pruned(network, int(branch)) for branch in network.heads}
    if len(choices) > 1:
        choices[None] = _accurate(network)
    seconds = _seconds_per_megapixel(list(choices.values()), len(model.bands))
    rows = []
    for (branch, choice), time_taken in zip(choices.items(), seconds, strict=True):
        counted = score(replace(model, network=choice), chips, f"branch {branch}" if branch else "mean of all")
        f1 = dict(zip(model.classes.names, map(float, counted.f1), strict=True))
        size = sum(parameter.numel() for parameter in choice.parameters())
        rows.append(Branch(branch, size, time_taken, counted.mean_f1, counted.mean_iou, f1))
    return rows


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _accurate(network: UNetPlusPlus) -> UNetPlusPlus:
    """The network with the mean of all branches as its answer, whichever it was set to."""
    copied = copy.deepcopy(network)
    copied.branch = None
    return copied


def prune(model: Model, branch: int) -> Model:
    """The smaller model that one branch is; its maps are those of that branch.

    Raises:
        ModelError: no UNet++.
        NetworkError: that branch was not trained.
    """
    small = pruned(_nested(model), branch)
    arguments = dict(small.built_from)
    arguments.pop("architecture")
    return replace(
        model,
        network=small,
        arguments=arguments,
        # What was measured was the mean of all branches.
        measures={name: value for name, value in model.measures.items() if name in ("epoch", "step")},
        provenance=model.provenance | {"pruned_from": model.sha256, "branch": branch},
    )


def _nested(model: Model) -> UNetPlusPlus:
    if not isinstance(model.network, UNetPlusPlus):
        raise ModelError(f"the model is {model.architecture}, which has no branches. A unetplusplus was expected.")
    return model.network


def _seconds_per_megapixel(networks: list[UNetPlusPlus], bands: int) -> list[float]:
    """Median over trials that take turns, so that what else the machine does falls on all alike."""
    image = torch.zeros(1, bands, _TRIAL_SIDE, _TRIAL_SIDE).contiguous(memory_format=torch.channels_last)
    times: list[list[float]] = [[] for _ in networks]
    for network in networks:
        network.eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        for _ in range(1 + _TRIALS):
            for network, some in zip(networks, times, strict=True):
                started = time.perf_counter()
                network(image)
                some.append(time.perf_counter() - started)
    # The first turn warms up.
    return [statistics.median(some[1:]) / _TRIAL_SIDE**2 * 1e6 for some in times]
