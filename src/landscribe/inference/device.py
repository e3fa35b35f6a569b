"""Device and precision: where a network runs, in which type it computes, and how pixels get there and back."""

import copy
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from landscribe.errors import ModelError, first_line
from landscribe.machine import cpu_has_bfloat16

log = logging.getLogger(__name__)

TrainingPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]
_TRAINING_PRECISIONS: dict[str, TrainingPrecision] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
_TRAINING_DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def resolve_device(name: str = "auto") -> torch.device:
    """The device of a name: cpu, cuda, cuda:1, mps, xpu, or auto for a CUDA GPU, else Apple's GPU, else the CPU.

    Raises:
        ModelError: torch cannot use this device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).cpu()  # the meta device has no pixels to give back
    except (RuntimeError, AssertionError, ImportError) as error:
        # The rest lists all that torch was built with.
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise ModelError(f"device '{name}' cannot be used: {reason}. Use auto, cpu, cuda, mps or xpu.") from error
    return device


def place_network(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to the device, in eval mode and with channels-last weights; returns the same network."""
    # Weights that are moved in inference mode could not be trained again.
    with torch.inference_mode(mode=False):
        return network.to(device).eval().to(memory_format=torch.channels_last)


def in_eval_mode(network: nn.Module) -> nn.Module:
    """The network if all of it is in eval mode, else a copy: the caller may go on to train it.

    Its modes are not restored afterwards, because another thread may still predict with it. A network that cannot be
    copied, such as one that keeps a feature map of a training step, is set to eval mode, with a warning.
    """
    if not any(module.training for module in network.modules()):
        return network
    try:
        with torch.inference_mode(mode=False):
            return copy.deepcopy(network).eval()
    # A user's network may hold anything.
    except Exception as error:  # noqa: BLE001
        log.warning("the network is set to eval mode, because it cannot be copied (%s)", first_line(error))
        return network.eval()


def _gpu_has_bfloat16(device: torch.device) -> bool:
    """True for CUDA GPUs that compute in bfloat16; emulation would be slower than float32."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def training_precision(requested: str, device: torch.device | None = None) -> TrainingPrecision:
    """The precision of training, as Lightning's Trainer names it.

    Args:
        requested: 32, bf16, 16, or auto for bf16 on GPUs and CPUs that have it, else 32.
        device: the device of the training; that of `resolve_device` if None.

    Returns:
        32-true, bf16-mixed or 16-mixed.

    Example:
        >>> training_precision("bf16")
        'bf16-mixed'
    """
    if requested == "auto":
        device = device or resolve_device()
        has_bfloat16 = cpu_has_bfloat16() if device.type == "cpu" else _gpu_has_bfloat16(device)
        requested = "bf16" if has_bfloat16 else "32"
    return _TRAINING_PRECISIONS[requested]


def training_autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Context in which a forward pass computes as in training of this `training_precision`."""
    dtype = _TRAINING_DTYPES[precision]
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype)


def computable_dtype(dtype: torch.dtype) -> torch.dtype:
    """A dtype with all values of this one that torch computes with: it has few operations on wide unsigned integers."""
    return {torch.uint16: torch.int32, torch.uint32: torch.int64}.get(dtype, dtype)


def held_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype in which a device holds numbers of this one: the same, but on Apple's GPUs.

    These have no float64, nor, in older versions of torch, uint16.

    Example:
        >>> held_dtype(torch.float64, torch.device("mps")), held_dtype(torch.float64, torch.device("cpu"))
        (torch.float32, torch.float64)
    """
    if device.type != "mps":
        return dtype
    return torch.float32 if dtype is torch.float64 else computable_dtype(dtype)


def as_held(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor in its `held_dtype`, still in main memory: the device would refuse another one."""
    return tensor.to(held_dtype(tensor.dtype, device))


def takes_threads(device: torch.device) -> bool:
    """True if several threads may use a device at once; on Apple's GPUs, that may end the process.

    See https://github.com/pytorch/pytorch/issues/197805.
    """
    return device.type != "mps"


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Pixels, valid or labels on a device, in their `held_dtype`; call it in the thread that computes there."""
    return as_held(tensor, device).to(device)


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished its work."""
    if device.type == "mps":
        torch.mps.synchronize()
    else:
        getattr(torch, device.type).synchronize(device)


@dataclass(frozen=True)
class Copied:
    """Tensors whose copy to a GPU, or from it, may still be under way. On a CPU it has ended."""

    tensors: tuple[Tensor, ...]
    _end: Any = None
    """The CUDA event at the end of the copy."""
    _left_for: torch.device | None = None
    """The device to which the thread that computes copies the tensors."""

    def on_device(self) -> tuple[Tensor, ...]:
        """The tensors on the device: what the calling thread computes from now on waits for them, not the thread."""
        if self._left_for is not None:
            return tuple(to_device(tensor, self._left_for) for tensor in self.tensors)
        if self._end is not None:
            stream = torch.cuda.current_stream(self.tensors[0].device)
            stream.wait_event(self._end)
            for tensor in self.tensors:
                tensor.record_stream(stream)
        return self.tensors

    def in_memory(self) -> tuple[Tensor, ...]:
        """The tensors in main memory, once the copy has ended; any thread may wait for it."""
        if self._end is not None:
            self._end.synchronize()
        return self.tensors


def copy_to_device(tensors: Sequence[Tensor], device: torch.device) -> Copied:
    """Start to copy tensors of main memory to a device, beside what it computes; any thread may call it."""
    if not takes_threads(device):
        return Copied(tuple(tensors), _left_for=device)
    if device.type != "cuda":
        return Copied(tuple(to_device(tensor, device) for tensor in tensors))
    with torch.cuda.stream(_copy_streams(device)[0]):
        # Torch keeps pinned memory, and gives it out again once the copy from it has ended.
        copies = tuple(_pinned(tensor).to(device, non_blocking=True) for tensor in tensors)
        return Copied(copies, _recorded_event())


def _pinned(tensor: Tensor) -> Tensor:
    """A contiguous copy in pinned memory."""
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    # By NumPy in this thread: torch would start as many threads as there are cores, for each thread that reads.
    np.copyto(pinned.numpy(), tensor.numpy())
    return pinned


def copy_to_memory(tensors: Sequence[Tensor]) -> Copied:
    """Start to copy tensors of one device to main memory, once all is computed that the calling thread asked for."""
    device = tensors[0].device
    if device.type != "cuda":
        return Copied(tuple(tensor.cpu() for tensor in tensors))
    stream = _copy_streams(device)[1]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        copies = tuple(
            torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
            for tensor in tensors
        )
        for tensor in tensors:
            # Its memory is not given out again before the copy has ended.
            tensor.record_stream(stream)
        return Copied(copies, _recorded_event())


@lru_cache
def _copy_streams(device: torch.device) -> tuple[Any, Any]:
    """The CUDA streams of copies to a device and from it, which run beside each other."""
    # Any: torch does not annotate it.
    stream: Any = torch.cuda.Stream
    return stream(device), stream(device)


def _recorded_event() -> Any:
    """A CUDA event at the end of what the current stream was given; threads that wait for it sleep."""
    # Any: torch does not annotate it.
    event: Any = torch.cuda.Event
    recorded = event(blocking=True)
    recorded.record()
    return recorded
