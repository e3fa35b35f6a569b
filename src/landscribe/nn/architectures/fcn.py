"""FCN: an encoder, and the class scores of all its scales added up at full size.

Long, Shelhamer & Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation", arXiv:1411.4038, with a
skip from every scale.
"""

from functools import reduce
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from landscribe.nn.architectures.blocks import Channels, ConvStyle, Interpolation, interpolate
from landscribe.nn.encoders.encoder import PLAIN, Encoder, PlainEncoder, plain_widths, require_plain
from landscribe.nn.segmentation import Segmentation


class FCNOptions(ConvStyle):
    """What of an FCN can be chosen; batch_norm and activation are those of the plain encoder."""

    encoder_widths: tuple[Channels, ...] = ()
    """Channels of the plain encoder's convolutions, fine to coarse; doubling from 64 if left out."""
    depth: int | None = Field(None, ge=1, le=7)
    """How often the encoder halves; 3 for the plain one, all of a backbone's scales, if left out."""
    upsampling: Interpolation = "bilinear"
    """How coarse scores reach full size."""


class FCN(Segmentation):
    """(B, C, H, W) to logits (B, K, H, W).

    The plain encoder has a convolution, normalisation and activation for each scale, and pooling between.
    """

    def __init__(
        self, *, bands: int, classes: int, encoder: str = "resnet18", weights: str | None = None,
        band_names: tuple[str, ...] = (), **options: Any,
    ) -> None:  # fmt: skip
        chosen = FCNOptions.of(options)
        require_plain(encoder, chosen, "encoder_widths", "batch_norm", "activation")
        if encoder == PLAIN:
            widths = plain_widths(chosen.encoder_widths, chosen.depth, default=3)
            made: Encoder | PlainEncoder = PlainEncoder(bands, widths, chosen, convolutions=1, weights=weights)
        else:
            made = Encoder(encoder, bands=bands, weights=weights, band_names=band_names, depth=chosen.depth)
        super().__init__(made.reductions[-1])
        self.encoder = made
        self.upsampling: Interpolation = chosen.upsampling
        # A 1 x 1 convolution of concatenated, upsampled features is the sum of 1 x 1 convolutions of each, upsampled
        # afterwards, since interpolation is linear with weights that sum to 1: the same numbers, a fraction of the
        # memory. One bias is enough.
        self.scores = nn.ModuleList(
            nn.Conv2d(channels, classes, 1, bias=place == 0) for place, channels in enumerate(made.channels)
        )

    def predicted(self, images: Tensor) -> Tensor:
        """Logits: the sum of what every scale says."""
        scaled = zip(self.scores, self.encoder(images), self.encoder.reductions, strict=True)
        return reduce(Tensor.add, (interpolate(score(x), factor, self.upsampling) for score, x, factor in scaled))
