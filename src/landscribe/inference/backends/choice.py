"""Build a backend by name; the fastest one for a model on this machine is measured."""

import importlib.metadata
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from landscribe.errors import BackendError, counted
from landscribe.geo.tiling import aligned
from landscribe.inference import cache
from landscribe.inference.backends import BACKENDS, BackendKind, installed_backends
from landscribe.inference.backends.onnxruntime_backend import has_tensorrt
from landscribe.inference.backends.torch_backend import Backend
from landscribe.inference.benchmark import Benchmark, run_benchmark, synthetic_images
from landscribe.inference.device import place_network
from landscribe.inference.memory import estimated_memory
from landscribe.machine import cpu_has_bfloat16, processor_name, require_memory
from landscribe.model import Model
from landscribe.spec import checked

log = logging.getLogger(__name__)

ImageSide = Annotated[int, Field(ge=1, le=2**16)]
BatchSize = Annotated[int, Field(ge=1, le=2**16)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
_TRIAL_SIDE, _TRIAL_SECONDS = 512, 3.0
"""Backends are compared on images no larger than this, for about this time: larger images give the same order
(docs/decisions/0012-backends.md), and a trial must cost less than it gains."""


def build_backend(name: str, model: Model, device: torch.device, heads: tuple[str, ...] = ()) -> Backend:
    """Build a backend of a model; the model keeps its weights.

    Args:
        name: a key of BACKENDS.
        model: its network, in eval mode, is moved to the device.
        device: where the backend runs.
        heads: names of the model's heads whose logits it gives, from one pass; () for the main head.

    Raises:
        BackendError: as `require_backend`.
    """
    require_backend(name, device)
    return BACKENDS[name].build(model, device, heads or (model.main_head,))


def require_engine(engine: str, precision: str, device: torch.device) -> None:
    """Raise BackendError if this machine has no backend of the engine and precision of a `PredictSpec`."""
    if engine != "auto":
        require_backend(engine, device)
    elif precision == "16" and not (device.type == "cuda" and "tensorrt" in installed_backends() and has_tensorrt()):
        raise BackendError(
            "precision 16 needs a CUDA GPU with TensorRT and ONNX Runtime, which are not available for device "
            f"{device.type}. Use --precision 32 or bf16."
        )


def require_backend(name: str, device: torch.device) -> None:
    """Raise BackendError if the packages of a backend are not installed, or if it does not run on this device."""
    kind = BACKENDS[name]
    missing = kind.missing_packages
    if missing:
        raise BackendError(
            f"--engine {name} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed. "
            f"{_install_hint(kind)}, or use --engine torch."
        )
    if not kind.runs_on(device):
        raise BackendError(f"--engine {name} {_other_devices(kind, device)}. Use --engine torch.")


def _other_devices(kind: BackendKind, device: torch.device) -> str:
    """The devices of a backend that does not run on this one, for messages."""
    return f"runs on {' and '.join(kind.devices or ())}, not on {device.type}"


def _install_hint(kind: BackendKind) -> str:
    return f"Run: pip install 'landscribe[{kind.extra}]'"


def candidates(
    device: torch.device, precision: str = "auto", pixels: float = math.inf, *, on_dask: bool = False
) -> tuple[str, ...]:
    """Names of the backends from which the fastest is chosen; without any trial, the first one.

    Args:
        device: where they run. Of CPUs, only those that have bfloat16 compute in it.
        precision: as of `PredictSpec.precision`; auto for any.
        pixels: of the map.
        on_dask: they run in threads of Dask workers.
    """
    return tuple(
        name
        for name in allowed_backends(precision, on_dask=on_dask)
        if not (kind := BACKENDS[name]).missing_packages and kind.runs_on(device)
        if precision != "auto" or device.type != "cpu" or _is_native(kind)
        if name == default_backend(precision) or pixels >= kind.pays_from
    )


def allowed_backends(precision: str, *, on_dask: bool) -> tuple[str, ...]:
    """Names of the backends that compute in a precision (auto: any) and, `on_dask`, in threads of Dask workers."""
    return tuple(
        name
        for name, kind in BACKENDS.items()
        if precision in ("auto", kind.precision) and not (on_dask and kind.is_of_one_thread)
    )


def default_backend(precision: str) -> str:
    """Name of the backend of a precision that needs no trial.

    >>> default_backend("auto"), default_backend("bf16")
    ('torch', 'torch-bf16')
    """
    return allowed_backends(precision, on_dask=False)[0]


def _is_native(kind: BackendKind) -> bool:
    """True if this machine's processor has the precision in which a backend computes."""
    return kind.precision == "32" or (kind.precision == "bf16" and cpu_has_bfloat16())


def compare_backends(
    model: Model,
    *,
    tile: int,
    batch: int,
    device: torch.device,
    seconds: float,
    tolerance: float,
    names: Sequence[str] | None = None,
) -> Benchmark:
    """Time the installed backends on a model, and store the fastest in the user's cache.

    Args:
        model: its network, in eval mode, is moved to the device.
        tile: side of the images in pixels; rounded down to a multiple of the network's stride.
        batch: images at once.
        device: where the backends run.
        seconds: time for the rounds, in which backends take turns; there are at least three.
        tolerance: share of pixels whose class may differ in a backend of 16 bits.
        names: the backends; `candidates` if None.

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
    names = candidates(device) if names is None else names
    builders = {name: partial(_main_head_backend, name, model, device) for name in names}
    images = synthetic_images((batch, len(model.bands), side, side), device)
    tolerances = {name: tolerance for name in names if BACKENDS[name].precision != "32"}
    result = run_benchmark(builders, place_network(model.network, device), images, seconds, tolerances)
    result.unavailable.update({name: _absence(name, device) for name in BACKENDS if name not in builders})
    if result.fastest is not None:
        cache.store(model, _cache_key(names, side, batch, device, tolerance), result.fastest)
    return result


def _absence(name: str, device: torch.device) -> str:
    """Why a backend is not among the candidates of a device."""
    kind = BACKENDS[name]
    if name not in installed_backends():
        return f"not installed. {_install_hint(kind)}"
    if not kind.runs_on(device):
        return _other_devices(kind, device)
    return f"this processor has no {kind.precision}"


def _main_head_backend(name: str, model: Model, device: torch.device) -> Callable[[Tensor], Tensor]:
    backend, head = build_backend(name, model, device), model.main_head
    return lambda images: backend(images)[head]


def fastest_backend(
    model: Model,
    *,
    tile: int,
    batch: int,
    device: torch.device,
    pixels: float,
    precision: str,
    tolerance: float,
    on_dask: bool,
) -> str:
    """Name of the fastest installed backend that predicts the same classes as torch.

    It is measured once: the result is stored in the user's cache. If no backend of a precision of 16 bits keeps within
    the tolerance, it is the `default_backend`, with a warning for each map.

    Args:
        model: its network, in eval mode, is moved to the device.
        tile: side of the images in pixels.
        batch: images at once.
        device: where the backends run.
        pixels: pixels to predict. If they are fewer than pay for building the `default_backend` of the precision,
            nothing is measured: the result is this one unless another is stored.
        precision: as of `PredictSpec.precision`.
        tolerance: share of pixels whose class may differ in a backend of 16 bits.
        on_dask: as of `candidates`.

    Raises:
        BackendError: the network does not run in this precision.
    """
    side, default = aligned(min(tile, _TRIAL_SIDE), model.reduction), default_backend(precision)
    fewest = BACKENDS[default].pays_from
    # What pays for a map that is just worth a trial is stored once, for smaller maps too.
    names = candidates(device, precision, max(pixels, fewest), on_dask=on_dask)
    # A single backend of 16 bits is measured for its difference from 32.
    if not names or names == ("torch",):
        return default
    key = _cache_key(names, side, batch, device, tolerance)
    stored = cache.load(model, key)
    if stored in names:
        return str(stored)
    if isinstance(stored, float):
        _warn_of_difference(precision, stored, tolerance)
        return default
    if pixels < fewest:
        return default
    result = compare_backends(
        model, tile=side, batch=batch, device=device, seconds=_TRIAL_SECONDS, names=names, tolerance=tolerance
    )
    speeds = ", ".join(f"{timing.backend} {timing.megapixels_per_second:.3g}" for timing in result.timings)
    chosen = result.fastest
    if chosen is None:
        chosen, difference = default, _difference(default, result)
        cache.store(model, key, difference)
        _warn_of_difference(precision, difference, tolerance)
    log.info("backend: %s (megapixels per second: %s)", chosen, speeds)
    return chosen


def _difference(name: str, result: Benchmark) -> float:
    """The share of pixels to which a backend gives another class than torch; BackendError if it did not run."""
    timing = next((timing for timing in result.timings if timing.backend == name), None)
    if timing is None:
        raise BackendError(result.unavailable[name])
    return 1 - timing.agreement


def _warn_of_difference(precision: str, difference: float, tolerance: float) -> None:
    log.warning(
        "precision %s changes the class of %.3g %% of the pixels of a synthetic image, and the tolerance is %.3g %%. "
        "Raise it, or choose --precision 32 or auto", precision, 100 * difference, 100 * tolerance,
    )  # fmt: skip


def _cache_key(names: Sequence[str], side: int, batch: int, device: torch.device, tolerance: float) -> str:
    """The key of the fastest backend in the model's cache: its speed and its choice depend on all of this."""
    where = f"{batch} x {side} px on {_device_name(device)} with {_versions(names)}"
    return f"backend of {', '.join(names)} within {tolerance:g} for {where}"


def _versions(names: Sequence[str]) -> str:
    packages = sorted({package for name in names for package in BACKENDS[name].packages[:1]})
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {processor_name()}, {torch.get_num_threads()} threads"
