"""Predict one unit: run its tiles in batches, keep their cores."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscribe.errors import ModelError
from landscribe.geo.classes import IGNORE
from landscribe.geo.raster import Pixels, Valid
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


@dataclass(frozen=True)
class Way:
    """How tiles are predicted."""

    batch: int = 1
    """Tiles at once. The batch is always full (the last tile is repeated), so that a tile's answer does not depend on
    how many others there are."""
    probabilities: bool = False
    """Give these, too."""
    symmetries: bool = False
    """Average the probabilities of a tile in all eight symmetries of the square."""


def predict_unit(
    model: Model, unit: Unit, pixels: Pixels, valid: Valid, way: Way, wanted: Valid | None = None
) -> Prediction | None:
    """Map the kept part of a unit.

    Args:
        model: with its network where it is to run, in eval mode.
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
    indices = np.full(unit.keep.shape, IGNORE, np.uint8)
    shares = np.full((len(model.classes), *unit.keep.shape), IGNORE, np.uint8) if way.probabilities else None
    tiles = [tile for tile in unit.tiles if mapped[tile.keep.relative_to(unit.keep).slices].any()]
    for some in _batches(tiles, way.batch):
        for tile, scores in zip(some, _scores(model, unit, some, pixels, valid, way), strict=False):
            core = scores[(slice(None), *tile.keep.relative_to(tile.read).slices)]
            place = tile.keep.relative_to(unit.keep).slices
            indices[place] = _class_indices(core).cpu().numpy()
            if shares is not None:
                shares[(slice(None), *place)] = _quantised(core).cpu().numpy()
    indices[~mapped] = IGNORE
    if shares is not None:
        shares[:, ~mapped] = IGNORE
    return Prediction(model.classes.to_values(indices), shares)


def indices_of(model: Model, pixels: Pixels, valid: Valid) -> NDArray[np.uint8]:
    """Class indices (rows, cols) of pixels (bands, rows, cols) in one pass; call it in inference mode."""
    device = next(model.network.parameters(), torch.empty(0)).device
    image = torch.from_numpy(np.ascontiguousarray(_as_torch_reads(pixels)))[None].to(device)
    known = torch.from_numpy(np.ascontiguousarray(valid))[None].to(device)
    indices: NDArray[np.uint8] = _class_indices(model.logits(image, known)[0].float()).cpu().numpy()
    return indices


def _batches(tiles: list[Tile], size: int) -> Iterator[list[Tile]]:
    for start in range(0, len(tiles), size):
        yield tiles[start : start + size]


def _scores(model: Model, unit: Unit, tiles: list[Tile], pixels: Pixels, valid: Valid, way: Way) -> Tensor:
    """(batch, K, size, size) logits of a full batch; pixels travel to the device as they are stored."""
    filled = tiles + tiles[-1:] * (way.batch - len(tiles))
    places = [tile.read.relative_to(unit.read).slices for tile in filled]
    device = next(model.network.parameters(), torch.empty(0)).device
    images = torch.from_numpy(np.stack([_as_torch_reads(pixels[(slice(None), *place)]) for place in places])).to(device)
    known = torch.from_numpy(np.stack([valid[place] for place in places])).to(device)
    logits = _averaged(model, images, known) if way.symmetries else model.logits(images, known)
    expected = (len(filled), len(model.classes), *tiles[0].read.shape)
    if tuple(logits.shape) != expected:
        raise ModelError(
            f"the network gave logits of shape {tuple(logits.shape)} for images of shape {tuple(images.shape)}. "
            f"{expected} was expected: one channel for each of the {len(model.classes)} classes, at the images' size."
        )
    return logits.float()


def _averaged(model: Model, images: Tensor, known: Tensor) -> Tensor:
    """Logarithms of the mean probabilities over the eight symmetries: logits of which softmax makes these again."""
    total: Tensor | None = None
    for turns in range(4):
        for is_flipped in (False, True):
            moved = [_moved(tensor, turns, is_flipped=is_flipped) for tensor in (images, known)]
            shares = model.logits(*moved).float().softmax(dim=1)
            shares = torch.rot90(shares.flip(-1) if is_flipped else shares, -turns, (-2, -1))
            total = shares if total is None else total + shares
    assert total is not None
    return (total / 8).log()


def _moved(tensor: Tensor, turns: int, *, is_flipped: bool) -> Tensor:
    turned = torch.rot90(tensor, turns, (-2, -1))
    return turned.flip(-1) if is_flipped else turned


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
