"""Tensors in, tensors out: architectures, encoders, losses. Never rasters.

`build` gives a network by name; `ARCHITECTURES` and `LOSSES` are plain dicts to which one line adds another.
"""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from landscribe.errors import NetworkError
from landscribe.nn.losses import LOSSES
from landscribe.nn.unet import UNet
from landscribe.spec import nearest

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
}

__all__ = ["ARCHITECTURES", "LOSSES", "build"]


def build(
    architecture: str,
    *,
    bands: int,
    classes: int,
    encoder: str = "resnet18",
    weights: str | None = None,
    **options: Any,
) -> nn.Module:
    """A network by name.

    Args:
        architecture: a key of `ARCHITECTURES`.
        bands: input channels C.
        classes: outputs K.
        encoder: name of a timm network that gives features.
        weights: "imagenet", a file of weights, or None for random ones.
        options: the architecture's own.

    Returns:
        A module from (B, C, H, W) of any size to logits (B, K, H, W). `built_from` holds the arguments
        that build it again (without weights), `reduction` the input pixels per pixel of its deepest features.

    Raises:
        NetworkError: an unknown name (the nearest is offered) or option, or weights that do not fit.
    """
    if architecture not in ARCHITECTURES:
        raise NetworkError(f"unknown architecture '{architecture}'{nearest(architecture, list(ARCHITECTURES))}")
    arguments = {"bands": bands, "classes": classes, "encoder": encoder, **options}
    known = list(inspect.signature(ARCHITECTURES[architecture]).parameters)
    odd = [name for name in options if name not in known]
    if odd:
        raise NetworkError(f"{architecture} has no option '{odd[0]}' (train.options){nearest(odd[0], known)}")
    network = ARCHITECTURES[architecture](weights=weights, **arguments)
    network.built_from = {"architecture": architecture, **arguments}  # type: ignore[assignment]
    return network
