"""What answers for tiles: one model, or several whose probabilities are averaged, on an engine and a device."""

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
from landscribe.inference.backends import ENGINES, Engine
from landscribe.machine import cores
from landscribe.model import Model

_MAKING = threading.Lock()
"""Held while engines are made: the threads of one worker of dask share a Predictor, and would move its networks at
once. The module's, for locks do not travel between processes."""


class Predictor:
    """Scores of tiles; engines are made where and when they are first asked."""

    def __init__(
        self,
        models: Sequence[Model],
        *,
        device: torch.device = torch.device("cpu"),  # noqa: B008
        engine: str = "torch",
        symmetries: bool = False,
    ) -> None:
        """Of models that are alike.

        Args:
            models: one, or several with the same bands, dtype and classes; each scales pixels in its own way.
            device: where they run.
            engine: a name of ENGINES.
            symmetries: average over the eight symmetries of the square, too.

        Raises:
            ModelError: they cannot answer for the same raster.
        """
        for other in models[1:]:
            _require_alike(models[0], other)
        self.models = tuple(models)
        self.device = device
        self.engine = engine
        self.symmetries = symmetries
        self._engines: list[Engine] = []
        self._here = device

    @property
    def classes(self) -> Classes:
        """Of the scores' channels."""
        return self.models[0].classes

    @property
    def reduction(self) -> int:
        """What the origins and sides of tiles are multiples of."""
        return math.lcm(*(model.reduction for model in self.models))

    def scores(self, images: Tensor, known: Tensor) -> Tensor:
        """Logits (B, K, H, W), float32, of stored pixels (B, C, H, W) that are valid where `known` (B, H, W).

        Of several answers: logarithms of their mean probabilities, of which softmax makes these again.
        """
        with _MAKING:
            if not self._engines:
                self._here = _device_here(self.device)
                self._engines = [ENGINES[self.engine](model, self._here) for model in self.models]
        images, known = images.to(self._here), known.to(self._here)
        if len(self.models) == 1 and not self.symmetries:
            return self._answer(0, images, known)
        total: Tensor | None = None
        for turns, is_flipped in _SYMMETRIES if self.symmetries else _SYMMETRIES[:1]:
            moved = [_moved(tensor, turns, is_flipped=is_flipped) for tensor in (images, known)]
            for number in range(len(self.models)):
                shares = self._answer(number, *moved).softmax(dim=1)
                shares = torch.rot90(shares.flip(-1) if is_flipped else shares, -turns, (-2, -1))
                total = shares if total is None else total + shares
        assert total is not None
        answers = len(self.models) * (len(_SYMMETRIES) if self.symmetries else 1)
        return (total / answers).log()

    def _answer(self, number: int, images: Tensor, known: Tensor) -> Tensor:
        logits = self._engines[number](self.models[number].scaled(images, known))
        expected = (len(images), len(self.classes), *images.shape[-2:])
        if tuple(logits.shape) != expected:
            raise ModelError(
                f"the network gave logits of shape {tuple(logits.shape)} for images of shape {tuple(images.shape)}. "
                f"{expected} was expected: one channel for each of the {len(self.classes)} classes, at the images' "
                "size."
            )
        return logits.float()

    def release(self) -> None:
        """Drop the backends, and the memory they hold. They are built again when they are next used."""
        self._engines = []

    def leave_device(self) -> None:
        """Move the networks to main memory, from where they travel: workers elsewhere may have no such device."""
        for model in self.models:
            with torch.inference_mode(mode=False):
                model.network.cpu()

    def __getstate__(self) -> dict[str, Any]:
        # Engines do not travel between processes: they are made again where the work is.
        return self.__dict__ | {"_engines": []}


_SYMMETRIES = [(turns, is_flipped) for turns in range(4) for is_flipped in (False, True)]


def _moved(tensor: Tensor, turns: int, *, is_flipped: bool) -> Tensor:
    turned = torch.rot90(tensor, turns, (-2, -1))
    return turned.flip(-1) if is_flipped else turned


def processes(device: torch.device) -> int:
    """How many share a map on this machine: one for each GPU, whose memory is not shared, or for each core."""
    if device.type == "cpu":
        return cores()
    return torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1


def _device_here(device: torch.device) -> torch.device:
    """On a worker of our own cluster, the GPU that is its own by its number; elsewhere the device as it is.

    Launchers of others, as LocalCUDACluster, show each worker its own GPU first.
    """
    if device.type != "cuda" or device.index is not None or not is_own_worker():
        return device
    from distributed import get_worker

    return torch.device("cuda", int(get_worker().name) % torch.cuda.device_count())


def _require_alike(first: Model, other: Model) -> None:
    for what in ("bands", "dtype", "classes"):
        ours, theirs = getattr(first, what), getattr(other, what)
        if ours != theirs:
            raise ModelError(
                f"a further model has other {what} ({_told(theirs)}) than the first ({_told(ours)}). Models whose "
                "answers are averaged must take the same bands and give the same classes. Train them on the same chips."
            )


def _told(value: Any) -> str:
    if isinstance(value, Classes):
        return ", ".join(f"{entry.value} {entry.name}" for entry in value)
    return value if isinstance(value, str) else ", ".join(value)


def as_torch_dtype(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels in a dtype that torch computes with: it has few operations on wide unsigned integers."""
    wider = {"uint16": np.int32, "uint32": np.int64}.get(pixels.dtype.name)
    return pixels if wider is None else pixels.astype(wider)
