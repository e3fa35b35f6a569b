"""Effective receptive field: how far from a cut edge a network's classes change, measured on the raster to be mapped.

A network's theoretical receptive field is far larger than the part that changes its output (Luo et al. 2016,
"Understanding the effective receptive field in deep convolutional neural networks", arXiv:1701.04128). So the classes
of tiles are compared with those of one pass over the whole window: the mismatch falls with the distance from the cut.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.geo.tiling import rounded_up
from landscribe.inference import cache
from landscribe.inference.device import to_device
from landscribe.inference.predictor import as_computable
from landscribe.maps.layers import Layer, class_layer
from landscribe.model import Model

# Sides of windows, and their number: larger ones only if the smaller ones do not show where the mismatch ends.
_WINDOWS = ((512, 4), (1024, 2))
# Fraction of a window's second class, below which there is hardly a border at which classes could differ.
_LEAST_SECOND_CLASS = 1e-3
_LEAST_STEP = 8
_KEY = "receptive field"
_GLOBAL_TAIL = 1e-3
"""Least mismatch far from a cut of a network that depends on the tile as a whole."""


@dataclass(frozen=True)
class ReceptiveField:
    """Mismatch of a tile's classes with those of the untiled raster, by distance from the cut edge."""

    mismatch: NDArray[np.float64]
    """(distances,) fraction of the pixels at each distance from the nearest cut whose class differs."""
    tolerance: float
    """Fraction of a map's pixels whose class may differ from that of a single pass over the whole raster."""
    raster: str = ""
    """Name of the raster that it was measured on."""
    day: str = ""
    """Date of the measurement, such as 2026-11-23."""

    @property
    def is_global(self) -> bool:
        """True if the classes depend on the tile as a whole, as in a network with global pooling.

        Then the mismatch far from a cut is not much lower than nearer to it.
        """
        return self.beyond > _GLOBAL_TAIL and self.beyond > self._mean_of_quarter(2) / 2

    @property
    def is_settled(self) -> bool:
        """True if hardly a pixel far from a cut differs, so that larger windows would show nothing more."""
        return (self._mean_of_quarter(2) + self.beyond) / 2 <= self.tolerance

    @property
    def beyond(self) -> float:
        """Mismatch beyond the measured distances: that of the farthest quarter of them, as it falls with distance."""
        return self._mean_of_quarter(3)

    @property
    def floor(self) -> float:
        """Mismatch at any distance from a cut: 0, unless the receptive field is global."""
        return self.beyond if self.is_global else 0.0

    def _mean_of_quarter(self, quarter: int) -> float:
        """Mean mismatch in the n-th quarter (from 0) of the distances."""
        count = len(self.mismatch)
        part = self.mismatch[quarter * count // 4 : (quarter + 1) * count // 4]
        return float(part.mean()) if part.size else 0.0

    def mismatch_of(self, margin: int, tile: int) -> float:
        """Expected mismatch of the kept pixels if `margin` pixels are dropped around tiles of side `tile`.

        The tiles are cut on all four sides; at the raster's own edges nothing is cut, so a map has rather less.
        """
        return float(self._mismatch_by_margin(tile)[margin])

    def margin(self, tile: int, *, align: int = 1) -> int | None:
        """The smallest margin whose mismatch is below the tolerance; None if none is enough.

        The `floor` does not count: no margin would reduce it.

        Args:
            tile: side of the tiles, a multiple of `align`.
            align: the network's stride. What is kept of a tile is a multiple of it, so margins are tried in steps of
                half of it (of 8 pixels at least): those between would keep no more.
        """
        half = math.lcm(2, align) // 2
        step = rounded_up(_LEAST_STEP, half)
        mismatch = self._mismatch_by_margin(tile) - self.floor
        return next((m for m in range(0, (tile - align) // 2 + 1, step) if mismatch[m] < self.tolerance), None)

    def _mismatch_by_margin(self, tile: int) -> NDArray[np.float64]:
        """By margin, from 0 to less than half a tile."""
        distances = np.arange((tile + 1) // 2)
        # The ring of pixels at distance d from the edge of a square: all around, the corners once.
        rings = np.maximum(1, 4 * (tile - 2 * distances - 1))
        mismatch = np.full(len(distances), self.beyond)
        measured = min(len(distances), len(self.mismatch))
        mismatch[:measured] = self.mismatch[:measured]
        return np.cumsum((rings * mismatch)[::-1])[::-1] / np.cumsum(rings[::-1])[::-1]

    @classmethod
    def largest(cls, fields: Sequence["ReceptiveField"]) -> "ReceptiveField":
        """Of an ensemble: at each distance the highest mismatch of its networks."""
        mismatch = np.full((len(fields), max(len(field.mismatch) for field in fields)), 0.0)
        for row, field in zip(mismatch, fields, strict=True):
            row[:] = field.beyond
            row[: len(field.mismatch)] = field.mismatch
        return replace(fields[0], mismatch=mismatch.max(axis=0))


def cached_receptive_field(
    model: Model, raster: Raster, *, tolerance: float, largest: int, threshold: float | None
) -> ReceptiveField | None:
    """The receptive field in the model's cache; measured and cached if there is none.

    Arguments and result are those of `measure_receptive_field`. A measurement on a raster that is too small or too
    plain is not cached. One of another tolerance counts if no larger window would be compared for this one.
    """
    key = _KEY if threshold is None else f"{_KEY} at threshold {threshold}"
    field = _from_cache(cache.load(model, key), tolerance)
    farthest = _distances(raster, _windows(raster, largest)[-1][0], model.reduction)
    if field is None or not (field.is_settled or len(field.mismatch) >= farthest):
        field = measure_receptive_field(model, raster, tolerance=tolerance, largest=largest, threshold=threshold)
        if field is not None and (field.is_settled or field.is_global):
            cache.store(model, key, _to_cache(field))
    return field


def _to_cache(field: ReceptiveField) -> dict[str, Any]:
    # One text: a line for each distance would make the cache file long to read.
    mismatch = " ".join(f"{fraction:.6g}" for fraction in field.mismatch)
    return {"raster": field.raster, "day": field.day, "mismatch": mismatch}


def _from_cache(cached: Any, tolerance: float) -> ReceptiveField | None:
    """None if nothing is cached, or if it is damaged."""
    if not isinstance(cached, dict):
        return None
    try:
        mismatch = np.array([float(fraction) for fraction in cached["mismatch"].split()])
        named = str(cached["raster"]), str(cached["day"])
    except (KeyError, ValueError, AttributeError):
        return None
    return ReceptiveField(mismatch, tolerance, *named) if mismatch.size else None


def measure_receptive_field(
    model: Model, raster: Raster, *, tolerance: float, largest: int, threshold: float | None
) -> ReceptiveField | None:
    """Compare the classes of quarters of some windows with those of the whole windows.

    Args:
        model: with its network on its device, in eval mode.
        raster: to be mapped; its windows with the most detail are compared.
        tolerance: of `ReceptiveField`; windows grow until hardly more pixels differ far from a cut.
        largest: the largest side of a window in pixels, to limit memory.
        threshold: of the map's classes, as for `class_layer`.

    Returns:
        None if it cannot be measured: the network predicts one class in all windows.
    """
    field = None
    for side, count in _windows(raster, largest):
        if field is not None and field.is_settled:
            break
        with torch.inference_mode():
            mismatch = _mismatch(model, raster, side, count, class_layer(threshold))
        if mismatch is None:
            return None
        field = ReceptiveField(mismatch, tolerance, raster.name, datetime.now(UTC).date().isoformat())
    return field


def _windows(raster: Raster, largest: int) -> list[tuple[int, int]]:
    """Side and number of the windows, the small ones first, none of them larger than the raster but the first."""
    (first, count), *larger = _WINDOWS
    most = min(largest, max(raster.grid.shape))
    return [(min(first, largest), count), *(each for each in larger if each[0] <= most)]


def _mismatch(model: Model, raster: Raster, side: int, count: int, layer: Layer) -> NDArray[np.float64] | None:
    """(distances,) of `ReceptiveField`, from `count` windows of a side of `side` pixels; None if all have one class."""
    shape, distances = _shape(raster, side, model.reduction), _distances(raster, side, model.reduction)
    differing, compared = np.zeros(distances), np.zeros(distances)
    measured = 0
    # A window without class borders costs a pass, too: more windows than are compared, but not many.
    for window in raster.sample_windows(2 * count, shape, align=model.reduction):
        pixels, valid = raster.read(window)
        whole = _classes(model, pixels, valid, layer)
        if not _has_borders(whole[valid]):
            continue
        for part, from_cut in _quarters(shape):
            cut = _classes(model, pixels[(slice(None), *part)], valid[part], layer)
            counted = valid[part]
            differing += np.bincount(from_cut[counted & (cut != whole[part])], minlength=distances)
            compared += np.bincount(from_cut[counted], minlength=distances)
        measured += 1
        if measured == count:
            break
    return differing / np.maximum(1, compared) if measured else None


def _shape(raster: Raster, side: int, align: int) -> tuple[int, int]:
    """Of the windows: two halves, each a multiple of the network's stride, along each axis."""
    height, width = (max(2 * align, min(side, length) // (2 * align) * 2 * align) for length in raster.grid.shape)
    return height, width


def _distances(raster: Raster, side: int, align: int) -> int:
    """How many distances windows of a side of `side` pixels have."""
    return max(_shape(raster, side, align)) // 2


def _classes(model: Model, pixels: Pixels, valid: Valid, layer: Layer) -> NDArray[np.uint8]:
    """Class indices (rows, cols) of pixels (bands, rows, cols) in one pass; call it in inference mode."""
    device = next(model.network.parameters(), torch.empty(0)).device
    image = as_computable(to_device(torch.from_numpy(np.ascontiguousarray(pixels))[None], device))
    is_valid = to_device(torch.from_numpy(np.ascontiguousarray(valid))[None], device)
    indices: NDArray[np.uint8] = layer.reduce(model.logits(image, is_valid)[0]).cpu().numpy()[0]
    return indices


def _has_borders(indices: NDArray[np.uint8]) -> bool:
    """True if there is more than one class: only near a border between classes can they differ."""
    counts = np.sort(np.bincount(indices.ravel(), minlength=2))
    return bool(counts[-2] >= max(1, _LEAST_SECOND_CLASS * counts.sum()))


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
