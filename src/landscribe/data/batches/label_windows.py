"""Windows drawn on the fly around what is labelled, rather than the chips themselves.

Each class is drawn as often as the others, however rare it is, and never twice at the same place: so a few polygons
give many views. Windows stay on the ground of the chips to train on, and so as far from what is held out as these.
"""

from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from landscribe import progress
from landscribe.data.batches.sampling import ChipSampler, Share
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Window

Place = tuple[int, int, int]
"""Number of a chip, which says the scene; row and column of the window in it."""

_SPOTS = 4
_TRIALS = 12


class WindowSampler(ChipSampler):
    """Places of windows in the order of an epoch, as many as there are chips; the same for the same seed."""

    def __init__(self, chips: Chips, *, background: float | None, seed: int, share: Share | None = None) -> None:
        """Windows of some chips; what is labelled is looked for when the first epoch begins.

        Args:
            chips: to train on.
            background: largest share of windows drawn for background; as many as for any other class if None.
            seed: of spots and windows.
            share: of several processes.
        """
        super().__init__(np.ones(len(chips)), seed=seed, share=share)
        self.chips = chips
        self.background = background
        self.windows = chips.windows
        self.scenes = chips.table["scene"].to_numpy(str)

    @cached_property
    def spots(self) -> NDArray[np.int64]:
        """(n, 4) class index, chip number, row and column in the scene: some pixels of each class in each chip."""
        return _spots(self.chips, np.random.default_rng([self.seed, len(self.chips)]))

    @cached_property
    def chances(self) -> NDArray[np.float64]:
        """(K,) the chance of one spot of each class."""
        return _chances(self.chips, self.spots, self.background)

    @cached_property
    def ground(self) -> dict[str, Any]:
        """What may be seen of each scene."""
        return {scene: _ground(self.chips, scene) for scene in set(self.scenes.tolist())}

    def _order(self, rng: np.random.Generator) -> list[Any]:
        drawn = rng.choice(len(self.spots), len(self.windows), p=self.chances[self.spots[:, 0]])
        return [self._place(self.spots[spot], rng) for spot in drawn]

    def _place(self, spot: NDArray[np.int64], rng: np.random.Generator) -> Place:
        """A window that holds the spot, on the ground to train on; the spot's own chip if none is found."""
        _, number, row, col = spot.tolist()
        chip, ground = self.windows[number], self.ground[self.scenes[number]]
        for up, left in rng.integers(0, (chip.height, chip.width), (_TRIALS, 2)).tolist():
            window = Window(row - up, col - left, chip.height, chip.width)
            if ground.covers(_box(window)):
                return number, window.row, window.col
        return number, chip.row, chip.col


def _spots(chips: Chips, rng: np.random.Generator) -> NDArray[np.int64]:
    """As `WindowSampler.spots`."""
    reader, windows = ChipReader(chips), chips.windows
    found: list[NDArray[np.int64]] = []
    with progress.task("labelled places", len(chips)) as advance:
        for number, window in enumerate(windows):
            indices = chips.classes.to_indices(reader.read(number)[2])
            for index in np.unique(indices[indices != IGNORE]).tolist():
                places = np.argwhere(indices == index)
                some = places[rng.integers(0, len(places), _SPOTS)] + (window.row, window.col)
                found.append(np.column_stack([np.full((_SPOTS, 2), (index, number)), some]))
            advance()
    return np.concatenate(found)


def _chances(chips: Chips, spots: NDArray[np.int64], background: float | None) -> NDArray[np.float64]:
    """(K,) the chance of one spot of each class: classes alike, but for a background that is to be drawn less."""
    counts = np.bincount(spots[:, 0], minlength=len(chips.classes))
    wanted = (counts > 0).astype(np.float64)
    rest = np.array([entry.value != chips.classes.background for entry in chips.classes])
    if background is not None and wanted[~rest].any() and wanted[rest].any():
        # b of w + b windows are to be of background at most.
        others = wanted[rest].sum()
        wanted[~rest] = min(1.0, others * background / (1 - background)) if background < 1 else 1.0
    chances = wanted / np.maximum(1, counts)
    return np.asarray(chances / (chances * counts).sum())


def _ground(chips: Chips, scene: str) -> Any:
    """What the chips of a scene cover, in its rows and columns, ready to be asked often."""
    own = [window for window, name in zip(chips.windows, chips.table["scene"], strict=True) if name == scene]
    covered = shapely.union_all([_box(window) for window in own])
    shapely.prepare(covered)
    return covered


def _box(window: Window) -> Any:
    return shapely.box(window.col, window.row, window.col_stop, window.row_stop)
