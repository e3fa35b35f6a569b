"""Stems for any bands: pretrained first convolutions, adapted by the names of their bands and of the image's."""

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from landscribe.errors import NetworkError, counted, listed
from landscribe.nn.encoders.sensors import RGB, FileBands, common_names

log = logging.getLogger(__name__)

_SIDE = 64
"""Side in pixels of the image by which the layers that read it are found."""
_SAME = 30
"""Bands whose central wavelengths differ by at most so many nanometres count as one band of different sensors."""
# Region of the spectrum and central wavelength in nm of the bands, by the common names of STAC and by usual names.
# Polarisations of radar are regions of their own. Only bands of one region resemble each other.
_SPECTRUM: tuple[tuple[str, str, float], ...] = (
    (r"coastal.*|aerosol|violet", "visible", 443),
    (r"b|blue", "visible", 490),
    (r"green ?ii?|green_i+", "visible", 531),
    (r"g|green", "visible", 560),
    (r"yellow", "visible", 600),
    (r"r|red", "visible", 665),
    (r"(?:red ?-?_?edge|re|vre)[ _-]?(?:2|075)", "visible", 740),
    (r"(?:red ?-?_?edge|re|vre)[ _-]?(?:3|078)", "visible", 783),
    (r"red ?-?_?edge.*|re[0-9]*|vre.*", "visible", 705),
    (r"nir08|nir[ _-]?narrow|narrow[ _-]?nir", "visible", 865),
    (r"nir09|water[ _-]?vapou?r", "visible", 945),
    (r"n|ir|nir.*|near.?infra.?red.*", "visible", 842),
    (r"cirrus", "short-wave infrared", 1375),
    (r"swir[ _-]?(?:1|16)", "short-wave infrared", 1610),
    (r"swir[ _-]?(?:2|22)", "short-wave infrared", 2200),
    (r"swir.*|short.?wave.*", "short-wave infrared", 1900),
    (r"lwir11|tir[ _-]?1", "thermal infrared", 10900),
    (r"lwir12|tir[ _-]?2", "thermal infrared", 12000),
    (r"lwir.*|tir.*|thermal.*", "thermal infrared", 11450),
    (r"vv|hh", "co-polarised radar", 0),
    (r"vh|hv", "cross-polarised radar", 0),
    (r"pan.*|gr[ae]y.*", "panchromatic", 0),
)


def resemblance(bands: Sequence[str], file: FileBands | None = None) -> Tensor:
    """How much of the kernel of each band in a file of weights each band of an image takes: (bands, N).

    - A band takes the kernel of the same band of the file: of the same name, or the nearest within 30 nm of it.
    - A band that the file lacks takes the mean of its neighbours in wavelength, one on either side, in its region of
      the spectrum; the mean of all if there are none.
    - The kernel of each band in the file is shared in proportion among the bands that take it. One that no band takes
      goes to the bands of the image by the same rule: the same band, or neighbours, or all.

    Law: every column sums to 1. So an image with equal bands gives the same features as one with equal bands of the
    file, and the order of the bands of either changes nothing.

    Args:
        bands: names of the image's bands. Without known names, three bands or more begin with red, green and blue, if
            these are the bands of the file.
        file: the bands of the file; red, green and blue by default.

    >>> resemblance(["blue", "green", "red", "nir"])[:, 0]
    tensor([0.0000, 0.0000, 0.5000, 0.5000])
    """
    file = file or FileBands(RGB)
    names, known = _names(bands, file), file.bands
    shares = torch.tensor([_mixture(name, known) or _even(known) for name in names])
    columns = shares.sum(0)
    dropped = torch.tensor([_mixture(name, names) or _even(names) for name in known]).T
    return torch.where(columns > 0, shares / columns.clamp(min=1e-9), dropped)


def sources(bands: Sequence[str], file: FileBands) -> list[list[float] | None]:
    """The mixture (N,) of the file's bands that each band of an image is; None if it resembles none of them."""
    return [_mixture(name, file.bands) for name in _names(bands, file)]


def normalisation(
    bands: Sequence[str], mean: Sequence[float], deviation: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation that each band should have for a stem adapted from red, green and blue.

    Each is the mean over red, green and blue, weighted by the band's shares of their kernels.
    """
    shares = resemblance(bands)
    shares = shares / shares.sum(dim=1, keepdim=True)
    return (shares @ torch.tensor(mean)).tolist(), (shares @ torch.tensor(deviation)).tolist()


def _names(bands: Sequence[str], file: FileBands) -> tuple[str, ...]:
    names = common_names(bands, file.sensor)
    if len(names) >= 3 and file.bands == RGB and not any(map(_spectrum, names)):
        # Without names, three bands or more begin with red, green and blue, as most files do.
        return (*RGB, *names[3:])
    return names


def _spectrum(name: str) -> tuple[str, float] | None:
    """Region and central wavelength of a band; None for an unknown name."""
    found = next((entry for entry in _SPECTRUM if re.fullmatch(entry[0], name)), None)
    return found and found[1:]


def _mixture(name: str, others: Sequence[str]) -> list[float] | None:
    """Shares, which sum to 1, of the others that a band is or lies between; None if it resembles none of them."""
    own = _spectrum(name)
    if own is None:
        return _shares([other == name for other in others])
    spectra = [_spectrum(other) for other in others]
    offsets = [float("nan") if other is None or other[0] != own[0] else other[1] - own[1] for other in spectra]
    within = [abs(offset) for offset in offsets if abs(offset) <= _SAME]
    if within:
        # Of one name, before another band of the same wavelength, such as VV before HH.
        named = [other == name for other in others]
        return _shares(named if any(named) else [abs(offset) == min(within) for offset in offsets])
    below = max((offset for offset in offsets if offset < 0), default=None)
    above = min((offset for offset in offsets if offset > 0), default=None)
    return _shares([offset in (below, above) for offset in offsets])


def _shares(chosen: Sequence[bool]) -> list[float] | None:
    count = sum(chosen)
    return [is_chosen / count for is_chosen in chosen] if count else None


def _even(others: Sequence[str]) -> list[float]:
    return [1 / len(others)] * len(others)


def image_convolutions(body: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """Names and modules of the convolutions that read the image, in the order of their calls.

    Most networks have one; those with parallel branches in their stem, such as RepVGG, have several. Empty if layers of
    other kinds read the image, too, or alone.

    Args:
        body: a network of three bands, with weights or on the meta device.
    """
    readers = _image_readers(body)
    convolutions = [(name, module) for name, module in readers if isinstance(module, nn.Conv2d)]
    others = [module for _, module in readers if not isinstance(module, nn.Conv2d)]
    if convolutions or any(True for module in others for _ in module.parameters()):
        return [] if others else convolutions
    # The image is padded or resized first.
    first = next(((name, part) for name, part in body.named_modules() if isinstance(part, nn.Conv2d)), None)
    return [] if first is None else [first]


def _image_readers(body: nn.Module) -> list[tuple[str, nn.Module]]:
    """Layers whose input is the image itself, by one pass over a black image."""
    layers = {part: name for name, part in body.named_modules() if not any(True for _ in part.children())}
    like = next(body.parameters(), torch.zeros(0))
    modes = [(part, part.training) for part in body.modules()]
    size = (getattr(body, "default_cfg", None) or {}).get("input_size", ())[-2:]
    found: list[nn.Module] = []
    body.eval()
    # Some networks take images of their own size only.
    for sides in filter(None, ((_SIDE, _SIDE), size)):
        image = like.new_zeros(1, 3, *sides)

        def note(part: nn.Module, inputs: tuple[Any, ...], output: Any, image: Tensor = image) -> None:
            # Dropout and the like pass the image on.
            if inputs and inputs[0] is image and output is not image and part not in found:
                found.append(part)

        hooks = [part.register_forward_hook(note) for part in layers]
        # A network may refuse the size behind its stem, in any way.
        with torch.no_grad(), suppress(Exception):
            body(image)
        for hook in hooks:
            hook.remove()
        if found:
            break
    for part, training in modes:
        part.training = training
    return [(layers[part], part) for part in found]


def adapt_stem(
    body: nn.Module, bands: Sequence[str], file: FileBands | None = None, kernels: Sequence[Tensor] | None = None
) -> None:
    """Replace the convolutions of a network that read the image by convolutions for `bands`, in place.

    Args:
        body: a network that begins with a convolution of three channels, or with several in parallel.
        bands: names of the image's bands.
        file: the N bands of the file of weights; red, green and blue by default.
        kernels: pretrained weights (O, N, h, w) of each of these convolutions; those of the network by default.

    Raises:
        NetworkError: the network does not begin with convolutions of three channels, or the file names its bands and
            none of the image's resembles any of them.
    """
    file = file or FileBands(RGB)
    stems = [module for _, module in image_convolutions(body)]
    if not stems or any(stem.in_channels != 3 for stem in stems):
        raise NetworkError(
            "the encoder does not begin with a convolution of red, green and blue. Its weights cannot be adapted to "
            f"{counted(len(bands), 'band')}. Use another encoder, or "
            'weights = "none".'
        )
    if file.bands != RGB and not any(sources(bands, file)):
        raise NetworkError(
            f"none of the bands {', '.join(bands)} resembles a band of the weights ({', '.join(file.bands)}). Name the "
            'bands of the image (--bands; in a recipe: bands), or use weights = "none".'
        )
    image = _names(bands, file)
    if unknown := [name for name in file.bands if _spectrum(name) is None and name not in image]:
        log.warning(
            "%s of the bands of the weights (weights_bands) is neither a known name nor a band of the image (%s): all "
            "bands share its kernels. Check the spelling", listed(unknown), ", ".join(bands),
        )  # fmt: skip
    for stem, given in zip(stems, kernels or [stem.weight.detach() for stem in stems], strict=True):
        known = given.to(stem.weight)
        adapted = torch.einsum("bc,ochw->obhw", resemblance(bands, file).to(known), known)
        stem.in_channels = len(bands)
        stem.weight = nn.Parameter(adapted.contiguous())
