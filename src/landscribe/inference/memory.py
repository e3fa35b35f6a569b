"""Memory: an estimate of what a batch of tiles or a training step takes, and the budget of this machine.

A network is traced on torch's meta device. The same trace shows whether it has global context.
"""

import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from landscribe.errors import LandscribeError
from landscribe.inference.device import computable_dtype
from landscribe.machine import total_memory
from landscribe.model import Model
from landscribe.nn import Segmentation
from landscribe.nn.meta_device import on_meta_device

GIB = 2**30
# Freed memory that the C library's allocator holds: processes grew by 0 to 180 MB more than their live tensors.
_ALLOCATOR_OVERHEAD = 200_000_000
# More would make tiles cheaper by only a few per cent; with these, nearly all machines choose the same tiles.
_MAX_CPU, _MAX_GPU = 1.5 * GIB, 4 * GIB
_SHARE = 1 / 4
# Side of the images of a trace: so large that no stride alone reduces it to one pixel.
_MINIMUM_SIDE = 64


class PinnedModel(Model):
    """A model whose network does not change while this one is used, so that what is found of it is kept."""

    @classmethod
    def pin(cls, model: Model) -> "PinnedModel":
        """The model itself if it is pinned."""
        return model if isinstance(model, cls) else cls(model.network, model.config, model.folder)

    @cached_property
    def sha256(self) -> str:
        """As `Model.sha256`."""
        return super().sha256

    @cached_property
    def has_global_context(self) -> bool:
        """True if the network pools all pixels of a tile to one number, or has attention between all of them.

        The logits of such a network may depend on the whole tile; how much must be measured. False if the network does
        not run on the meta device.
        """
        side = max(_MINIMUM_SIDE, 4 * self.reduction)
        trace = _GlobalReductions()
        # A user's network may fail in any way, as in `estimated_memory`.
        with suppress(Exception), trace:
            _run_on_meta_device(on_meta_device(self.network), self, (1, side, side))
        return trace.has_any

    def peak(self, shape: tuple[int, int, int]) -> int:
        """Peak memory in bytes of a batch of tiles (batch, rows, cols); the maps of one call ask for the same ones.

        Raises:
            Exception: of any kind, from a network that does not run on the meta device.
        """
        if shape not in self._peaks:
            network = on_meta_device(self.network)
            with _PeakMemory([*network.parameters(), *network.buffers()]) as traced:
                _run_on_meta_device(network, self, shape)
            self._peaks[shape] = traced.peak
        return self._peaks[shape]

    @cached_property
    def _peaks(self) -> dict[tuple[int, int, int], int]:
        return {}


def estimated_memory(models: Sequence[Model], shape: tuple[int, int, int], *, averaged: bool = False) -> int | None:
    """Peak memory in bytes of a batch of tiles, without computing anything.

    The network runs on torch's meta device, where tensors have a shape but no content, and the sizes of tensors that
    are alive together are added. Compiled backends need no more than torch. Convolutions on a GPU may need workspace
    in addition.

    Args:
        models: they run one after the other.
        shape: (batch, rows, cols) of the tiles.
        averaged: the probabilities of several models or orientations are summed, and the sum is alive meanwhile.

    Returns:
        None if a network does not run on the meta device, for example because its operations depend on pixel values.
    """
    peaks = []
    for model in models:
        try:
            peaks.append(PinnedModel.pin(model).peak(shape))
        # A user's network may do anything that meta tensors do not support.
        except Exception:  # noqa: BLE001
            return None
    batch, rows, cols = shape
    # The sum of probabilities so far, and the next ones in the original orientation; 4 bytes each.
    sums = 2 * 4 * len(models[0].classes) * batch * rows * cols if averaged else 0
    return max(peaks) + sums + _ALLOCATOR_OVERHEAD


def step_memory(network: Segmentation, shape: tuple[int, int, int, int]) -> int | None:
    """Peak memory in bytes of a training step in 32 bits, without computing anything: see `estimated_memory`.

    Feature maps that the backward pass needs, and gradients. Not the weights, nor the moments of the optimizer. With
    half the bits, feature maps take half of it.

    Args:
        network: what is trained.
        shape: (batch, bands, rows, cols) of the images.

    Returns:
        None if the network does not run on the meta device.

    Raises:
        NetworkError: the images are too small for the network.
    """
    batch, _, rows, cols = shape
    try:
        network = on_meta_device(network).train()
        with _PeakMemory([*network.parameters(), *network.buffers()]) as traced:
            images = torch.empty(shape, device="meta")
            labels = torch.empty(batch, rows, cols, dtype=torch.long, device="meta")
            torch.autograd.backward(network.training_loss(images, labels, _spread))
    except LandscribeError:
        raise
    # As in `estimated_memory`.
    except Exception:  # noqa: BLE001
        return None
    return traced.peak


def _spread(logits: Tensor, _: Tensor) -> Tensor:
    """Stands for a loss, which may depend on values. It holds as much: a probability for each logit."""
    return logits.float().log_softmax(dim=1).square().mean()


def _run_on_meta_device(network: nn.Module, model: Model, shape: tuple[int, int, int]) -> None:
    batch, rows, cols = shape
    dtype = computable_dtype(getattr(torch, model.dtype))
    # Inference mode would hide the parts of composite operations.
    with torch.no_grad():
        images = torch.empty((batch, len(model.bands), rows, cols), dtype=dtype, device="meta")
        valid = torch.empty((batch, rows, cols), dtype=torch.bool, device="meta")
        logits = network(model.scaled(images, valid))
        logits.float().max(dim=1).indices.to(torch.uint8)


class _PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds the sizes of the storages that operations allocate, until they are freed."""

    def __init__(self, existing: Iterable[Tensor]) -> None:
        """`existing` tensors and their views do not count."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        # Bytes by address of the storage, which views share.
        self._alive = {_address(tensor.untyped_storage()): 0 for tensor in existing}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return results

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = _address(storage)
        if key not in self._alive:
            self._alive[key] = storage.nbytes()
            weakref.finalize(storage, self._alive.pop, key, None)
            self.peak = max(self.peak, sum(self._alive.values()))


class _GlobalReductions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Detects operations that reduce all rows and columns to one number, and attention between all positions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.has_any = False

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        shapes = {tuple(tensor.shape) for tensor in tree_leaves(results) if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(args):
            if isinstance(tensor, Tensor) and tensor.ndim > 2 and min(tensor.shape[-2:]) > 1:
                lead = tuple(tensor.shape[:-2])
                self.has_any |= not shapes.isdisjoint({lead, (*lead, 1, 1)})
        self.has_any |= "softmax" in getattr(func, "__name__", "") and _is_attention(*args[:2])
        return results


def _is_attention(weights: Tensor, dim: int) -> bool:
    """True for a softmax over the positions of one image; attention within windows has a batch of windows."""
    return weights.ndim == 4 and len(weights) == 1 and dim in (-1, 3)


def _address(storage: torch.UntypedStorage) -> int:
    # Address of the storage object: the address of its data is 0 on the meta device.
    return int(storage._cdata)  # noqa: SLF001


def budget(device: torch.device, processes: int = 1) -> int:
    """Bytes that a batch of tiles and its unit may take.

    A share of the total memory, not of the free memory, so that the same machine chooses the same tiles each time.

    Args:
        device: where the network runs.
        processes: processes that share the memory of this machine; GPUs are not shared.
    """
    if device.type == "cuda":
        return int(min(_MAX_GPU, _SHARE * torch.cuda.get_device_properties(device).total_memory))
    total = total_memory()
    return int(min(_MAX_CPU, _SHARE * total, total / 2 / processes))
