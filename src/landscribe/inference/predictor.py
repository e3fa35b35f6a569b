"""Predictor: logits of tiles from one model, or from several whose probabilities are averaged."""

import copy
import math
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from landscribe.errors import ModelError
from landscribe.executor import is_own_worker
from landscribe.geo.classes import Classes
from landscribe.geo.rasters.encoding import Encoding
from landscribe.inference.backends.choice import build_backend
from landscribe.inference.backends.torch_backend import Backend
from landscribe.inference.device import computable_dtype, in_eval_mode, to_device
from landscribe.inference.memory import PinnedModel
from landscribe.machine import cores
from landscribe.maps.layers import HeadLogits, head_logits, head_probabilities
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
        tta: bool = False,
        heads: Sequence[str | None] = (None,),
    ) -> None:
        """Predict with one or several models.

        Args:
            models: one, or several with the same bands, dtype, encoding and classes; each applies its own scaling. Of
                a network in training mode, a copy predicts.
            device: where they run.
            tta: test-time augmentation: average over the eight symmetries of the square.
            heads: names of the heads whose logits are asked for; None for each model's main head.

        Raises:
            ModelError: the models differ in bands, dtype, encoding or classes, or a model does not have a head.
        """
        for other in models[1:]:
            _require_same_interface(models[0], other)
        for head in filter(None, heads):
            _require_head(models, head)
        self.models = tuple(PinnedModel(in_eval_mode(model.network), model.config, model.folder) for model in models)
        self.device = device
        self.backend = "torch"
        self.tta = tta
        self.heads = tuple(heads)
        self._backends: dict[str, list[Backend]] = {}
        self._local_device = device

    def with_backend(self, backend: str) -> "Predictor":
        """The same predictor with another backend; what one of them has built, the other uses."""
        other = copy.copy(self)
        # `copy` goes through `__getstate__`, which leaves the backends out.
        other._backends = self._backends  # noqa: SLF001
        other.backend = backend
        return other

    @property
    def classes(self) -> Classes:
        """The classes of the logits' channels."""
        return self.models[0].classes

    @property
    def reduction(self) -> int:
        """Origins and sides of tiles are multiples of this many pixels."""
        return math.lcm(*(model.reduction for model in self.models))

    @property
    def local_device(self) -> torch.device:
        """The device of this process."""
        return _local_device(self.device)

    def logits(self, images: Tensor, valid: Tensor) -> HeadLogits:
        """Logits of each head, from one pass of each network over each orientation of the images.

        Law: with several models or test-time augmentation, the probabilities of a head's logits are the mean of the
        probabilities that all models give in all orientations. They are the softmax over the channels of a head, or
        the sigmoid if it has a single channel.

        Args:
            images: (B, C, H, W) of stored pixels.
            valid: (B, H, W).

        Returns:
            (B, channels, H, W) float32 by head.
        """
        self._build_backends()
        images, valid = (to_device(tensor, self._local_device) for tensor in (images, valid))
        if len(self.models) == 1 and not self.tta:
            return self._forward(0, images, valid)
        orientations = _SYMMETRIES if self.tta else _SYMMETRIES[:1]
        totals: HeadLogits = {}
        for turns, is_flipped in orientations:
            oriented = [_oriented(tensor, turns, is_flipped=is_flipped) for tensor in (images, valid)]
            for index in range(len(self.models)):
                for head, logits in self._forward(index, *oriented).items():
                    probabilities = _restored(head_probabilities(logits), turns, is_flipped=is_flipped)
                    totals[head] = totals[head] + probabilities if head in totals else probabilities
        count = len(self.models) * len(orientations)
        return {head: head_logits(total / count) for head, total in totals.items()}

    def _build_backends(self) -> None:
        with _BUILDING:
            if self.backend not in self._backends:
                self._local_device = _local_device(self.device)
                self._backends[self.backend] = [
                    build_backend(self.backend, model, self._local_device, self._head_names(model))
                    for model in self.models
                ]

    def _head_names(self, model: Model) -> tuple[str, ...]:
        """Names of the model's heads that are asked for, each once."""
        return tuple(dict.fromkeys(head or model.main_head for head in self.heads))

    def _forward(self, index: int, images: Tensor, valid: Tensor) -> HeadLogits:
        """Logits of one model by head, from one pass."""
        model = self.models[index]
        logits = self._backends[self.backend][index](model.scaled(images, valid))
        return {head: self._checked(logits[head or model.main_head], head, images).float() for head in self.heads}

    def _checked(self, logits: Tensor, head: str | None, images: Tensor) -> Tensor:
        """The logits; raises ModelError if they have another shape than the head's."""
        channels = self.models[0].head_channels[head] if head else len(self.classes)
        expected = (len(images), channels, *images.shape[-2:])
        if tuple(logits.shape) != expected:
            what = f"each channel of the head '{head}'" if head else f"one channel for each of the {channels} classes"
            raise ModelError(
                f"the network gave logits of shape {tuple(logits.shape)} for images of shape {tuple(images.shape)}. "
                f"Expected {expected}: {what}, at the size of the images."
            )
        return logits

    def release(self) -> None:
        """Drop the backends, and the memory they hold. They are built again when they are next used."""
        self._backends.clear()

    def leave_device(self) -> None:
        """Move the networks to main memory before they are pickled: other workers may have no such device."""
        self.release()
        for model in self.models:
            with torch.inference_mode(mode=False):
                model.network.cpu()
        # Torch would keep what the networks held of the GPU, which a worker needs.
        torch.cuda.empty_cache()

    def __getstate__(self) -> dict[str, Any]:
        # Backends cannot be pickled; the other process builds its own.
        return self.__dict__ | {"_backends": {}}


_SYMMETRIES = [(turns, is_flipped) for turns in range(4) for is_flipped in (False, True)]


def _oriented(tensor: Tensor, turns: int, *, is_flipped: bool) -> Tensor:
    turned = torch.rot90(tensor, turns, (-2, -1))
    return turned.flip(-1) if is_flipped else turned


def _restored(tensor: Tensor, turns: int, *, is_flipped: bool) -> Tensor:
    """The inverse of `_oriented`."""
    return torch.rot90(tensor.flip(-1) if is_flipped else tensor, -turns, (-2, -1))


def mapping_processes(device: torch.device) -> int:
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
    none = (Encoding(),) * len(first.bands)
    for band, ours, theirs in zip(first.bands, first.encoding or none, other.encoding or none, strict=True):
        if not theirs.is_same(ours):
            raise ModelError(
                f"a further model was trained on the band {band} with {theirs}, the first on {ours}. Models of an "
                "ensemble read the same numbers, so these must mean the same. Train them on the same chips."
            )


def _require_head(models: Sequence[Model], head: str) -> None:
    """Raise ModelError unless all models have the head, with as many channels."""
    for model in models:
        if head not in model.heads:
            raise ModelError(
                f"the model ({model.architecture}) has no head '{head}'. Its heads are {', '.join(model.heads)}. "
                "Choose one of them, or another model."
            )
    channels = [model.head_channels[head] for model in models]
    if len(set(channels)) > 1:
        raise ModelError(
            f"the head '{head}' has {' and '.join(map(str, channels))} channels in the models of the ensemble. "
            "Expected the same number in each. Predict with one model at a time."
        )


def _as_text(value: Any) -> str:
    if isinstance(value, Classes):
        return ", ".join(f"{entry.value} {entry.name}" for entry in value)
    return value if isinstance(value, str) else ", ".join(value)


def as_computable(pixels: Tensor) -> Tensor:
    """Pixels in a dtype that torch computes with."""
    return pixels.to(computable_dtype(pixels.dtype))
