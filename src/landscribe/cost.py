"""Cost of a run: chips and disk are counted, memory and time are measured in a trial."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from landscribe.data.chips.chips import covering_windows, ground_of
from landscribe.data.chips.units import units_of
from landscribe.data.scenes.scene import Scene
from landscribe.data.splits.split import SplitInput, split_chips
from landscribe.geo.grid import Window
from landscribe.geo.rasters.derived.clipped import spread_windows
from landscribe.geo.tiling import aligned, units
from landscribe.machine import peak_memory
from landscribe.recipe import Recipe
from landscribe.training.spec import EFFORT_STEPS, TrainSpec


@dataclass(frozen=True)
class Forecast:
    """Chips, disk, memory and time of a run. Memory and time are None without a trial."""

    chips: int
    """Upper bound: chips without a labelled pixel are not cut, and background chips that are not drawn are removed."""
    disk_bytes: int
    """Upper bound: uncompressed chips, and the maps."""
    steps: int | None
    """Upper bound of the training steps, of all models of the run; None if the budget is in minutes."""
    memory_bytes: int | None
    """Peak memory of this process during one training step."""
    seconds: float | None
    """Time on this machine for chips, training and prediction."""
    seconds_by_effort: dict[str, float] = field(default_factory=dict)
    """Time on this machine for the trainings at each effort; empty without a trial."""


def forecast(recipe: Recipe, scenes: Sequence[Scene], classes: int, *, trial: bool) -> Forecast:
    """Estimate the cost of a recipe on this machine.

    Args:
        recipe: the settings.
        scenes: the opened scenes of the recipe.
        classes: number of classes.
        trial: cut one chip, and run the network on one training batch and one tile of random pixels.
    """
    from landscribe.training.checks import resolved_settings

    bands, spec = len(scenes[0].image.bands), recipe.chips
    train = resolved_settings(recipe.train, bands=bands, classes=classes, size=spec.size)
    plan = _Plan.of(recipe, scenes, train)
    steps = train.total_steps(plan.steps_a_pass)
    steps = steps and math.ceil(steps * plan.trainings(train))
    pixels = sum(scene.image.grid.height * scene.image.grid.width for scene in scenes)
    chip_bytes = spec.size**2 * (bands * np.dtype(scenes[0].image.dtype).itemsize + 1)
    disk = pixels * plan.kept_maps(train) + (0 if spec.virtual else len(plan.splits) * chip_bytes)
    if not trial:
        return Forecast(len(plan.splits), disk, steps, None, None)
    measured = _trial(recipe, scenes[0], classes, train.chips_a_batch)
    map_seconds = sum(_tile_pixels(recipe, scene) for scene in scenes) / measured.pixels_per_second
    budgets = {"steps": None, "epochs": None, "minutes": None}
    efforts = {name: train.model_copy(update={"effort": name, **budgets}) for name in EFFORT_STEPS}
    return Forecast(
        len(plan.splits), disk, steps, measured.memory_bytes,
        len(plan.splits) * measured.chip_seconds + _train_seconds(plan, train, measured)
        + plan.predicted_maps(train) * map_seconds,
        {name: _train_seconds(plan, own, measured) for name, own in efforts.items()},
    )  # fmt: skip


@dataclass(frozen=True)
class _Plan:
    """The chips of a run, and how often it trains and maps."""

    recipe: Recipe
    folds: int
    """Models of a cross-validation; 0 without one."""
    splits: Sequence[str]
    """Of the chips, estimated."""
    pass_length: int
    """Windows or chips of a pass."""
    steps_a_pass: int

    @classmethod
    def of(cls, recipe: Recipe, scenes: Sequence[Scene], train: TrainSpec) -> "_Plan":
        """The plan of a recipe, with resolved settings of its training."""
        windows: list[list[Window]] = [[] for _ in scenes]
        for unit in units_of(scenes, recipe.chips):
            windows[unit.scene] += unit.windows
        folds = _fold_count(recipe, scenes)
        if folds:
            chips = sum(map(len, windows))
            held_out = chips // folds
            splits = ["val"] * held_out + ["test"] * held_out + ["train"] * (chips - 2 * held_out)
        else:
            splits = [name for scene, cut in zip(scenes, windows, strict=True) for name in _splits(recipe, scene, cut)]
        pass_length = _pass_length(train, windows, splits)
        return cls(recipe, folds, splits, pass_length, train.steps_a_pass(pass_length))

    def has_final(self, train: TrainSpec) -> bool:
        """See `Recipe.has_final`."""
        holds_out = 0 < self.splits.count("train") < len(self.splits)
        return self.recipe.has_final(train, pass_length=self.pass_length, holds_out=holds_out)

    def trainings(self, train: TrainSpec) -> float:
        """All trainings of the run, in trainings on the train chips."""
        return self.folds or 1 + self.has_final(train) * len(self.splits) / max(1, self.splits.count("train"))

    def predicted_maps(self, train: TrainSpec) -> int:
        """Maps of all scenes that are predicted; a final model has maps beside the assessed ones.

        Of folds, all models map each pixel, and one of them maps each chip; its tiles reach into those of other folds.
        """
        return self.folds + 2 if self.folds else 1 + self.has_final(train)

    def kept_maps(self, train: TrainSpec) -> int:
        """Maps of all scenes on the disk; parts of the out-of-fold maps are written before these."""
        return 3 if self.folds else 1 + self.has_final(train)


def _train_seconds(plan: _Plan, train: TrainSpec, measured: "_Measured") -> float:
    """Seconds of all trainings of a run, with their validations."""
    steps = train.total_steps(plan.steps_a_pass)
    if steps is None:
        return plan.trainings(train) * 60 * (train.minutes or 0)
    validations = steps / train.steps_an_epoch(plan.steps_a_pass)
    validation = plan.splits.count("val") * plan.recipe.chips.size**2 / measured.pixels_per_second
    return plan.trainings(train) * (steps * train.accumulate * measured.step_seconds + validations * validation)


def _fold_count(recipe: Recipe, scenes: Sequence[Scene]) -> int:
    """How many models a cross-validation trains; 0 without one."""
    folds = recipe.models.folds
    if isinstance(folds, str):
        return len(scenes) if folds == "scenes" else len({scene.group for scene in scenes})
    return folds or 0


def _splits(recipe: Recipe, scene: Scene, windows: Sequence[Window]) -> Sequence[str]:
    """Splits of a scene's chips, estimated: as `chip` assigns them, but without their classes."""
    if scene.split or not windows:
        return [scene.split or "train"] * len(windows)
    without_classes = SplitInput(windows, np.zeros((len(windows), 1), np.int64))
    return split_chips(
        without_classes, recipe.split, size=recipe.chips.size, rng=np.random.default_rng([recipe.seed, 0])
    )


def _pass_length(train: TrainSpec, windows: Sequence[Sequence[Window]], splits: Sequence[str]) -> int:
    """Windows or chips of a pass, if all chips have labels.

    Args:
        train: the settings of the training.
        windows: of the chips of each scene.
        splits: of these chips, scene after scene.
    """
    split = iter(splits)
    by_scene = [[window for window in own if next(split) == "train"] for own in windows]
    training = [window for own in by_scene for window in own]
    if train.sampling in ("all", "balanced") or not training:
        return max(1, len(training))
    return max(1, round(covering_windows(map(ground_of, by_scene), training)))


@dataclass(frozen=True)
class _Measured:
    chip_seconds: float
    step_seconds: float
    pixels_per_second: float
    memory_bytes: int | None


def _trial(recipe: Recipe, scene: Scene, classes: int, batch: int) -> _Measured:
    """Time the cutting of one chip, a training step, and the prediction of one tile.

    The device is that of training and of inference. The step has the precision of training, the tile 32 bits.
    """
    import torch

    from landscribe.geo.classes import IGNORE
    from landscribe.inference.benchmark import time_in_turns
    from landscribe.inference.device import (
        place_network,
        resolve_device,
        training_autocast,
        training_precision,
    )
    from landscribe.nn.losses import weighted_sum
    from landscribe.training.checks import network_of
    from landscribe.training.segmenter import optimizer_of

    size = recipe.chips.size
    device = resolve_device()
    precision = training_precision(recipe.train.precision, device)
    network = network_of(recipe.train, bands=len(scene.image.bands), classes=classes)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = weighted_sum(recipe.train.loss)

    def random_images(count: int, side: int) -> Any:
        return torch.rand(count, len(scene.image.bands), side, side, device=device).contiguous(
            memory_format=torch.channels_last
        )

    images, labels = random_images(batch, size), torch.randint(0, classes, (batch, size, size), device=device)
    # At a rate of 0, the weights stay those that the tile is timed with.
    optimizer = optimizer_of(network, recipe.train, 0.0, device)

    def step() -> None:
        optimizer.zero_grad()
        with training_autocast(precision, device):
            value = network.training_loss(images, labels, partial(loss, ignore=IGNORE))
        value.backward()
        if recipe.train.gradient_clip:
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.train.gradient_clip)
        optimizer.step()

    def seconds(call: Callable[[], object]) -> float:
        """Seconds of the shortest of three calls; the first one warms up."""
        return min(time_in_turns({"call": call}, device, rounds=3)["call"])

    window = spread_windows(scene.image, size, per_axis=1)[0]
    chip_seconds = seconds(lambda: scene.read(window))
    step_seconds = seconds(step)
    side = min(512, recipe.predict.nominal_tile)
    place_network(network, device)
    with torch.inference_mode():
        tile_seconds = seconds(lambda: network(random_images(1, side)).argmax(1).cpu())
    return _Measured(chip_seconds, step_seconds, side**2 / tile_seconds, peak_memory())


def _tile_pixels(recipe: Recipe, scene: Scene) -> int:
    """Pixels that the network reads to predict a scene, with the overlap of tiles."""
    spec = recipe.predict
    size = aligned(spec.nominal_tile, 32)
    height, width = scene.image.grid.shape
    covering = units(height, width, size=size, margin=spec.nominal_margin, align=32, side=spec.unit)
    return sum(tile.read.height * tile.read.width for unit in covering for tile in unit.tiles)
