"""Segmentation: what every network here is. Images of any size in, logits of that size out."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from landscribe.errors import NetworkError

Criterion = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, K, H, W), labels (B, H, W)) to a scalar."""


class Segmentation(nn.Module):
    """(B, C, H, W) of any size from `reduction` on to logits (B, K, H, W).

    A network works on images of whole cells, `reduction` pixels a side, so that every scale is exactly half of the
    one before. Other images are padded with zeros on the right and below, and the logits cropped.
    """

    built_from: dict[str, Any]
    """What `nn.build` made it from, so that it can be made again (without weights)."""

    def __init__(self, reduction: int) -> None:
        super().__init__()
        self.reduction = reduction
        """Pixels a side of a cell: of one pixel of the deepest features, or a multiple of that."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the images' size.

        Raises:
            NetworkError: the images are smaller than one cell.
        """
        height, width = images.shape[-2:]
        return self.predicted(self.whole_cells(images))[..., :height, :width]

    def predicted(self, images: Tensor) -> Tensor:
        """Logits of images of whole cells."""
        raise NotImplementedError

    def training_loss(self, images: Tensor, labels: Tensor, criterion: Criterion) -> Tensor:
        """What training lowers. Networks with several outputs say here how each is supervised."""
        return criterion(self(images), labels)

    def whole_cells(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) padded to a multiple of `reduction`."""
        batch, _, height, width = images.shape
        cell = self.reduction
        least = cell + 1 if batch == 1 and max(height, width) <= cell and self._gathers_statistics() else cell
        if height < cell or width < cell or least > cell:
            raise NetworkError(
                f"images of {height} x {width} pixels are too small for this network, one pixel of whose deepest "
                f"features stands for {cell} x {cell}. At least {least} x {least} were expected"
                f"{' to train with one image a step' if least > cell else ''}. Use larger chips."
            )
        below, right = -height % cell, -width % cell
        return nn.functional.pad(images, (0, right, 0, below)) if below or right else images

    def _gathers_statistics(self) -> bool:
        """True in training with batch normalisation, which needs more than one pixel of one image at every scale."""
        return self.training and any(isinstance(module, nn.BatchNorm2d) for module in self.modules())
