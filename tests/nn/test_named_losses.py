"""Losses by the names that people type."""

import pytest
import torch

from landscribe.errors import NetworkError
from landscribe.nn.losses import LOSSES, weighted_sum


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("crossentropy", "ce"), ("cross-entropy", "ce"), ("CrossEntropyLoss", "ce"), ("cross_entropy_loss", "ce"),
        ("categorical_crossentropy", "ce"), ("BCEWithLogitsLoss", "bce"), ("binary-cross-entropy", "bce"),
        ("DiceLoss", "dice"), ("soft_dice", "dice"), ("IoULoss", "jaccard"), ("focal-dice", "focal_dice"),
        ("FocalTversky", "focal_tversky"), ("lovasz-softmax", "lovasz"),
    ],
)  # fmt: skip
def test_a_loss_is_taken_by_its_usual_names(written, name):
    logits, labels = torch.randn(2, 2, 4, 4), torch.randint(0, 2, (2, 4, 4))
    assert weighted_sum(f"0.5*{written}")(logits, labels) == 0.5 * LOSSES[name](logits, labels)


def test_the_nearest_loss_of_an_unknown_one_is_offered():
    with pytest.raises(NetworkError, match="unknown loss 'tversk'; did you mean 'tversky'"):
        weighted_sum("tversk")


@pytest.mark.parametrize("text", ["-dice", "ce + -dice", "ce - dice", "0.5*-dice", "ce + _dice"])
def test_a_loss_that_is_subtracted_is_refused(text):
    with pytest.raises(NetworkError, match="is not a sum of losses"):
        weighted_sum(text)
