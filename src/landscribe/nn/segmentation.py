"""Segmentation: the base class of every network. Images of any size in, logits of that size out."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from landscribe.errors import NetworkError

T = TypeVar("T")
Criterion = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, K, H, W), labels (B, H, W)) to a scalar."""

CLASSES = "classes"
"""The only head of a plain network: its channels are the classes."""


def two_logits(logits: Tensor) -> Tensor:
    """The logits (0, x) of two classes, (B, 2, H, W), for one logit x, (B, 1, H, W).

    Law: the softmax of (0, x) is (1 - sigmoid(x), sigmoid(x)).

    >>> two_logits(torch.ones(1, 1, 1, 1)).softmax(1)[0, 1].item() == torch.ones(1).sigmoid().item()
    True
    """
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


class Segmentation(nn.Module):
    """(B, C, H, W), each side at least `reduction` pixels, to logits (B, K, H, W).

    Each scale of a network is exactly half of the one before if the sides are multiples of `reduction`. Other images
    are mirrored on the right and at the bottom, as mapping mirrors a raster, and the logits are cropped.

    A network has one or several named heads. The first one is the main head: its K channels are the classes, and
    `forward` returns its logits. `forward_heads` returns the logits of all heads.

    A subclass implements `forward_padded`; with several heads, `forward_heads_padded` as well.
    """

    learns_objects: ClassVar[bool] = False
    """True if `training_loss` depends on object numbers."""

    built_from: dict[str, Any]
    """The arguments of `nn.build` that build this network again, without weights."""

    def __init__(self, reduction: int, head_channels: Mapping[str, int]) -> None:
        """Set the attributes of every network.

        Args:
            reduction: input pixels per pixel of the deepest features, or a multiple of it.
            head_channels: channels of each head by its name, the main head first.
        """
        super().__init__()
        self.reduction = reduction
        """Sides of images are padded to a multiple of this many pixels."""
        self.head_channels = dict(head_channels)
        """Channels of each head by its name, the main head first: {"classes": K} for a plain network."""
        self.pixel_size: float | None = None
        """Size in metres of the pixels that it is trained on, for options in metres; None if not known."""
        self.has_one_logit = False
        """True if the one logit of the main head stands for two classes."""

    def for_two_classes(self) -> Self:
        """This network for two classes: its main head gives `two_logits` of the one logit that it has.

        The weights are shared. Training, maps and exports see two classes, and nothing else knows of the one logit.
        """
        shared = copy.copy(self)
        shared.head_channels = {**self.head_channels, self.main_head: 2}
        shared.has_one_logit = True
        return shared

    def class_logits(self, logits: Tensor) -> Tensor:
        """Logits of the classes, for those that the main head computes."""
        return two_logits(logits) if self.has_one_logit else logits

    @property
    def main_head(self) -> str:
        """Name of the head whose logits `forward` returns."""
        return next(iter(self.head_channels))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) of the main head, for images (B, C, H, W).

        Raises:
            NetworkError: a side of the images is shorter than `reduction`, or training needs more than one image.
        """
        height, width = images.shape[-2:]
        return self.class_logits(self._of_padded(self.forward_padded, images)[..., :height, :width])

    def forward_heads(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (B, channels, H, W) of each head by its name, from one pass over images (B, C, H, W).

        Law: those of the main head are `forward(images)`, bit by bit.

        Raises:
            NetworkError: a side of the images is shorter than `reduction`, or training needs more than one image.
        """
        height, width = images.shape[-2:]
        heads = self._of_padded(self.forward_heads_padded, images)
        heads[self.main_head] = self.class_logits(heads[self.main_head])
        return {name: logits[..., :height, :width] for name, logits in heads.items()}

    def forward_padded(self, images: Tensor) -> Tensor:
        """Logits of the main head, for images whose sides are multiples of `reduction`."""
        raise NotImplementedError

    def forward_heads_padded(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of each head, for images whose sides are multiples of `reduction`."""
        return {self.main_head: self.forward_padded(images)}

    def training_loss(
        self,
        images: Tensor,
        labels: Tensor,
        criterion: Criterion,
        objects: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """The scalar that training minimises; a network with several outputs overrides this to supervise each of them.

        Args:
            images: (B, C, H, W).
            labels: (B, H, W).
            criterion: the loss of one output.
            objects: (B, H, W) object numbers, for networks that learn from them; None if the chips have none.
        """
        return criterion(self(images), labels)

    def pad_to_multiple(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) mirrored to a multiple of `reduction`, on the right and at the bottom.

        Raises:
            NetworkError: a side of the images is too short.
        """
        batch, _, height, width = images.shape
        multiple = self.reduction
        is_single_pixel = batch == 1 and max(height, width) <= multiple
        minimum = multiple + 1 if is_single_pixel and self._uses_batch_statistics() else multiple
        if height < multiple or width < multiple or minimum > multiple:
            raise NetworkError(
                f"images of {height} x {width} pixels are too small: one pixel of this network's deepest features "
                f"covers {multiple} x {multiple} pixels. Expected at least {minimum} x {minimum} pixels"
                f"{' to train with one image a step' if minimum > multiple else ''}. Use larger chips."
            )
        bottom, right = -height % multiple, -width % multiple
        return nn.functional.pad(images, (0, right, 0, bottom), mode="reflect") if bottom or right else images

    def _of_padded(self, compute: Callable[[Tensor], T], images: Tensor) -> T:
        """The result of a function of padded images.

        Raises:
            NetworkError: the images are too small, or batch normalisation behind global pooling is trained with one.
        """
        padded = self.pad_to_multiple(images)
        try:
            return compute(padded)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise NetworkError(
                "this network's batch normalisation needs more than one image a step. Train with a batch of 2 or more."
            ) from error

    def _uses_batch_statistics(self) -> bool:
        """True in training with batch normalisation, which needs more than one pixel of one image at every scale."""
        return self.training and any(isinstance(module, nn.BatchNorm2d) for module in self.modules())
