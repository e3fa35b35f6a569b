"""Encoders: timm's networks as pyramids of features.

Weights come through timm's own loading, from its hub or from a file; a stem of other than three bands is
adapted by timm.
"""

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import timm
from torch import Tensor, nn

from landscribe.errors import NetworkError
from landscribe.spec import nearest


class Encoder(nn.Module):
    """A timm network up to its last features: (B, C, H, W) to a list of (B, channels[i], H / reductions[i], …)."""

    def __init__(self, name: str, *, bands: int, weights: str | None = None) -> None:
        super().__init__()
        self.body = _timm_features(name, bands, weights)
        info: Any = self.body.feature_info
        self.channels: list[int] = info.channels()
        """Of each feature map, from fine to coarse."""
        self.reductions: list[int] = info.reduction()
        """Input pixels per pixel of each feature map."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features from fine to coarse."""
        features: list[Tensor] = self.body(images)
        return features


def _timm_features(name: str, bands: int, weights: str | None) -> nn.Module:
    if not timm.is_model(name):
        # timm has over a thousand: the nearest is named, not all of them.
        meant = nearest(name, timm.list_models()).split(" Known:")[0]
        raise NetworkError(f"unknown encoder '{name}'{meant} A backbone of timm was expected, such as resnet18.")
    source: dict[str, Any] = {"pretrained": weights is not None}
    if weights == "imagenet" and not (_is_cached(name) or _hub_answers(patience=10.0)):
        # Said here, at once: the hub's own client would retry for a minute first.
        raise NetworkError(
            f"ImageNet weights for '{name}' are not on this machine and their hub does not answer. "
            'Use weights = "none", a file of weights, or fetch them once where the hub can be reached.'
        )
    if weights not in (None, "imagenet"):
        source["pretrained_cfg_overlay"] = {"file": _existing(str(weights)), "num_classes": 1000}
    try:
        network: nn.Module = timm.create_model(name, features_only=True, in_chans=bands, **source)
    except (RuntimeError, OSError, ValueError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if weights is None:
            raise NetworkError(
                f"'{name}' gives no pyramid of features: {reason}. A convolutional backbone was expected."
            ) from error
        raise NetworkError(
            f"weights '{weights}' for '{name}' could not be loaded: {reason}. "
            'Use weights = "none", or a file of weights of this very encoder.'
        ) from error
    return network


def _existing(path: str) -> str:
    if not Path(path).is_file():
        raise NetworkError(f"weights '{path}' is neither 'auto', 'imagenet', 'none' nor a file. Give one of them.")
    return path


def choose_weights(wanted: str, encoder: str, *, patience: float = 3.0) -> tuple[str | None, str]:
    """Settle what "auto" means here and now.

    Args:
        wanted: "auto", "imagenet", "none", or a file.
        encoder: for which ImageNet weights may be in the local cache already.
        patience: seconds to wait for the hub.

    Returns:
        What `Encoder` takes, and one line that says what was chosen and why.
    """
    if wanted == "none":
        return None, "weights: none, trained from scratch"
    if wanted != "auto":
        return wanted, f"weights: {wanted}"
    if _is_cached(encoder) or _hub_answers(patience):
        return "imagenet", "weights: ImageNet"
    return None, "weights: none (ImageNet weights are not on this machine and their hub does not answer)"


def _is_cached(encoder: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(encoder)
    if config is None or not config.hf_hub_id:
        return False
    names = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(config.hf_hub_id, name), str) for name in names)


def _hub_answers(patience: float) -> bool:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((address.hostname, address.port or 443), timeout=patience):
            return True
    except OSError:
        return False
