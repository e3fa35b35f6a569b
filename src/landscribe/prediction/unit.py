"""Predict one unit: read it with its halo, run its tiles in batches, keep their cores."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscribe.errors import ModelError
from landscribe.geo.classes import IGNORE
from landscribe.geo.raster import Pixels, Raster, Valid
from landscribe.geo.tiling import Tile, Unit
from landscribe.model import Model

PROBABILITY_STEPS = 254
"""Probabilities are stored as uint8 0 to 254, nodata 255."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a unit's kept part holds."""

    values: NDArray[np.uint8]
    """(height, width) class values, ignore where the raster has no valid pixel."""
    probabilities: NDArray[np.uint8] | None
    """(K, height, width), in steps of 1/254, 255 where not valid; None if not asked for."""


def predict_unit(model: Model, raster: Raster, unit: Unit, *, batch: int, probabilities: bool) -> Prediction | None:
    """Map the kept part of a unit.

    Args:
        model: with its network where it is to run, in eval mode.
        raster: what to map.
        unit: which part.
        batch: tiles at once. The batch is always full (the last tile is repeated), so that a tile's answer
            does not depend on how many others there are.
        probabilities: also give these.

    Returns:
        None if the unit has no valid pixel; then the network does not run.
    """
    pixels, valid = raster.read(unit.read)
    kept = unit.keep.relative_to(unit.read).slices
    if not valid[kept].any():
        return None
    indices = np.full(unit.keep.shape, IGNORE, np.uint8)
    shares = np.full((len(model.classes), *unit.keep.shape), IGNORE, np.uint8) if probabilities else None
    tiles = [tile for tile in unit.tiles if valid[tile.keep.relative_to(unit.read).slices].any()]
    for some in _batches(tiles, batch):
        logits = _logits(model, unit, some, pixels, valid, batch)
        for tile, scores in zip(some, logits, strict=False):
            core = scores[(slice(None), *tile.keep.relative_to(tile.read).slices)]
            place = tile.keep.relative_to(unit.keep).slices
            indices[place] = _class_indices(core).cpu().numpy()
            if shares is not None:
                shares[(slice(None), *place)] = _quantised(core).cpu().numpy()
    outside = ~valid[kept]
    indices[outside] = IGNORE
    if shares is not None:
        shares[:, outside] = IGNORE
    return Prediction(model.classes.to_values(indices), shares)


def _batches(tiles: list[Tile], size: int) -> Iterator[list[Tile]]:
    for start in range(0, len(tiles), size):
        yield tiles[start : start + size]


def _logits(model: Model, unit: Unit, tiles: list[Tile], pixels: Pixels, valid: Valid, batch: int) -> Tensor:
    """(batch, K, size, size) of a full batch; pixels travel to the device as they are stored."""
    filled = tiles + tiles[-1:] * (batch - len(tiles))
    places = [tile.read.relative_to(unit.read).slices for tile in filled]
    device = next(model.network.parameters(), torch.empty(0)).device
    images = torch.from_numpy(np.stack([_as_torch_reads(pixels[(slice(None), *place)]) for place in places])).to(device)
    known = torch.from_numpy(np.stack([valid[place] for place in places])).to(device)
    logits = model.logits(images, known)
    expected = (len(filled), len(model.classes), *tiles[0].read.shape)
    if tuple(logits.shape) != expected:
        raise ModelError(
            f"the network gave logits of shape {tuple(logits.shape)} for images of shape {tuple(images.shape)}. "
            f"{expected} was expected: one channel for each of the {len(model.classes)} classes, at the images' size."
        )
    return logits.float()


def _as_torch_reads(pixels: Pixels) -> Pixels:
    """Torch has few operations on wide unsigned integers; the next signed type holds the same numbers."""
    wider = {"uint16": np.int32, "uint32": np.int64}.get(pixels.dtype.name)
    return pixels if wider is None else pixels.astype(wider)


def _class_indices(logits: Tensor) -> Tensor:
    """(K, H, W) to uint8 (H, W): the class with the highest score."""
    return logits.argmax(dim=0).to(torch.uint8)


def _quantised(logits: Tensor) -> Tensor:
    """(K, H, W) to uint8 (K, H, W): probabilities in steps of 1/254."""
    return (logits.softmax(dim=0) * PROBABILITY_STEPS).round().to(torch.uint8)
