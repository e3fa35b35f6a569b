"""Benchmark: how fast networks and backends run, and whether a backend predicts the same classes as torch."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from landscribe.errors import BackendError
from landscribe.inference.device import place_network, synchronize
from landscribe.machine import total_memory
from landscribe.nn.encoders.encoder import Encoder
from landscribe.nn.encoders.tried import ENCODERS, EncoderCost, encoder_cost, fitting_side
from landscribe.nn.meta_device import BYTES_PER_WEIGHT
from landscribe.progress import task

TOLERANCE_32 = 1e-4
"""Largest share of pixels whose class may differ from torch's if a backend of 32 bits is to be chosen: a tenth of the
default of `PredictSpec.tolerance`, which backends of 16 bits and tiling may change, so that it cannot be seen beside
that."""

_MINIMUM_ROUNDS = 3
_LONG_ROUND = 1.0
"""Seconds of a round that is not repeated when encoders are listed."""
_GPU_PIXELS, _GPU_CALLS = 2**22, 4
"""Pixels of a batch, and calls of a round, when encoders are listed on a GPU: with fewer, the time is that of launching
kernels."""
_SCALES = (1, 4, 16, 64)
"""Sizes in pixels of the structures in synthetic images, from grain to fields."""

K = TypeVar("K")


@dataclass(frozen=True)
class Timing:
    """Speed and agreement of one backend."""

    backend: str
    megapixels_per_second: float
    """Median of the rounds."""
    agreement: float
    """Share of pixels with the same class as the unchanged network in torch in 32 bits, 0 to 1."""
    max_probability_difference: float
    """Largest difference of a class probability from that network, 0 to 1."""
    compile_seconds: float
    """Time until the first logits, compilation included."""
    tolerance: float = TOLERANCE_32
    """Largest share of pixels whose class may differ if this backend is to be chosen."""


@dataclass(frozen=True)
class Benchmark:
    """Speed and agreement of several backends."""

    shape: tuple[int, ...]
    """(B, C, H, W) of the images."""
    device: str
    timings: tuple[Timing, ...]
    unavailable: dict[str, str] = field(default_factory=dict)
    """Backends that did not run, with the reason."""

    @property
    def fastest(self) -> str | None:
        """The fastest of the backends that agree with torch, as torch itself always does; None if none was timed."""
        agreeing = [
            timing for timing in self.timings if timing.backend == "torch" or timing.agreement >= 1 - timing.tolerance
        ]
        return max(agreeing, key=lambda timing: timing.megapixels_per_second).backend if agreeing else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"fastest": self.fastest}


def synthetic_images(shape: tuple[int, int, int, int], device: torch.device) -> Tensor:
    """Images (B, C, H, W), channels-last, with the statistics of scaled imagery: mean 0 and standard deviation 1.

    Noise of several scales is summed, coarse noise with more weight, and most of it is common to all bands. White noise
    would mislead: a trained network is unsure of every pixel of it, so that backends differ more than on an image.
    """
    batch, bands, height, width = shape
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(shape)
    for scale in _SCALES:
        coarse = (-(-height // scale), -(-width // scale))
        common = torch.randn(batch, 1, *coarse, generator=generator)
        noise = common + 0.5 * torch.randn(batch, bands, *coarse, generator=generator)
        images += scale**0.5 * nn.functional.interpolate(noise, size=(height, width), mode="bilinear")
    images = (images - images.mean()) / images.std()
    return images.to(device).contiguous(memory_format=torch.channels_last)


def compare_encoders(*, bands: int, size: int, device: torch.device) -> list[EncoderCost]:
    """Costs of the encoders that were tried, each alone and with random weights.

    Seconds are the median of a few rounds, after one that warms up: of one image each on a CPU, on a GPU of batches
    that keep it busy. They are left out for an encoder whose weights take more than a quarter of this machine's memory.

    Args:
        bands: of the images.
        size: side of the images in pixels, rounded up to what an encoder takes.
        device: where the encoders are timed.
    """
    costs = []
    with task("encoders", total=len(ENCODERS)) as advance:
        for name in ENCODERS:
            cost = encoder_cost(name, bands=bands, size=size)
            if BYTES_PER_WEIGHT * cost.parameters < total_memory() / 4:
                cost = replace(cost, seconds_per_megapixel=_encoder_seconds(name, bands, size, device))
            costs.append(cost)
            advance(note=name)
    return costs


def _encoder_seconds(name: str, bands: int, size: int, device: torch.device) -> float:
    encoder = Encoder(name, bands=bands)
    side = fitting_side(encoder, size)
    batch, calls = _images_and_calls(side, device)
    images = synthetic_images((batch, bands, side, side), device)
    network = place_network(encoder, device)

    def call() -> None:
        for _ in range(calls):
            network(images)

    with torch.inference_mode():
        (first,) = time_in_turns({name: call}, device, rounds=1)[name]
        times = time_in_turns({name: call}, device, rounds=1 if first > _LONG_ROUND else _MINIMUM_ROUNDS)
    return statistics.median(times[name]) / (calls * batch * side**2) * 1e6


def _images_and_calls(side: int, device: torch.device) -> tuple[int, int]:
    """Images of a batch, and calls of a round, that time an encoder on a device."""
    return (1, 1) if device.type == "cpu" else (max(1, _GPU_PIXELS // side**2), _GPU_CALLS)


def run_benchmark(
    builders: Mapping[str, Callable[[], Callable[[Tensor], Tensor]]],
    reference: Callable[[Tensor], Tensor],
    images: Tensor,
    seconds: float,
    tolerances: Mapping[str, float] | None = None,
) -> Benchmark:
    """Time backends in turns, and compare their classes and probabilities with a reference.

    Args:
        builders: build each backend, by name.
        reference: gives the correct logits (B, K, H, W) of images.
        images: (B, C, H, W).
        seconds: time for the rounds; there are at least three.
        tolerances: of backends with another one than TOLERANCE_32.
    """
    backends, compared, unavailable = {}, {}, {}
    with torch.inference_mode():
        expected = reference(images).float()
        for name, build in builders.items():
            started = time.perf_counter()
            try:
                backend = build()
                logits = backend(images).float()
                synchronize(images.device)
            except BackendError as error:
                unavailable[name] = str(error)
                continue
            compared[name] = (*_compare(logits, expected), time.perf_counter() - started)
            backends[name] = lambda backend=backend: backend(images)
        times = time_in_turns(backends, images.device, seconds=seconds)
    megapixels = images.shape[0] * images.shape[2] * images.shape[3] / 1e6
    timings = tuple(
        Timing(
            name,
            megapixels / statistics.median(measured),
            *compared[name],
            (tolerances or {}).get(name, TOLERANCE_32),
        )
        for name, measured in times.items()
    )
    return Benchmark(tuple(images.shape), str(images.device), timings, unavailable)


def _compare(logits: Tensor, expected: Tensor) -> tuple[float, float]:
    """Share of pixels of the same class, and the largest difference of a probability."""
    agreeing = logits.argmax(1) == expected.argmax(1)
    # Not as a mean in float64, which Apple's GPUs lack.
    return int(agreeing.sum()) / agreeing.numel(), float((logits.softmax(1) - expected.softmax(1)).abs().max())


def time_in_turns(
    calls: Mapping[K, Callable[[], object]],
    device: torch.device,
    *,
    rounds: int = _MINIMUM_ROUNDS,
    seconds: float = 0.0,
) -> dict[K, list[float]]:
    """Seconds of each call in each round. Calls take turns, so that other load on the machine slows all of them.

    Args:
        calls: what is timed, by name; the caller discards the first round if it warms up.
        device: where the calls compute; each is timed until the device has finished.
        rounds: at least so many.
        seconds: rounds are repeated until this time is over.
    """
    times: dict[K, list[float]] = {name: [] for name in calls}
    began, count = time.perf_counter(), 0
    while calls and (count < rounds or time.perf_counter() - began < seconds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            synchronize(device)
            times[name].append(time.perf_counter() - started)
        count += 1
    return times
