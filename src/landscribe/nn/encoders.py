"""Encoders: pyramids of features, from fine to coarse, of timm's networks or of plain convolution blocks."""

import copy
from typing import Any

import timm
import torch
from torch import Tensor, nn

from landscribe.errors import NetworkError
from landscribe.nn.blocks import BlockStyle, ConvBlock, DoubleConv
from landscribe.nn.dilation import dilate, pad_valid
from landscribe.nn.stems import adapt_stem
from landscribe.nn.weights import misfit, require_all_loaded, require_weights
from landscribe.spec import nearest

PLAIN = "plain"
"""Name of the encoder that the papers draw: convolution blocks with pooling between, trained from scratch."""
_FIRST_WIDTH = 64


class Encoder(nn.Module):
    """A timm network up to its last features: (B, C, H, W) to a list of (B, channels[i], H / reductions[i], …)."""

    widths: tuple[int, ...] = ()

    def __init__(
        self, name: str, *, bands: int, weights: str | None = None, band_names: tuple[str, ...] = (),
        depth: int | None = None, output_stride: int = 32,
    ) -> None:  # fmt: skip
        """Build it.

        Args:
            name: one of `timm.list_models()` that gives features.
            bands: C.
            weights: "imagenet", a file, or None.
            band_names: of the C bands; by them a pretrained stem is adapted.
            depth: how often it may halve; what is deeper is left out.
            output_stride: input pixels per pixel of the deepest features; what would halve further is dilated.

        Raises:
            NetworkError: an unknown name, or weights that cannot be had or do not fit.
        """
        super().__init__()
        require_weights(name, weights)
        names = band_names or tuple(f"band {number}" for number in range(1, bands + 1))
        self.body = _timm_features(name, bands if weights is None else 3, weights, depth)
        if weights is not None:
            adapt_stem(self.body, names)
        pad_valid(self.body)
        info: Any = self.body.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        """Of each feature map, from fine to coarse."""
        self.reductions: tuple[int, ...] = tuple(min(reduction, output_stride) for reduction in info.reduction())
        """Input pixels per pixel of each feature map."""
        if info.reduction()[-1] > output_stride:
            _dilated(self.body, name, output_stride, bands)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features from fine to coarse."""
        features: list[Tensor] = self.body(images)
        return features


class PlainStyle(BlockStyle):
    """Choices for architectures that have an encoder of their own."""

    encoder_widths: tuple[int, ...] = ()
    """Channels of the plain encoder's blocks, fine to coarse, the bottleneck last; doubling from 64 if left out."""


class PlainEncoder(nn.Module):
    """Blocks of 3 x 3 convolutions with 2 x 2 max pooling between: the features of every block, fine to coarse."""

    def __init__(self, bands: int, widths: tuple[int, ...], style: BlockStyle, *, convolutions: int) -> None:
        super().__init__()
        pairs = zip((bands, *widths), widths, strict=False)
        self.blocks = nn.ModuleList(
            DoubleConv(pair, style) if convolutions == 2 else ConvBlock(pair, style) for pair in pairs
        )
        self.widths = self.channels = widths
        self.reductions = tuple(2**scale for scale in range(len(widths)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features from full size on."""
        features = [self.blocks[0](images)]
        for block in list(self.blocks)[1:]:
            features.append(block(nn.functional.max_pool2d(features[-1], 2)))
        return features


def encoder_of(
    name: str, bands: int, weights: str | None, band_names: tuple[str, ...], *, style: PlainStyle, depth: int | None,
    convolutions: int,
) -> Encoder | PlainEncoder:  # fmt: skip
    """The encoder of that name: timm's, or the plain one with `depth` poolings.

    Raises:
        NetworkError: as `Encoder`, or weights for the plain one.
    """
    if name != PLAIN:
        return Encoder(name, bands=bands, weights=weights, band_names=band_names, depth=depth)
    if weights is not None:
        raise NetworkError(f"there are no weights for the plain encoder, but '{weights}' was given. Use \"none\".")
    widths = style.encoder_widths or tuple(_FIRST_WIDTH * 2**scale for scale in range((depth or 0) + 1))
    return PlainEncoder(bands, widths, style, convolutions=convolutions)


def _timm_features(name: str, bands: int, weights: str | None, depth: int | None) -> nn.Module:
    if not timm.is_model(name):
        # timm has over a thousand: the nearest is named, not all of them.
        meant = nearest(name, [*timm.list_models(), PLAIN]).split(" Known:")[0]
        raise NetworkError(f"unknown encoder '{name}'{meant} A backbone of timm was expected, such as resnet18.")
    source: dict[str, Any] = {"pretrained": weights is not None, "in_chans": bands}
    if weights not in (None, "imagenet"):
        source["pretrained_cfg_overlay"] = {"file": weights, "num_classes": 1000}
    try:
        network: Any = timm.create_model(name, features_only=True, **source)
        scales = [scale for scale in network.feature_info.reduction() if depth is None or scale <= 2**depth]
        if len(scales) < len(network.feature_info.reduction()):
            indices = tuple(range(len(scales)))
            network = timm.create_model(name, features_only=True, out_indices=indices, **source)
    except (RuntimeError, OSError, ValueError, AttributeError, KeyError) as error:
        raise _unusable(name, weights, error) from error
    if weights not in (None, "imagenet"):
        require_all_loaded(str(weights), name, network)
    features: nn.Module = network
    return features


def _dilated(body: nn.Module, name: str, output_stride: int, bands: int) -> None:
    dilate(body, output_stride, channels=bands)
    side = 4 * output_stride
    try:
        with torch.inference_mode():
            features = copy.deepcopy(body).eval()(torch.zeros(1, bands, side, side))
    except RuntimeError as error:
        raise NetworkError(
            f"'{name}' cannot be dilated to an output stride of {output_stride}, since its branches have sizes of "
            "their own. Use a backbone with one path, such as resnet50."
        ) from error
    assert features[-1].shape[-1] == 4, "the last features stand for output_stride pixels"


def _unusable(name: str, weights: str | None, error: Exception) -> NetworkError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if weights is None:
        return NetworkError(f"'{name}' gives no pyramid of features: {reason}. A convolutional backbone was expected.")
    if weights != "imagenet":
        reason = misfit(weights, name) or reason
    return NetworkError(
        f"weights '{weights}' for '{name}' could not be loaded: {reason}. "
        'Use weights = "none", or a file of weights of this very encoder.'
    )
