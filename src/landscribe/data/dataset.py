"""Chips as batches of tensors."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from landscribe.data.chips import ChipReader, Chips
from landscribe.data.sampling import ChipSampler

Batch = dict[str, Tensor]
"""image (B, C, H, W) float32 as stored, valid (B, H, W) bool, label (B, H, W) int64 indices, 255 to ignore."""


class ChipDataset(Dataset[Batch]):
    """Chips by number, as the network takes them but not yet scaled."""

    def __init__(self, chips: Chips) -> None:
        self.reader = ChipReader(chips)
        self.classes = chips.classes

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, number: int) -> Batch:
        pixels, valid, mask = self.reader.read(number)
        return {
            "image": torch.from_numpy(pixels.astype(np.float32)),
            "valid": torch.from_numpy(valid),
            "label": torch.from_numpy(self.classes.to_indices(mask).astype(np.int64)),
        }


def loader(chips: Chips, *, batch: int, workers: int, order: ChipSampler | None = None) -> DataLoader[Batch]:
    """Batches of chips.

    Args:
        chips: one split.
        batch: chips a batch.
        workers: processes that read; 0 reads in this one.
        order: of an epoch; as they stand if None. With one, a last batch of one chip is left out: batch
            normalisation needs two.
    """
    drawn = 0 if order is None else len(order)
    return DataLoader(
        ChipDataset(chips),
        batch_size=batch,
        sampler=order,
        num_workers=workers,
        drop_last=drawn > batch and drawn % batch == 1,
        persistent_workers=workers > 0,
    )
