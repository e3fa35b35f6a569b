"""A device with memory of its own, simulated: its tensors refuse to meet those of the CPU, as those of a GPU do.

It is torch's PrivateUse1 device, programmed in Python. A process that has it keeps it: call `install` in a process of
its own. What it cannot show is what only CUDA has: streams, pinned memory, graphs, kernels that differ by rounding.
"""

from collections import Counter
from typing import Any, Self

import lightning
import torch
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils import _pytree as pytree
from torch.utils import backend_registration

_NAME = "simulated"
reads: Counter[str] = Counter()
"""Reads of the device's memory by operation: on a GPU, each waits until all is computed."""

lacking: set[torch.dtype] = set()
"""Dtypes of which the device can hold no tensor, as Apple's GPUs of float64."""

_MAY_MIX = {"aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put_", "aten::_index_put_impl_"}
"""Operations that take tensors of both, on a GPU too."""
_LIBRARIES: list[torch.library.Library] = []
"""Kept: what a library registers ends with it."""


class _Simulated(torch.Tensor):
    """A tensor of the device, which holds one of main memory."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Self:
        if held.dtype in lacking:
            raise TypeError(f"the device has no {held.dtype}")
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=torch.device(_NAME, 0),
        )  # fmt: skip
        tensor._held = held
        return tensor

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        name, kwargs = operation._schema.name, dict(kwargs or {})
        tensors = [each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        ours = [each for each in tensors if isinstance(each, cls)]
        others = [each for each in tensors if not isinstance(each, cls) and each.ndim > 0]
        is_indexed_by_ours = name.startswith(("aten::index", "aten::_index")) and not isinstance(args[0], cls)
        if ours and others and (name not in _MAY_MIX or is_indexed_by_ours):
            raise RuntimeError(f"expected all tensors of {name} on one device")
        on_device = isinstance(args[0], cls) if name == "aten::copy_" else bool(ours)
        if (device := kwargs.get("device")) is not None:
            on_device, kwargs["device"] = torch.device(device).type == _NAME, torch.device("cpu")
        if name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal") or (ours and not on_device):
            reads[name] += 1
        held_args, held_kwargs = pytree.tree_map(_held, (args, kwargs))
        wrappers = {id(each._held): each for each in ours}

        def wrapped(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or not on_device:
                return value
            # What is changed in place stays the tensor that was given.
            return wrappers[id(value)] if id(value) in wrappers else _Simulated(value)

        return pytree.tree_map(wrapped, operation(*held_args, **held_kwargs))


def _held(value: Any) -> Any:
    return value._held if isinstance(value, _Simulated) else value


def _empty(size, dtype=None, layout=None, device=None, pin_memory=None, memory_format=torch.contiguous_format):
    return _Simulated(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))


def _empty_strided(size, stride, dtype=None, layout=None, device=None, pin_memory=None):
    return _Simulated(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source, target, *_):
    _held(target).copy_(_held(source))
    return target


def _generator(device: Any = "cpu") -> torch.Generator:
    return _Generator("cpu" if torch.device(device).type == _NAME else device)


_Generator = torch.Generator


class _Accelerator(Accelerator):
    """The device, for Lightning."""

    def setup_device(self, device: torch.device) -> None: ...

    def teardown(self) -> None: ...

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device(_NAME, 0)]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return _NAME


class _Trainer(lightning.Trainer):
    """Trains on the device."""

    def __init__(self, **settings: Any) -> None:
        on_device = {"accelerator": _Accelerator(), "strategy": SingleDeviceStrategy(torch.device(_NAME, 0))}
        super().__init__(**settings | on_device)


class _Module:
    """Stands for torch.cuda."""

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def manual_seed_all(self, seed: int) -> None: ...

    def _is_in_bad_fork(self) -> bool:
        return False


def install() -> torch.device:
    """Give this process the device; Lightning trains on it from now on."""
    backend_registration._setup_privateuseone_for_python_backend(_NAME, backend_module=_Module())
    library = torch.library.Library("aten", "IMPL")
    _LIBRARIES.append(library)
    library.impl("empty.memory_format", _empty, "PrivateUse1")
    library.impl("empty_strided", _empty_strided, "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    torch.Generator = _generator
    # A tensor of the device has no version to count in inference mode.
    torch.inference_mode = lambda mode=True: torch.set_grad_enabled(not mode)
    lightning.Trainer = _Trainer
    return torch.device(_NAME, 0)
