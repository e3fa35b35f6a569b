"""UNet-ID: three UNets, for segments, borders and inner parts, that see one another's answers.

Wagner et al. 2020, "U-Net-Id, an Instance Segmentation Model for Building Extraction from Satellite Images",
Remote Sensing 12(10), 1544, doi:10.3390/rs12101544. The activations of the three paths are concatenated and given to
each, where two more convolutions and a last one make its answer.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from landscribe.nn.architectures.blocks import ConvBlock, ConvStyle
from landscribe.nn.architectures.unet import UNetFeatures, UNetOptions
from landscribe.nn.segmentation import Criterion, Segmentation

PATHS = ("segment", "border", "inner")
_OUTSIDE, _INSIDE, _ERODED = 4, 3, 2
"""Pixels of a border outside and inside a segment's edge, and how far an inner part stays from it (in the paper)."""


class UNetID(Segmentation):
    """(B, C, H, W) to the segment path's logits (B, K, H, W); `paths` gives all three.

    Class 0 is the background (with one class, the absence of it); border and inner parts are those of all other
    classes together, with one logit each.
    """

    def __init__(
        self, *, bands: int, classes: int, encoder: str = "resnet18", weights: str | None = None,
        band_names: tuple[str, ...] = (), **options: Any,
    ) -> None:  # fmt: skip
        chosen = UNetOptions.of(options)
        made = {path: UNetFeatures(bands, encoder, weights, band_names, chosen) for path in PATHS}
        super().__init__(made["segment"].reduction)
        outputs = {"segment": classes, "border": 1, "inner": 1}
        self.features = nn.ModuleDict(made)
        self.first = nn.ModuleDict({path: nn.Conv2d(made[path].channels, outputs[path], 1) for path in PATHS})
        self.last = nn.ModuleDict({path: _refined(sum(outputs.values()), outputs[path], chosen) for path in PATHS})

    def predicted(self, images: Tensor) -> Tensor:
        """Logits of the segment path."""
        return self._paths(images)["segment"]

    def paths(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of each path: segment (B, K, H, W), border and inner (B, 1, H, W)."""
        height, width = images.shape[-2:]
        return {path: logits[..., :height, :width] for path, logits in self._paths(self.whole_cells(images)).items()}

    def training_loss(self, images: Tensor, labels: Tensor, criterion: Criterion) -> Tensor:
        """Sum of the three paths' losses, with borders and inner parts drawn from the labels."""
        targets = {"segment": labels} | border_and_inner(labels)
        return torch.stack([criterion(logits, targets[path]) for path, logits in self.paths(images).items()]).sum()

    def _paths(self, images: Tensor) -> dict[str, Tensor]:
        first = {path: self.first[path](self.features[path](images)) for path in PATHS}
        shared = torch.cat([_activated(logits) for logits in first.values()], dim=1)
        return {path: self.last[path](shared) for path in PATHS}


def _activated(logits: Tensor) -> Tensor:
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)


def _refined(into: int, out: int, style: ConvStyle) -> nn.Sequential:
    return nn.Sequential(ConvBlock((into, 64), style), ConvBlock((64, 32), style), nn.Conv2d(32, out, 1))


def border_and_inner(labels: Tensor, ignore: int = 255) -> dict[str, Tensor]:
    """Borders and inner parts of what labels (B, H, W) show, as labels 0, 1 or `ignore`.

    A border reaches 4 pixels outside and 3 inside a segment's edge; an inner part stays 2 pixels away from it. The
    image's own edge is no edge of a segment. Segments that touch are one here: to tell them apart needs polygons.
    Where either hangs on pixels that are not known, it is not known. Law: what is known holds whatever these are.
    """
    segment = ((labels > 0) & (labels != ignore)).float()
    rest = (labels == 0).float()
    unknown = (labels == ignore).float()
    surely = {"border": _border(segment, rest), "inner": _inner(segment, rest + unknown)}
    perhaps = {
        "border": _border(segment + unknown, rest + unknown),
        "inner": _inner(segment, rest),
    }
    return {
        path: surely[path].long().masked_fill((perhaps[path] & ~surely[path]) | (unknown > 0), ignore)
        for path in ("border", "inner")
    }


def _border(segment: Tensor, rest: Tensor) -> Tensor:
    return (_grown(segment, _OUTSIDE) > 0) & (_grown(rest, _INSIDE) > 0)


def _inner(segment: Tensor, rest: Tensor) -> Tensor:
    return (segment > 0) & (_grown(rest, _ERODED) == 0)


def _grown(mask: Tensor, pixels: int) -> Tensor:
    """A mask (B, H, W) of 0 and 1 grown by a square; nothing comes in from outside the image."""
    return functional.max_pool2d(mask.unsqueeze(1), 2 * pixels + 1, stride=1, padding=pixels).squeeze(1)
