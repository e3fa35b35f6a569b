"""UNet-ID: three UNets, for segments, borders and inner parts, refined from the activations of all three.

Wagner et al. 2020, "U-Net-Id, an Instance Segmentation Model for Building Extraction from Satellite Images",
Remote Sensing 12(10), 1544, doi:10.3390/rs12101544. The activations of the three UNets are concatenate; from them each
head computes its logits by three more convolutions.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from landscribe.nn.architectures.blocks import ConvBlock, ConvStyle
from landscribe.nn.architectures.unet import UNetFeatures, UNetOptions
from landscribe.nn.segmentation import Criterion, Segmentation

HEADS = ("segment", "border", "inner")
_OUTSIDE, _INSIDE, _ERODED = 4, 3, 2
"""The paper's widths in pixels: of a border outside and inside a segment's edge, and of an inner part's distance."""


class UNetID(Segmentation):
    """(B, C, H, W) to the logits (B, K, H, W) of the head "segment"; `forward_heads` returns all three.

    The heads "border" and "inner" have one logit each (B, 1, H, W), for the segments of all classes but the background
    together. Class 0 is the background; with K = 1 the background has no logit.

    >>> network = UNetID(bands=3, classes=2, encoder="plain", encoder_widths=[8, 16])
    >>> {name: tuple(logits.shape) for name, logits in network.forward_heads(torch.rand(1, 3, 100, 120)).items()}
    {'segment': (1, 2, 100, 120), 'border': (1, 1, 100, 120), 'inner': (1, 1, 100, 120)}
    """

    def __init__(
        self, *, bands: int, classes: int, encoder: str = "resnet18", weights: str | None = None,
        band_names: tuple[str, ...] = (), **options: Any,
    ) -> None:  # fmt: skip
        chosen = UNetOptions.of(options)
        features = {head: UNetFeatures(bands, encoder, weights, band_names, chosen) for head in HEADS}
        channels = {"segment": classes, "border": 1, "inner": 1}
        super().__init__(features["segment"].reduction, channels)
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

    def training_loss(self, images: Tensor, labels: Tensor, criterion: Criterion) -> Tensor:
        """Sum of the three heads' losses; the targets of borders and inner parts are drawn from the labels."""
        targets = {"segment": labels} | border_and_inner(labels)
        logits = self.forward_heads(images)
        return torch.stack([criterion(logits[head], targets[head]) for head in HEADS]).sum()


def _activate(logits: Tensor) -> Tensor:
    """Probabilities of logits."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)


def _refinement(into: int, out: int, style: ConvStyle) -> nn.Sequential:
    return nn.Sequential(ConvBlock((into, 64), style), ConvBlock((64, 32), style), nn.Conv2d(32, out, 1))


def border_and_inner(labels: Tensor, ignore: int = 255) -> dict[str, Tensor]:
    """Targets of the heads "border" and "inner" from labels (B, H, W): each (B, H, W) of 0, 1 or `ignore`.

    A border reaches 4 pixels outside and 3 pixels inside a segment's edge. An inner part is the segment without the
    2 pixels next to its edge. The image's edge is no edge of a segment. Segments that touch count as one segment:
    labels do not separate them. A target is `ignore` where it depends on pixels whose label is `ignore`. Law: all other
    targets stay the same whatever the labels of these pixels are.
    """
    segment = ((labels > 0) & (labels != ignore)).float()
    background = (labels == 0).float()
    unlabelled = (labels == ignore).float()
    certain = {"border": _border(segment, background), "inner": _inner(segment, background + unlabelled)}
    possible = {
        "border": _border(segment + unlabelled, background + unlabelled),
        "inner": _inner(segment, background),
    }
    return {
        head: certain[head].long().masked_fill((possible[head] & ~certain[head]) | (unlabelled > 0), ignore)
        for head in ("border", "inner")
    }


def _border(segment: Tensor, background: Tensor) -> Tensor:
    return (_dilate(segment, _OUTSIDE) > 0) & (_dilate(background, _INSIDE) > 0)


def _inner(segment: Tensor, background: Tensor) -> Tensor:
    return (segment > 0) & (_dilate(background, _ERODED) == 0)


def _dilate(mask: Tensor, pixels: int) -> Tensor:
    """Dilate a mask (B, H, W) of 0 and 1 by a square; outside the image the mask is 0."""
    return functional.max_pool2d(mask.unsqueeze(1), 2 * pixels + 1, stride=1, padding=pixels).squeeze(1)
