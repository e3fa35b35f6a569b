"""DeepLabv3+: a backbone with dilated last stages, atrous spatial pyramid pooling, and a light decoder.

Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation",
arXiv:1802.02611. The decoder refines the concatenated features by one 3 x 3 convolution, as in a row of the paper's
table 2; its best row, and the authors' choice (section 4.1), are two.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from landscribe.errors import NetworkError
from landscribe.nn.architectures.aspp import ASPP
from landscribe.nn.architectures.blocks import MAX_RATES, ConvBlock, ConvStyle, Rate, SeparableConv, interpolate
from landscribe.nn.encoders.encoder import PLAIN, Encoder
from landscribe.nn.encoders.weights import Weights
from landscribe.nn.segmentation import CLASSES, Segmentation
from landscribe.spec import Spec

_LOW_LEVEL_REDUCTION = 4
_LOW_LEVEL_CHANNELS = 48


class DeepLabV3PlusOptions(Spec):
    """Options of a DeepLabv3+."""

    output_stride: Literal[8, 16] = 16
    """Input pixels per pixel of the deepest features; later stages are dilated instead of strided."""
    rates: tuple[Rate, ...] = Field((), max_length=MAX_RATES)
    """Dilation rates of the pyramid. Default: 6, 12, 18 at output stride 16, 12, 24, 36 at output stride 8."""
    channels: int = Field(256, ge=1, le=2**20)
    """Channels of the pyramid and the decoder."""
    separable: bool = True
    """Separable 3 x 3 convolutions in the pyramid and the decoder, as in the paper; if false, full ones."""


class DeepLabV3Plus(Segmentation):
    """(B, C, H, W) to logits (B, K, H, W).

    >>> network = DeepLabV3Plus(bands=3, classes=2, encoder="resnet10t", channels=16).eval()
    >>> tuple(network(torch.rand(1, 3, 100, 120)).shape)
    (1, 2, 100, 120)
    """

    def __init__(
        self, *, bands: int, classes: int, encoder: str = "resnet18", weights: str | Weights | None = None,
        band_names: tuple[str, ...] = (), **options: Any,
    ) -> None:  # fmt: skip
        chosen = DeepLabV3PlusOptions.of(options)
        if encoder == PLAIN:
            raise NetworkError(
                "deeplabv3plus dilates a backbone; the plain encoder is not one. Use a backbone, such as resnet50."
            )
        super().__init__(chosen.output_stride, {CLASSES: classes})
        self.stride = chosen.output_stride
        """Input pixels per pixel of the deepest features."""
        self.encoder = Encoder(
            encoder, bands=bands, weights=weights, band_names=band_names, output_stride=chosen.output_stride
        )
        self.reduction = self.encoder.multiple
        if _LOW_LEVEL_REDUCTION not in self.encoder.reductions:
            raise NetworkError(
                f"deeplabv3plus needs features at 1/{_LOW_LEVEL_REDUCTION} of the image's size; those of '{encoder}' "
                f"begin at 1/{self.encoder.reductions[0]}. Use another backbone, such as resnet50."
            )
        self.low = self.encoder.reductions.index(_LOW_LEVEL_REDUCTION)
        self.encoder.use_only(self.low, len(self.encoder.reductions) - 1)
        channels = chosen.channels
        rates = chosen.rates or tuple(rate * 16 // chosen.output_stride for rate in (6, 12, 18))
        self.pyramid = ASPP((self.encoder.channels[-1], channels), rates, ConvStyle(), separable=chosen.separable)
        self.low_level = ConvBlock((self.encoder.channels[self.low], _LOW_LEVEL_CHANNELS), ConvStyle(), kernel=1)
        pair = (channels + _LOW_LEVEL_CHANNELS, channels)
        self.decoder = SeparableConv(pair) if chosen.separable else ConvBlock(pair, ConvStyle())
        self.head = nn.Conv2d(channels, classes, kernel_size=1)

    def forward_padded(self, images: Tensor) -> Tensor:
        """Logits, computed at a quarter of the size and upsampled four times."""
        features = self.encoder(images)
        deep = interpolate(self.pyramid(features[-1]), self.stride // _LOW_LEVEL_REDUCTION, "bilinear")
        joined = torch.cat([deep, self.low_level(features[self.low])], dim=1)
        return interpolate(self.head(self.decoder(joined)), _LOW_LEVEL_REDUCTION, "bilinear")
