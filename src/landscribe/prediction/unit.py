"""Unit: predict one unit of a map: its tiles in batches, their logits merged into layers, all on the device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscribe.errors import ModelError, counted
from landscribe.geo.classes import IGNORE, Classes
from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.geo.tiling import Tile, Unit
from landscribe.inference.device import Copied, copy_to_device, copy_to_memory
from landscribe.inference.predictor import Predictor, as_computable
from landscribe.maps.layers import CLASS, HeadLogits, Layer, LayerArrays, head_logits, head_probabilities


@dataclass(frozen=True)
class UnitOptions:
    """How units are predicted."""

    layers: tuple[Layer, ...] = (CLASS,)
    batch: int = 1
    """Tiles at once. The batch is always full (the last tile is repeated), so that the logits of a tile do not depend
    on how many others there are."""
    is_blended: bool = False
    """Average overlapping tiles by a Gaussian importance map, rather than crop them. Needs units with all tiles that
    overlap them."""


@dataclass(frozen=True)
class UnitInput:
    """What a unit is predicted from; its pixels may still be on the way to the device."""

    copied: Copied
    """Pixels (bands, rows, cols) and valid (rows, cols) of the `read` window, `mapped` of the `keep` window."""
    mapped: Valid
    """In main memory: valid pixels of the `keep` window inside the area of interest."""


@dataclass(frozen=True)
class UnitOutput:
    """The layers of a unit, which may still be computed, or be on the way to main memory."""

    kinds: tuple[str, ...]
    copied: Copied
    """The layers, (K + 1,) how often each of `values` occurs, and () how many pixels of tiles have no finite logits."""
    values: tuple[int, ...]
    """Class values and nodata, in the order of the counts."""

    def arrays(self) -> tuple[LayerArrays, NDArray[np.int64]]:
        """Layers by kind, and (256,) how often each class value occurs; waits for the device.

        Raises:
            ModelError: the network gave logits that are not finite.
        """
        *layers, counts, not_finite = (tensor.numpy() for tensor in self.copied.in_memory())
        if not_finite:
            raise ModelError(
                f"the network gave logits that are not finite for {counted(int(not_finite), 'pixel')} of a unit. "
                "Expected finite logits. Check the weights, and that the raster's pixels have the range of those that "
                "the model was trained on."
            )
        by_value = np.zeros(IGNORE + 1, np.int64)
        by_value[list(self.values)] = counts
        return dict(zip(self.kinds, layers, strict=True)), by_value


def read_unit(raster: Raster, unit: Unit) -> tuple[Pixels, Valid]:
    """Pixels (bands, rows, cols) and valid (rows, cols) of a unit's `read` window.

    What lies outside the raster mirrors it: the network would take zeros for ground, and change classes near the edge.
    """
    pixels, valid = raster.read(unit.read)
    inside = (unit.read & raster.grid.window).shape
    rows, cols = (_mirrored(*lengths) for lengths in zip(inside, unit.read.shape, strict=True))
    for array in (pixels, valid):
        array[..., inside[0] :, :] = array[..., rows, :]
        array[..., inside[1] :] = array[..., cols]
    return pixels, valid


def _mirrored(inside: int, length: int) -> NDArray[np.int64]:
    """For each pixel beyond the first `inside` of an axis, the one that it mirrors."""
    return np.pad(np.arange(inside), (0, length - inside), mode="reflect")[inside:]


def predict_unit(
    predictor: Predictor, unit: Unit, pixels: Pixels, valid: Valid, options: UnitOptions
) -> LayerArrays | None:
    """Predict the kept part of a unit, and wait for it: the three steps below, with arguments as of `send_unit`.

    Returns:
        Arrays by layer; None if no pixel is valid. Then the network does not run.
    """
    sent = send_unit(predictor, unit, pixels, valid)
    return None if sent is None else compute_unit(predictor, unit, sent, options).arrays()[0]


def send_unit(
    predictor: Predictor, unit: Unit, pixels: Pixels, valid: Valid, aoi: Valid | None = None
) -> UnitInput | None:
    """Start to copy a unit to the device.

    Args:
        predictor: knows the device.
        unit: which part of the map.
        pixels: (bands, rows, cols) of the unit's `read` window.
        valid: (rows, cols) of the same window.
        aoi: (rows, cols) of the unit's `keep` window, True inside the area of interest; None for all of it.

    Returns:
        None if no valid pixel lies in the area of interest.
    """
    kept = valid[unit.keep.relative_to(unit.read).slices]
    mapped = kept if aoi is None else kept & aoi
    if not mapped.any():
        return None
    tensors = [torch.from_numpy(array) for array in (pixels, valid, mapped)]
    return UnitInput(copy_to_device(tensors, predictor.local_device), mapped)


def compute_unit(predictor: Predictor, unit: Unit, sent: UnitInput, options: UnitOptions) -> UnitOutput:
    """Predict the kept part of a unit; a GPU may still be busy when this returns.

    Args:
        predictor: gives logits of tiles.
        unit: which part of the map.
        sent: by `send_unit`.
        options: layers, batch, blending.
    """
    pixels, valid, mapped = sent.copied.on_device()
    merger: _Merger = (_BlendMerger if options.is_blended else _CropMerger)(unit, options.layers)
    # Counted on the device, which computes the next batch meanwhile.
    not_finite = torch.zeros((), dtype=torch.int64, device=pixels.device)
    tiles = [tile for tile in unit.tiles if sent.mapped[merger.slices(tile)].any()]
    for batch in _batches(tiles, options.batch):
        logits = _logits(predictor, unit, batch, pixels, valid, options.batch)
        for index, tile in enumerate(batch):
            of_tile = {head: of_batch[index] for head, of_batch in logits.items()}
            merger.add(tile, of_tile)
            not_finite += _count_not_finite(of_tile)
    layers = merger.layers()
    layers[CLASS.kind] = _class_values(layers[CLASS.kind], predictor.classes)
    unmapped = ~mapped
    for layer in options.layers:
        layers[layer.kind].masked_fill_(unmapped, layer.nodata)
    values = (*predictor.classes.values, IGNORE)
    # Not by bincount, for which a GPU's thread waits until all is computed.
    counts = torch.stack([(layers[CLASS.kind] == value).sum() for value in values])
    return UnitOutput(tuple(layers), copy_to_memory([*layers.values(), counts, not_finite]), values)


def _count_not_finite(logits: HeadLogits) -> Tensor:
    """Pixels of a tile with logits that are not finite, in each head: NaN, +inf, or -inf in all channels."""
    # NaN and +inf win the maximum, and -inf is allowed for classes that cannot be.
    return torch.stack([(~of_head.amax(dim=0).isfinite()).sum() for of_head in logits.values()]).sum()


def _class_values(indices: Tensor, classes: Classes) -> Tensor:
    """Class values of class indices (uint8), on their device."""
    if classes.values == tuple(range(len(classes))):
        return indices
    table = _value_table(classes.values, indices.device)
    return table.index_select(0, indices.flatten().int()).view_as(indices)


@lru_cache(maxsize=16)
def _value_table(values: tuple[int, ...], device: torch.device) -> Tensor:
    """The value of each index, on a device, which would otherwise wait for a copy of it."""
    return torch.tensor(values, dtype=torch.uint8, device=device)


class _Merger(Protocol):
    """Merges the logits of a unit's tiles into layers."""

    def slices(self, tile: Tile) -> tuple[slice, slice]:
        """The part of the unit's `keep` window that the tile contributes to."""

    def add(self, tile: Tile, logits: HeadLogits) -> None:
        """Add the logits (channels, H, W) by head of all that a tile reads."""

    def layers(self) -> dict[str, Tensor]:
        """The layers by kind, on the device, once all tiles are added."""


class _CropMerger:
    """Each pixel comes from the one tile that keeps it."""

    def __init__(self, unit: Unit, layers: Sequence[Layer]) -> None:
        self._keep = unit.keep
        self._layers = layers
        self._merged: dict[str, Tensor] = {}

    def slices(self, tile: Tile) -> tuple[slice, slice]:
        return tile.keep.relative_to(self._keep).slices

    def add(self, tile: Tile, logits: HeadLogits) -> None:
        core = (slice(None), *tile.keep.relative_to(tile.read).slices)
        kept = {head: of_head[core] for head, of_head in logits.items()}
        for layer in self._layers:
            part = layer.of(kept)
            if layer.kind not in self._merged:
                # Skipped tiles leave 0, which is a class: `compute_unit` sets nodata outside the mapped pixels.
                self._merged[layer.kind] = part.new_zeros((len(part), *self._keep.shape))
            self._merged[layer.kind][(slice(None), *self.slices(tile))] = part

    def layers(self) -> dict[str, Tensor]:
        return self._merged


class _BlendMerger:
    """Each pixel is the mean of all tiles that read it, weighted by a Gaussian importance map.

    Its standard deviation is an eighth of the tile's side, as in Isensee et al. 2021, "nnU-Net: a self-configuring
    method for deep learning-based biomedical image segmentation", doi:10.1038/s41592-020-01008-z.
    """

    def __init__(self, unit: Unit, layers: Sequence[Layer]) -> None:
        self._keep = unit.keep
        self._layers = layers
        self._totals: HeadLogits = {}
        """By head, the weighted sum of probabilities."""
        self._weight: Tensor | None = None

    def slices(self, tile: Tile) -> tuple[slice, slice]:
        return (tile.read & self._keep).relative_to(self._keep).slices

    def add(self, tile: Tile, logits: HeadLogits) -> None:
        device = next(iter(logits.values())).device
        if self._weight is None:
            self._weight = torch.zeros(self._keep.shape, device=device)
            self._totals = {
                head: torch.zeros((len(of_head), *self._keep.shape), device=device) for head, of_head in logits.items()
            }
        weight = torch.outer(*(_gaussian(side, device) for side in tile.read.shape))
        part = (tile.read & self._keep).relative_to(tile.read).slices
        slices = self.slices(tile)
        for head, of_head in logits.items():
            weighted = head_probabilities(of_head) * weight
            self._totals[head][(slice(None), *slices)] += weighted[(slice(None), *part)]
        self._weight[slices] += weight[part]

    def layers(self) -> dict[str, Tensor]:
        assert self._weight is not None
        weight = self._weight.clamp_min(torch.finfo(torch.float32).tiny)
        mean = {head: head_logits(total / weight) for head, total in self._totals.items()}
        return {layer.kind: layer.of(mean) for layer in self._layers}


def _gaussian(side: int, device: torch.device) -> Tensor:
    """Gaussian importance (side,) of a tile's pixels along one axis, 1 in the middle."""
    distance = torch.arange(side, device=device) - (side - 1) / 2
    return torch.exp(-((distance / (side / 8)) ** 2) / 2)


def _batches(tiles: list[Tile], size: int) -> Iterator[list[Tile]]:
    for start in range(0, len(tiles), size):
        yield tiles[start : start + size]


def _logits(
    predictor: Predictor, unit: Unit, tiles: list[Tile], pixels: Tensor, valid: Tensor, batch: int
) -> HeadLogits:
    """(batch, channels, size, size) logits of a full batch by head; pixels are on the device in their own dtype."""
    filled = tiles + tiles[-1:] * (batch - len(tiles))
    windows = [tile.read.relative_to(unit.read).slices for tile in filled]
    images = torch.stack([as_computable(pixels[(slice(None), *slices)]) for slices in windows])
    return predictor.logits(images, torch.stack([valid[slices] for slices in windows]))
