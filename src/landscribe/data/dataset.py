"""Chips as batches of tensors."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from landscribe.data.chips import ChipReader, Chips

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


def loader(chips: Chips, *, batch: int, shuffle: bool, seed: int, workers: int) -> DataLoader[Batch]:
    """Batches of chips.

    Args:
        chips: one split.
        batch: chips a batch. When shuffled, a last batch of one chip is left out: batch normalisation
            needs two.
        shuffle: a new order each epoch, the same for the same seed.
        seed: of the order.
        workers: processes that read; 0 reads in this one.
    """
    dataset = ChipDataset(chips)
    return DataLoader(
        dataset,
        batch_size=batch,
        shuffle=shuffle,
        generator=torch.Generator().manual_seed(seed),
        num_workers=workers,
        drop_last=shuffle and len(dataset) > batch and len(dataset) % batch == 1,
        persistent_workers=workers > 0,
    )
