"""Augmentation of images and labels together, on the batch."""

import torch
from torch import Tensor


def flip_and_turn(images: Tensor, valid: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """One of the eight symmetries of the square, drawn for each chip.

    Args:
        images: (B, C, H, W).
        valid: (B, H, W).
        labels: (B, H, W).
        rng: what chance is drawn from, on the CPU.

    Returns:
        The same shapes. Chips that are not square are flipped but not turned.
    """
    square = images.shape[-1] == images.shape[-2]
    draws = torch.randint(0, 8, (len(images),), generator=rng).tolist()
    turned = [
        [_symmetry(item, draw, square=square) for item, draw in zip(batch, draws, strict=True)]
        for batch in (images, valid, labels)
    ]
    images, valid, labels = (torch.stack(items) for items in turned)
    return images, valid, labels


def _symmetry(item: Tensor, draw: int, *, square: bool) -> Tensor:
    if draw & 1:
        item = item.flip(-1)
    if draw & 2:
        item = item.flip(-2)
    return item.transpose(-1, -2) if square and draw & 4 else item
