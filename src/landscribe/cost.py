"""What a run takes: chips, disk, memory, time. Counted where it can be, measured by a trial where not."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from landscribe.data.scenes.scene import Scene
from landscribe.data.splits.split import SplitInput, split_chips
from landscribe.geo.grid import Window
from landscribe.geo.tiling import chip_windows, units
from landscribe.machine import peak_memory
from landscribe.recipe import Recipe


@dataclass(frozen=True)
class Forecast:
    """What a run takes. Times and memory are None without a trial."""

    chips: int
    """At most: chips without a labelled pixel are left out."""
    disk_bytes: int
    """Chips, uncompressed, and map: an upper bound."""
    steps: int | None
    """Of training; None if the budget is in minutes."""
    memory_bytes: int | None
    """Highest memory of this process during one training step."""
    seconds: float | None
    """All of it on this machine: chips, training, mapping."""


def forecast(recipe: Recipe, scenes: Sequence[Scene], classes: int, *, trial: bool) -> Forecast:
    """Foretell what a recipe takes on this machine.

    Args:
        recipe: its settings.
        scenes: opened.
        classes: how many.
        trial: run one training step and one tile of the real network on random numbers, and cut one chip.
    """
    spec = recipe.chips
    windows = [
        chip_windows(*scene.image.grid.shape, size=spec.size, stride=spec.stride or spec.size, edge=spec.edge)
        for scene in scenes
    ]
    chips = sum(map(len, windows))
    bytes_a_pixel = len(scenes[0].image.bands) * np.dtype(scenes[0].image.dtype).itemsize
    pixels = sum(scene.image.grid.height * scene.image.grid.width for scene in scenes)
    disk = pixels + (0 if spec.virtual else chips * spec.size**2 * (bytes_a_pixel + 1))
    splits = [name for scene, some in zip(scenes, windows, strict=True) for name in _splits(recipe, scene, some)]
    batches = max(1, -(-splits.count("train") // recipe.train.batch))
    epoch = -(-batches // recipe.train.accumulate)
    steps = recipe.train.total_steps(epoch)
    if not trial:
        return Forecast(chips, disk, steps, None, None)
    measured = _trial(recipe, scenes[0], classes)
    validation = splits.count("val") * spec.size**2 / measured.pixels_a_second
    train_seconds = 60 * (recipe.train.minutes or 0)
    if steps is not None:
        train_seconds = steps * recipe.train.accumulate * measured.step_seconds + steps / epoch * validation
    map_seconds = sum(_tile_pixels(recipe, scene) for scene in scenes) / measured.pixels_a_second
    total = chips * measured.chip_seconds + train_seconds + map_seconds
    return Forecast(chips, disk, steps, measured.memory_bytes, total)


def _splits(recipe: Recipe, scene: Scene, windows: Sequence[Window]) -> Sequence[str]:
    """About how the chips of a scene are divided: as `chip` does, but without looking at their classes."""
    if scene.split or not windows:
        return [scene.split or "train"] * len(windows)
    unknown = SplitInput(windows, np.zeros((len(windows), 1), np.int64))
    return split_chips(unknown, recipe.split, size=recipe.chips.size, rng=np.random.default_rng([recipe.seed, 0]))


@dataclass(frozen=True)
class _Measured:
    chip_seconds: float
    step_seconds: float
    pixels_a_second: float
    memory_bytes: int | None


def _trial(recipe: Recipe, scene: Scene, classes: int) -> _Measured:
    """Cut one chip, train one step, map one tile, and look at the clock."""
    import torch

    from landscribe.geo.classes import IGNORE
    from landscribe.nn import build
    from landscribe.nn.losses import weighted_sum

    size, batch = recipe.chips.size, recipe.train.batch
    chip_seconds = _seconds(lambda: scene.read(Window(0, 0, size, size)))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build(
        recipe.train.architecture, bands=len(scene.image.bands), classes=classes,
        encoder=recipe.train.encoder, weights=None, **recipe.train.options,
    ).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # fmt: skip
    loss = weighted_sum(recipe.train.loss)

    def random_images(count: int, side: int) -> Any:
        return torch.rand(count, len(scene.image.bands), side, side, device=device).contiguous(
            memory_format=torch.channels_last
        )

    def step() -> None:
        labels = torch.randint(0, classes, (batch, size, size), device=device)
        criterion = partial(loss, ignore=IGNORE)
        network.training_loss(random_images(batch, size), labels, criterion).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    step_seconds = _seconds(step)
    side = min(512, recipe.predict.nominal_tile)
    network.eval()
    with torch.inference_mode():
        tile_seconds = _seconds(lambda: network(random_images(1, side)).argmax(1).cpu())
    return _Measured(chip_seconds, step_seconds, side**2 / tile_seconds, peak_memory())


def _seconds(work: Callable[[], Any]) -> float:
    """Of the faster of two calls, after one that warms up."""
    work()
    times = []
    for _ in range(2):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def _tile_pixels(recipe: Recipe, scene: Scene) -> int:
    """Pixels that the network reads to map a scene, overlap included."""
    spec = recipe.predict
    size = max(32, spec.nominal_tile // 32 * 32)
    height, width = scene.image.grid.shape
    covering = units(height, width, size=size, margin=spec.nominal_margin, align=32, side=spec.unit)
    return sum(tile.read.height * tile.read.width for unit in covering for tile in unit.tiles)
