"""Encoders: pyramids of features, from fine to coarse, of timm's networks or of plain convolution blocks."""

import logging
from functools import partial
from typing import Any

import timm
import torch
from pydantic import Field
from torch import Tensor, nn

from landscribe.errors import NetworkError, first_line
from landscribe.nn.architectures.blocks import MAX_SCALES, BlockStyle, Channels, ConvBlock, ConvStyle, DoubleConv
from landscribe.nn.encoders.dilation import dilate, pad_valid
from landscribe.nn.encoders.stems import adapt_stem
from landscribe.nn.encoders.vision_transformer import (
    TokenPyramid,
    count_scales,
    is_vision_transformer,
    vision_transformer,
)
from landscribe.nn.encoders.weights import (
    EncoderFile,
    Weights,
    describe_mismatch,
    on_meta_device,
    read_encoder,
    require_all_loaded,
    require_weights,
)
from landscribe.nn.meta_device import shapes
from landscribe.spec import Spec, nearest

PLAIN = "plain"
"""Name of the papers' own encoder: convolution blocks with pooling between them, trained from scratch."""
_FIRST_WIDTH = 64
_EXPECTED = (
    "Expected a convolutional backbone, such as resnet50, or a vision transformer, such as vit_small_patch16_dinov3."
)
_MULTIPLES: dict[tuple[Any, ...], int] = {}
"""`Encoder.multiple` of backbones, by name, bands and geometry. It does not depend on weights, and to find it again
takes a third of the time in which a model is loaded."""
_MOST = 64
"""Pixels: the largest multiple that is tried, if the deepest features have fewer."""
_ERRORS = (RuntimeError, AssertionError, OSError, ValueError, AttributeError, LookupError, TypeError)
"""What timm's networks raise for settings or images that do not suit them."""
_FIXED_SIDE = 256
"""Pixels. Networks with positions for images of one size, often of 224 pixels, do not take more than that."""


class Encoder(nn.Module):
    """A timm network up to its last features: (B, C, H, W) to a list of (B, channels[i], H / reductions[i], …)."""

    widths: tuple[int, ...] = ()

    def __init__(
        self, name: str, *, bands: int, weights: str | Weights | None = None, band_names: tuple[str, ...] = (),
        depth: int | None = None, output_stride: int | None = None,
    ) -> None:  # fmt: skip
        """Build the timm network and adapt its stem.

        Args:
            name: a name of `timm.list_models()` that supports `features_only`, or of a vision transformer.
            bands: number C of bands.
            weights: "imagenet", a file (with the names of its bands, or of red, green and blue), or None.
            band_names: names of the C bands, by which a pretrained stem is adapted.
            depth: number of halvings; deeper stages are removed.
            output_stride: input pixels per pixel of the deepest features; later stages are dilated.

        Raises:
            NetworkError: an unknown name, a backbone without a pyramid of features, or weights that are missing or do
                not fit.
        """
        super().__init__()
        if not timm.is_model(name):
            # Only the nearest name: timm has over a thousand.
            hint = nearest(name, [*timm.list_models(), PLAIN]).split(" Known:")[0]
            raise NetworkError(f"unknown encoder '{name}'{hint} Expected a timm backbone, such as resnet18.")
        names = band_names or tuple(f"band {index}" for index in range(1, bands + 1))
        self.body: Any = _timm_body(name, bands, names, Weights.of(weights), depth)
        """The network of timm, to which weights and freezing apply."""
        self.pyramid: TokenPyramid | None = None
        """Layers that bring the tokens of a vision transformer to a pyramid. They always learn."""
        self.channels: tuple[int, ...] = ()
        """Channels of each feature map, from fine to coarse."""
        self.reductions: tuple[int, ...] = ()
        """Input pixels per pixel of each feature map."""
        self.multiple = 1
        """Sides of images are multiples of so many pixels: of the deepest features, or more, such as for HRNet, whose
        coarser branches run even if their features are not taken."""
        self.removed: dict[str, tuple[int, ...]] = {}
        """Shapes of the tensors, by name, of modules behind the deepest features: landscribe once kept them, and wrote
        them into model folders."""
        self._geometry: tuple[Any, ...] = (name, bands, depth)
        if is_vision_transformer(name):
            self._add_pyramid(name, bands, depth, output_stride)
        else:
            self._read_stages(name, bands, output_stride)
            if depth is not None:
                self._shorten(bands)

    def _add_pyramid(self, name: str, bands: int, depth: int | None, output_stride: int | None) -> None:
        self.pyramid = TokenPyramid(name, self.body, depth=depth, output_stride=output_stride)
        self.channels, self.reductions = self.pyramid.channels, self.pyramid.reductions
        self._geometry += (output_stride,)
        self._require_pyramid(bands, f"the tokens of '{name}' give no pyramid of features")

    def _read_stages(self, name: str, bands: int, output_stride: int | None) -> None:
        info: Any = self.body.feature_info
        self.channels, self.reductions = tuple(info.channels()), tuple(info.reduction())
        side = 4 * self.reductions[-1]
        if self._geometry not in _MULTIPLES and self._pyramid_error(bands, (side, side)) is not None:
            pad_valid(self.body)
            self._geometry += ("padded",)
        self._require_pyramid(bands, f"'{name}' has no pyramid of features")
        if output_stride is not None and self.reductions[-1] > output_stride:
            dilate(self.body, output_stride, channels=bands)
            self.reductions = tuple(min(reduction, output_stride) for reduction in self.reductions)
            self._geometry += (output_stride,)
            self._require_pyramid(bands, f"'{name}' cannot be dilated to an output stride of {output_stride}")

    def _shorten(self, bands: int) -> None:
        """Remove the modules that no feature map needs, and note their tensors in `removed`."""
        before, training = shapes(self.body), self.training
        _remove_unread(self.eval().body, torch.zeros(1, bands, 4 * self.multiple, 4 * self.multiple))
        self.train(training)
        after = shapes(self.body)
        self.removed = {name: shape for name, shape in before.items() if name not in after}

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features from fine to coarse."""
        features: list[Tensor] = self.body(images) if self.pyramid is None else self.pyramid(images, self.body)
        return features

    def use_only(self, *indices: int) -> None:
        """Remove the layers of feature maps with other indices, which a decoder does not read."""
        if self.pyramid is not None:
            self.pyramid.use_only(*indices)

    def _require_pyramid(self, bands: int, complaint: str) -> None:
        """Set `multiple` to the smallest that suits; raise NetworkError if there is none."""
        if self._geometry not in _MULTIPLES:
            least = self.reductions[-1]
            multiples = [least << doublings for doublings in range(1, 7) if least << doublings <= _MOST]
            reason = self._misfit(bands, least)
            fitting = (multiple for multiple in multiples if self._misfit(bands, multiple) is None)
            found = least if reason is None else next(fitting, None)
            if found is None:
                raise NetworkError(f"{complaint}: {reason}. {_EXPECTED}")
            _MULTIPLES[self._geometry] = found
        self.multiple = _MULTIPLES[self._geometry]

    def _misfit(self, bands: int, multiple: int) -> str | None:
        """The error in features of images whose sides are an even and an odd multiple; None if there is none."""
        odd = _FIXED_SIDE // multiple // 2 * 2 + 1
        sizes = (4 * multiple, 4 * multiple), (3 * multiple, odd * multiple)
        return next(filter(None, (self._pyramid_error(bands, size) for size in sizes)), None)

    def _pyramid_error(self, bands: int, size: tuple[int, int]) -> str | None:
        """The error in the shapes of the features; None if each feature map has its size and channels."""
        height, width = size
        training = self.training
        try:
            with torch.inference_mode():
                features = self.eval()(torch.zeros(1, bands, height, width))
        except _ERRORS as error:
            return f"it does not take images of {height} x {width} ({first_line(error)[:120]})"
        finally:
            self.train(training)
        actual = [tuple(feature.shape[1:]) for feature in features]
        expected = [(c, height // r, width // r) for c, r in zip(self.channels, self.reductions, strict=True)]
        return None if actual == expected else f"its features are {actual}, not {expected}"


def removed_tensors(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors, by their names in a network, that its encoders had in earlier versions."""
    encoders = [(prefix, part) for prefix, part in network.named_modules() if isinstance(part, Encoder)]
    return {f"{prefix}.body.{name}": shape for prefix, part in encoders for name, shape in part.removed.items()}


class EncoderStyle(BlockStyle):
    """Options of architectures with an encoder."""

    depth: int | None = Field(None, ge=1, le=7)
    """How often the encoder halves the size. Default: 4 for the plain encoder, all scales of a backbone."""
    encoder_widths: tuple[Channels, ...] = Field((), max_length=MAX_SCALES)
    """Channels of the plain encoder's blocks, fine to coarse, the bottleneck last. Default: doubling from 64."""


class PlainEncoder(nn.Module):
    """Blocks of 3 x 3 convolutions with 2 x 2 max pooling between them: (B, C, H, W) to a list of features.

    Features are those of every block, fine to coarse: (B, widths[i], H / 2^i, W / 2^i).
    """

    def __init__(
        self,
        bands: int,
        widths: tuple[int, ...],
        style: ConvStyle,
        *,
        convolutions: int,
        weights: str | Weights | None,
    ) -> None:
        super().__init__()
        if weights is not None:
            require_weights(PLAIN, weights)
        pairs = zip((bands, *widths), widths, strict=False)
        self.blocks = nn.ModuleList(
            DoubleConv(pair, style) if isinstance(style, BlockStyle) and convolutions == 2 else ConvBlock(pair, style)
            for pair in pairs
        )
        self.widths = self.channels = widths
        self.reductions = tuple(2**scale for scale in range(len(widths)))
        self.multiple = self.reductions[-1]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features from full size on."""
        features = [self.blocks[0](images)]
        for block in list(self.blocks)[1:]:
            features.append(block(nn.functional.max_pool2d(features[-1], 2)))
        return features


def plain_widths(given: tuple[int, ...], depth: int | None, *, default: int) -> tuple[int, ...]:
    """Channels of the plain encoder's blocks.

    Raises:
        NetworkError: the number of widths does not match the depth, or is less than two.
    """
    if given and (len(given) < 2 or depth not in (None, len(given) - 1)):
        raise NetworkError(
            f"encoder_widths {list(given)} are of depth {len(given) - 1}, depth is {depth or 'not given'}. Expected "
            "one width more than the depth, and at least two."
        )
    return given or tuple(_FIRST_WIDTH * 2**scale for scale in range((depth or default) + 1))


def require_plain(encoder: str, options: Spec, *names: str) -> None:
    """Refuse options of the plain encoder if the encoder is a backbone.

    Raises:
        NetworkError: one of `names` was given.
    """
    given = [name for name in names if name in options.model_fields_set]
    if encoder != PLAIN and given:
        raise NetworkError(
            f"{given[0]} is an option of the plain encoder, but the encoder is '{encoder}'. Leave out {given[0]}."
        )


def encoder_of(
    name: str, bands: int, weights: str | Weights | None, band_names: tuple[str, ...], style: EncoderStyle
) -> Encoder | PlainEncoder:
    """The encoder of that name: timm's, or the plain one with blocks of two convolutions.

    Raises:
        NetworkError: as for `Encoder`, or options that contradict each other.
    """
    require_plain(name, style, "encoder_widths")
    if name == PLAIN:
        widths = plain_widths(style.encoder_widths, style.depth, default=4)
        return PlainEncoder(bands, widths, style, convolutions=2, weights=weights)
    return Encoder(name, bands=bands, weights=weights, band_names=band_names, depth=style.depth)


def _timm_body(
    name: str, bands: int, band_names: tuple[str, ...], weights: Weights | None, depth: int | None
) -> nn.Module:
    """A timm network of these bands up to its last features; a pretrained one is adapted to the names of the bands."""
    if weights is None:
        return _created(name, {"pretrained": False, "in_chans": bands}, depth, None, None)
    require_weights(name, weights)
    source: dict[str, Any] = {"pretrained": True, "in_chans": 3}
    if not weights.is_file:
        network = _created(name, source, depth, weights, None)
        adapt_stem(network, band_names)
        return network
    file = read_encoder(weights, on_meta_device(name))
    source["pretrained_cfg_overlay"] = {"state_dict": file.tensors, "num_classes": 1000}
    network = _created(name, source, depth, weights, file)
    require_all_loaded(file, weights, name, network)
    adapt_stem(network, band_names, file.bands, file.kernels)
    return network


def _created(
    name: str, source: dict[str, Any], depth: int | None, weights: Weights | None, file: EncoderFile | None
) -> nn.Module:
    build = vision_transformer if is_vision_transformer(name) else partial(_stages, depth=depth)
    # timm warns of tensors that a file lacks; our own line names them.
    log = logging.getLogger("timm")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        body: nn.Module = build(name, **source)
    except _ERRORS as error:
        raise _unusable(name, weights, file, error) from error
    finally:
        log.setLevel(level)
    return body


def _stages(name: str, *, depth: int | None, **source: Any) -> Any:
    """The stages of a timm network up to that depth."""
    network: Any = timm.create_model(name, features_only=True, **source)
    info = network.feature_info
    # The first of timm's numbers is 1 for DLA and TResNet.
    indices = tuple(info.out_indices[: count_scales(name, info.reduction(), depth)])
    if len(indices) < len(info.out_indices):
        network = timm.create_model(name, features_only=True, out_indices=indices, **source)
    return network


def _remove_unread(body: nn.Module, images: Tensor) -> None:
    """Replace, in place, the modules of a backbone that run after its last features are complete.

    An identity stands for each. timm itself removes them from some backbones only: an EfficientNet keeps and runs all
    its blocks.

    Args:
        body: images to a list of features, in eval mode.
        images: (B, C, H, W) of a size that it takes.
    """
    events: list[Any] = []
    hooks = [module.register_forward_pre_hook(lambda module, _: events.append(module)) for module in body.modules()]
    hooks += [module.register_forward_hook(lambda *called: events.append(called[-1])) for module in body.modules()]
    with torch.inference_mode():
        features = body(images)
    for hook in hooks:
        hook.remove()
    # A tensor is complete where a module returned it for the last time: an activation may change it in place.
    returned = [max((at for at, event in enumerate(events) if event is feature), default=-1) for feature in features]
    if min(returned) < 0:
        return
    needed = {id(event) for event in events[: max(returned)]}
    unread = {id(event) for event in events if isinstance(event, nn.Module)} - needed
    _cut(body, unread)


def _cut(parent: nn.Module, unread: set[int]) -> None:
    """Cut these modules, by identity, out of a backbone; a block that was entered stays whole."""
    for name, child in [*parent.named_children()]:
        if id(child) in unread:
            setattr(parent, name, nn.Identity())
        # "body" is the whole network where timm takes its features by hooks.
        elif isinstance(child, nn.Sequential) or name == "body":
            _cut(child, unread)


def _unusable(name: str, weights: Weights | None, file: EncoderFile | None, error: Exception) -> NetworkError:
    reason = first_line(error)
    if weights is None:
        return NetworkError(f"'{name}' has no pyramid of features: {reason}. {_EXPECTED}")
    if file is not None:
        reason = describe_mismatch(file, name) or reason
    return NetworkError(
        f"weights '{weights.source}' for '{name}' could not be loaded: {reason}. "
        'Use weights = "none", or a weights file of the same encoder.'
    )
