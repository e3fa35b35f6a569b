"""Images and labels turn and flip together."""

import numpy as np
import pytest
import torch

from landscribe.data.augment import flip_and_turn


def numbered(count: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images of which each pixel holds the same number as its label and, modulo 2, its valid flag."""
    labels = torch.arange(height * width).reshape(height, width).expand(count, -1, -1)
    return torch.stack([labels, labels + 1000], dim=1).float(), labels % 2 == 0, labels


def test_images_valid_and_labels_move_together():
    images, valid, labels = flip_and_turn(*numbered(64, 4, 4), torch.Generator().manual_seed(0))
    assert torch.equal(images[:, 0].long(), labels)
    assert torch.equal(images[:, 1].long(), labels + 1000)
    assert torch.equal(valid, labels % 2 == 0)


@pytest.mark.parametrize(("shape", "symmetries"), [((3, 3), 8), ((3, 4), 4)])
def test_all_symmetries_of_a_chip_occur_and_no_others(shape, symmetries):
    _, _, labels = flip_and_turn(*numbered(300, *shape), torch.Generator().manual_seed(0))
    square = np.arange(shape[0] * shape[1]).reshape(shape)
    turned = [square, square.T] if shape[0] == shape[1] else [square]
    expected = {side[::down, ::right].tobytes() for side in turned for down in (1, -1) for right in (1, -1)}
    assert {label.numpy().tobytes() for label in labels} == expected
    assert len(expected) == symmetries


def test_the_same_generator_gives_the_same_augmentation():
    first, second = (flip_and_turn(*numbered(20, 4, 4), torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
