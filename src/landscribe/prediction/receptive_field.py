"""The margin that tiles need, measured on the raster that is to be mapped.

What a network can see in theory is far more than what moves its answer (Luo et al. 2016, "Understanding the effective
receptive field in deep convolutional neural networks", arXiv:1701.04128). So the answers of tiles are compared with
those of the whole: how often they differ falls with the distance from the edge at which the tile was cut.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.inference import cache
from landscribe.model import Model
from landscribe.prediction.unit import indices_of

TOLERANCE = 1e-3
"""Share of a map's pixels that may differ in class from those of a single pass over the whole raster."""

_NOTE = "reach"
# Sides of windows, and how many of them: larger ones only if the smaller ones do not show the end of the reach.
_WINDOWS = ((512, 4), (1024, 2))
# Windows along each axis of the raster, of which those with the most detail are taken.
_LATTICE = 4
# Share of the second class of a window: below it there is hardly a border at which answers could differ.
_LEAST_OTHER = 1e-3
_LEAST_STEP = 8


@dataclass(frozen=True)
class Reach:
    """How often a tile's answer differs from that of the whole, by the distance from the edge where it was cut."""

    differs: NDArray[np.float64]
    """(distances,) share of the pixels so many pixels from the nearest cut whose class is another."""
    raster: str = ""
    """The name of that which it was measured on."""
    day: str = ""
    """When, as in 2026-11-23."""

    @property
    def is_global(self) -> bool:
        """True if the answer depends on the tile as a whole, as where a network averages over all of it.

        Then far from a cut it differs as often as less far.
        """
        nearer, farthest = self._quarter(2), self._quarter(3)
        return farthest > TOLERANCE and farthest > nearer / 2

    @property
    def is_settled(self) -> bool:
        """True if far from a cut next to nothing differs, so that larger windows would not tell more."""
        return (self._quarter(2) + self._quarter(3)) / 2 <= TOLERANCE

    @property
    def floor(self) -> float:
        """Share of the pixels that differ however far a cut is: 0, unless the network looks at tiles as a whole."""
        return self._quarter(3) if self.is_global else 0.0

    def _quarter(self, number: int) -> float:
        """Mean share in the n-th quarter (from 0) of the distances."""
        count = len(self.differs)
        part = self.differs[number * count // 4 : (number + 1) * count // 4]
        return float(part.mean()) if part.size else 0.0

    def share(self, margin: int, tile: int) -> float:
        """Share of the kept pixels that are expected to differ if `margin` pixels are dropped around tiles of `tile`.

        The tiles are cut on all four sides; at the raster's own edge nothing is cut, so a map has rather less.
        """
        return float(self._shares(tile)[margin])

    def margin(self, tile: int, *, tolerance: float = TOLERANCE, align: int = 1) -> int | None:
        """The smallest margin at which less than `tolerance` of the kept pixels differ; None if none is enough.

        What differs however far a cut is (`floor`) does not count: no margin would help against it.

        Args:
            tile: side of the tiles, a multiple of `align`.
            tolerance: share of the pixels.
            align: the network's stride. What is kept of a tile is a multiple of it, so that margins are tried in steps
                of half of it (of 8 pixels at least): those between would keep no more.
        """
        half = math.lcm(2, align) // 2
        step = half * -(-_LEAST_STEP // half)
        shares = self._shares(tile) - self.floor
        return next((m for m in range(0, (tile - align) // 2 + 1, step) if shares[m] < tolerance), None)

    def _shares(self, tile: int) -> NDArray[np.float64]:
        """By margin, from 0 to less than half a tile."""
        distances = np.arange((tile + 1) // 2)
        # The ring of pixels at distance d from the edge of a square: all around, the corners once.
        rings = np.maximum(1, 4 * (tile - 2 * distances - 1))
        differs = np.full(len(distances), self.floor)
        measured = min(len(distances), len(self.differs))
        differs[:measured] = self.differs[:measured]
        return np.cumsum((rings * differs)[::-1])[::-1] / np.cumsum(rings[::-1])[::-1]

    @classmethod
    def largest(cls, reaches: Sequence["Reach"]) -> "Reach":
        """What several networks need whose answers are averaged: at each distance the most of all."""
        differs = np.full((len(reaches), max(len(reach.differs) for reach in reaches)), 0.0)
        for row, reach in zip(differs, reaches, strict=True):
            row[:] = reach.floor
            row[: len(reach.differs)] = reach.differs
        return replace(reaches[0], differs=differs.max(axis=0))


def redundancy(tile: int, margin: int) -> float:
    """How many pixels the network reads for each that is kept, but for the raster's own edge."""
    return (tile / (tile - 2 * margin)) ** 2


def known_reach(model: Model, raster: Raster, *, largest: int = _WINDOWS[-1][0]) -> Reach | None:
    """The reach that is noted in the model's folder; measured and noted if there is none.

    Arguments and result are those of `measure_reach`. What a raster is too small or too plain to show is not noted.
    """
    identity = model.sha256
    reach = _from_note(cache.load(model, _NOTE), identity)
    if reach is None:
        reach = measure_reach(model, raster, largest=largest)
        if reach is not None and (reach.is_settled or reach.is_global):
            cache.store(model, _NOTE, _as_note(reach, identity))
    return reach


def _as_note(reach: Reach, identity: str) -> dict[str, Any]:
    # As one text: a line for each distance would make a folder's notes long to look at.
    differs = " ".join(f"{share:.6g}" for share in reach.differs)
    return {"model": identity, "raster": reach.raster, "day": reach.day, "differs": differs}


def _from_note(note: Any, identity: str) -> Reach | None:
    """None if there is none, if it is of other weights, or damaged."""
    if not isinstance(note, dict) or note.get("model") != identity:
        return None
    try:
        differs = np.array([float(share) for share in note["differs"].split()])
        return Reach(differs, str(note["raster"]), str(note["day"])) if differs.size else None
    except (KeyError, ValueError, AttributeError):
        return None


def measure_reach(model: Model, raster: Raster, *, largest: int = _WINDOWS[-1][0]) -> Reach | None:
    """Compare quarters of some windows of a raster with the whole windows.

    Args:
        model: with its network where it is to run, in eval mode.
        raster: what is to be mapped; its windows with the most detail are taken.
        largest: the largest side of a window in pixels, for the sake of memory.

    Returns:
        None if it cannot be told: the network answers with one class wherever it was asked.
    """
    reach = None
    for side, count in _WINDOWS:
        if reach is not None and (reach.is_settled or side > min(largest, max(raster.grid.shape))):
            break
        with torch.inference_mode():
            reach = _measured(model, raster, min(side, largest), count)
        if reach is None:
            break
    return reach


def _measured(model: Model, raster: Raster, side: int, count: int) -> Reach | None:
    """From `count` windows of a side of `side` pixels."""
    shape = _shape(raster, side, model.reduction)
    distances = max(shape) // 2
    wrong, known = np.zeros(distances), np.zeros(distances)
    taken = 0
    # Windows that turn out to tell nothing cost a pass, too.
    for _, (pixels, valid) in zip(range(2 * count), _samples(raster, shape, model.reduction), strict=False):
        whole = indices_of(model, pixels, valid)
        if not _has_borders(whole[valid]):
            continue
        for part, from_cut in _quarters(shape):
            cut = indices_of(model, pixels[(slice(None), *part)], valid[part])
            counted = valid[part]
            wrong += np.bincount(from_cut[counted & (cut != whole[part])], minlength=distances)
            known += np.bincount(from_cut[counted], minlength=distances)
        taken += 1
        if taken == count:
            break
    return Reach(wrong / np.maximum(1, known), raster.name, datetime.now(UTC).date().isoformat()) if taken else None


def _shape(raster: Raster, side: int, align: int) -> tuple[int, int]:
    """Of the windows: two halves, each a multiple of the network's stride, along each axis."""
    height, width = (max(2 * align, min(side, length) // (2 * align) * 2 * align) for length in raster.grid.shape)
    return height, width


def _samples(raster: Raster, shape: tuple[int, int], align: int) -> Iterator[tuple[Pixels, Valid]]:
    """The windows of a coarse lattice, those first that vary most and of which most is valid."""
    found = []
    rows, cols = (_starts(*lengths, align) for lengths in zip(raster.grid.shape, shape, strict=True))
    for row in rows:
        for col in cols:
            pixels, valid = raster.read(Window(row, col, *shape))
            found.append((float(valid.mean() * (pixels[:, valid].std() if valid.any() else 0)), row, col))
    for worth, row, col in sorted(found, reverse=True):
        if worth > 0:
            yield raster.read(Window(row, col, *shape))


def _starts(length: int, side: int, align: int) -> list[int]:
    count = min(_LATTICE, -(-length // side))
    last = max(0, length - side)
    return sorted({round(last * place / max(1, count - 1)) // align * align for place in range(count)})


def _has_borders(indices: NDArray[np.uint8]) -> bool:
    """True if there is more than one class, so that an answer can be another one near the border between them."""
    counts = np.sort(np.bincount(indices.ravel(), minlength=2))
    return bool(counts[-2] >= max(1, _LEAST_OTHER * counts.sum()))


def _quarters(shape: tuple[int, int]) -> Iterator[tuple[tuple[slice, slice], NDArray[np.int64]]]:
    """The parts into which a window is cut, and for each its pixels' distances from the nearest cut.

    Along an axis that is shorter than the other, as of a narrow raster, nothing is cut: it would hide longer distances.
    """
    longest = max(shape)
    for rows in _halves(shape[0], is_cut=shape[0] == longest):
        for cols in _halves(shape[1], is_cut=shape[1] == longest):
            yield (rows[0], cols[0]), np.minimum(rows[1][:, None], cols[1][None])


def _halves(length: int, *, is_cut: bool) -> list[tuple[slice, NDArray[np.int64]]]:
    """Parts of an axis, and the distances of their pixels from where it is cut."""
    if not is_cut:
        return [(slice(None), np.full(length, np.iinfo(np.int64).max))]
    middle = length // 2
    ascending = np.arange(middle)
    return [(slice(0, middle), ascending[::-1]), (slice(middle, length), ascending)]
