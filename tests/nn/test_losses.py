"""What every loss must do."""

import math

import pytest
import torch
from torch import nn

from landscribe.errors import NetworkError
from landscribe.nn import LOSSES, losses
from landscribe.nn.losses import _lovasz, weighted_sum


@pytest.mark.parametrize("classes", [1, 2, 6])
@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_have_exactly_no_gradient(name, classes):
    logits = torch.randn(2, classes, 8, 8, requires_grad=True)
    labels = torch.randint(0, max(2, classes), (2, 8, 8))
    labels[:, :3] = 255
    LOSSES[name](logits, labels).backward()
    assert (logits.grad[:, :, :3] == 0).all()
    assert (logits.grad[:, :, 3:] != 0).any()


@pytest.mark.parametrize("name", LOSSES)
def test_labels_of_a_batch_of_chips_cost_what_their_numbers_do(name):
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    labels[:, :3] = 255
    weights = torch.tensor([1.0, 2.0, 3.0])
    assert LOSSES[name](logits, labels.to(torch.uint8), 255, weights) == LOSSES[name](logits, labels, 255, weights)


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
def test_no_loss_waits_for_the_device(name, classes):
    # What depends on the numbers of a tensor cannot be computed without any.
    logits = torch.empty(2, classes, 8, 8, device="meta", requires_grad=True)
    labels = torch.empty(2, 8, 8, dtype=torch.int64, device="meta")
    LOSSES[name](logits, labels, 255, torch.empty(max(2, classes), device="meta")).backward()


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_a_class_without_weight_stays_finite(name):
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = LOSSES[name](logits, torch.zeros(1, 4, 4, dtype=torch.int64), 255, torch.tensor([0.0, 1.0, 1.0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("classes", [1, 2, 6])
@pytest.mark.parametrize("name", LOSSES)
def test_better_predictions_cost_less(name, classes):
    labels = torch.randint(0, max(2, classes), (2, 8, 8))
    right = (nn.functional.one_hot(labels, max(2, classes)).movedim(-1, 1).float() * 2 - 1)[:, -classes:]
    costs = [LOSSES[name](sharpness * right, labels) for sharpness in (-3.0, 0.0, 3.0)]
    assert costs[0] > costs[1] > costs[2]


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("name", LOSSES)
def test_false_positives_cost_where_no_pixel_is_positive(name, classes):
    empty = torch.zeros(1, 8, 8, dtype=torch.int64)
    sure = torch.full((1, classes, 8, 8), -4.0)
    if classes == 2:
        sure[:, 0] = 4.0
    assert LOSSES[name](-sure, empty) > LOSSES[name](sure, empty) + 0.2


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
    for text in ("0.25*dice + ce", "25e-2 * dice + 1*ce", "dice*0.25 + ce * 1", "cross_entropy + DICE * 0.25"):
        torch.testing.assert_close(weighted_sum(text)(logits, labels), expected)


def test_a_loss_that_is_no_sum_is_refused():
    with pytest.raises(NetworkError, match="not a sum of losses"):
        weighted_sum("dice * ce")


def test_an_unknown_loss_offers_the_nearest():
    with pytest.raises(NetworkError, match="did you mean 'dice'"):
        weighted_sum("dise + ce")


# ---- formulas worked by hand


def one_pixel(*logits: float) -> torch.Tensor:
    return torch.tensor(logits).view(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Two pixels, one logit of 0 each: p = 0.5 and 0.5, truth 1 and 0. TP = FP = FN = 0.5, -log p_t = log 2.
        ("ce", math.log(2)),
        ("bce", math.log(2)),
        ("focal", 0.25 * math.log(2)),
        ("focal(gamma=1)", 0.5 * math.log(2)),
        ("dice", 1 / 3),
        ("focal_dice(gamma=2)", 1 / 9),
        ("tversky", 1 - 1.5 / 2),
        ("tversky(alpha=0.9, beta=0.1)", 1 - 1.5 / 2),
        ("focal_tversky(gamma=2)", (1 - 1.5 / 2) ** 2),
        ("unified_focal(lam=1, gamma=1)", math.log(2)),
        ("unified_focal(lam=0, gamma=1, delta=0.5)", 1 - 1.5 / 2),
        # Hinge errors 1 and 1, the first of them a miss: 1 - 0/1 for the first, then 1 - 0/2 - 1.
        ("lovasz", 1.0),
    ],
)
def test_losses_equal_their_formulas_worked_by_hand(name, expected):
    loss = weighted_sum(name)(torch.zeros(1, 1, 1, 2), torch.tensor([[[1, 0]]]))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_tversky_weighs_false_alarms_by_alpha_and_misses_by_beta():
    # p = 0.5 at one pixel: a miss of 0.5 where the truth is 1, a false alarm of 0.5 where it is 0.
    missed = LOSSES["tversky"](one_pixel(0.0), torch.tensor([[[1]]]))
    false_alarm = LOSSES["tversky"](one_pixel(0.0), torch.tensor([[[0]]]))
    assert missed.item() == pytest.approx(1 - 1.5 / (0.5 + 0.7 * 0.5 + 1))
    assert false_alarm.item() == pytest.approx(1 - 1 / (0.3 * 0.5 + 1))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_is_that_of_torch(smoothing):
    logits, labels = torch.randn(2, 5, 6, 6), torch.randint(0, 5, (2, 6, 6))
    expected = nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(weighted_sum(f"ce(smoothing={smoothing})")(logits, labels), expected)


def test_jaccard_is_that_of_segmentation_models_pytorch():
    oracle = pytest.importorskip("segmentation_models_pytorch").losses.JaccardLoss("multiclass", smooth=1)
    logits, labels = torch.randn(2, 4, 8, 8), torch.randint(0, 4, (2, 8, 8))  # each class occurs
    torch.testing.assert_close(LOSSES["jaccard"](logits, labels), oracle(logits, labels))


def test_jaccard_of_certain_predictions_is_one_minus_the_mean_iou():
    # Class 0: 2 pixels in both, 1 more predicted: (2 + 1) / (3 + 1); class 1: 1 in both, 1 missed: (1 + 1) / (2 + 1).
    labels = torch.tensor([[[0, 0, 1, 1, 255]]])
    predicted = torch.tensor([[[0, 0, 0, 1, 1]]])
    logits = 100.0 * nn.functional.one_hot(predicted, 2).movedim(-1, 1)
    assert LOSSES["jaccard"](logits, labels).item() == pytest.approx(1 - (3 / 4 + 2 / 3) / 2, abs=1e-6)
    assert weighted_sum("iou")(logits, labels) == LOSSES["jaccard"](logits, labels)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 2.0, 4.0])])
def test_lovasz_is_that_of_the_labelled_pixels_and_the_classes_that_occur(weights):
    logits, labels = torch.randn(2, 4, 8, 8, requires_grad=True), 2 * torch.randint(0, 2, (2, 8, 8))
    labels[:, 3:5] = 255
    labelled, present = labels != 255, [0, 2]
    scores = logits.movedim(1, -1)[labelled].softmax(dim=1)
    truth = nn.functional.one_hot(labels[labelled], 4).float()
    losses = torch.stack([_lovasz((truth - scores).abs()[:, k], truth[:, k]) for k in present])
    of_each = torch.ones(2) if weights is None else weights[present]
    expected = (losses * of_each).sum() / of_each.sum()
    loss = LOSSES["lovasz"](logits, labels, 255, weights)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, logits)[0] for each in (loss, expected)))


def test_lovasz_without_selecting_pixels_and_classes_is_the_same(monkeypatch):
    # As on a GPU: ignored pixels have error and truth 0, and absent classes weight 0.
    logits, labels = torch.randn(2, 4, 8, 8, requires_grad=True), 2 * torch.randint(0, 2, (2, 8, 8))
    labels[:, 3:5] = 255
    selected = LOSSES["lovasz"](logits, labels)
    (gradient,) = torch.autograd.grad(selected, logits)
    monkeypatch.setattr(losses, "_waits_for_numbers", lambda _: True)
    whole = LOSSES["lovasz"](logits, labels)
    torch.testing.assert_close(whole, selected)
    torch.testing.assert_close(torch.autograd.grad(whole, logits)[0], gradient)


def test_lovasz_of_certain_predictions_is_one_minus_the_mean_iou():
    labels = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    predicted = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    logits = 100.0 * nn.functional.one_hot(predicted, 3).movedim(-1, 1).float()
    ious = [((labels == k) & (predicted == k)).sum() / ((labels == k) | (predicted == k)).sum() for k in range(3)]
    assert LOSSES["lovasz"](logits, labels).item() == pytest.approx(1 - float(sum(ious)) / 3, abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_one_logit_is_two_of_which_the_first_is_zero(name):
    if name in ("bce", "lovasz", "jaccard") or "dice" in name or "tversky" in name or "unified" in name:
        pytest.skip("counts the positive class alone")
    logits, labels = torch.randn(2, 1, 5, 5), torch.randint(0, 2, (2, 5, 5))
    tp = torch.cat([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(LOSSES[name](logits, labels), LOSSES[name](tp, labels))


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "lovasz"])
def test_a_class_of_greater_weight_pulls_harder(name):
    logits = torch.zeros(1, 3, 4, 4, requires_grad=True)
    labels = torch.arange(16).reshape(1, 4, 4) % 3
    pulls = []
    for weight in (1.0, 5.0):
        (gradient,) = torch.autograd.grad(LOSSES[name](logits, labels, 255, torch.tensor([1.0, 1.0, weight])), logits)
        pulls.append(-gradient[0, 2][labels[0] == 2].sum())
    assert pulls[1] > pulls[0]


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_of_certain_predictions_are_finite(name, classes):
    labels = torch.randint(0, max(2, classes), (1, 6, 6))
    for sharpness in (-50.0, 50.0):
        right = (nn.functional.one_hot(labels, max(2, classes)).movedim(-1, 1).float() * 2 - 1)[:, -classes:]
        logits = (sharpness * right).requires_grad_()
        loss = LOSSES[name](logits, labels)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("focal(gama=2)", "no setting 'gama'; did you mean 'gamma'"),
        ("dice(gamma=2)", "has none"),
        ("focal(gamma)", "NAME=NUMBER"),
        ("1.2.3*dice", "not a sum of losses"),
        ("2*dice*2", "not a sum of losses"),
        ("dice -", "not a sum of losses"),
        ("0*dice + ce", "the factor of 'dice' .* is 0. Expected a number greater than 0"),
        ("ce(smoothing=1)", "'smoothing' of loss 'ce' is 1. Expected a number less than 1"),
        ("unified_focal(gamma=0)", "'gamma' of loss 'unified_focal' is 0. Expected a number greater than 0"),
        ("unified_focal(lam=2)", "'lam' .* is 2. Expected a number less than or equal to 1"),
        ("unified_focal(delta=1)", "'delta' .* is 1. Expected a number less than 1"),
        ("tversky(alpha=0)", "'alpha' .* is 0. Expected a number greater than 0"),
        ("focal_dice(gamma=0)", "'gamma' .* is 0. Expected a number greater than 0"),
    ],
)
def test_mistakes_in_a_loss_are_named(text, words):
    with pytest.raises(NetworkError, match=words):
        weighted_sum(text)
