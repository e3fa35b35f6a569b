"""FCN: an encoder, and the sum of the logits of all its scales at full size.

Long, Shelhamer & Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation", arXiv:1411.4038, with a
skip from every scale.
"""

from functools import reduce
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from landscribe.nn.architectures.blocks import MAX_SCALES, Channels, ConvStyle, Interpolation, interpolate
from landscribe.nn.encoders.encoder import PLAIN, Encoder, PlainEncoder, plain_widths, require_plain
from landscribe.nn.encoders.weights import Weights
from landscribe.nn.segmentation import CLASSES, Segmentation


class FCNOptions(ConvStyle):
    """Options of an FCN; batch_norm and activation apply to the plain encoder."""

    encoder_widths: tuple[Channels, ...] = Field((), max_length=MAX_SCALES)
    """Channels of the plain encoder's convolutions, fine to coarse. Default: doubling from 64."""
    depth: int | None = Field(None, ge=1, le=7)
    """How often the encoder halves the size. Default: 3 for the plain encoder, all scales of a backbone."""
    upsampling: Interpolation = "bilinear"
    """Interpolation of coarse logits to full size."""


class FCN(Segmentation):
    """Fully convolutional network: (B, C, H, W) to logits (B, K, H, W).

    The plain encoder has one convolution, normalisation and activation for each scale, with pooling between scales.

    >>> import torch
    >>> network = FCN(bands=3, classes=2, encoder="plain", encoder_widths=[8, 16])
    >>> tuple(network(torch.rand(1, 3, 100, 120)).shape)
    (1, 2, 100, 120)
    """

    def __init__(
        self, *, bands: int, classes: int, encoder: str = "resnet18", weights: str | Weights | None = None,
        band_names: tuple[str, ...] = (), **options: Any,
    ) -> None:  # fmt: skip
        chosen = FCNOptions.of(options)
        require_plain(encoder, chosen, "encoder_widths", "batch_norm", "activation")
        if encoder == PLAIN:
            widths = plain_widths(chosen.encoder_widths, chosen.depth, default=3)
            built: Encoder | PlainEncoder = PlainEncoder(bands, widths, chosen, convolutions=1, weights=weights)
        else:
            built = Encoder(encoder, bands=bands, weights=weights, band_names=band_names, depth=chosen.depth)
        super().__init__(built.multiple, {CLASSES: classes})
        self.encoder = built
        self.upsampling: Interpolation = chosen.upsampling
        # The paper's 1 x 1 convolution of concatenated, upsampled features equals the sum of upsampled 1 x 1
        # convolutions of each scale: interpolation is linear, and its weights sum to 1. It takes a fraction of the
        # memory. One bias is enough.
        self.scores = nn.ModuleList(
            nn.Conv2d(channels, classes, 1, bias=index == 0) for index, channels in enumerate(built.channels)
        )

    def forward_padded(self, images: Tensor) -> Tensor:
        """Logits: the sum of the upsampled logits of every scale."""
        scaled = zip(self.scores, self.encoder(images), self.encoder.reductions, strict=True)
        return reduce(Tensor.add, (interpolate(score(x), factor, self.upsampling) for score, x, factor in scaled))
