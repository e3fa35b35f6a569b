"""Predict one unit: run its tiles in batches, make layers of their scores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscribe.geo.rasters.raster import Pixels, Valid
from landscribe.geo.tiling import Tile, Unit
from landscribe.inference.predictor import Predictor
from landscribe.maps.layers import CLASS, Layer, LayerArrays
from landscribe.model import Model


@dataclass(frozen=True)
class Way:
    """How a unit is predicted."""

    layers: tuple[Layer, ...] = (CLASS,)
    batch: int = 1
    """Tiles at once. The batch is always full (the last tile is repeated), so that a tile's answer does not depend on
    how many others there are."""
    is_blended: bool = False
    """Average overlapping tiles, the middle of each counting most, rather than cut them where they meet. Needs units
    with all tiles that overlap them."""


def predict_unit(
    predictor: Predictor, unit: Unit, pixels: Pixels, valid: Valid, way: Way, wanted: Valid | None = None
) -> LayerArrays | None:
    """Map the kept part of a unit.

    Args:
        predictor: what answers.
        unit: which part.
        pixels: (bands, rows, cols) of the unit's `read` window.
        valid: (rows, cols) of the same.
        way: how.
        wanted: (rows, cols) of the unit's `keep` window: where a map is asked for; everywhere if None.

    Returns:
        None if the unit has no valid pixel that is wanted; then the network does not run.
    """
    kept = valid[unit.keep.relative_to(unit.read).slices]
    mapped = kept if wanted is None else kept & wanted
    if not mapped.any():
        return None
    canvas: _Canvas = (_Blend if way.is_blended else _Cores)(unit, way.layers)
    tiles = [tile for tile in unit.tiles if mapped[canvas.place(tile)].any()]
    for some in _batches(tiles, way.batch):
        scores = _scores(predictor, unit, some, pixels, valid, way.batch)
        for tile, logits in zip(some, scores, strict=False):
            canvas.add(tile, logits)
    layers = canvas.layers()
    layers[CLASS.kind] = predictor.classes.to_values(layers[CLASS.kind])
    for layer in way.layers:
        layers[layer.kind][:, ~mapped] = layer.nodata
    return layers


class _Canvas(Protocol):
    """Where the scores of a unit's tiles come together."""

    def place(self, tile: Tile) -> tuple[slice, slice]:
        """The part of the unit's `keep` window that the tile has a say in."""

    def add(self, tile: Tile, logits: Tensor) -> None:
        """Put the scores (K, H, W) of all that a tile reads."""

    def layers(self) -> LayerArrays:
        """What became of them."""


class _Cores:
    """Each pixel is of the one tile that keeps it."""

    def __init__(self, unit: Unit, layers: Sequence[Layer]) -> None:
        self._keep = unit.keep
        self._wanted = layers
        self._made: LayerArrays = {}

    def place(self, tile: Tile) -> tuple[slice, slice]:
        return tile.keep.relative_to(self._keep).slices

    def add(self, tile: Tile, logits: Tensor) -> None:
        core = logits[(slice(None), *tile.keep.relative_to(tile.read).slices)]
        for layer in self._wanted:
            part = layer.reduce(core).cpu().numpy()
            if layer.kind not in self._made:
                # Tiles that nobody asks for leave 0, which is a class: what is not mapped is masked at last.
                self._made[layer.kind] = np.zeros((len(part), *self._keep.shape), part.dtype)
            self._made[layer.kind][(slice(None), *self.place(tile))] = part

    def layers(self) -> LayerArrays:
        return self._made


class _Blend:
    """Each pixel is the mean of all tiles that read it, weighted by a Gaussian around each tile's middle.

    With a standard deviation of an eighth of the tile's side, as Isensee et al. 2021, "nnU-Net: a self-configuring
    method for deep learning-based biomedical image segmentation", doi:10.1038/s41592-020-01008-z.
    """

    def __init__(self, unit: Unit, layers: Sequence[Layer]) -> None:
        self._keep = unit.keep
        self._wanted = layers
        self._total: Tensor | None = None
        self._weight: Tensor | None = None

    def place(self, tile: Tile) -> tuple[slice, slice]:
        return (tile.read & self._keep).relative_to(self._keep).slices

    def add(self, tile: Tile, logits: Tensor) -> None:
        if self._total is None or self._weight is None:
            self._total = torch.zeros((len(logits), *self._keep.shape), device=logits.device)
            self._weight = torch.zeros(self._keep.shape, device=logits.device)
        weight = torch.outer(*(_bell(side, logits.device) for side in logits.shape[-2:]))
        part = (tile.read & self._keep).relative_to(tile.read).slices
        place = self.place(tile)
        self._total[(slice(None), *place)] += (logits.softmax(dim=0) * weight)[(slice(None), *part)]
        self._weight[place] += weight[part]

    def layers(self) -> LayerArrays:
        assert self._total is not None
        assert self._weight is not None
        smallest = torch.finfo(torch.float32).tiny
        mean = (self._total / self._weight.clamp_min(smallest)).log()
        return {layer.kind: layer.reduce(mean).cpu().numpy() for layer in self._wanted}


def _bell(side: int, device: torch.device) -> Tensor:
    """Weights (side,) of a tile's pixels along one axis, 1 in the middle."""
    away = torch.arange(side, device=device) - (side - 1) / 2
    return torch.exp(-((away / (side / 8)) ** 2) / 2)


def indices_of(model: Model, pixels: Pixels, valid: Valid) -> NDArray[np.uint8]:
    """Class indices (rows, cols) of pixels (bands, rows, cols) in one pass; call it in inference mode."""
    device = next(model.network.parameters(), torch.empty(0)).device
    image = torch.from_numpy(np.ascontiguousarray(_as_torch_reads(pixels)))[None].to(device)
    known = torch.from_numpy(np.ascontiguousarray(valid))[None].to(device)
    indices: NDArray[np.uint8] = CLASS.reduce(model.logits(image, known)[0]).cpu().numpy()[0]
    return indices


def _batches(tiles: list[Tile], size: int) -> Iterator[list[Tile]]:
    for start in range(0, len(tiles), size):
        yield tiles[start : start + size]


def _scores(predictor: Predictor, unit: Unit, tiles: list[Tile], pixels: Pixels, valid: Valid, batch: int) -> Tensor:
    """(batch, K, size, size) logits of a full batch; pixels travel to the device as they are stored."""
    filled = tiles + tiles[-1:] * (batch - len(tiles))
    places = [tile.read.relative_to(unit.read).slices for tile in filled]
    images = torch.from_numpy(np.stack([_as_torch_reads(pixels[(slice(None), *place)]) for place in places]))
    known = torch.from_numpy(np.stack([valid[place] for place in places]))
    return predictor.logits(images, known)


def _as_torch_reads(pixels: Pixels) -> Pixels:
    """Torch has few operations on wide unsigned integers; the next signed type holds the same numbers."""
    wider = {"uint16": np.int32, "uint32": np.int64}.get(pixels.dtype.name)
    return pixels if wider is None else pixels.astype(wider)
