"""Blocks that architectures share: convolution blocks, upsampling, attention gates."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from landscribe.spec import Spec

Interpolation = Literal["nearest", "bilinear", "bicubic"]


Channels = Annotated[int, Field(ge=1, le=2**20)]
"""Number of feature maps."""
Rate = Annotated[int, Field(ge=1, le=2**20)]
"""Dilation rate."""
MAX_RATES = 16
"""Dilated convolutions side by side. Each takes time to build, also for a model folder of a stranger."""
MAX_SCALES = 8
"""Blocks of a plain encoder: depth + 1."""


class ConvStyle(Spec):
    """Style of single convolutions."""

    batch_norm: bool = True
    """Normalise after each convolution (Ioffe & Szegedy 2015, arXiv:1502.03167)."""
    activation: Literal["relu", "leaky_relu", "swish"] = "relu"
    """Activation after the normalisation."""


class BlockStyle(ConvStyle):
    """Style of blocks of two convolutions."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Fraction of feature maps that a block drops in training."""
    residual: bool = False
    """Add a block's input to its output (He et al. 2016, arXiv:1512.03385)."""
    squeeze_excitation: bool = False
    """Weight a block's feature maps by their means over the image (Hu, Shen & Sun 2018, arXiv:1709.01507)."""


class ConvBlock(nn.Sequential):
    """Convolution, batch normalisation, activation: (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, channels: tuple[int, int], style: ConvStyle, *, kernel: int = 3, dilation: int = 1) -> None:
        super().__init__(*_convolution(channels, style, kernel, dilation), make_activation(style))


class DoubleConv(nn.Module):
    """UNet's block of two 3 x 3 convolutions, in a style: (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, channels: tuple[int, int], style: BlockStyle) -> None:
        super().__init__()
        into, out = channels
        self.first = ConvBlock(channels, style)
        # Weighted before the residual is added, as in the paper.
        weighing = [SqueezeExcitation(out)] if style.squeeze_excitation else []
        self.second = nn.Sequential(*_convolution((out, out), style, 3, 1), *weighing)
        self.shortcut = None if not style.residual else nn.Conv2d(into, out, 1) if into != out else nn.Identity()
        dropping = [nn.Dropout2d(style.dropout)] if style.dropout else []
        self.finish = nn.Sequential(make_activation(style), *dropping)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve twice."""
        y = self.second(self.first(x))
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        result: Tensor = self.finish(y)
        return result


def _convolution(channels: tuple[int, int], style: ConvStyle, kernel: int, dilation: int) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    # Without bias if a normalisation follows, which has a bias of its own.
    layer = nn.Conv2d(*channels, kernel, padding=padding, dilation=dilation, bias=not style.batch_norm)
    return [layer, nn.BatchNorm2d(channels[1])] if style.batch_norm else [layer]


def make_activation(style: ConvStyle) -> nn.Module:
    """ReLU, leaky ReLU (slope 0.01) or swish (Ramachandran, Zoph & Le 2017, arXiv:1710.05941)."""
    if style.activation == "leaky_relu":
        return nn.LeakyReLU(0.01, inplace=True)
    return nn.SiLU(inplace=True) if style.activation == "swish" else nn.ReLU(inplace=True)


class SeparableConv(nn.Sequential):
    """A depthwise 3 x 3 convolution, then a pointwise 1 x 1 convolution: (B, in, H, W) to (B, out, H, W).

    Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution", arXiv:1802.02611.
    """

    def __init__(self, channels: tuple[int, int], *, dilation: int = 1) -> None:
        into, out = channels
        super().__init__(
            nn.Conv2d(into, into, 3, padding=dilation, dilation=dilation, groups=into, bias=False),
            nn.Conv2d(into, out, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        )


class SqueezeExcitation(nn.Module):
    """Weights in (0, 1) for each feature map, from the means of all; the hidden layer has 1/8 as many units."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        between = max(4, channels // 8)
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, between, 1), nn.ReLU(inplace=True), nn.Conv2d(between, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) times a weight for each feature map."""
        weighted: Tensor = x * self.weigh(x.mean((2, 3), keepdim=True))
        return weighted


class AttentionGate(nn.Module):
    """Weights in (0, 1) for each pixel of a skip connection, from the skip and the upsampled coarser features.

    Additive attention of Oktay et al. 2018, "Attention U-Net", arXiv:1804.03999, at the skip's own size.
    """

    def __init__(self, skip_channels: int, signal_channels: int, style: ConvStyle) -> None:
        super().__init__()
        between = max(1, skip_channels // 2)
        self.of_skip = nn.Sequential(*_convolution((skip_channels, between), style, 1, 1))
        self.of_signal = nn.Sequential(*_convolution((signal_channels, between), style, 1, 1))
        self.weigh = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(between, 1, 1), nn.Sigmoid())

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """The skip (B, C, H, W), weighted; the signal is (B, S, H, W)."""
        weighted: Tensor = skip * self.weigh(self.of_skip(skip) + self.of_signal(signal))
        return weighted


class Upsample(nn.Module):
    """(B, in, H, W) to `factor` times the size: interpolated, or by a transposed convolution to other channels."""

    def __init__(self, channels: tuple[int, int], factor: int, mode: Interpolation | Literal["transposed"]) -> None:
        super().__init__()
        self.factor, self.mode = factor, mode
        is_learned = mode == "transposed" and factor > 1
        self.learned = nn.ConvTranspose2d(*channels, factor, stride=factor) if is_learned else None
        self.channels = channels[1] if is_learned else channels[0]
        """Output channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Upsample."""
        if self.learned is not None:
            result: Tensor = self.learned(x)
            return result
        return interpolate(x, self.factor, "nearest" if self.mode == "transposed" else self.mode)


def interpolate(x: Tensor, factor: int, mode: Interpolation) -> Tensor:
    """(B, C, H, W) to (B, C, factor H, factor W)."""
    if factor == 1:
        return x
    aligned = None if mode == "nearest" else False
    return nn.functional.interpolate(x, scale_factor=float(factor), mode=mode, align_corners=aligned)


def concatenate(tensors: list[Tensor]) -> Tensor:
    """Concatenate feature maps of one size along the channels; a single one is returned as it is."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=1)
