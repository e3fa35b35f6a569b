"""UNet: an encoder that halves, a decoder that doubles, and skip connections between equals.

Ronneberger, Fischer & Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
arXiv:1505.04597. The encoder may be any timm backbone; the decoder follows the sizes of its features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from landscribe.nn.blocks import ConvBlock, resize
from landscribe.nn.encoders import Encoder


class DecoderBlock(nn.Module):
    """Upsample to the skip's size, concatenate the skip, convolve twice."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolve = nn.Sequential(
            ConvBlock(in_channels + skip_channels, out_channels), ConvBlock(out_channels, out_channels)
        )

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Coarse (B, in, h, w) and skip (B, skip, H, W), or none, to (B, out, H, W)."""
        x = resize(x, size)
        result: Tensor = self.convolve(x if skip is None else torch.cat([x, skip], dim=1))
        return result


class UNet(nn.Module):
    """UNet on a timm encoder: (B, C, H, W) of any size to logits (B, K, H, W)."""

    def __init__(
        self,
        *,
        bands: int,
        classes: int,
        encoder: str = "resnet18",
        weights: str | None = None,
        widths: Sequence[int] = (256, 128, 64, 32, 16),
    ) -> None:
        """Build it.

        Args:
            bands: C.
            classes: K.
            encoder: name of a timm network.
            weights: "imagenet", a file, or None.
            widths: channels of the decoder's blocks, coarse to fine; the last is repeated when the
                encoder has more scales than this.
        """
        super().__init__()
        self.encoder = Encoder(encoder, bands=bands, weights=weights)
        self.reduction = self.encoder.reductions[-1]
        # One block for each skip, coarse to fine, and one more that leads to full size without a skip.
        skips = [*self.encoder.channels[-2::-1], 0]
        outs = [widths[min(place, len(widths) - 1)] for place in range(len(skips))]
        ins = [self.encoder.channels[-1], *outs]
        self.decoder = nn.ModuleList(DecoderBlock(*channels) for channels in zip(ins, skips, outs, strict=False))
        self.head = nn.Conv2d(outs[-1], classes, kernel_size=3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the images' size."""
        *skips, x = self.encoder(images)
        for block, skip in zip(self.decoder, [*reversed(skips), None], strict=True):
            size = images.shape[-2:] if skip is None else skip.shape[-2:]
            x = block(x, skip, size)
        logits: Tensor = self.head(x)
        return logits
