"""UNet-ID: three UNets, for segments, borders and inner parts of objects, refined from the activations of all three.

Wagner et al. 2020, "U-Net-Id, an Instance Segmentation Model for Building Extraction from Satellite Images",
Remote Sensing 12(10), 1544, doi:10.3390/rs12101544. The activations of the three UNets are concatenate; from them each
head computes its logits by three more convolutions.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from landscribe.errors import NetworkError
from landscribe.nn.architectures.blocks import ConvBlock, ConvStyle
from landscribe.nn.architectures.unet import UNetFeatures, UNetOptions
from landscribe.nn.encoders.weights import Weights
from landscribe.nn.segmentation import Criterion, Segmentation

HEADS = ("segment", "border", "inner")
_IGNORE = 255
"""Label and target of pixels that are ignored."""

_PIXELS = Annotated[int, Field(ge=1, le=64)]
_METRES = Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?m$")]


class UNetIDOptions(UNetOptions):
    """Options of a UNet-ID. A width is a number of pixels, or metres such as "0.6 m"."""

    border_outside: _PIXELS | _METRES = 4
    """Width of a border outside an object's edge."""
    border_inside: _PIXELS | _METRES = 3
    """Width of a border inside an object's edge."""
    inner_distance: _PIXELS | _METRES = 2
    """Distance of an inner part from the object's edge."""


@dataclass(frozen=True)
class Widths:
    """Of the targets, in pixels; those of the paper by default."""

    outside: int = 4
    inside: int = 3
    eroded: int = 2


class UNetID(Segmentation):
    """(B, C, H, W) to the logits (B, K, H, W) of the head "segment"; `forward_heads` returns all three.

    The heads "border" and "inner" have one logit each (B, 1, H, W), for the objects of all classes but the background
    together. Class 0 is the background; with K = 1 the background has no logit.

    >>> network = UNetID(bands=3, classes=2, encoder="plain", encoder_widths=[8, 16])
    >>> {name: tuple(logits.shape) for name, logits in network.forward_heads(torch.rand(1, 3, 100, 120)).items()}
    {'segment': (1, 2, 100, 120), 'border': (1, 1, 100, 120), 'inner': (1, 1, 100, 120)}
    """

    learns_objects: ClassVar[bool] = True

    def __init__(
        self, *, bands: int, classes: int, encoder: str = "resnet18", weights: str | Weights | None = None,
        band_names: tuple[str, ...] = (), **options: Any,
    ) -> None:  # fmt: skip
        chosen = UNetIDOptions.of(options)
        features = {head: UNetFeatures(bands, encoder, weights, band_names, chosen) for head in HEADS}
        channels = {"segment": classes, "border": 1, "inner": 1}
        super().__init__(features["segment"].reduction, channels)
        self.options = chosen
        self.features = nn.ModuleDict(features)
        self.first = nn.ModuleDict({head: nn.Conv2d(features[head].channels, channels[head], 1) for head in HEADS})
        self.last = nn.ModuleDict({head: _refinement(sum(channels.values()), channels[head], chosen) for head in HEADS})

    def forward_padded(self, images: Tensor) -> Tensor:
        """Logits of the head "segment"."""
        return self.forward_heads_padded(images)["segment"]

    def forward_heads_padded(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of the three heads, each from the activations of the first logits of all three."""
        first = {head: self.first[head](self.features[head](images)) for head in HEADS}
        shared = torch.cat([_activate(logits) for logits in first.values()], dim=1)
        return {head: self.last[head](shared) for head in HEADS}

    def training_loss(
        self, images: Tensor, labels: Tensor, criterion: Criterion, objects: Tensor | None = None
    ) -> Tensor:
        """Sum of the three heads' losses; the targets of borders and inner parts are drawn from labels and objects.

        Args:
            images: (B, C, H, W).
            labels: (B, H, W).
            criterion: the loss of one head.
            objects: (B, H, W) object numbers; without them, objects that touch count as one.
        """
        targets = {"segment": labels} | border_and_inner(labels, objects, widths=self.widths)
        logits = self.forward_heads(images)
        return torch.stack([criterion(logits[head], targets[head]) for head in HEADS]).sum()

    @property
    def widths(self) -> Widths:
        """Widths of the targets in pixels.

        Raises:
            NetworkError: a width is in metres, and `pixel_size` is None.
        """
        options = self.options
        given = (options.border_outside, options.border_inside, options.inner_distance)
        return Widths(*(self._pixels(width) for width in given))

    def _pixels(self, width: int | str) -> int:
        if isinstance(width, int):
            return width
        if self.pixel_size is None:
            raise NetworkError(
                f"a width of unet_id is {width}, but the size of the pixels is not known in metres. Give it in pixels."
            )
        return max(1, round(float(width.removesuffix("m")) / self.pixel_size))


def _activate(logits: Tensor) -> Tensor:
    """Probabilities of logits."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)


def _refinement(into: int, out: int, style: ConvStyle) -> nn.Sequential:
    return nn.Sequential(ConvBlock((into, 64), style), ConvBlock((64, 32), style), nn.Conv2d(32, out, 1))


def border_and_inner(labels: Tensor, objects: Tensor | None = None, widths: Widths = Widths()) -> dict[str, Tensor]:
    """Targets of the heads "border" and "inner": each (B, H, W) of 0, 1 or 255 for ignore.

    A border reaches 4 pixels outside an object's edge, into the background, and 3 pixels inside, also at an edge that
    two objects share. An inner part is the object without the 2 pixels next to its edge. The image's edge is no edge
    of an object. A target is ignored where it depends on pixels whose label is.

    Laws: the targets stay the same if object numbers are permuted; a target that is not ignored stays the same
    whatever the labels and objects of ignored pixels are.

    Args:
        labels: (B, H, W) class indices; 0 is the background.
        objects: (B, H, W) object numbers from 0 to 2^24 of the pixels with another class. If None, objects that touch
            are one object.
        widths: in pixels.
    """
    unlabelled = labels == _IGNORE
    is_object = (labels > 0) & ~unlabelled
    # Background is 0, so that an object's pixels without a number are one object.
    numbers = torch.where(is_object, 1 if objects is None else objects + 1, 0).float()

    def near_unlabelled(pixels: int) -> Tensor:
        return _largest(unlabelled.float(), pixels) > 0

    def near_edge(pixels: int) -> Tensor:
        """True where another object, or the background, lies within so many pixels."""
        high = _largest(numbers.masked_fill(unlabelled, -torch.inf), pixels)
        low = -_largest((-numbers).masked_fill(unlabelled, -torch.inf), pixels)
        return (high != numbers) | (low != numbers)

    outside = _largest(is_object.float(), widths.outside) > 0
    border = torch.where(is_object, near_edge(widths.inside), outside)
    border_is_open = torch.where(is_object, near_unlabelled(widths.inside), near_unlabelled(widths.outside))
    inner = is_object & ~near_edge(widths.eroded)
    return {
        "border": border.long().masked_fill(unlabelled | (border_is_open & ~border), _IGNORE),
        "inner": inner.long().masked_fill(unlabelled | (inner & near_unlabelled(widths.eroded)), _IGNORE),
    }


def _largest(values: Tensor, pixels: int) -> Tensor:
    """The largest of values (B, H, W) within a square around each pixel; there is none outside the image."""
    side = 2 * pixels + 1
    rows = functional.max_pool2d(values.unsqueeze(1), (side, 1), stride=1, padding=(pixels, 0))
    return functional.max_pool2d(rows, (1, side), stride=1, padding=(0, pixels)).squeeze(1)
