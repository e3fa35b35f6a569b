"""Unit: predict one unit of a map: its tiles in batches, their logits merged into layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from landscribe.geo.rasters.raster import Pixels, Valid
from landscribe.geo.tiling import Tile, Unit
from landscribe.inference.predictor import Predictor, as_torch_dtype
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


def predict_unit(
    predictor: Predictor, unit: Unit, pixels: Pixels, valid: Valid, options: UnitOptions, aoi: Valid | None = None
) -> LayerArrays | None:
    """Predict the kept part of a unit.

    Args:
        predictor: gives logits of tiles.
        unit: which part of the map.
        pixels: (bands, rows, cols) of the unit's `read` window.
        valid: (rows, cols) of the same window.
        options: layers, batch, blending.
        aoi: (rows, cols) of the unit's `keep` window, True inside the area of interest; None for all of it.

    Returns:
        Arrays by layer; None if no valid pixel lies in the area of interest. Then the network does not run.
    """
    kept = valid[unit.keep.relative_to(unit.read).slices]
    mapped = kept if aoi is None else kept & aoi
    if not mapped.any():
        return None
    merger: _Merger = (_BlendMerger if options.is_blended else _CropMerger)(unit, options.layers)
    tiles = [tile for tile in unit.tiles if mapped[merger.slices(tile)].any()]
    for batch in _batches(tiles, options.batch):
        logits = _logits(predictor, unit, batch, pixels, valid, options.batch)
        for index, tile in enumerate(batch):
            merger.add(tile, {head: of_batch[index] for head, of_batch in logits.items()})
    arrays = merger.arrays()
    arrays[CLASS.kind] = predictor.classes.to_values(arrays[CLASS.kind])
    for layer in options.layers:
        arrays[layer.kind][:, ~mapped] = layer.nodata
    return arrays


class _Merger(Protocol):
    """Merges the logits of a unit's tiles into layers."""

    def slices(self, tile: Tile) -> tuple[slice, slice]:
        """The part of the unit's `keep` window that the tile contributes to."""

    def add(self, tile: Tile, logits: HeadLogits) -> None:
        """Add the logits (channels, H, W) by head of all that a tile reads."""

    def arrays(self) -> LayerArrays:
        """The layers, once all tiles are added."""


class _CropMerger:
    """Each pixel comes from the one tile that keeps it."""

    def __init__(self, unit: Unit, layers: Sequence[Layer]) -> None:
        self._keep = unit.keep
        self._layers = layers
        self._arrays: LayerArrays = {}

    def slices(self, tile: Tile) -> tuple[slice, slice]:
        return tile.keep.relative_to(self._keep).slices

    def add(self, tile: Tile, logits: HeadLogits) -> None:
        core = (slice(None), *tile.keep.relative_to(tile.read).slices)
        kept = {head: of_head[core] for head, of_head in logits.items()}
        for layer in self._layers:
            part = layer.of(kept).cpu().numpy()
            if layer.kind not in self._arrays:
                # Skipped tiles leave 0, which is a class: `predict_unit` sets nodata outside the mapped pixels.
                self._arrays[layer.kind] = np.zeros((len(part), *self._keep.shape), part.dtype)
            self._arrays[layer.kind][(slice(None), *self.slices(tile))] = part

    def arrays(self) -> LayerArrays:
        return self._arrays


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

    def arrays(self) -> LayerArrays:
        assert self._weight is not None
        weight = self._weight.clamp_min(torch.finfo(torch.float32).tiny)
        mean = {head: head_logits(total / weight) for head, total in self._totals.items()}
        return {layer.kind: layer.of(mean).cpu().numpy() for layer in self._layers}


def _gaussian(side: int, device: torch.device) -> Tensor:
    """Gaussian importance (side,) of a tile's pixels along one axis, 1 in the middle."""
    distance = torch.arange(side, device=device) - (side - 1) / 2
    return torch.exp(-((distance / (side / 8)) ** 2) / 2)


def _batches(tiles: list[Tile], size: int) -> Iterator[list[Tile]]:
    for start in range(0, len(tiles), size):
        yield tiles[start : start + size]


def _logits(
    predictor: Predictor, unit: Unit, tiles: list[Tile], pixels: Pixels, valid: Valid, batch: int
) -> HeadLogits:
    """(batch, channels, size, size) logits of a full batch by head; pixels move to the device in their own dtype."""
    filled = tiles + tiles[-1:] * (batch - len(tiles))
    windows = [tile.read.relative_to(unit.read).slices for tile in filled]
    images = torch.from_numpy(np.stack([as_torch_dtype(pixels[(slice(None), *slices)]) for slices in windows]))
    is_valid = torch.from_numpy(np.stack([valid[slices] for slices in windows]))
    return predictor.logits(images, is_valid)
