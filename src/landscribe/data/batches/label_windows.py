"""Label windows: random windows around labelled pixels, instead of the chips.

Each class is drawn equally often, however rare it is, at random offsets: a few polygons give many different windows.
Windows stay within the area of the train chips, so they are as far from held-out chips as the train chips are.
"""

from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from landscribe import progress
from landscribe.data.batches.sampling import ChipSampler, RankShare
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Window

WindowIndex = tuple[int, int, int]
"""Index of a chip, which gives the scene; row and column of the window in that scene."""

_ANCHORS = 4
_TRIALS = 12


class WindowSampler(ChipSampler):
    """Window indices in the order of an epoch, as many as there are chips; a seed gives the same windows."""

    def __init__(self, chips: Chips, *, background: float | None, seed: int, share: RankShare | None = None) -> None:
        """A sampler of windows. Labels are read when the first epoch begins.

        Args:
            chips: to train on.
            background: maximum fraction of windows drawn for background; as for any other class if None.
            seed: of anchor pixels and windows.
            share: of one of several processes; everything if None.
        """
        super().__init__(np.ones(len(chips)), seed=seed, share=share)
        self.chips = chips
        self.background = background
        self.windows = chips.windows
        self.scenes = chips.scene_names

    @cached_property
    def anchor_pixels(self) -> NDArray[np.int64]:
        """(n, 4) class index, chip index, row and column in the scene: random pixels of each class of each chip."""
        return _anchor_pixels(self.chips, np.random.default_rng([self.seed, len(self.chips)]))

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(K,) probability of each anchor pixel of a class."""
        return _probabilities(self.chips, self.anchor_pixels, self.background)

    @cached_property
    def train_areas(self) -> dict[str, Any]:
        """The area of the chips of each scene."""
        return {scene: _train_area(self.chips, scene) for scene in set(self.scenes.tolist())}

    def _order(self, rng: np.random.Generator) -> list[Any]:
        anchors = self.anchor_pixels
        drawn = rng.choice(len(anchors), len(self.windows), p=self.probabilities[anchors[:, 0]])
        return [self._window(anchors[index], rng) for index in drawn]

    def _window(self, anchor: NDArray[np.int64], rng: np.random.Generator) -> WindowIndex:
        """A random window that contains the anchor pixel, within the train area; the anchor's chip if none fits."""
        _, index, row, col = anchor.tolist()
        chip, area = self.windows[index], self.train_areas[self.scenes[index]]
        for up, left in rng.integers(0, (chip.height, chip.width), (_TRIALS, 2)).tolist():
            window = Window(row - up, col - left, chip.height, chip.width)
            if area.covers(_box(window)):
                return index, window.row, window.col
        return index, chip.row, chip.col


def _anchor_pixels(chips: Chips, rng: np.random.Generator) -> NDArray[np.int64]:
    """As `WindowSampler.anchor_pixels`."""
    reader, windows = ChipReader(chips), chips.windows
    anchors: list[NDArray[np.int64]] = []
    with progress.task("finding labelled pixels", len(chips)) as advance:
        for chip, window in enumerate(windows):
            indices = chips.classes.to_indices(reader.read(chip).mask)
            for index in np.unique(indices[indices != IGNORE]).tolist():
                pixels = np.argwhere(indices == index)
                drawn = pixels[rng.integers(0, len(pixels), _ANCHORS)] + (window.row, window.col)
                anchors.append(np.column_stack([np.full((_ANCHORS, 2), (index, chip)), drawn]))
            advance()
    return np.concatenate(anchors)


def _probabilities(chips: Chips, anchors: NDArray[np.int64], background: float | None) -> NDArray[np.float64]:
    """(K,) probability of each anchor pixel of a class: classes are equal, background at most `background`."""
    counts = np.bincount(anchors[:, 0], minlength=len(chips.classes))
    weights = (counts > 0).astype(np.float64)
    foreground = np.array([entry.value != chips.classes.background for entry in chips.classes])
    if background is not None and weights[~foreground].any() and weights[foreground].any():
        # With foreground weight w, a background weight of w * b / (1 - b) is the fraction b of all windows.
        total = weights[foreground].sum()
        weights[~foreground] = min(1.0, total * background / (1 - background)) if background < 1 else 1.0
    probabilities = weights / np.maximum(1, counts)
    return np.asarray(probabilities / (probabilities * counts).sum())


def _train_area(chips: Chips, scene: str) -> Any:
    """The union of the chips of a scene in its rows and columns, prepared for many queries."""
    own = [window for window, name in zip(chips.windows, chips.scene_names, strict=True) if name == scene]
    area = shapely.union_all([_box(window) for window in own])
    shapely.prepare(area)
    return area


def _box(window: Window) -> Any:
    return shapely.box(window.col, window.row, window.col_stop, window.row_stop)
