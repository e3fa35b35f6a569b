"""Tensors in, tensors out: architectures, encoders, losses. Never rasters.

`build` gives a network by name; `ARCHITECTURES` and `LOSSES` are plain dicts to which one line adds another.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeGuard

from landscribe.errors import NetworkError, RecipeError
from landscribe.nn.architectures.deeplabv3plus import DeepLabV3Plus
from landscribe.nn.architectures.external import build_external, is_external
from landscribe.nn.architectures.fcn import FCN
from landscribe.nn.architectures.unet import UNet
from landscribe.nn.architectures.unet_id import UNetID
from landscribe.nn.architectures.unetplusplus import UNetPlusPlus
from landscribe.nn.encoders.freezing import freeze, unfreeze
from landscribe.nn.encoders.weights import IMAGENET, Weights
from landscribe.nn.losses import LOSSES
from landscribe.nn.meta_device import require_weights_memory
from landscribe.nn.segmentation import Segmentation
from landscribe.nn.summary import summary
from landscribe.spec import nearest

ARCHITECTURES: dict[str, Callable[..., Segmentation]] = {
    "fcn": FCN,
    "unet": UNet,
    "unetplusplus": UNetPlusPlus,
    "deeplabv3plus": DeepLabV3Plus,
    "unet_id": UNetID,
}

__all__ = [
    "ARCHITECTURES", "LOSSES", "Segmentation", "build", "freeze", "require_memory_to_build", "summary", "unfreeze",
]  # fmt: skip

_MAX_CHANNELS = 10**6
"""Bands or classes of a network."""


def build(
    architecture: str,
    *,
    bands: int | Sequence[str],
    classes: int,
    encoder: str = "resnet18",
    weights: str | None = None,
    weights_bands: Sequence[str] | str = (),
    **options: Any,
) -> Segmentation:
    """Build a network by name.

    Args:
        architecture: a key of `ARCHITECTURES`, "smp:Name" of segmentation-models-pytorch, or "module:Class".
        bands: number C of input bands, or their names, by which a pretrained stem is adapted.
        classes: number K of classes.
        encoder: name of a timm backbone, or "plain" for the encoder of the architecture's paper.
        weights: "imagenet", a file of weights, or None for random ones.
        weights_bands: bands of that file: the name of a table (`nn.encoders.sensors.TABLES`), or names in the order of
            the file, as a list or with commas between. Default: red, green and blue.
        options: options of the architecture.

    Returns:
        A module from (B, C, H, W) of any size to logits (B, K, H, W). `built_from` holds the arguments that build it
        again without weights, `reduction` the input pixels per pixel of its deepest features.

    Raises:
        NetworkError: an unknown name (the message offers the nearest), bands or classes of another type, an unknown
            option or one without effect, or weights that do not fit.
        ResourceError: the weights need more memory than this machine has.

    >>> import torch
    >>> network = build("unet", encoder="plain", bands=4, classes=3, encoder_widths=[8, 16])
    >>> tuple(network(torch.rand(1, 4, 100, 120)).shape)
    (1, 3, 100, 120)
    >>> network.head_channels
    {'classes': 3}
    """
    band_names = () if _is_count(bands) else _names(bands)
    count = int(bands) if _is_count(bands) else len(band_names)
    if not _is_count(classes):
        raise NetworkError(f"classes is {classes!r}. Expected the number of classes, such as 2.")
    classes = int(classes)
    if not (1 <= count <= _MAX_CHANNELS and 1 <= classes <= _MAX_CHANNELS):
        raise NetworkError(f"got bands = {count} and classes = {classes}. Expected 1 to {_MAX_CHANNELS} of each.")
    if not isinstance(encoder, str):
        raise NetworkError(f"encoder is {encoder!r}. Expected the name of a timm backbone, such as resnet18, or plain.")
    if "band_names" in options:
        raise NetworkError(f"{architecture} has no option 'band_names'. Give the names as bands.")
    arguments: dict[str, Any] = {"bands": count, "classes": classes, "encoder": encoder, **options}
    require_memory_to_build(architecture, arguments)
    if weights_bands and weights in (None, IMAGENET):
        raise NetworkError(f"weights_bands names the bands of a file, but weights is {weights!r}. Leave it out.")
    if isinstance(weights_bands, str):
        weights_bands = weights_bands.split(",")
    pretrained = None if weights is None else Weights(weights, tuple(weights_bands))
    network = _built(architecture, arguments, pretrained, band_names)
    network.built_from = {"architecture": architecture, **arguments}
    return network


def _is_count(value: Any) -> TypeGuard[int]:
    """True for a whole number, of numpy too; a truth value counts nothing."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _names(bands: Any) -> tuple[str, ...]:
    """Names of bands; raises NetworkError for anything else, and for a name that occurs twice."""
    names = () if isinstance(bands, str) or not isinstance(bands, Iterable) else tuple(bands)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise NetworkError(
            f"bands is {bands!r}. Expected their number, such as 3, or a list of different names, such as "
            "['red', 'green', 'blue']."
        )
    return names


def require_memory_to_build(
    architecture: str, arguments: Mapping[str, Any], *, purpose: str = "", copies: int = 1
) -> None:
    """Raise ResourceError if a network with large options needs more memory than this machine has.

    Args:
        architecture: as for `build`.
        arguments: bands (their number), classes, encoder and options of `build`.
        purpose: what the network is built for, such as "training".
        copies: numbers in memory for each weight: 1 for the weights alone, more for training.
    """
    require_weights_memory(
        lambda: _built(architecture, arguments, None, ()), arguments, f"{purpose} {architecture}".strip(), copies=copies
    )


def _built(
    architecture: str, arguments: Mapping[str, Any], weights: Weights | None, band_names: tuple[str, ...]
) -> Segmentation:
    if architecture in ARCHITECTURES:
        try:
            return ARCHITECTURES[architecture](weights=weights, band_names=band_names, **arguments)
        except RecipeError as error:
            raise NetworkError(f"{architecture} (train.options): {error}") from None
    if is_external(architecture):
        return build_external(architecture, weights=weights, band_names=band_names, **arguments)
    raise NetworkError(f"unknown architecture '{architecture}'{nearest(architecture, list(ARCHITECTURES))}")
