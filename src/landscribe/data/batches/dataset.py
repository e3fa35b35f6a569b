"""Chips as batches of tensors."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from landscribe.data.batches.sampling import ChipSampler
from landscribe.data.batches.windows import WindowIndex
from landscribe.data.chips.chips import Chips
from landscribe.data.chips.window_reader import WindowReader
from landscribe.data.scenes.scene import Sample
from landscribe.errors import ChipError, counted
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import size_label
from landscribe.geo.rasters.raster import Pixels, Valid

Batch = dict[str, Tensor]
"""image (B, C, H, W) as stored, valid (B, H, W) bool, label (B, H, W) indices as uint8, 255 is ignore; of chips with
object numbers also objects (B, H, W) int32, 0 where there is none."""

_UNLABELLED = 0


class ChipTransform(Protocol):
    """Transforms an image and its masks together, such as a `Compose` of Albumentations."""

    def __call__(self, *, image: NDArray[Any], masks: list[NDArray[Any]]) -> Mapping[str, Any]:
        """Transform an image and its masks.

        Args:
            image: (H, W, C) as stored.
            masks: (H, W) each, of uint8: labels and valid pixels; a third one is that of object numbers, in uint16.

        Returns:
            A mapping with the keys image and masks: an image of the same dtype and number of bands, of one height and
            width for all chips, and masks of this size.
        """


class ChipDataset(Dataset[Batch]):
    """Samples of image, valid and label, and of object numbers if the chips have them.

    Chips have their index, windows of their ground a `WindowIndex`. Images are as stored, so that little travels
    between processes.
    """

    def __init__(self, chips: Chips, transform: ChipTransform | None = None, *, kept_bytes: int = 0) -> None:
        self.chips = chips
        self.transform = transform
        self.kept_bytes = kept_bytes
        self._changed_size: tuple[int, int] | None = None
        """(H, W) of the first chip after the transform."""

    def __len__(self) -> int:
        return len(self.chips)

    def __getitem__(self, index: int | WindowIndex) -> Batch:
        own = index if isinstance(index, tuple) else self._of_chip(index)
        return self._as_tensors(
            self.reader.read(*own), self.reader.read_objects(*own) if self.chips.has_objects else None
        )

    def _of_chip(self, index: int) -> WindowIndex:
        window = self.reader.windows[index]
        return index, window.row, window.col

    @cached_property
    def reader(self) -> WindowReader:
        """The reader of this process."""
        # Each process of a loader may read, and keep, each chip.
        worker = get_worker_info()
        return WindowReader(self.chips, kept_bytes=self.kept_bytes // (worker.num_workers if worker else 1))

    def _as_tensors(self, sample: Sample, objects: NDArray[Any] | None) -> Batch:
        classes = self.chips.classes
        pixels, valid, indices = sample.pixels, sample.valid, classes.to_indices(sample.mask)
        if self.transform is not None:
            changed = _transformed(self.transform, pixels, valid, indices, objects, classes=len(classes))
            pixels, valid, indices, objects = changed
            self._changed_size = self._changed_size or indices.shape
            if indices.shape != self._changed_size:
                raise ChipError(
                    f"the augmentation returned {size_label(indices.shape)} pixels for a chip, and "
                    f"{size_label(self._changed_size)} for another. Expected one size for all chips of a training. End "
                    "with a crop or a resize to a fixed size."
                )
        batch = {
            "image": torch.from_numpy(pixels),
            "valid": torch.from_numpy(valid),
            "label": torch.from_numpy(indices),
        }
        return batch if objects is None else batch | {"objects": torch.from_numpy(objects.astype(np.int32))}


def to_float(batch: Batch) -> Batch:
    """The batch with the dtypes of networks and losses: images float32, labels and object numbers int64."""
    wide = {"image": batch["image"].float(), "valid": batch["valid"], "label": batch["label"].long()}
    return wide | {name: batch[name].long() for name in ("objects",) if name in batch}


def _transformed(
    transform: ChipTransform,
    pixels: Pixels,
    valid: Valid,
    indices: NDArray[np.uint8],
    objects: NDArray[Any] | None,
    *,
    classes: int,
) -> tuple[Pixels, Valid, NDArray[np.uint8], NDArray[Any] | None]:
    """A chip after a user's transform; pixels that the transform fills with 0 are ignore, and no object."""
    # Indices are raised by one, so that the fill value 0 is no class.
    raised = np.where(indices == IGNORE, _UNLABELLED, indices + 1).astype(np.uint8)
    stored = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    try:
        # Libraries of transforms take uint16, and no wider integers.
        given: list[NDArray[Any]] = [raised, valid.astype(np.uint8)]
        given += [] if objects is None else [objects.astype(np.uint16)]
        output = transform(image=stored, masks=given)
        if not isinstance(output, Mapping):
            raise TypeError(f"it returned a {type(output).__name__}")  # noqa: TRY301
        image = np.asarray(output["image"])
        labels, valid_mask = (np.asarray(mask) for mask in output["masks"][:2])
        objects = None if objects is None else np.asarray(output["masks"][2])
    except (TypeError, LookupError, ValueError, AttributeError) as error:
        raise ChipError(
            f"the augmentation {type(transform).__name__} cannot be used: {' '.join(str(error).split())[:160]}. It is "
            'called with image (height, width, bands) and masks, and returns a dict with "image" and "masks", like a '
            "Compose of Albumentations. Wrap other transforms in such a function."
        ) from error
    _require_usable(image, labels, valid_mask, objects, like=stored, classes=classes)
    usable = valid_mask != 0
    labels = np.where(usable & (labels != _UNLABELLED), labels - 1, IGNORE).astype(np.uint8)
    return np.ascontiguousarray(image.transpose(2, 0, 1)) * usable, usable, labels, objects


def _require_usable(
    image: NDArray[Any],
    labels: NDArray[Any],
    valid: NDArray[Any],
    objects: NDArray[Any] | None,
    *,
    like: NDArray[Any],
    classes: int,
) -> None:
    """Raise ChipError unless a transform returned an image like the given one (H, W, C), and masks that fit."""
    shapes = {mask.shape for mask in (labels, valid, objects) if mask is not None}
    is_label = labels.dtype.kind in "ui" or (labels == np.round(labels)).all()
    if image.ndim != 3 or shapes != {image.shape[:2]} or not is_label or labels.min() < 0 or labels.max() > classes:
        raise ChipError(
            f"the augmentation returned an image of shape {image.shape} and masks of shape "
            f"{' and '.join(map(str, sorted(shapes)))} with labels of {labels.min()} to {labels.max()}. Expected "
            f"(height, width, bands), masks of (height, width) and whole numbers of 0 to {classes}. Remove conversions "
            "to tensors and last axes of masks, and use nearest interpolation for masks."
        )
    if image.shape[2] != like.shape[2]:
        raise ChipError(
            f"the augmentation returned {counted(image.shape[2], 'band')}. Expected {like.shape[2]}, as the chips "
            "have. Add an index to the image files, because the map needs it too."
        )
    if image.dtype != like.dtype:
        raise ChipError(
            f"the augmentation returned an image of {image.dtype}. Expected {like.dtype}, as the chips have: "
            "Landscribe scales the pixels. Remove Normalize or ToFloat, or convert the image back to its dtype."
        )


def loader(
    chips: Chips,
    *,
    batch: int,
    workers: int,
    order: ChipSampler | None = None,
    transform: ChipTransform | None = None,
    kept_bytes: int = 0,
) -> DataLoader[Batch]:
    """Batches of chips.

    Args:
        chips: of one split.
        batch: chips per batch.
        workers: processes that read; 0 reads in this process.
        order: order of chips or windows in an epoch; the table's order if None. With an order, a last batch of one chip
            is dropped: batch normalisation needs two.
        transform: a user's augmentation of each chip.
        kept_bytes: all chips are decoded once and kept if they need at most this, in all reader processes together.

    Returns:
        Batches as dicts of tensors: image (B, C, H, W) in stored values; valid (B, H, W), True where a pixel is usable;
        label (B, H, W), class indices or the ignore index; objects (B, H, W), 0 for none, where the chips have them.

    Raises:
        ChipError: a file of a chip cannot be read; raised by the loop over the batches.
    """
    drawn = 0 if order is None else len(order)
    return DataLoader(
        ChipDataset(chips, transform, kept_bytes=kept_bytes),
        batch_size=batch,
        sampler=order,
        num_workers=workers,
        drop_last=drawn > batch and drawn % batch == 1,
        persistent_workers=workers > 0,
    )
