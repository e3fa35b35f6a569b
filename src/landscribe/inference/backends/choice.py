"""Build a backend by name; the fastest one for a model on this machine is measured."""

import importlib.metadata
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from landscribe.errors import BackendError, counted
from landscribe.geo.tiling import aligned
from landscribe.inference import cache
from landscribe.inference.backends import BACKENDS, BackendKind, installed_backends
from landscribe.inference.backends.torch_backend import Backend
from landscribe.inference.benchmark import Benchmark, run_benchmark, synthetic_images
from landscribe.inference.device import place_network
from landscribe.inference.memory import estimated_memory
from landscribe.machine import processor_name, require_memory
from landscribe.model import Model
from landscribe.spec import checked

log = logging.getLogger(__name__)

ImageSide = Annotated[int, Field(ge=1, le=2**16)]
BatchSize = Annotated[int, Field(ge=1, le=2**16)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
_TRIAL_SIDE, _TRIAL_SECONDS = 512, 3.0
"""Backends are compared on images no larger than this, for about this time: larger images give the same order
(docs/decisions/0012-backends.md), and a trial must cost less than it gains."""

_MINIMUM_PIXELS = 2**24
"""Below, building the backends takes longer than the fastest of them saves."""


def build_backend(name: str, model: Model, device: torch.device, heads: tuple[str, ...] = ()) -> Backend:
    """Build a backend of a model; the model keeps its weights.

    Args:
        name: a key of BACKENDS.
        model: its network is moved to the device and set to eval mode.
        device: where the backend runs.
        heads: names of the model's heads whose logits it gives, from one pass; () for the main head.

    Raises:
        BackendError: its packages are not installed, or it does not run on this device.
    """
    kind = BACKENDS[name]
    missing = kind.missing_packages
    if missing:
        raise BackendError(
            f"--engine {name} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed. "
            f"{_install_hint(kind)}, or use --engine torch."
        )
    if kind.devices is not None and device.type not in kind.devices:
        raise BackendError(
            f"--engine {name} runs on {' and '.join(kind.devices)}, not on {device.type}. Use --engine torch."
        )
    return kind.build(model, device, heads or (model.main_head,))


def _install_hint(kind: BackendKind) -> str:
    return f"Run: pip install 'landscribe[{kind.extra}]'"


def compare_backends(model: Model, *, tile: int, batch: int, device: torch.device, seconds: float) -> Benchmark:
    """Time the installed backends on a model, and store the fastest in the user's cache.

    Args:
        model: its network is moved to the device and set to eval mode.
        tile: side of the images in pixels; rounded down to a multiple of the network's stride.
        batch: images at once.
        device: where the backends run.
        seconds: time for the rounds, in which backends take turns; there are at least three.

    Raises:
        RecipeError: tile, batch or seconds are out of range.
        ResourceError: the images need more memory than there is.
    """
    tile, batch = checked("tile", tile, ImageSide), checked("batch", batch, BatchSize)
    seconds = checked("seconds", seconds, Seconds)
    side = aligned(tile, model.reduction)
    if device.type == "cpu":
        require_memory(
            estimated_memory([model], (batch, side, side)) or 0,
            f"a batch of {counted(batch, 'image')} of {side} x {side} pixels",
            "Choose a smaller --tile or --batch.",
        )
    builders = {name: partial(_main_head_backend, name, model, device) for name in installed_backends()}
    images = synthetic_images((batch, len(model.bands), side, side), device)
    result = run_benchmark(builders, place_network(model.network, device), images, seconds)
    absent = {name: f"not installed. {_install_hint(kind)}" for name, kind in BACKENDS.items() if name not in builders}
    result.unavailable.update(absent)
    cache.store(model, _cache_key(side, batch, device), result.fastest)
    return result


def _main_head_backend(name: str, model: Model, device: torch.device) -> Callable[[Tensor], Tensor]:
    backend, head = build_backend(name, model, device), model.main_head
    return lambda images: backend(images)[head]


def fastest_backend(model: Model, *, tile: int, batch: int, device: torch.device, pixels: float = math.inf) -> str:
    """Name of the fastest installed backend that predicts the same classes as torch.

    It is measured once: the result is stored in the user's cache.

    Args:
        model: its network is moved to the device and set to eval mode.
        tile: side of the images in pixels.
        batch: images at once.
        device: where the backends run.
        pixels: pixels to predict. If they are few, nothing is measured: the result is torch unless one is stored.
    """
    names, side = installed_backends(), aligned(min(tile, _TRIAL_SIDE), model.reduction)
    if names == ("torch",):
        return "torch"
    stored = cache.load(model, _cache_key(side, batch, device))
    if stored in names:
        return str(stored)
    if pixels < _MINIMUM_PIXELS:
        return "torch"
    result = compare_backends(model, tile=side, batch=batch, device=device, seconds=_TRIAL_SECONDS)
    speeds = ", ".join(f"{timing.backend} {timing.megapixels_per_second:.3g}" for timing in result.timings)
    log.info("backend: %s (megapixels per second: %s)", result.fastest, speeds)
    return result.fastest


def _cache_key(side: int, batch: int, device: torch.device) -> str:
    """The key of the fastest backend in the model's cache: its speed depends on all of this."""
    return f"backend for {batch} x {side} px on {_device_name(device)} with {_versions()}"


def _versions() -> str:
    packages = sorted({package for name in installed_backends() for package in BACKENDS[name].packages[:1]})
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {processor_name()}, {torch.get_num_threads()} threads"
