"""Tensors in, tensors out: architectures, encoders, losses. Never rasters.

`build` gives a network by name; `ARCHITECTURES` and `LOSSES` are plain dicts to which one line adds another.
"""

from collections.abc import Callable, Sequence
from typing import Any

from landscribe.errors import NetworkError, RecipeError
from landscribe.nn.architectures.deeplabv3plus import DeepLabV3Plus
from landscribe.nn.architectures.external import build_external, is_external
from landscribe.nn.architectures.fcn import FCN
from landscribe.nn.architectures.unet import UNet
from landscribe.nn.architectures.unet_id import UNetID
from landscribe.nn.architectures.unetplusplus import UNetPlusPlus
from landscribe.nn.encoders.freezing import freeze, unfreeze
from landscribe.nn.losses import LOSSES
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

__all__ = ["ARCHITECTURES", "LOSSES", "Segmentation", "build", "freeze", "summary", "unfreeze"]


def build(
    architecture: str,
    *,
    bands: int | Sequence[str],
    classes: int,
    encoder: str = "resnet18",
    weights: str | None = None,
    **options: Any,
) -> Segmentation:
    """A network by name.

    Args:
        architecture: a key of `ARCHITECTURES`, "smp:Name" for one of segmentation-models-pytorch, or "module:Class".
        bands: how many input channels C, or their names, by which a pretrained stem is adapted.
        classes: outputs K.
        encoder: name of a timm network that gives features, or "plain" for the one that the paper draws.
        weights: "imagenet", a file of weights, or None for random ones.
        options: the architecture's own.

    Returns:
        A module from (B, C, H, W) of any size to logits (B, K, H, W). `built_from` holds the arguments
        that build it again (without weights), `reduction` the input pixels per pixel of its deepest features.

    Raises:
        NetworkError: an unknown name (the nearest is offered) or option, or weights that do not fit.
    """
    band_names = () if isinstance(bands, int) else tuple(bands)
    if not bands or (isinstance(bands, int) and bands < 1) or classes < 1:
        raise NetworkError(f"{bands} bands and {classes} classes were given. At least one of each was expected.")
    if "band_names" in options:
        raise NetworkError(f"{architecture} has no option 'band_names'. Give the names as bands.")
    arguments: dict[str, Any] = {"bands": len(band_names) or bands, "classes": classes, "encoder": encoder, **options}
    if is_external(architecture):
        network: Segmentation = build_external(architecture, weights=weights, band_names=band_names, **arguments)
    elif architecture not in ARCHITECTURES:
        raise NetworkError(f"unknown architecture '{architecture}'{nearest(architecture, list(ARCHITECTURES))}")
    else:
        try:
            network = ARCHITECTURES[architecture](weights=weights, band_names=band_names, **arguments)
        except RecipeError as error:
            raise NetworkError(f"{architecture} (train.options): {error}") from None
    network.built_from = {"architecture": architecture, **arguments}
    return network
