"""How much memory a tile takes, foreseen from the network, and how much it may take on this machine.

Followed without content, a network also shows whether it looks at a tile as a whole.
"""

import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from landscribe.machine import total_memory
from landscribe.model import Model

GIB = 2**30
# Freed pieces that the C library's allocator keeps: measured, processes grew by 0 to 180 MB more than what lives.
_KEPT = 200_000_000
# More would make tiles only a few hundredths cheaper, and nearly all machines choose alike with these.
_MOST_CPU, _MOST_GPU = 1.5 * GIB, 4 * GIB
_SHARE = 1 / 4
# Of images by which a network is followed: so large that no stride alone makes one pixel of them.
_LEAST_SIDE = 64


def foreseen_bytes(models: Sequence[Model], shape: tuple[int, int, int], *, averaged: bool = False) -> int | None:
    """Peak memory of a batch of tiles, of pixels and weights without content: nothing is computed.

    Each operation is followed with torch's meta tensors, which have shapes alone, and what lives at the same time is
    added up. Compiled engines need no more than torch does. A GPU's convolutions may take workspace on top.

    Args:
        models: run one after the other.
        shape: (batch, rows, cols) of the tiles.
        averaged: the answers of several models or symmetries are added up, which live meanwhile.

    Returns:
        None if a network does not run without content, as where it looks at pixels to decide what to do.
    """
    peaks = []
    for model in models:
        try:
            peaks.append(_peak(model, shape))
        # Whatever somebody's network does that meta tensors cannot: there is no list of it.
        except Exception:  # noqa: BLE001
            return None
    batch, rows, cols = shape
    # The sum of shares so far, and the new ones as they are turned back.
    more = 2 * 4 * len(models[0].classes) * batch * rows * cols if averaged else 0
    return max(peaks) + more + _KEPT


def _peak(model: Model, shape: tuple[int, int, int]) -> int:
    weights = _without_content(model)
    with _Following(weights.values()) as followed:
        _run_without_content(model, weights, shape)
    return followed.peak


def looks_at_all(model: Model) -> bool:
    """True if the network has an operation that makes one number of all pixels of a tile, as pools of whole images do.

    Such a network's answer may depend on the tile as a whole; how much, must be measured. False if it does not run
    without content.
    """
    side = max(_LEAST_SIDE, 4 * model.reduction)
    gathering = _Gathering()
    # Whatever fails, as in `foreseen_bytes`.
    with suppress(Exception), gathering:
        _run_without_content(model, _without_content(model), (1, side, side))
    return gathering.found


def _without_content(model: Model) -> dict[str, Tensor]:
    named = (*model.network.named_parameters(), *model.network.named_buffers())
    return {name: torch.empty_like(tensor, device="meta") for name, tensor in named}


def _run_without_content(model: Model, weights: dict[str, Tensor], shape: tuple[int, int, int]) -> None:
    batch, rows, cols = shape
    dtype = getattr(torch, {"uint16": "int32", "uint32": "int64"}.get(model.dtype, model.dtype))
    # Inference mode would hide the parts of operations that are made of others.
    with torch.no_grad():
        images = torch.empty((batch, len(model.bands), rows, cols), dtype=dtype, device="meta")
        known = torch.empty((batch, rows, cols), dtype=torch.bool, device="meta")
        logits = torch.func.functional_call(model.network, weights, (model.scaled(images, known),))
        logits.float().max(dim=1).indices.to(torch.uint8)


class _Following(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operations make, until they are freed."""

    def __init__(self, before: Iterable[Tensor]) -> None:
        """`before` are there anyway: they and their views do not count."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        # Bytes by address: views are other tensors, but share their storage.
        self._living = {_address(tensor.untyped_storage()): 0 for tensor in before}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._follow(tensor)
        return made

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = _address(storage)
        if key not in self._living:
            self._living[key] = storage.nbytes()
            weakref.finalize(storage, self._living.pop, key, None)
            self.peak = max(self.peak, sum(self._living.values()))


class _Gathering(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Finds operations that make one number of all rows and columns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = False

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        shapes = {tuple(tensor.shape) for tensor in tree_leaves(made) if isinstance(tensor, Tensor)}
        for taken in tree_leaves(args):
            if isinstance(taken, Tensor) and taken.ndim > 2 and min(taken.shape[-2:]) > 1:
                lead = tuple(taken.shape[:-2])
                self.found |= not shapes.isdisjoint({lead, (*lead, 1, 1)})
        return made


def _address(storage: torch.UntypedStorage) -> int:
    # That of the storage itself: that of its content is 0 where there is none.
    return int(storage._cdata)  # noqa: SLF001


def budget(device: torch.device, processes: int = 1) -> int:
    """Bytes that tiles and what belongs to them may take.

    A share of all memory, not of what is free just now: the same machine is to choose the same tiles tomorrow.

    Args:
        device: where the network runs.
        processes: that share this machine's memory; GPUs are not shared.
    """
    if device.type == "cuda":
        return int(min(_MOST_GPU, _SHARE * torch.cuda.get_device_properties(device).total_memory))
    total = total_memory()
    return int(min(_MOST_CPU, _SHARE * total, total / 2 / processes))
