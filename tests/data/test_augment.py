"""Augmentation moves image, valid and labels together."""

import torch

from landscribe.data.augment import flip_and_turn


def test_image_and_labels_stay_on_each_other():
    # The image holds the label's number in every band, so that any mismatch shows.
    labels = torch.randint(0, 5, (64, 16, 16))
    images = labels.unsqueeze(1).repeat(1, 3, 1, 1).float()
    valid = labels > 1
    turned, still_valid, moved = flip_and_turn(images, valid, labels, torch.Generator().manual_seed(0))
    assert all(torch.equal(turned[:, band], moved.float()) for band in range(3))
    assert torch.equal(still_valid, moved > 1)


def test_all_eight_symmetries_occur():
    picture = torch.arange(9).view(1, 3, 3)
    images = picture.repeat(200, 1, 1, 1).float()
    turned, _, _ = flip_and_turn(images, images[:, 0] > 0, images[:, 0].long(), torch.Generator().manual_seed(0))
    assert len({tuple(item.flatten().tolist()) for item in turned}) == 8


def test_chips_that_are_not_square_keep_their_shape():
    images = torch.rand(8, 2, 4, 6)
    turned, _, _ = flip_and_turn(images, images[:, 0] > 0, images[:, 0].long(), torch.Generator().manual_seed(0))
    assert turned.shape == images.shape
