"""Networks with known classes, and maps by them."""

from pathlib import Path

import torch
from torch import Tensor, nn

from landscribe.maps.output_paths import OutputPaths
from landscribe.prediction.mapping import write_map
from landscribe.prediction.plan import MapPlan, Planner


def plan_map(model, raster, spec, out: OutputPaths, *, ensemble=(), windows=None) -> MapPlan:
    """The plan of the map of one raster, or of windows of it."""
    return Planner.of(model, spec, out, ensemble).plan(raster, out, windows)


def predict(model, raster, out: Path, *, spec, ensemble=(), overwrite=False, **layers: Path) -> Path:
    """Map one raster by a plan of its own; `layers` are further fields of OutputPaths."""
    plan = plan_map(model, raster, spec, OutputPaths(out, **layers), ensemble=ensemble)
    return write_map(plan, overwrite=overwrite)


class Identity(nn.Module):
    """Class k where the first band's pixel is k."""

    reduction = 1

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([-(x[:, 0] - k).abs() for k in range(self.classes)], dim=1)


class Brightness(nn.Module):
    """Class k where the mean of a 2 x 2 cell of the raster's lattice is nearest to k: tells misaligned tiles."""

    reduction = 2

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        cells = nn.functional.avg_pool2d(x[:, :1], 2)
        means = nn.functional.interpolate(cells, scale_factor=2, mode="nearest")[:, 0]
        return torch.stack([-(means - k).abs() for k in range(self.classes)], dim=1)


class Blur(nn.Module):
    """Class 1 where the mean of a square around the pixel is above a half; sees `radius` pixels far."""

    reduction = 1

    def __init__(self, radius: int = 3) -> None:
        super().__init__()
        self.radius = radius

    def forward(self, x: Tensor) -> Tensor:
        side = 2 * self.radius + 1
        mean = nn.functional.avg_pool2d(x[:, :1], side, stride=1, padding=self.radius)[:, 0]
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)


class Decaying(nn.Module):
    """Class 1 where more than half of the pixels around are bright; distant pixels count little, but without end."""

    reduction = 1

    def forward(self, x: Tensor) -> Tensor:
        # Zero where pixels are a half, as beyond the image.
        pixels = x[:, 0].double() - 0.5
        sums = _decaying_sums(pixels, length=4) + 0.01 * _decaying_sums(pixels, length=50)
        return torch.stack([-sums, sums], dim=1)


def _decaying_sums(pixels: Tensor, length: float) -> Tensor:
    """Sums around each pixel (B, H, W), with weights that fall by e in `length` pixels along each axis."""
    for _ in range(2):
        side = pixels.shape[-1]
        weights = torch.exp(-torch.arange(-side, side).double().abs() / length).roll(side)
        spectrum = torch.fft.rfft(pixels, 2 * side) * torch.fft.rfft(weights)
        pixels = torch.fft.irfft(spectrum, 2 * side)[..., :side].mT
    return pixels


class OneLayer(nn.Module):
    """A single 1 x 1 convolution to two classes."""

    reduction = 1

    def __init__(self, bands: int = 1) -> None:
        super().__init__()
        self.layer = nn.Conv2d(bands, 2, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Striding(nn.Module):
    """Somebody's own network: an encoder of cells of 4 pixels, and a way back."""

    reduction = 4

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(in_channels, 8, 4, stride=4), nn.BatchNorm2d(8), nn.ReLU())
        self.decoder = nn.ConvTranspose2d(8, num_classes, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class AboveTheMean(nn.Module):
    """Class 1 where a pixel is above the mean of all that the network is given: sees everything."""

    reduction = 1

    def forward(self, x: Tensor) -> Tensor:
        higher = x[:, 0] - x[:, 0].mean(dim=(1, 2), keepdim=True)
        return torch.stack([-higher, higher], dim=1)


class Wide(nn.Module):
    """Three convolutions of 1 x 1 pixels, of any width."""

    def __init__(self, bands: int, classes: int, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(bands, width, 1), nn.Conv2d(width, width, 1), nn.Conv2d(width, classes, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Nothing(nn.Module):
    """A class whose call gives None."""

    def __new__(cls, *_: object, **__: object) -> None:
        return None
