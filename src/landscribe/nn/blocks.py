"""The pieces that architectures share."""

from torch import Tensor, nn


class ConvBlock(nn.Sequential):
    """3 x 3 convolution, batch normalisation, ReLU: (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            # No bias: the normalisation behind it has one.
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest-neighbour resizing to (height, width); nothing to do for equal sizes."""
    return x if x.shape[-2:] == size else nn.functional.interpolate(x, size=size, mode="nearest")
