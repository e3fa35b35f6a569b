"""Atrous spatial pyramid pooling: convolutions of the same features at several dilation rates.

Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv:1706.05587, section 3.3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from landscribe.nn.architectures.blocks import ConvBlock, ConvStyle, SeparableConv, make_activation


class ASPP(nn.Module):
    """(B, in, H, W) to (B, out, H, W): parallel branches, concatenated and mixed by a 1 x 1 convolution.

    The branches are a 1 x 1 convolution, 3 x 3 convolutions at several dilation rates, and the image's mean.
    """

    def __init__(
        self, channels: tuple[int, int], rates: Sequence[int], style: ConvStyle, *, separable: bool = False
    ) -> None:
        super().__init__()
        out = channels[1]
        self.pointwise = ConvBlock(channels, style, kernel=1)
        self.atrous = nn.ModuleList(
            SeparableConv(channels, dilation=rate) if separable else ConvBlock(channels, style, dilation=rate)
            for rate in rates
        )
        # No batch normalisation: with one image a batch, each feature map has one mean, which it would set to 0.
        self.pooled = nn.Sequential(nn.Conv2d(*channels, 1), make_activation(style))
        self.mix = ConvBlock(((2 + len(rates)) * out, out), style, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same size."""
        image = self.pooled(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        mixed: Tensor = self.mix(torch.cat([self.pointwise(x), *(branch(x) for branch in self.atrous), image], dim=1))
        return mixed
