"""Windows at any position of the training ground, instead of the chips.

The training ground of a scene is the area of its train chips. A window lies within it, so it is as far from held-out
chips as the train chips are. A lone chip has one window, which is the chip.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from landscribe import progress
from landscribe.data.batches.sampling import ChipSampler, RankShare
from landscribe.data.chips.chips import ChipReader, Chips, covering_windows, ground_of
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Window

WindowIndex = tuple[int, int, int]
"""Index of a chip, which gives scene and shape; row and column of the window in that scene."""

_TRIALS = 12
_PINS = 4
"""Pixels along each side of a chip that are counted."""


class WindowSampler(ChipSampler):
    """Samplers of windows: the training ground, and random windows in it."""

    def __init__(
        self,
        chips: Chips,
        factors: NDArray[np.float64],
        *,
        seed: int,
        share: RankShare | None = None,
    ) -> None:
        """A sampler of windows; labels are read by `prepare`, or when the first epoch begins.

        Args:
            chips: to train on.
            factors: (chips,) relative number of windows for the pixels of each chip.
            seed: of the windows.
            share: of one of several processes; everything if None.
        """
        self.chips = chips
        self.windows = chips.windows
        self.scenes = chips.scene_names
        super().__init__(factors, seed=seed, share=share)

    @cached_property
    def ground(self) -> dict[str, Any]:
        """The area of the chips of each scene in its rows and columns, prepared for many queries."""
        by_scene = self.chips.by_scene
        areas = {name: ground_of([self.windows[index] for index in own.tolist()]) for name, own in by_scene.items()}
        for area in areas.values():
            shapely.prepare(area)
        return areas

    @property
    def pass_length(self) -> int:
        """Windows per pass: the training ground, in chips."""
        return max(1, round(covering_windows(self.ground.values(), self.windows) * float(self.factors.mean())))

    def random_window(self, pixel: NDArray[np.int64], rng: np.random.Generator) -> WindowIndex:
        """A random window of the ground that contains a pixel; the pixel's chip if no trial lies in the ground.

        Args:
            pixel: index of the chip that contains the pixel; its row and column in the scene.
            rng: of the trials.
        """
        index, row, col = pixel.tolist()
        chip = self.windows[index]
        up, left = rng.integers(0, (chip.height, chip.width), (_TRIALS, 2)).T
        rows, cols = row - up, col - left
        # Along an edge of the ground only windows fit that share rows, or columns, with the chip.
        rows[1::3], cols[2::3] = chip.row, chip.col
        boxes = shapely.box(cols, rows, cols + chip.width, rows + chip.height)
        fitting = np.flatnonzero(shapely.covers(self.ground[self.scenes[index]], boxes))
        return (index, int(rows[fitting[0]]), int(cols[fitting[0]])) if fitting.size else (index, chip.row, chip.col)


class RandomWindowSampler(WindowSampler):
    """Random windows that show all of the training ground, its middle about twice as often as its border.

    Pixels of each chip are pins. In round n, each pin that fewer than n windows contain gets a random window, pin by
    pin in random order. Law: after round n, every pin lies in at least n windows. Independent random windows would
    show the edges of the ground less often than its middle, and some pixels not at all.
    """

    def prepare(self) -> None:
        """Find the pins."""
        _ = self.pins

    @cached_property
    def pins(self) -> NDArray[np.int64]:
        """(n, 3) chip index, row and column in the scene of the pins, ordered by chip."""
        return _pins(self.chips, np.random.default_rng([self.seed, len(self.chips)]))

    def _draws(self) -> Iterator[WindowIndex]:
        rng = np.random.default_rng(self.seed)
        shown = np.zeros(len(self.pins))
        due_a_round = self.factors[self.pins[:, 0]]
        due = np.zeros(len(self.pins))
        while due_a_round.any():
            due += due_a_round
            for pin in rng.permutation(len(self.pins)).tolist():
                # A factor below 1 skips rounds.
                if shown[pin] + 1 <= due[pin]:
                    window = self.random_window(self.pins[pin], rng)
                    shown[self._pins_in(window)] += 1
                    yield window

    def _pins_in(self, index: WindowIndex) -> NDArray[np.int64]:
        """The numbers of the pins in a window."""
        chip, row, col = index
        window = Window(row, col, *self.windows[chip].shape)
        near = self.chips.overlapping(self.scenes[chip], window)
        numbers = np.concatenate([np.arange(self._starts[number], self._starts[number + 1]) for number in near])
        _, rows, cols = self.pins[numbers].T
        inside = (rows >= row) & (rows < window.row_stop) & (cols >= col) & (cols < window.col_stop)
        return numbers[inside]

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """(chips + 1,) the number of each chip's first pin."""
        return np.searchsorted(self.pins[:, 0], np.arange(len(self.chips) + 1))


def _pins(chips: Chips, rng: np.random.Generator) -> NDArray[np.int64]:
    """A lattice of pixels of each chip, its corners included; random labelled pixels in place of unlabelled ones."""
    reader, pins = ChipReader(chips), []
    labelled = chips.counts.sum(axis=1)
    with progress.task("finding labelled pixels", len(chips)) as advance:
        for index, window in enumerate(chips.windows):
            sides = (np.linspace(0, side - 1, _PINS).round().astype(np.int64) for side in window.shape)
            pixels = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 2)
            if labelled[index] < window.height * window.width:
                is_labelled = reader.read(index).mask != IGNORE
                others = rng.permutation(np.argwhere(is_labelled))
                pixels = np.concatenate([pixels[is_labelled[tuple(pixels.T)]], others])[: _PINS**2]
            in_scene = pixels + np.array([window.row, window.col])
            pins.append(np.insert(in_scene, 0, index, axis=1))
            advance()
    return np.concatenate(pins)
