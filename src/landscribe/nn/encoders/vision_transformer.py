"""Vision transformers of timm as encoders: tokens of four depths, brought to a pyramid of features.

As in Ranftl, Bochkovskiy & Koltun 2021, "Vision Transformers for Dense Prediction", arXiv:2103.13413, section 3.1: the
tokens of four evenly spaced blocks become maps of features, each is projected to fewer channels, and a convolution
resamples it to its scale. Class and register tokens are dropped.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import timm
from timm.layers.norm import LayerNorm2d
from timm.models import is_model_in_modules
from timm.models.eva import Eva
from timm.models.eva import checkpoint_filter_fn as eva_tensors
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn as vision_transformer_tensors
from torch import Tensor, nn

from landscribe.errors import NetworkError, WithoutEffectError

_MODULES = ("vision_transformer", "deit", "eva")
"""Modules of timm whose transformers have one grid of tokens at all depths: DINOv2, DINOv3, DeiT, CLIP, SigLIP, EVA."""
_SCALES = (1 / 4, 1 / 2, 1, 2)
"""Input pixels per pixel of each feature map, relative to those of a token."""
_WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1)
"""Channels of each feature map, relative to those of a token."""


def is_vision_transformer(name: str) -> bool:
    """True if a timm network is a transformer with one grid of tokens at all depths."""
    return is_model_in_modules(name, _MODULES)


def vision_transformer(name: str, **source: Any) -> Any:
    """A timm vision transformer without its head, for images of any size.

    Positional embeddings of another image size are interpolated: those of a checkpoint by timm, those of the network
    for each image; rotary ones are computed.

    Args:
        name: `is_vision_transformer(name)`.
        source: bands and weights, for `timm.create_model`.
    """
    return timm.create_model(name, num_classes=0, dynamic_img_size=True, **source)


def count_scales(name: str, scales: Sequence[int], depth: int | None) -> int:
    """How many of the scales of an encoder are left at that depth: those of at most 2^depth input pixels a pixel.

    Args:
        name: of the encoder, for errors.
        scales: input pixels per pixel of each feature map, from fine to coarse.
        depth: number of halvings; None for all scales.

    Raises:
        NetworkError: no scale is left.
        WithoutEffectError: the encoder has fewer halvings.
    """
    if depth is None:
        return len(scales)
    halvings = (scales[-1] - 1).bit_length()
    if depth > halvings:
        raise WithoutEffectError(
            f"depth is {depth}, but '{name}' halves the size {halvings} times. Expected a depth of {halvings} or less.",
            depth=halvings,
        )
    count = sum(scale <= 2**depth for scale in scales)
    if not count:
        raise NetworkError(f"'{name}' begins at 1/{scales[0]} of the size. Choose a depth above {depth}.")
    return count


def converted(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Tensors of a checkpoint as timm loads them: renamed, and positions resampled to the network's image size.

    None if the network is not a vision transformer.
    """
    if isinstance(network, VisionTransformer):
        return dict(vision_transformer_tensors(dict(tensors), network))
    return dict(eva_tensors(dict(tensors), network)) if isinstance(network, Eva) else {}


class TokenPyramid(nn.Module):
    """Features (B, channels[i], H / reductions[i], W / reductions[i]) from the tokens of four depths.

    A token covers `cell` input pixels a side: the power of two that is nearest to the patch. Patches of other sizes
    (14) read an image that is resampled by patch / cell, which changes no weight: so each token lies exactly over its
    cell, and all scales are powers of two, as decoders need them.
    """

    def __init__(self, name: str, transformer: Any, *, depth: int | None, output_stride: int | None) -> None:
        """Choose the depths, and remove the blocks behind the last one.

        Args:
            name: of the transformer, for errors.
            transformer: of `vision_transformer`.
            depth: scales above 2^depth input pixels a pixel, and the blocks that only they need, are left out.
            output_stride: coarser scales are resampled to so many input pixels a pixel.

        Raises:
            NetworkError: the finest scale is above 2^depth.
        """
        super().__init__()
        info = transformer.feature_info[0]
        self.patch = int(info["reduction"])
        """Side of a patch in pixels of the image that the transformer reads."""
        self.cell = 2 ** round(math.log2(self.patch))
        """Side of a token in pixels of the image."""
        scales = [max(1, int(self.cell * scale)) for scale in _SCALES]
        count = count_scales(name, scales, depth)
        blocks, tokens = len(transformer.blocks), int(info["num_chs"])
        # The last block of each quarter: a transformer of fewer blocks than scales gives some tokens twice.
        depths = [-(-blocks * quarter // len(_SCALES)) - 1 for quarter in range(1, count + 1)]
        self.depths = tuple(dict.fromkeys(depths))
        """Indices of the blocks whose tokens are taken."""
        self._source = tuple(map(self.depths.index, depths))
        transformer.prune_intermediate_layers(list(self.depths), prune_norm=True, prune_head=True)
        self.channels = tuple(max(1, int(tokens * width)) for width in _WIDTHS[:count])
        self.reductions = tuple(min(scale, output_stride or scale) for scale in scales[:count])
        self.layers = nn.ModuleList(
            _reassemble((tokens, channels), self.cell, reduction)
            for channels, reduction in zip(self.channels, self.reductions, strict=True)
        )

    def use_only(self, *indices: int) -> None:
        """Remove the layers of feature maps with other indices: those maps are the tokens as they are."""
        for index in set(range(len(self.layers))).difference(indices):
            self.layers[index] = nn.Identity()

    def forward(self, images: Tensor, transformer: Any) -> list[Tensor]:
        """Features from fine to coarse, of images whose sides are multiples of the coarsest scale."""
        height, width = images.shape[-2:]
        bottom, right = -height % self.cell, -width % self.cell
        if bottom or right:
            images = nn.functional.pad(images, (0, right, 0, bottom))
        if self.patch != self.cell:
            sides = [side // self.cell * self.patch for side in images.shape[-2:]]
            images = nn.functional.interpolate(images, size=sides, mode="bilinear", align_corners=False)
        maps = transformer.forward_intermediates(
            images, indices=list(self.depths), output_fmt="NCHW", intermediates_only=True
        )
        scaled = zip(self.layers, self._source, self.reductions, strict=True)
        return [layer(maps[source])[..., : height // side, : width // side] for layer, source, side in scaled]


def _reassemble(channels: tuple[int, int], cell: int, reduction: int) -> nn.Sequential:
    """Layers from tokens of `cell` input pixels to features of `reduction` input pixels a pixel.

    The tokens are normalised first: their size grows with the depth, and the transformer's own normalisation belongs
    to its last block.
    """
    into, out = channels
    layers: list[nn.Module] = [LayerNorm2d(into), nn.Conv2d(into, out, 1)]
    if reduction < cell:
        layers.append(nn.ConvTranspose2d(out, out, cell // reduction, stride=cell // reduction))
    elif reduction > cell:
        layers.append(nn.Conv2d(out, out, 3, stride=reduction // cell, padding=1))
    return nn.Sequential(*layers)
