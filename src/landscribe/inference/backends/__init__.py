"""BACKENDS lists the libraries that run a network.

Loads none of them, so that a command's help needs no torch. A new backend is a file with a function like `build_torch`,
and an entry in BACKENDS.
"""

import importlib.util
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from landscribe.inference.backends.torch_backend import Backend
    from landscribe.model import Model


@dataclass(frozen=True)
class BackendKind:
    """How a backend is built, and what it needs."""

    build: "Callable[[Model, torch.device, tuple[str, ...]], Backend]"
    """Build the backend of a model on a device for some heads; raises BackendError where it cannot run."""
    packages: tuple[str, ...] = ()
    """Python packages that it imports; the version of the first one decides its speed."""
    extra: str | None = None
    """The pip extra that installs its packages."""
    devices: tuple[str, ...] | None = None
    """Types of torch devices that it runs on; None for all."""
    precision: str = "32"
    """Bits in which it computes, as `PredictSpec.precision` names them."""
    pays_from: float = 2**24
    """Pixels of a map from which building and measuring it may pay."""
    is_of_one_thread: bool = False
    """Not on Dask workers, which run units in other threads: CUDA graphs belong to the thread that captured them."""

    @property
    def missing_packages(self) -> list[str]:
        """Its packages that are not installed."""
        return [package for package in self.packages if importlib.util.find_spec(package) is None]

    def runs_on(self, device: "torch.device") -> bool:
        """True if it runs on a device of this type."""
        return self.devices is None or device.type in self.devices


def _late(name: str) -> "Callable[[Model, torch.device, tuple[str, ...]], Backend]":
    """A function of this room, as module:function, that is imported when it is called."""

    def build(model: "Model", device: "torch.device", heads: tuple[str, ...]) -> "Backend":
        backend: Backend = pkgutil.resolve_name(f"{__name__}.{name}")(model, device, heads)
        return backend

    return build


# The exporter of torch is onnxscript; OpenVINO reads ONNX.
BACKENDS: dict[str, BackendKind] = {
    "torch": BackendKind(_late("torch_backend:build_torch"), packages=("torch",)),
    "torch-bf16": BackendKind(_late("torch_backend:build_bfloat16"), packages=("torch",), precision="bf16"),
    # To compile takes 40 s: at 500 megapixels per second, a fifth more speed wins that back on 100 gigapixels.
    "torch-compiled": BackendKind(
        _late("torch_backend:build_compiled"),
        packages=("torch",), devices=("cuda",), precision="bf16", pays_from=2**33, is_of_one_thread=True,
    ),
    "onnx": BackendKind(
        _late("onnxruntime_backend:build_onnxruntime"),
        packages=("onnxruntime", "onnxscript", "onnx"), extra="onnx", devices=("cpu", "cuda"),
    ),
    "tensorrt": BackendKind(
        _late("onnxruntime_backend:build_tensorrt"),
        packages=("onnxruntime", "onnxscript", "onnx"), extra="onnx", devices=("cuda",), precision="16",
        pays_from=2**33,
    ),
    "openvino": BackendKind(
        _late("openvino_backend:build_openvino"),
        packages=("openvino", "onnxscript", "onnx"), extra="openvino", devices=("cpu", "xpu"),
    ),
}  # fmt: skip


def installed_backends() -> tuple[str, ...]:
    """Names of the backends whose packages are installed."""
    return tuple(name for name, kind in BACKENDS.items() if not kind.missing_packages)
