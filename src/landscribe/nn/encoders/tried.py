"""Encoders that were tried: each was trained for some steps, and their costs are listed by `summary --encoders`."""

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch.utils.flop_counter import FlopCounterMode

from landscribe.nn.encoders.encoder import Encoder
from landscribe.nn.encoders.weights import license_terms
from landscribe.nn.meta_device import meta_device

ENCODERS: dict[str, str] = {
    "resnet18": "the default",
    "resnet34": "",
    "resnet50": "the usual one with deeplabv3plus",
    "efficientnet_b0": "few operations",
    "mobilenetv3_large_100": "fewest operations",
    "convnext_atto": "few parameters",
    "convnext_tiny": "",
    "hrnet_w18": "fine features at all depths; not for deeplabv3plus",
    "pvt_v2_b0": "a transformer with scales of its own",
    "vit_tiny_patch16_224": "the smallest transformer with one grid of tokens",
    "vit_small_patch14_dinov2": "trained without labels on photographs",
    "vit_small_patch16_dinov3": "trained without labels on photographs",
    "vit_base_patch16_dinov3": "trained without labels on photographs",
    "vit_large_patch16_dinov3.sat493m": "trained without labels on satellite images of 0.6 m pixels",
}
"""Names of timm, and a note on each. tests/nn/encoders/test_tried.py trains them."""


TimedSide = Annotated[int, Field(ge=1, le=2048)]
"""Side in pixels of the images on which encoders are timed."""


@dataclass(frozen=True)
class EncoderCost:
    """One row of the table: an encoder alone, without a decoder."""

    name: str
    note: str
    parameters: int
    """Layers that bring the tokens of a transformer to a pyramid included."""
    flops_per_megapixel: float
    """Floating-point operations for 10^6 input pixels; a multiplication and an addition are two."""
    license: str
    """License of its weights in timm."""
    seconds_per_megapixel: float | None = None
    """Measured on this machine; None: it is too large for that."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def encoder_cost(name: str, *, bands: int, size: int) -> EncoderCost:
    """Cost of an encoder without its time; nothing is computed, and no memory is allocated.

    Args:
        name: a key of `ENCODERS`.
        bands: of the images.
        size: side of the images in pixels. Attention takes more operations a pixel in larger images.
    """
    with meta_device(), FlopCounterMode(display=False) as counter, torch.inference_mode():
        encoder = Encoder(name, bands=bands).eval()
        side = fitting_side(encoder, size)
        before = counter.get_total_flops()
        encoder(torch.zeros(1, bands, side, side))
        flops = counter.get_total_flops() - before
    parameters = sum(math.prod(parameter.shape) for parameter in encoder.parameters())
    terms = license_terms(name, "imagenet")
    return EncoderCost(name, ENCODERS.get(name, ""), parameters, flops / side**2 * 1e6, terms["license"])


def fitting_side(encoder: Encoder, size: int) -> int:
    """The size, rounded up to a multiple that the encoder takes."""
    return -(-size // encoder.multiple) * encoder.multiple
