"""Bench: how fast engines answer, and whether they answer alike, on images of the same make as imagery."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from landscribe.errors import EngineError

TOLERANCE = 1e-4
"""Share of pixels that an engine may give another class than torch does if it is to be chosen: a tenth of what cutting
into tiles may change (`margin.TOLERANCE`), so that it cannot be seen beside that."""

_LEAST_ROUNDS = 3
_SCALES = (1, 4, 16, 64)
"""Pixels that what is seen in an image measures, from grain to fields."""


@dataclass(frozen=True)
class Timing:
    """How one engine did."""

    engine: str
    megapixels_a_second: float
    """Median of the rounds."""
    agreement: float
    """Share of pixels with the same class as the network in torch as it is, in 32 bits."""
    largest_difference: float
    """Of a class's probability from that network's."""
    seconds_to_make: float
    """Until the first answer, which is when engines compile."""


@dataclass(frozen=True)
class Bench:
    """How engines did in rounds that took turns."""

    shape: tuple[int, ...]
    """(B, C, H, W) of the images."""
    device: str
    timings: tuple[Timing, ...]
    refused: dict[str, str] = field(default_factory=dict)
    """Why an engine did not take part, by its name."""

    @property
    def fastest(self) -> str:
        """The fastest engine that agrees with torch; torch itself always may be it."""
        agreeing = [one for one in self.timings if one.engine == "torch" or one.agreement >= 1 - TOLERANCE]
        return max(agreeing, key=lambda one: one.megapixels_a_second).engine

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"fastest": self.fastest}


def imagery(shape: tuple[int, int, int, int], device: torch.device) -> Tensor:
    """Images (B, C, H, W), channels-last, that resemble scaled imagery: mean 0 and standard deviation 1.

    Noise of several scales, the coarser the stronger, most of it alike in all bands. White noise would say little: on
    it a trained network hesitates everywhere, so that engines differ where they would not on an image.
    """
    batch, bands, height, width = shape
    chance = torch.Generator().manual_seed(0)
    images = torch.zeros(shape)
    for scale in _SCALES:
        coarse = (-(-height // scale), -(-width // scale))
        common = torch.randn(batch, 1, *coarse, generator=chance)
        noise = common + 0.5 * torch.randn(batch, bands, *coarse, generator=chance)
        images += scale**0.5 * nn.functional.interpolate(noise, size=(height, width), mode="bilinear")
    images = (images - images.mean()) / images.std()
    return images.to(device).contiguous(memory_format=torch.channels_last)


def measured(
    makers: Mapping[str, Callable[[], Callable[[Tensor], Tensor]]],
    reference: Callable[[Tensor], Tensor],
    images: Tensor,
    seconds: float,
) -> Bench:
    """Time engines in rounds that take turns, so that what else the machine does falls on all alike.

    Args:
        makers: of engines, by name.
        reference: what is right: logits (B, K, H, W) of images.
        images: (B, C, H, W).
        seconds: to spend on the rounds; there are three at least.
    """
    engines, compared, refused = {}, {}, {}
    with torch.inference_mode():
        expected = reference(images).float()
        for name, make in makers.items():
            started = time.perf_counter()
            try:
                engine = make()
                logits = engine(images).float()
                _finish(images.device)
            except EngineError as error:
                refused[name] = str(error)
                continue
            compared[name] = (*_comparison(logits, expected), time.perf_counter() - started)
            engines[name] = engine
        times = _rounds(engines, images, seconds)
    megapixels = images.shape[0] * images.shape[2] * images.shape[3] / 1e6
    timings = tuple(Timing(name, megapixels / statistics.median(some), *compared[name]) for name, some in times.items())
    return Bench(tuple(images.shape), str(images.device), timings, refused)


def _comparison(logits: Tensor, expected: Tensor) -> tuple[float, float]:
    """Share of pixels of the same class, and the largest difference of a probability."""
    agreement = float((logits.argmax(1) == expected.argmax(1)).double().mean())
    return agreement, float((logits.softmax(1) - expected.softmax(1)).abs().max())


def _rounds(
    engines: Mapping[str, Callable[[Tensor], Tensor]], images: Tensor, seconds: float
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in engines}
    began, rounds = time.perf_counter(), 0
    while engines and (rounds < _LEAST_ROUNDS or time.perf_counter() - began < seconds):
        for name, engine in engines.items():
            started = time.perf_counter()
            engine(images)
            _finish(images.device)
            times[name].append(time.perf_counter() - started)
        rounds += 1
    return times


def _finish(device: torch.device) -> None:
    """Wait for what a GPU is at."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
