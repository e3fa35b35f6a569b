"""Encoders: pyramids of features, from fine to coarse, of timm's networks or of plain convolution blocks."""

from typing import Any

import timm
import torch
from pydantic import Field
from torch import Tensor, nn

from landscribe.errors import NetworkError
from landscribe.nn.architectures.blocks import BlockStyle, Channels, ConvBlock, ConvStyle, DoubleConv
from landscribe.nn.encoders.dilation import dilate, pad_valid
from landscribe.nn.encoders.stems import adapt_stem
from landscribe.nn.encoders.weights import misfit, read_weights, require_all_loaded, require_weights
from landscribe.spec import Spec, nearest

PLAIN = "plain"
"""Name of the encoder that the papers draw: convolution blocks with pooling between, trained from scratch."""
_FIRST_WIDTH = 64


class Encoder(nn.Module):
    """A timm network up to its last features: (B, C, H, W) to a list of (B, channels[i], H / reductions[i], …)."""

    widths: tuple[int, ...] = ()

    def __init__(
        self, name: str, *, bands: int, weights: str | None = None, band_names: tuple[str, ...] = (),
        depth: int | None = None, output_stride: int | None = None,
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
            NetworkError: an unknown name, no convolutional backbone, or weights that cannot be had or do not fit.
        """
        super().__init__()
        if not timm.is_model(name):
            # timm has over a thousand: the nearest is named, not all of them.
            meant = nearest(name, [*timm.list_models(), PLAIN]).split(" Known:")[0]
            raise NetworkError(f"unknown encoder '{name}'{meant} A backbone of timm was expected, such as resnet18.")
        require_weights(name, weights)
        names = band_names or tuple(f"band {number}" for number in range(1, bands + 1))
        self.body = _timm_features(name, bands if weights is None else 3, weights, depth)
        if weights is not None:
            adapt_stem(self.body, names)
        info: Any = self.body.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        """Of each feature map, from fine to coarse."""
        self.reductions: tuple[int, ...] = tuple(info.reduction())
        """Input pixels per pixel of each feature map."""
        if self._odd(bands) is not None:
            pad_valid(self.body)
        self._require_pyramid(bands, f"'{name}' gives no pyramid of features")
        if output_stride is not None and self.reductions[-1] > output_stride:
            dilate(self.body, output_stride, channels=bands)
            self.reductions = tuple(min(reduction, output_stride) for reduction in self.reductions)
            self._require_pyramid(bands, f"'{name}' cannot be dilated to an output stride of {output_stride}")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features from fine to coarse."""
        features: list[Tensor] = self.body(images)
        return features

    def _require_pyramid(self, bands: int, complaint: str) -> None:
        reason = self._odd(bands)
        if reason is not None:
            raise NetworkError(f"{complaint}: {reason}. A convolutional backbone was expected, such as resnet50.")

    def _odd(self, bands: int) -> str | None:
        """What is wrong with the features of an image of whole cells; None if each lies over the pixels it is of."""
        side = 4 * self.reductions[-1]
        training = self.training
        try:
            with torch.inference_mode():
                features = self.eval()(torch.zeros(1, bands, side, side))
        # What is no pyramid fails in ways of its own.
        except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
            return f"it does not take images of {side} x {side} ({str(error).strip().splitlines()[0][:120]})"
        finally:
            self.train(training)
        shapes = [tuple(feature.shape[1:]) for feature in features]
        expected = [(c, side // r, side // r) for c, r in zip(self.channels, self.reductions, strict=True)]
        return None if shapes == expected else f"its features are {shapes}, not {expected}"


class EncoderStyle(BlockStyle):
    """Choices for architectures that stand on an encoder."""

    depth: int | None = Field(None, ge=1, le=7)
    """How often the encoder halves; 4 for the plain one, all of a backbone's scales, if left out."""
    encoder_widths: tuple[Channels, ...] = ()
    """Channels of the plain encoder's blocks, fine to coarse, the bottleneck last; doubling from 64 if left out."""


class PlainEncoder(nn.Module):
    """Blocks of 3 x 3 convolutions with 2 x 2 max pooling between: the features of every block, fine to coarse."""

    def __init__(
        self, bands: int, widths: tuple[int, ...], style: ConvStyle, *, convolutions: int, weights: str | None
    ) -> None:
        super().__init__()
        require_weights(PLAIN, weights)
        pairs = zip((bands, *widths), widths, strict=False)
        self.blocks = nn.ModuleList(
            DoubleConv(pair, style) if isinstance(style, BlockStyle) and convolutions == 2 else ConvBlock(pair, style)
            for pair in pairs
        )
        self.widths = self.channels = widths
        self.reductions = tuple(2**scale for scale in range(len(widths)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features from full size on."""
        features = [self.blocks[0](images)]
        for block in list(self.blocks)[1:]:
            features.append(block(nn.functional.max_pool2d(features[-1], 2)))
        return features


def plain_widths(given: tuple[int, ...], depth: int | None, *, default: int) -> tuple[int, ...]:
    """Channels of the plain encoder's blocks.

    Raises:
        NetworkError: widths of a depth other than the one given, or too few.
    """
    if given and (len(given) < 2 or depth not in (None, len(given) - 1)):
        raise NetworkError(
            f"encoder_widths {list(given)} are of depth {len(given) - 1}, depth is {depth or 'not given'}. One width "
            "more than the depth, and at least two, were expected."
        )
    return given or tuple(_FIRST_WIDTH * 2**scale for scale in range((depth or default) + 1))


def require_plain(encoder: str, options: Spec, *names: str) -> None:
    """Refuse options of the plain encoder where there is a backbone.

    Raises:
        NetworkError: one of `names` was given.
    """
    given = [name for name in names if name in options.model_fields_set]
    if encoder != PLAIN and given:
        raise NetworkError(f"{given[0]} is of the plain encoder, but the encoder is '{encoder}'. Leave one out.")


def encoder_of(
    name: str, bands: int, weights: str | None, band_names: tuple[str, ...], style: EncoderStyle
) -> Encoder | PlainEncoder:
    """The encoder of that name: timm's, or the plain one with blocks of two convolutions.

    Raises:
        NetworkError: as `Encoder`, or options that contradict one another.
    """
    require_plain(name, style, "encoder_widths")
    if name == PLAIN:
        widths = plain_widths(style.encoder_widths, style.depth, default=4)
        return PlainEncoder(bands, widths, style, convolutions=2, weights=weights)
    return Encoder(name, bands=bands, weights=weights, band_names=band_names, depth=style.depth)


def _timm_features(name: str, bands: int, weights: str | None, depth: int | None) -> nn.Module:
    source: dict[str, Any] = {"pretrained": weights is not None, "in_chans": bands}
    if weights not in (None, "imagenet"):
        source["pretrained_cfg_overlay"] = {"state_dict": read_weights(str(weights)), "num_classes": 1000}
    try:
        network: Any = timm.create_model(name, features_only=True, **source)
        reductions = network.feature_info.reduction()
        kept = [place for place, scale in enumerate(reductions) if depth is None or scale <= 2**depth]
        if not kept:
            raise NetworkError(f"'{name}' begins at 1/{reductions[0]} of the size: depth {depth} leaves nothing.")
        if len(kept) < len(reductions):
            network = timm.create_model(name, features_only=True, out_indices=tuple(kept), **source)
    except (RuntimeError, OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise _unusable(name, weights, error) from error
    if weights not in (None, "imagenet"):
        require_all_loaded(str(weights), name, network)
    features: nn.Module = network
    return features


def _unusable(name: str, weights: str | None, error: Exception) -> NetworkError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if weights is None:
        return NetworkError(
            f"'{name}' gives no pyramid of features: {reason}. A convolutional backbone was expected, such as resnet50."
        )
    if weights != "imagenet":
        reason = misfit(weights, name) or reason
    return NetworkError(
        f"weights '{weights}' for '{name}' could not be loaded: {reason}. "
        'Use weights = "none", or a file of weights of this very encoder.'
    )
