"""What every loss must do."""

import pytest
import torch
from torch import nn

from landscribe.errors import NetworkError
from landscribe.nn import LOSSES
from landscribe.nn.losses import weighted_sum


@pytest.mark.parametrize("classes", [1, 2, 6])
@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_have_exactly_no_gradient(name, classes):
    logits = torch.randn(2, classes, 8, 8, requires_grad=True)
    labels = torch.randint(0, max(2, classes), (2, 8, 8))
    labels[:, :3] = 255
    LOSSES[name](logits, labels).backward()
    assert (logits.grad[:, :, :3] == 0).all()
    assert (logits.grad[:, :, 3:] != 0).any()


@pytest.mark.parametrize("classes", [1, 2, 6])
@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_ignored_pixels_costs_nothing_and_stays_finite(name, classes):
    logits = torch.randn(1, classes, 4, 4, requires_grad=True)
    loss = LOSSES[name](logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert torch.isfinite(loss)
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("classes", [1, 2, 6])
@pytest.mark.parametrize("name", LOSSES)
def test_better_predictions_cost_less(name, classes):
    labels = torch.randint(0, max(2, classes), (2, 8, 8))
    right = (nn.functional.one_hot(labels, max(2, classes)).movedim(-1, 1).float() * 2 - 1)[:, -classes:]
    costs = [LOSSES[name](sharpness * right, labels) for sharpness in (-3.0, 0.0, 3.0)]
    assert costs[0] > costs[1] > costs[2]


@pytest.mark.parametrize("classes", [1, 2])
def test_false_positives_cost_where_no_pixel_is_positive(classes):
    empty = torch.zeros(1, 8, 8, dtype=torch.int64)
    sure = torch.full((1, classes, 8, 8), -4.0)
    if classes == 2:
        sure[:, 0] = 4.0
    assert LOSSES["dice"](-sure, empty) > LOSSES["dice"](sure, empty) + 0.3


def test_dice_equals_its_formula_worked_by_hand():
    # Two pixels, one logit: probabilities 0.5 and 0.5, truth 1 and 0.
    # 1 - (2 * 0.5 + 1) / (0.5 + 0.5 + 1 + 1) = 1/3
    loss = LOSSES["dice"](torch.zeros(1, 1, 1, 2), torch.tensor([[[1, 0]]]))
    assert loss.item() == pytest.approx(1 / 3)


def test_cross_entropy_equals_torch_on_labelled_pixels():
    logits, labels = torch.randn(2, 5, 6, 6), torch.randint(0, 5, (2, 6, 6))
    labels[0, :2] = 255
    weights = torch.rand(5)
    known = labels != 255
    expected = nn.functional.cross_entropy(logits.movedim(1, -1)[known], labels[known], weight=weights)
    torch.testing.assert_close(LOSSES["ce"](logits, labels, 255, weights), expected)


def test_a_sum_of_losses_is_their_weighted_sum():
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    expected = 0.25 * LOSSES["dice"](logits, labels) + LOSSES["ce"](logits, labels)
    torch.testing.assert_close(weighted_sum("0.25*dice + ce")(logits, labels), expected)


def test_a_loss_that_is_no_sum_is_refused():
    with pytest.raises(NetworkError, match="no sum of losses"):
        weighted_sum("dice * ce")


def test_an_unknown_loss_offers_the_nearest():
    with pytest.raises(NetworkError, match="did you mean 'dice'"):
        weighted_sum("dise + ce")
