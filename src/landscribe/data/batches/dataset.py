"""Chips as batches of tensors."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from landscribe.data.batches.label_windows import Place, WindowSampler
from landscribe.data.batches.sampling import ChipSampler
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.errors import ChipError
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Pixels, Valid

Batch = dict[str, Tensor]
"""image (B, C, H, W) as stored, valid (B, H, W) bool, label (B, H, W) indices as uint8, 255 to ignore."""

_NOT_KNOWN = 0


class UserPipeline(Protocol):
    """What changes an image and its masks together, such as a `Compose` of Albumentations."""

    def __call__(self, *, image: NDArray[Any], masks: list[NDArray[np.uint8]]) -> Mapping[str, Any]:
        """Image (H, W, C) and masks (H, W) in; a mapping with the same two names out."""


class _Labelled(Dataset[Batch]):
    """What a network trains on, as it takes it but not yet scaled; small, since it travels between processes."""

    def __init__(self, chips: Chips, change: UserPipeline | None) -> None:
        self.chips = chips
        self.change = change

    def __len__(self) -> int:
        return len(self.chips)

    def _sample(self, pixels: Pixels, valid: Valid, mask: NDArray[np.uint8]) -> Batch:
        classes = self.chips.classes
        indices = classes.to_indices(mask)
        if self.change is not None:
            pixels, valid, indices = _changed(self.change, pixels, valid, indices, classes=len(classes))
        return {
            "image": torch.from_numpy(pixels),
            "valid": torch.from_numpy(valid),
            "label": torch.from_numpy(indices),
        }


class ChipDataset(_Labelled):
    """Chips by number."""

    def __init__(self, chips: Chips, change: UserPipeline | None = None) -> None:
        super().__init__(chips, change)
        self.reader = ChipReader(chips)

    def __getitem__(self, number: int) -> Batch:
        return self._sample(*self.reader.read(number))


class WindowDataset(_Labelled):
    """Windows of the scenes that chips are from, by place."""

    def __init__(self, chips: Chips, change: UserPipeline | None = None) -> None:
        super().__init__(chips, change)
        scenes = chips.scenes()
        self.of_chip = [scenes[name] for name in chips.table["scene"]]
        self.shapes = [window.shape for window in chips.windows]

    def __getitem__(self, place: Place) -> Batch:
        number, row, col = place
        return self._sample(*self.of_chip[number].read(Window(row, col, *self.shapes[number])))


def widened(batch: Batch) -> Batch:
    """The batch as losses and networks take it: images as float32, labels as int64."""
    return {"image": batch["image"].float(), "valid": batch["valid"], "label": batch["label"].long()}


def _changed(
    change: UserPipeline, pixels: Pixels, valid: Valid, indices: NDArray[np.uint8], *, classes: int
) -> tuple[Pixels, Valid, NDArray[np.uint8]]:
    """A chip changed by a user's pipeline; what its masks fill up with 0 is not known, whatever class 0 is."""
    raised = np.where(indices == IGNORE, _NOT_KNOWN, indices + 1).astype(np.uint8)
    made = change(image=np.ascontiguousarray(pixels.transpose(1, 2, 0)), masks=[raised, valid.astype(np.uint8)])
    image, (labels, known) = np.asarray(made["image"]), (np.asarray(mask) for mask in made["masks"])
    if image.ndim != 3 or labels.shape != image.shape[:2] or known.shape != labels.shape or labels.max() > classes:
        raise ChipError(
            f"the augmentation made an image of shape {image.shape} and a mask of shape {labels.shape} with values up "
            f"to {labels.max()}. (height, width, bands), (height, width) and at most {classes} were expected. Leave "
            "out what makes tensors of them, and let masks take their nearest pixel."
        )
    usable = known == 1
    labels = np.where(usable & (labels != _NOT_KNOWN), labels - 1, IGNORE).astype(np.uint8)
    return np.ascontiguousarray(image.transpose(2, 0, 1)) * usable, usable, labels


def loader(
    chips: Chips,
    *,
    batch: int,
    workers: int,
    order: ChipSampler | None = None,
    change: UserPipeline | None = None,
) -> DataLoader[Batch]:
    """Batches of chips.

    Args:
        chips: one split.
        batch: chips a batch.
        workers: processes that read; 0 reads in this one.
        order: of an epoch, of chips or windows; as they stand if None. With one, a last batch of one is left out: batch
            normalisation needs two.
        change: a user's augmentation, chip by chip.
    """
    drawn = 0 if order is None else len(order)
    kind = WindowDataset if isinstance(order, WindowSampler) else ChipDataset
    return DataLoader(
        kind(chips, change),
        batch_size=batch,
        sampler=order,
        num_workers=workers,
        drop_last=drawn > batch and drawn % batch == 1,
        persistent_workers=workers > 0,
    )
