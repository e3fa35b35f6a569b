"""CompiledNetwork: a network that another runtime compiles from ONNX, once for each shape of images."""

import threading
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from landscribe.errors import BackendError, root_cause
from landscribe.inference.backends.onnx_export import MAX_SHAPES, Shape, load_or_export
from landscribe.inference.backends.torch_backend import fused_network
from landscribe.model import Model

Run = Callable[[Tensor], list[Tensor]]
"""Images (B, C, H, W) of one shape to logits (B, channels, H, W) of each head, in the order of the ONNX outputs."""


class CompiledNetwork:
    """A backend that exports and compiles a model's network when it first gets images of a shape."""

    def __init__(
        self,
        model: Model,
        device: torch.device,
        heads: tuple[str, ...],
        compile_network: Callable[[bytes, torch.device], Run],
    ) -> None:
        """`compile_network` compiles a network in ONNX for the device."""
        self._model = model
        self._device = device
        self._heads = heads
        self._compile = compile_network
        self._runs: dict[Shape, Run] = {}
        # Threads of one process share a backend, and OpenVINO runs one image batch at a time.
        self._lock = threading.Lock()

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (B, channels, H, W) of each head, of images (B, C, H, W).

        Raises:
            BackendError: the network cannot be exported or run.
        """
        with self._lock:
            try:
                return dict(zip(self._heads, self._run_for(tuple(images.shape))(images), strict=True))
            except BackendError:
                raise
            except Exception as error:  # a runtime may raise anything
                raise BackendError(
                    f"the exported network cannot be run: {root_cause(error)}. Use --engine torch."
                ) from error

    def _run_for(self, shape: Shape) -> Run:
        if shape not in self._runs:
            if len(self._runs) == MAX_SHAPES:
                del self._runs[next(iter(self._runs))]
            network = partial(fused_network, self._model, self._device, self._heads)
            onnx = load_or_export(self._model, network, shape, self._heads)
            self._runs[shape] = self._compile(onnx, self._device)
        return self._runs[shape]
