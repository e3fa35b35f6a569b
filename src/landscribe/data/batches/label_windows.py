"""Label windows: random windows around labelled pixels, each class equally often, however rare it is."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from landscribe import progress
from landscribe.data.batches.sampling import RankShare
from landscribe.data.batches.windows import WindowIndex, WindowSampler
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.geo.classes import IGNORE

_ANCHORS = 4


class LabelWindowSampler(WindowSampler):
    """Windows around labelled pixels, at random offsets: a few polygons give many different windows."""

    def __init__(self, chips: Chips, *, background: float | None, seed: int, share: RankShare | None = None) -> None:
        """As `WindowSampler`, with the maximum fraction of windows drawn for background; no limit if None."""
        super().__init__(chips, np.ones(len(chips)), seed=seed, share=share)
        self.background = background

    def prepare(self) -> None:
        """Find the anchor pixels."""
        _ = self.anchor_pixels

    @cached_property
    def anchor_pixels(self) -> NDArray[np.int64]:
        """(n, 4) class index, chip index, row and column in the scene: random pixels of each class of each chip."""
        return _anchor_pixels(self.chips, np.random.default_rng([self.seed, len(self.chips)]))

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(K,) probability of each anchor pixel of a class."""
        return _probabilities(self.chips, self.anchor_pixels, self.background)

    def _pass(self, rng: np.random.Generator) -> list[WindowIndex]:
        anchors = self.anchor_pixels
        drawn = rng.choice(len(anchors), self.pass_length, p=self.probabilities[anchors[:, 0]])
        return [self.random_window(anchors[number, 1:], rng) for number in drawn]


def _anchor_pixels(chips: Chips, rng: np.random.Generator) -> NDArray[np.int64]:
    """As `LabelWindowSampler.anchor_pixels`."""
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
