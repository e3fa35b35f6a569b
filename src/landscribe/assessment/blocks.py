"""Counts of pixels by block of the ground, and intervals of measures from resamples of the blocks.

Errors of neighbouring pixels are correlated, so pixels are no independent sample: intervals that take them as one are
far too narrow. A block bootstrap draws squares of the ground instead (Lahiri 2003, doi:10.1007/978-1-4757-3803-2). Its
blocks are best longer than the distance over which errors are correlated (Roberts et al. 2017, doi:10.1111/ecog.02881).
"""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.agreement import Measure, ratio
from landscribe.confusion import Confusion, Counts
from landscribe.errors import RecipeError, counted
from landscribe.estimation.intervals import interval_quantile, share_interval
from landscribe.geo.classes import Classes
from landscribe.geo.grid import Grid, Window

RESAMPLES = 1000
FEWEST_BLOCKS = 10
"""Blocks with reference pixels, below which resamples say little."""
_SMALLEST_SIDE = 64
_DEFAULT_BLOCKS = 400
"""A default side gives about this many blocks at most, however long the map is."""
_MOST_BLOCKS = 100_000
_MOST_CELLS = 2**25
"""Blocks times pairs of classes that are counted in memory."""
_BATCH = 2**22
"""Numbers that are drawn at once."""
_OVERALL = ("overall_accuracy", "mean_f1", "mean_iou")
_BY_CLASS = ("users_accuracy", "producers_accuracy", "f1", "iou")


def default_side(grid: Grid) -> int:
    """Side of the blocks of a map in pixels: a tenth of its shorter side, at least 64; more of a very long map.

    >>> from affine import Affine
    >>> [default_side(Grid(None, Affine.identity(), side, side)) for side in (300, 40_000)]
    [64, 4000]
    """
    return max(_SMALLEST_SIDE, min(grid.shape) // 10, math.isqrt(grid.height * grid.width // _DEFAULT_BLOCKS))


@dataclass(frozen=True, eq=False)
class BlockCounts:
    """Pixels of each block that holds a compared one. Adding merges parts of one grid, which may share blocks."""

    index: Counts
    """(blocks,) int64, ascending: number of each block in its grid, row by row."""
    counts: Counts
    """(blocks, 3, K) int64: pixels by class that agree, that have it in the reference, that have it in the map."""
    side: int
    """Of a block, in pixels; the largest of several grids."""

    @classmethod
    def zeros(cls, classes: Classes, side: int) -> "BlockCounts":
        """No blocks, to which others are added."""
        return cls(np.zeros(0, np.int64), np.zeros((0, 3, len(classes)), np.int64), side)

    def __add__(self, other: "BlockCounts") -> "BlockCounts":
        index = np.union1d(self.index, other.index)
        counts = np.zeros((len(index), *self.counts.shape[1:]), np.int64)
        for part in (self, other):
            counts[np.searchsorted(index, part.index)] += part.counts
        return BlockCounts(index, counts, max(self.side, other.side))

    def numbered_from(self, first: int) -> "BlockCounts":
        """The same blocks with other numbers: those of another grid, so that adding merges none of them."""
        return replace(self, index=self.index + first)

    def __len__(self) -> int:
        return len(self.counts)


@dataclass(frozen=True)
class BlockCounter:
    """Counts the pixels of one grid, window by window, in square blocks from its upper left corner.

    Law: the sum of the counts does not depend on how the grid is cut into windows.
    """

    classes: Classes
    side: int
    """Of a block, in pixels."""
    rows: int
    """Of blocks."""
    cols: int
    """Of blocks."""

    @classmethod
    def of(cls, classes: Classes, grid: Grid, side: int | None = None) -> "BlockCounter":
        """Count by blocks of `side` pixels; `default_side` if None.

        Raises:
            RecipeError: blocks that small are too many.
        """
        side = side or default_side(grid)
        rows, cols = (-(-length // side) for length in grid.shape)
        most = min(_MOST_BLOCKS, _MOST_CELLS // len(classes) ** 2)
        if rows * cols > most:
            least = math.isqrt(grid.height * grid.width // most) + 1
            raise RecipeError(
                f"block_size is {side}, which makes {rows * cols:,} blocks of a map of {grid.height} x {grid.width} "
                f"pixels; expected at most {most:,}. Choose at least about {least}."
            )
        return cls(classes, side, rows, cols)

    def count(
        self, window: Window, reference: NDArray[np.uint8], predicted: NDArray[np.uint8]
    ) -> tuple[Confusion, BlockCounts]:
        """The pixels of a window, in all and by block.

        Args:
            window: of the grid; pixels outside of the grid count in its outermost blocks.
            reference: (height, width) class indices 0 to K-1, or 255 for ignore.
            predicted: (height, width) class indices 0 to K-1, or 255 for nodata.
        """
        size = len(self.classes)
        rows = self._blocks_along(window.row, window.height, self.rows)
        cols = self._blocks_along(window.col, window.width, self.cols)
        # Pixels without a class are of one more: all are counted, and none are copied out.
        shape = (rows[-1] - rows[0] + 1, cols[-1] - cols[0] + 1, size + 1, size + 1)
        # One code for block, reference and prediction, in one array: all blocks are counted at once.
        codes = np.minimum(reference, size).astype(np.int64)
        codes *= size + 1
        codes += np.minimum(predicted, size)
        codes += ((rows - rows[0]) * math.prod(shape[1:]))[:, None]
        codes += (cols - cols[0]) * math.prod(shape[2:])
        counted = np.bincount(codes.ravel(), minlength=math.prod(shape)).reshape(-1, *shape[2:])
        total, of_block = counted.sum(axis=0), counted[:, :size, :size]
        confusion = Confusion(self.classes, total[:size, :size], int(total[:size, size].sum()))
        counts = np.stack([np.diagonal(of_block, axis1=1, axis2=2), of_block.sum(axis=2), of_block.sum(axis=1)], axis=1)
        index = (np.arange(rows[0], rows[-1] + 1)[:, None] * self.cols + np.arange(cols[0], cols[-1] + 1)).ravel()
        holds = counts[:, 1].any(axis=1)
        return confusion, BlockCounts(index[holds], counts[holds], self.side)

    def _blocks_along(self, start: int, length: int, blocks: int) -> NDArray[np.int64]:
        return np.clip(np.arange(start, start + length) // self.side, 0, blocks - 1)


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Percentile intervals of measures over resamples of blocks, drawn with replacement (Efron 1979)."""

    intervals: dict[str, tuple[Any, Any]]
    """(lower, upper) by measure: numbers of overall_accuracy, mean_f1 and mean_iou; arrays (K,) of users_accuracy,
    producers_accuracy, f1 and iou, NaN for a class without pixels. Empty with fewer than 10 blocks."""
    confidence: float
    blocks: int
    """Blocks that hold compared pixels."""
    side: int
    """Of a block, in pixels."""
    seed: int

    @property
    def reason(self) -> str | None:
        """Why there are no intervals; None if there are."""
        if self.intervals:
            return None
        return (
            f"no intervals: the compared pixels lie in {counted(self.blocks, 'block')} of {self.side} x {self.side} "
            f"pixels; expected at least {FEWEST_BLOCKS}. Compare a larger area, or choose a smaller --block-size"
        )

    def summary(self, classes: Classes) -> dict[str, Any]:
        """In JSON's types; NaN is None."""
        settings = {
            "confidence": self.confidence, "blocks": self.blocks, "block_side": self.side, "seed": self.seed,
        }  # fmt: skip
        if not self.intervals:
            return settings | {"reason": self.reason}
        rows = [
            {"name": entry.name} | {name: _plain(ends[index] for ends in self.intervals[name]) for name in _BY_CLASS}
            for index, entry in enumerate(classes)
        ]
        return settings | {name: _plain(self.intervals[name]) for name in _OVERALL} | {"classes": rows}


def bootstrap(blocks: BlockCounts, confidence: float = 0.95, seed: int = 0) -> Bootstrap:
    """Intervals of the measures of all blocks together.

    Where all resamples agree, as for a class without an error, the interval is that of Wilson for as many units as
    there are blocks with the class: no interval has the length zero.

    Law: the same seed gives the same intervals; blocks of one pixel give the bootstrap of independent pixels.
    """
    settings = (confidence, len(blocks), blocks.side, seed)
    if len(blocks) < FEWEST_BLOCKS:
        return Bootstrap({}, *settings)
    resampled = _measures(_resamples(blocks.counts, np.random.default_rng(seed)))
    estimates = _measures(blocks.counts.sum(axis=0)[None])
    tails = [0.5 - confidence / 2, 0.5 + confidence / 2]
    intervals: dict[str, tuple[Any, Any]] = {}
    for name, values in resampled.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a class without pixels
            lower, upper = np.nanquantile(values, tails, axis=0)
        units = _units(blocks.counts, name)
        quantile = interval_quantile(confidence)
        for index in np.flatnonzero(lower == upper).tolist():
            lower[index], upper[index] = share_interval(estimates[name][0, index], 0.0, units[index], quantile)
        intervals[name] = (lower, upper) if name in _BY_CLASS else (float(lower[0]), float(upper[0]))
    return Bootstrap(intervals, *settings)


def _resamples(counts: Counts, rng: np.random.Generator) -> Measure:
    """(RESAMPLES, 3, K) counts of as many blocks as there are, drawn with replacement."""
    blocks, batch = len(counts), max(1, _BATCH // len(counts))
    flat, parts = counts.reshape(blocks, -1).astype(np.float64), []
    for start in range(0, RESAMPLES, batch):
        size = min(batch, RESAMPLES - start)
        drawn = rng.integers(0, blocks, (size, blocks)) + np.arange(size)[:, None] * blocks
        times = np.bincount(drawn.ravel(), minlength=size * blocks).reshape(size, blocks)
        parts.append(times.astype(np.float64) @ flat)
    return np.concatenate(parts).reshape(RESAMPLES, *counts.shape[1:])


def _measures(counts: NDArray[Any]) -> dict[str, Measure]:
    """Measures of counts (n, 3, K): (n, K) by class, (n, 1) overall. Definitions are those of `Confusion`."""
    agreed, reference, predicted = counts[:, 0], counts[:, 1], counts[:, 2]
    both = reference + predicted
    f1, iou = ratio(2 * agreed, both), ratio(agreed, both - agreed)
    return {
        "overall_accuracy": ratio(agreed.sum(axis=1), reference.sum(axis=1))[:, None],
        "users_accuracy": ratio(agreed, predicted),
        "producers_accuracy": ratio(agreed, reference),
        "f1": f1,
        "iou": iou,
        "mean_f1": _mean(f1),
        "mean_iou": _mean(iou),
    }


def _mean(by_class: Measure) -> Measure:
    """(n, 1) mean of the classes that have a value."""
    present = ~np.isnan(by_class)
    return ratio(np.where(present, by_class, 0).sum(axis=1), present.sum(axis=1))[:, None]


def _units(counts: Counts, measure: str) -> NDArray[np.int64]:
    """Blocks that hold pixels of the class on which a measure rests; all blocks for an overall measure."""
    if measure in _OVERALL:
        return np.array([len(counts)])
    holds = {"users_accuracy": counts[:, 2], "producers_accuracy": counts[:, 1]}
    return np.count_nonzero(holds.get(measure, counts[:, 1] + counts[:, 2]), axis=0)


def _plain(ends: Any) -> list[float | None]:
    return [None if math.isnan(end) else float(end) for end in ends]
