"""Predictor: logits of tiles from one model, or from several whose probabilities are averaged."""

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscribe.errors import ModelError
from landscribe.executor import is_own_worker
from landscribe.geo.classes import Classes
from landscribe.inference.backends import Backend, build_backend
from landscribe.machine import cores
from landscribe.model import Model

_BUILDING = threading.Lock()
"""Held while backends are built: the threads of one Dask worker share a Predictor and would move its networks at once.
It is the module's, because locks cannot be pickled."""


class Predictor:
    """Logits of tiles. Its backends are built on the first call, in the process that calls."""

    def __init__(
        self,
        models: Sequence[Model],
        *,
        device: torch.device = torch.device("cpu"),  # noqa: B008
        backend: str = "torch",
        tta: bool = False,
    ) -> None:
        """Predict with one or several models.

        Args:
            models: one, or several with the same bands, dtype and classes; each applies its own scaling.
            device: where they run.
            backend: a key of BACKENDS.
            tta: test-time augmentation: average over the eight symmetries of the square.

        Raises:
            ModelError: the models differ in bands, dtype or classes.
        """
        for other in models[1:]:
            _require_same_interface(models[0], other)
        self.models = tuple(models)
        self.device = device
        self.backend = backend
        self.tta = tta
        self._backends: list[Backend] = []
        self._local_device = device

    @property
    def classes(self) -> Classes:
        """The classes of the logits' channels."""
        return self.models[0].classes

    @property
    def reduction(self) -> int:
        """Origins and sides of tiles are multiples of this many pixels."""
        return math.lcm(*(model.reduction for model in self.models))

    def logits(self, images: Tensor, valid: Tensor) -> Tensor:
        """Logits (B, K, H, W), float32, of stored pixels (B, C, H, W) and their validity (B, H, W).

        With several models or test-time augmentation: the logarithm of the mean probabilities, whose softmax is that
        mean again.
        """
        self._build_backends()
        images, valid = images.to(self._local_device), valid.to(self._local_device)
        if len(self.models) == 1 and not self.tta:
            return self._forward(0, images, valid)
        orientations = _SYMMETRIES if self.tta else _SYMMETRIES[:1]
        total: Tensor | None = None
        for turns, is_flipped in orientations:
            oriented = [_oriented(tensor, turns, is_flipped=is_flipped) for tensor in (images, valid)]
            for index in range(len(self.models)):
                probabilities = self._forward(index, *oriented).softmax(dim=1)
                restored = probabilities.flip(-1) if is_flipped else probabilities
                restored = torch.rot90(restored, -turns, (-2, -1))
                total = restored if total is None else total + restored
        assert total is not None
        return (total / (len(self.models) * len(orientations))).log()

    def _build_backends(self) -> None:
        with _BUILDING:
            if not self._backends:
                self._local_device = _local_device(self.device)
                self._backends = [build_backend(self.backend, model, self._local_device) for model in self.models]

    def _forward(self, index: int, images: Tensor, valid: Tensor) -> Tensor:
        """Logits of one model: the only line that takes a network's output, so named heads enter here."""
        logits = self._backends[index](self.models[index].scaled(images, valid))
        expected = (len(images), len(self.classes), *images.shape[-2:])
        if tuple(logits.shape) != expected:
            raise ModelError(
                f"the network gave logits of shape {tuple(logits.shape)} for images of shape {tuple(images.shape)}. "
                f"Expected {expected}: one channel for each of the {len(self.classes)} classes, at the size of the "
                "images."
            )
        return logits.float()

    def release(self) -> None:
        """Drop the backends, and the memory they hold. They are built again when they are next used."""
        self._backends = []

    def leave_device(self) -> None:
        """Move the networks to main memory before they are pickled: other workers may have no such device."""
        for model in self.models:
            with torch.inference_mode(mode=False):
                model.network.cpu()

    def __getstate__(self) -> dict[str, Any]:
        # Backends cannot be pickled; the other process builds its own.
        return self.__dict__ | {"_backends": []}


_SYMMETRIES = [(turns, is_flipped) for turns in range(4) for is_flipped in (False, True)]


def _oriented(tensor: Tensor, turns: int, *, is_flipped: bool) -> Tensor:
    turned = torch.rot90(tensor, turns, (-2, -1))
    return turned.flip(-1) if is_flipped else turned


def processes(device: torch.device) -> int:
    """Processes that share a map on this machine: one for each GPU, or one for each core."""
    if device.type == "cpu":
        return cores()
    return torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1


def _local_device(device: torch.device) -> torch.device:
    """The device of this process: a worker of our own cluster takes the GPU of its number, others the device as given.

    Other launchers, such as LocalCUDACluster, show each worker its own GPU as the first one.
    """
    if device.type != "cuda" or device.index is not None or not is_own_worker():
        return device
    from distributed import get_worker

    return torch.device("cuda", int(get_worker().name) % torch.cuda.device_count())


def _require_same_interface(first: Model, other: Model) -> None:
    for name in ("bands", "dtype", "classes"):
        ours, theirs = getattr(first, name), getattr(other, name)
        if ours != theirs:
            raise ModelError(
                f"a further model has other {name} ({_as_text(theirs)}) than the first ({_as_text(ours)}). Models of "
                "an ensemble need the same bands, dtype and classes. Train them on the same chips."
            )


def _as_text(value: Any) -> str:
    if isinstance(value, Classes):
        return ", ".join(f"{entry.value} {entry.name}" for entry in value)
    return value if isinstance(value, str) else ", ".join(value)


def as_torch_dtype(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels in a dtype that torch computes with: it has few operations on wide unsigned integers."""
    wider = {"uint16": np.int32, "uint32": np.int64}.get(pixels.dtype.name)
    return pixels if wider is None else pixels.astype(wider)
