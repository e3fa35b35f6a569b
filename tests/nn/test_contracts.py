"""What every architecture and every loss must do."""

import pytest
import torch
from torch import nn

from landscribe.errors import NetworkError
from landscribe.nn import ARCHITECTURES, LOSSES, build
from landscribe.nn.losses import weighted_sum

ENCODER = "resnet10t"
SIZES = [(96, 96), (128, 96), (100, 117)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("bands", "classes"), [(1, 1), (3, 2), (5, 6)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_have_the_size_of_the_images(architecture, bands, classes, size):
    network = build(architecture, encoder=ENCODER, bands=bands, classes=classes).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, bands, *size)).shape == (1, classes, *size)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_finite_gradients_reach_every_parameter(architecture):
    torch.manual_seed(0)
    network = build(architecture, encoder=ENCODER, bands=3, classes=2)
    for module in network.modules():
        # timm starts the last normalisation of each residual block at 0, which lets no gradient through yet.
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    labels = torch.randint(0, 2, (2, 96, 96))
    weighted_sum("dice + ce")(network(torch.rand(2, 3, 96, 96)), labels).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_pixel_in_a_batch_is_answered_as_alone(architecture):
    torch.manual_seed(0)
    network = build(architecture, encoder=ENCODER, bands=3, classes=2).eval()
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        together, alone = network(images), network(images[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_a_network_was_built_from_builds_it_again(architecture):
    network = build(architecture, encoder=ENCODER, bands=4, classes=3)
    again = build(**network.built_from)
    again.load_state_dict(network.state_dict())
    assert again.reduction == network.reduction


@pytest.mark.parametrize("encoder", ["resnet18", "efficientnet_b0", "convnext_atto", "mobilenetv3_small_050", "vgg11"])
def test_unet_takes_backbones_of_every_pyramid(encoder):
    network = build("unet", encoder=encoder, bands=2, classes=3).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 2, 100, 117)).shape == (1, 3, 100, 117)


def test_unet_on_resnet18_has_the_parameters_counted_by_hand():
    network = build("unet", encoder="resnet18", bands=3, classes=2)

    def block(into: int, skip: int, out: int) -> int:
        # Two 3 x 3 convolutions without bias, each with the weight and bias of a normalisation.
        return (into + skip) * out * 9 + out * out * 9 + 2 * 2 * out

    # ResNet-18 without its classifier has 11 176 512 parameters (He et al. 2016).
    decoder = sum(block(*row) for row in [(512, 256, 256), (256, 128, 128), (128, 64, 64), (64, 64, 32), (32, 0, 16)])
    head = 16 * 2 * 9 + 2
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_176_512 + decoder + head


def test_unknown_names_offer_the_nearest():
    with pytest.raises(NetworkError, match="did you mean 'unet'"):
        build("unett", bands=3, classes=2)
    with pytest.raises(NetworkError, match="did you mean 'resnet18'"):
        build("unet", encoder="resnet81", bands=3, classes=2)
    with pytest.raises(NetworkError, match="did you mean 'dice'"):
        weighted_sum("dise + ce")


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
