"""UNet: an encoder that halves the size, a decoder that doubles it, skip connections between scales of one size.

Ronneberger, Fischer & Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
arXiv:1505.04597. The encoder is the paper's own ("plain", with padding and batch normalisation) or any timm backbone.
The decoder has one block for each scale of the encoder.
"""

from itertools import pairwise
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from landscribe.errors import WithoutEffectError, counted
from landscribe.nn.architectures.aspp import ASPP
from landscribe.nn.architectures.blocks import (
    MAX_RATES,
    AttentionGate,
    Channels,
    DoubleConv,
    Interpolation,
    Rate,
    Upsample,
    concatenate,
)
from landscribe.nn.encoders.encoder import PLAIN, EncoderStyle, encoder_of
from landscribe.nn.encoders.weights import Weights
from landscribe.nn.segmentation import CLASSES, Segmentation

BACKBONE_WIDTHS = (256, 128, 64, 32, 16)
"""Channels of the decoder's blocks on a timm backbone, coarse to fine."""


class UNetOptions(EncoderStyle):
    """Options of a UNet."""

    widths: tuple[Channels, ...] = ()
    """Channels of the decoder's blocks, coarse to fine; the last is repeated. Default: those of the plain encoder in
    reverse, or 256, 128, 64, 32, 16 on a backbone."""
    upsampling: Interpolation | Literal["transposed"] | None = None
    """Upsampling in the decoder: 2 x 2 transposed convolution (the plain encoder's default), or nearest (a backbone's
    default), bilinear or bicubic interpolation."""
    attention: bool = False
    """Attention gates on the skip connections (Oktay et al. 2018)."""
    aspp: tuple[Rate, ...] = Field((), max_length=MAX_RATES)
    """Dilation rates of atrous spatial pyramid pooling at the bottleneck, for example 6, 12, 18. Default: no ASPP."""
    full_resolution: int = Field(0, ge=0, le=2**20)
    """Channels of an extra block at full size, for a backbone whose first features have half the size; 0: none."""


class DecoderBlock(nn.Module):
    """Upsample, gate the skip, concatenate, convolve twice."""

    def __init__(self, channels: tuple[int, int, int], factor: int, options: UNetOptions) -> None:
        super().__init__()
        into, skip, out = channels
        self.up = Upsample((into, out), factor, options.upsampling or "nearest")
        self.gate = AttentionGate(skip, self.up.channels, options) if options.attention and skip else None
        self.convolve = DoubleConv((self.up.channels + skip, out), options)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Coarse (B, in, h, w) and skip (B, skip, H, W), or none, to (B, out, H, W)."""
        x = self.up(x)
        if skip is not None:
            x = concatenate([x, skip if self.gate is None else self.gate(skip, x)])
        result: Tensor = self.convolve(x)
        return result


class UNet(Segmentation):
    """(B, C, H, W) to logits (B, K, H, W).

    >>> import torch
    >>> network = UNet(bands=4, classes=3, encoder="plain", encoder_widths=[8, 16, 32])
    >>> tuple(network(torch.rand(1, 4, 100, 120)).shape)
    (1, 3, 100, 120)
    """

    def __init__(
        self, *, bands: int, classes: int, encoder: str = "resnet18", weights: str | Weights | None = None,
        band_names: tuple[str, ...] = (), **options: Any,
    ) -> None:  # fmt: skip
        features = UNetFeatures(bands, encoder, weights, band_names, UNetOptions.of(options))
        super().__init__(features.reduction, {CLASSES: classes})
        self.features = features
        # The paper has a 1 x 1 convolution. The narrow decoder on a backbone gives it 16 weights a class, with which
        # training takes several times as many steps as with 3 x 3 (docs/LOG.md, 2026-11-23).
        kernel = 1 if encoder == PLAIN else 3
        self.head = nn.Conv2d(features.channels, classes, kernel, padding=kernel // 2)

    def forward_padded(self, images: Tensor) -> Tensor:
        """Logits: a convolution of the finest features."""
        logits: Tensor = self.head(self.features(images))
        return logits


class UNetFeatures(nn.Module):
    """UNet without its head: (B, C, H, W), sides multiples of `reduction`, to features (B, channels, H, W)."""

    def __init__(
        self, bands: int, encoder: str, weights: str | Weights | None, band_names: tuple[str, ...], options: UNetOptions
    ) -> None:
        super().__init__()
        plain = encoder == PLAIN
        self.encoder = encoder_of(encoder, bands, weights, band_names, options)
        self.reduction = self.encoder.multiple
        channels, reductions = list(self.encoder.channels), list(self.encoder.reductions)
        self.first = None
        if options.full_resolution:
            if reductions[0] == 1:
                raise WithoutEffectError(
                    f"full_resolution is an option for backbones that begin at half the size; '{encoder}' begins at "
                    "full size. Leave it out.",
                    full_resolution=0,
                )
            self.first = DoubleConv((bands, options.full_resolution), options)
            channels, reductions = [options.full_resolution, *channels], [1, *reductions]
        self.pyramid = ASPP((channels[-1], min(256, channels[-1])), options.aspp, options) if options.aspp else None
        if plain and options.upsampling is None:
            options = options.model_copy(update={"upsampling": "transposed"})
        widths = options.widths or (tuple(channels[-2::-1]) if plain else BACKBONE_WIDTHS)
        deepest = min(256, channels[-1]) if options.aspp else channels[-1]
        self.decoder = _decoder(deepest, channels[:-1], reductions, widths, options)
        if len(options.widths) > len(self.decoder):
            raise WithoutEffectError(
                f"there are {len(options.widths)} widths, but the decoder on '{encoder}' has "
                f"{counted(len(self.decoder), 'block')} at this depth. Give at most one width for each block.",
                widths=options.widths[: len(self.decoder)],
            )
        self.channels = widths[min(len(self.decoder), len(widths)) - 1]

    def forward(self, images: Tensor) -> Tensor:
        """Features at full size."""
        *skips, x = self.encoder(images)
        if self.first is not None:
            skips = [self.first(images), *skips]
        if self.pyramid is not None:
            x = self.pyramid(x)
        missing = [None] * (len(self.decoder) - len(skips))
        for block, skip in zip(self.decoder, [*reversed(skips), *missing], strict=True):
            x = block(x, skip)
        return x


def _decoder(
    deepest: int, skips: list[int], reductions: list[int], widths: tuple[int, ...], options: UNetOptions
) -> nn.ModuleList:
    """One block for each skip, coarse to fine, and one more if the finest features are smaller than the image."""
    steps = [below // above for above, below in pairwise(reductions)][::-1]
    sources = skips[::-1]
    if reductions[0] > 1:
        steps, sources = [*steps, reductions[0]], [*sources, 0]
    outs = [widths[min(index, len(widths) - 1)] for index in range(len(steps))]
    ins = [deepest, *outs]
    return nn.ModuleList(
        DecoderBlock((into, skip, out), factor, options)
        for into, skip, out, factor in zip(ins, sources, outs, steps, strict=False)
    )
