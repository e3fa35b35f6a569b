"""Stems for any bands: a pretrained first convolution of red, green and blue, adapted by the names of the bands."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from landscribe.errors import NetworkError

RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_ALL = (1 / 3, 1 / 3, 1 / 3)
# Which colours a band resembles most, by the common names of STAC and the zero-padded codes of Sentinel-2. Vegetation
# is bright in near infrared and red edge like nothing visible, but their spatial structure is that of red.
_RESEMBLES: tuple[tuple[str, tuple[float, float, float]], ...] = (
    (r"r|red|b04", RED),
    (r"g|green|b03", GREEN),
    (r"b|blue|b02", BLUE),
    (r"coastal.*|aerosol|violet|b01", BLUE),
    (r"green ?ii?|green_i+", GREEN),
    (r"yellow", (0.5, 0.5, 0.0)),
    (r"red ?-?_?edge.*|re[0-9]*|vre.*|b05|b06|b07", RED),
    (r"n|ir|nir.*|near.?infra.?red.*|b08|b8a|b09", RED),
    (r"swir.*|short.?wave.*|pan.*|gr[ae]y.*|lwir.*|tir.*|thermal.*|b10|b11|b12", _ALL),
)


def resemblance(bands: Sequence[str]) -> Tensor:
    """How much of the red, green and blue kernels each band takes: (bands, 3).

    Each kernel is shared evenly among the bands that resemble its colour, or among all bands if none does. Law: every
    column sums to 1. So an image with equal bands gives the same features as in RGB, and red, green and blue in any
    order keep their kernels.

    >>> resemblance(["blue", "green", "red", "nir"])[:, 0]
    tensor([0.0000, 0.0000, 0.5000, 0.5000])
    """
    colours = [_colour_of(band) for band in bands]
    if len(bands) >= 3 and not any(colours):
        # Without names, three bands or more begin with red, green and blue, as most files do.
        colours[:3] = [RED, GREEN, BLUE]
    shares = torch.tensor([colour or _ALL for colour in colours])
    columns = shares.sum(0)
    return torch.where(columns > 0, shares / columns.clamp(min=1e-9), torch.full_like(shares, 1 / len(bands)))


def normalisation(
    bands: Sequence[str], mean: Sequence[float], deviation: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation that each band should have for a stem adapted from red, green and blue.

    Each is the mean over red, green and blue, weighted by the band's shares of their kernels.
    """
    shares = resemblance(bands)
    shares = shares / shares.sum(dim=1, keepdim=True)
    return (shares @ torch.tensor(mean)).tolist(), (shares @ torch.tensor(deviation)).tolist()


def _colour_of(band: str) -> tuple[float, float, float] | None:
    name = band.strip().lower()
    return next((colour for pattern, colour in _RESEMBLES if re.fullmatch(pattern, name)), None)


def adapt_stem(body: nn.Module, bands: Sequence[str]) -> None:
    """Replace the first convolution of an RGB network by one for `bands`, in place.

    Raises:
        NetworkError: the network does not begin with a convolution of three channels.
    """
    stem = next((part for part in body.modules() if isinstance(part, nn.Conv2d)), None)
    if stem is None or stem.in_channels != 3:
        raise NetworkError(
            "the encoder does not begin with a convolution of red, green and blue. Its weights cannot be adapted to "
            f'{len(bands)} bands. Use another encoder, or weights = "none".'
        )
    kernels = torch.einsum("bc,ochw->obhw", resemblance(bands), stem.weight.detach())
    stem.in_channels = len(bands)
    stem.weight = nn.Parameter(kernels.contiguous())
