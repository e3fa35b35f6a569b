"""Engines: what runs a network. (Begun by the owner so that the rest can be tested; yours to replace.)"""

from collections.abc import Callable

import torch
from torch import Tensor

from landscribe.model import Model

Engine = Callable[[Tensor], Tensor]


def _torch(model: Model, device: torch.device) -> Engine:
    return model.network


ENGINES: dict[str, Callable[[Model, torch.device], Engine]] = {"torch": _torch}


def fastest(model: Model, *, tile: int, batch: int, device: torch.device) -> str:
    """The fastest engine here."""
    return "torch"
