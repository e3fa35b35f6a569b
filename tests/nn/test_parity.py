"""Parity with segmentation-models-pytorch: networks of equal size that learn equally well."""

import pytest
import segmentation_models_pytorch as smp
import torch

from landscribe.nn import build
from landscribe.nn.losses import weighted_sum
from landscribe.nn.meta_device import meta_device

PAIRS = {
    ("unet", "resnet18"): smp.Unet,
    ("unetplusplus", "resnet18"): smp.UnetPlusPlus,
    ("deeplabv3plus", "resnet18"): smp.DeepLabV3Plus,
}

SMALL = "test_resnet"
"""The encoder of the networks that learn; smp calls timm's encoders tu-NAME."""
WIDTHS = (32, 24, 16, 16, 16)
DECODERS = {
    "unet": ({"widths": WIDTHS}, {"decoder_channels": WIDTHS}),
    "unetplusplus": ({"widths": WIDTHS}, {"decoder_channels": WIDTHS}),
    "deeplabv3plus": ({}, {}),
}
"""Options of decoders of equal channels, ours and theirs."""


def loss_after_twenty_steps(network: torch.nn.Module) -> float:
    """On discs to be found in noise, the same for every network."""
    criterion, rng = weighted_sum("dice + ce"), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.train().parameters(), lr=1e-3)
    rows, cols = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    losses = []
    for _ in range(20):
        centres = torch.randint(6, 26, (4, 2), generator=rng)
        labels = torch.stack([(rows - r) ** 2 + (cols - c) ** 2 < 40 for r, c in centres]).long()
        images = torch.randn(4, 3, 32, 32, generator=rng) + 2 * labels[:, None]
        optimizer.zero_grad()
        loss = criterion(network(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-5:]) / 5


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_parameters_are_of_the_same_order(pair):
    with meta_device():
        ours = build(pair[0], encoder=pair[1], bands=3, classes=2)
        theirs = PAIRS[pair](pair[1], encoder_weights=None, classes=2)
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (ours, theirs)]
    assert 0.8 < counts[0] / counts[1] < 1.25


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_both_have_learned_as_much_after_twenty_steps(pair):
    our_decoder, their_decoder = DECODERS[pair[0]]
    torch.manual_seed(0)
    ours = loss_after_twenty_steps(build(pair[0], encoder=SMALL, bands=3, classes=2, **our_decoder))
    torch.manual_seed(0)
    theirs = loss_after_twenty_steps(PAIRS[pair](f"tu-{SMALL}", encoder_weights=None, classes=2, **their_decoder))
    assert ours < theirs + 0.25
