"""The margin that tiles need, measured on the raster that is to be mapped.

What a network can see in theory is far more than what moves its answer (Luo et al. 2016, "Understanding the effective
receptive field in deep convolutional neural networks", arXiv:1701.04128). So the answers of tiles are compared with
those of the whole: how often they differ falls with the distance from the edge at which the tile was cut.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from landscribe.geo.grid import Window
from landscribe.geo.raster import Pixels, Raster, Valid
from landscribe.model import Model
from landscribe.prediction.unit import indices_of

TOLERANCE = 1e-3
"""Share of a map's pixels that may differ in class from those of a single pass over the whole raster."""

_SIDE = 1024
_PLACES = 3
_STEP = 8


@dataclass(frozen=True)
class Reach:
    """How often a tile's answer differs from that of the whole, by the distance from the edge where it was cut."""

    differs: NDArray[np.float64]
    """(distances,) share of the pixels so many pixels from the edge whose class is another."""

    @property
    def is_global(self) -> bool:
        """True if the answer depends on the tile as a whole, as where a network averages over all of it."""
        far = self.differs[len(self.differs) // 2 :]
        return bool(far.size and far.mean() > TOLERANCE)

    def share(self, margin: int, tile: int) -> float:
        """Expected share of pixels that differ if `margin` pixels are dropped around tiles of side `tile`."""
        distances = np.arange(margin, min(len(self.differs), tile // 2))
        # A ring at distance d from the edge of a square has about 4 (side - 2 d) pixels.
        rings = 4 * (tile - 2 * distances) * self.differs[distances]
        return float(rings.sum() / max(1, tile - 2 * margin) ** 2)

    def margin(self, tile: int, tolerance: float = TOLERANCE) -> int:
        """The smallest margin, a multiple of 8, at which less than `tolerance` of the pixels differ."""
        largest = (tile - 1) // 2 // _STEP * _STEP
        return next((m for m in range(0, largest, _STEP) if self.share(m, tile) < tolerance), largest)


def redundancy(tile: int, margin: int) -> float:
    """How many pixels the network reads for each that is kept, but for the raster's own edge."""
    return (tile / (tile - 2 * margin)) ** 2


def measure_reach(model: Model, raster: Raster) -> Reach:
    """Compare tiles with the whole on some windows of a raster.

    Args:
        model: with its network where it is to run, in eval mode.
        raster: what is to be mapped; its windows with the most detail are taken.
    """
    distances = _side(raster, model.reduction) // 2
    wrong, known = np.zeros(distances), np.zeros(distances)
    with torch.inference_mode():
        for pixels, valid in _samples(raster, model.reduction):
            whole = indices_of(model, pixels, valid)
            for part, from_edge in _halves(whole.shape, model.reduction):
                cut = indices_of(model, pixels[(slice(None), *part)], valid[part])
                for distance, line in enumerate(_lines(cut.shape, from_edge)):
                    if distance < distances:
                        counted = valid[part][line]
                        wrong[distance] += ((cut != whole[part])[line] & counted).sum()
                        known[distance] += counted.sum()
    return Reach(wrong / np.maximum(1, known))


def _side(raster: Raster, align: int) -> int:
    """Of the windows: two halves, each a multiple of the network's stride."""
    return max(2 * align, min(_SIDE, *raster.grid.shape) // (2 * align) * 2 * align)


def _samples(raster: Raster, align: int) -> Iterator[tuple[Pixels, Valid]]:
    """The windows of a coarse lattice that vary most, where all or most is valid."""
    side = _side(raster, align)
    height, width = raster.grid.shape
    rows, cols = ({0, (length - side) // 2, length - side} for length in (height, width))
    found = []
    for row in sorted({max(0, row) // align * align for row in rows}):
        for col in sorted({max(0, col) // align * align for col in cols}):
            pixels, valid = raster.read(Window(row, col, side, side))
            found.append((float(valid.mean() * (pixels[:, valid].std() if valid.any() else 0)), row, col))
    for worth, row, col in sorted(found, reverse=True)[:_PLACES]:
        if worth > 0:
            yield raster.read(Window(row, col, side, side))


def _halves(shape: tuple[int, ...], align: int) -> Iterator[tuple[tuple[slice, slice], tuple[int, int]]]:
    """The four halves of a window, and for each the axis and end at which it was cut."""
    for axis in (0, 1):
        middle = shape[axis] // 2 // align * align
        for end, part in ((0, slice(middle, None)), (1, slice(0, middle))):
            whole = slice(None)
            yield ((part, whole) if axis == 0 else (whole, part)), (axis, end)


def _lines(shape: tuple[int, ...], from_edge: tuple[int, int]) -> Iterator[tuple[slice | int, ...]]:
    """Rows or columns of an array, from the edge at which it was cut."""
    axis, end = from_edge
    order = range(shape[axis]) if end == 0 else reversed(range(shape[axis]))
    for place in order:
        yield (place, slice(None)) if axis == 0 else (slice(None), place)
