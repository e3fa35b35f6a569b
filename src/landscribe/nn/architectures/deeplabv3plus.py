"""DeepLabv3+: a backbone that stops halving and dilates instead, a pyramid of scales, and a light decoder.

Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation",
arXiv:1802.02611.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from landscribe.errors import NetworkError
from landscribe.nn.architectures.aspp import ASPP
from landscribe.nn.architectures.blocks import ConvBlock, ConvStyle, Rate, SeparableConv, interpolate
from landscribe.nn.encoders.encoder import PLAIN, Encoder
from landscribe.nn.segmentation import Segmentation
from landscribe.spec import Spec

_LOW_LEVEL_REDUCTION = 4
_LOW_LEVEL_CHANNELS = 48


class DeepLabV3PlusOptions(Spec):
    """What of a DeepLabv3+ can be chosen."""

    output_stride: Literal[8, 16] = 16
    """Input pixels per pixel of the deepest features; where the backbone would halve further, it dilates."""
    rates: tuple[Rate, ...] = ()
    """Of the pyramid's 3 x 3 convolutions; 6, 12, 18 at stride 16 and 12, 24, 36 at stride 8 if left out."""
    channels: int = Field(256, ge=1)
    """Of the pyramid and the decoder."""
    separable: bool = True
    """Separable 3 x 3 convolutions in the pyramid and the decoder, as in the paper; full ones if false."""


class DeepLabV3Plus(Segmentation):
    """(B, C, H, W) to logits (B, K, H, W)."""

    def __init__(
        self, *, bands: int, classes: int, encoder: str = "resnet18", weights: str | None = None,
        band_names: tuple[str, ...] = (), **options: Any,
    ) -> None:  # fmt: skip
        chosen = DeepLabV3PlusOptions.of(options)
        if encoder == PLAIN:
            raise NetworkError("deeplabv3plus needs a backbone to dilate, not the plain encoder. Use resnet50.")
        super().__init__(chosen.output_stride)
        self.encoder = Encoder(
            encoder, bands=bands, weights=weights, band_names=band_names, output_stride=chosen.output_stride
        )
        if _LOW_LEVEL_REDUCTION not in self.encoder.reductions:
            raise NetworkError(
                f"'{encoder}' has no features at a quarter of the image's size, which DeepLabv3+ looks at: they "
                f"begin at 1/{self.encoder.reductions[0]}. Use another backbone, such as resnet50."
            )
        self.low = self.encoder.reductions.index(_LOW_LEVEL_REDUCTION)
        channels = chosen.channels
        rates = chosen.rates or tuple(rate * 16 // chosen.output_stride for rate in (6, 12, 18))
        self.pyramid = ASPP((self.encoder.channels[-1], channels), rates, ConvStyle(), separable=chosen.separable)
        self.low_level = ConvBlock((self.encoder.channels[self.low], _LOW_LEVEL_CHANNELS), ConvStyle(), kernel=1)
        pair = (channels + _LOW_LEVEL_CHANNELS, channels)
        self.decoder = SeparableConv(pair) if chosen.separable else ConvBlock(pair, ConvStyle())
        self.head = nn.Conv2d(channels, classes, kernel_size=1)

    def predicted(self, images: Tensor) -> Tensor:
        """Logits, made at a quarter of the size and upsampled four times."""
        features = self.encoder(images)
        above = interpolate(self.pyramid(features[-1]), self.reduction // _LOW_LEVEL_REDUCTION, "bilinear")
        joined = torch.cat([above, self.low_level(features[self.low])], dim=1)
        return interpolate(self.head(self.decoder(joined)), _LOW_LEVEL_REDUCTION, "bilinear")
