"""Augmentation of images and labels together, on the batch, for any number of bands and any dtype.

Pixels are as stored. Changes of tone are in units of the chip's own mean and standard deviation, so that a setting has
the same effect on 8 and 16 bits, reflectance and height. Pixels that are not valid stay 0.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from landscribe.data.batches.augment_spec import AugmentSpec
from landscribe.geo.classes import IGNORE

_LEAST = 1e-6
"""Least range or deviation of a band; that of a chip of one value is 0."""


@dataclass(frozen=True)
class LabelledBatch:
    """A batch of images, valid masks and labels."""

    images: Tensor
    """(B, C, H, W) as stored, 0 where not valid."""
    valid: Tensor
    """(B, H, W) bool."""
    labels: Tensor
    """(B, H, W) class indices, or ignore."""
    objects: Tensor | None = None
    """(B, H, W) object numbers, 0 where there is none; None if the chips have none."""
    mixed_labels: Tensor | None = None
    """(B, H, W) labels of the images that were mixed in (mixup)."""
    mixed_objects: Tensor | None = None
    """(B, H, W) object numbers of these images."""
    mix_ratio: float = 1.0
    """Weight of `labels`; `mixed_labels` have the weight 1 - mix_ratio."""


def augment(batch: LabelledBatch, spec: AugmentSpec, rng: torch.Generator) -> LabelledBatch:
    """Transform a batch at random, each image separately.

    Args:
        batch: at least one image.
        spec: the transforms and their strengths.
        rng: source of randomness, on the CPU: the same state gives the same result.

    Returns:
        A batch of the same shapes. Laws: labels get no new index, except ignore; object numbers are never interpolated,
        and objects of different images keep different numbers; the precision of a training changes nothing.
    """
    if batch.objects is not None:
        batch = replace(batch, objects=_unique_in_batch(batch.objects))
    # In bfloat16, positions would be off by half a pixel, and blurred pixels lose all but three digits.
    with torch.autocast(batch.images.device.type, enabled=False):
        for transform, names in TRANSFORMS.items():
            strengths = [spec.strength(name) for name in names]
            if any(strengths):
                batch = transform(batch, *strengths, rng)
    return batch


def _unique_in_batch(objects: Tensor) -> Tensor:
    """Object numbers that no two images share, so that parts of both can lie side by side."""
    first = torch.arange(len(objects), device=objects.device).view(-1, 1, 1) * objects.max()
    return torch.where(objects > 0, objects + first, 0)


# ---- geometry


def _symmetries(batch: LabelledBatch, _: float, rng: torch.Generator) -> LabelledBatch:
    """One of the eight symmetries of the square for each image; images that are not square are not transposed."""
    square = batch.images.shape[-1] == batch.images.shape[-2]
    draws = torch.randint(0, 8, (len(batch.images),), generator=rng).tolist()

    def apply(items: Tensor) -> Tensor:
        return torch.stack([_symmetry(item, draw, square=square) for item, draw in zip(items, draws, strict=True)])

    objects = None if batch.objects is None else apply(batch.objects)
    return LabelledBatch(apply(batch.images), apply(batch.valid), apply(batch.labels), objects)


def _symmetry(item: Tensor, draw: int, *, square: bool) -> Tensor:
    if draw & 1:
        item = item.flip(-1)
    if draw & 2:
        item = item.flip(-2)
    return item.transpose(-1, -2) if square and draw & 4 else item


def _affine(batch: LabelledBatch, degrees: float, scale: float, shift: float, rng: torch.Generator) -> LabelledBatch:
    """Rotate, scale and shift in one step, so that pixels are interpolated once."""
    angles = torch.deg2rad(_uniform(-degrees, degrees, batch, rng))
    # The matrix maps output to input coordinates, so the factor is the inverse of the scale.
    factors = 1 / (1 + _uniform(-scale, scale, batch, rng))
    # The side of an image has length 2 in the coordinates of `grid_sample`.
    shifts = torch.stack([_uniform(-2 * shift, 2 * shift, batch, rng) for _ in range(2)], dim=1)
    return _warp(batch, factors * torch.cos(angles), factors * torch.sin(angles), shifts)


def _warp(batch: LabelledBatch, cos: Tensor, sin: Tensor, shift: Tensor) -> LabelledBatch:
    """Apply a similarity transform: images bilinear, labels nearest; ignore outside the input."""
    height, width = batch.labels.shape[-2:]
    rows = [cos, -sin * height / width, shift[:, 0], sin * width / height, cos, shift[:, 1]]
    matrix = _to_device_of(torch.stack(rows, dim=1).view(-1, 2, 3), batch.images)
    grid = torch.nn.functional.affine_grid(matrix, list(batch.images.shape), align_corners=False)

    def sample(items: Tensor, mode: str) -> Tensor:
        return torch.nn.functional.grid_sample(items, grid, mode=mode, padding_mode="zeros", align_corners=False)

    def nearest(numbers: Tensor) -> Tensor:
        # Numbers up to 2^24 are exact in float32.
        return sample(numbers.unsqueeze(1).to(batch.images.dtype), "nearest").squeeze(1).round().long()

    # Samples from outside the input are 0: labels are raised by one, so that 0 is no label.
    labels = nearest(batch.labels + 1) - 1
    covered = sample(batch.valid.unsqueeze(1).to(batch.images.dtype), "bilinear").squeeze(1) > 1 - 1e-3
    labels = labels.masked_fill((labels < 0) | ~covered, IGNORE)
    objects = None if batch.objects is None else nearest(batch.objects)
    return LabelledBatch(sample(batch.images, "bilinear") * covered.unsqueeze(1), covered, labels, objects)


# ---- tones


def _brightness(batch: LabelledBatch, most: float, rng: torch.Generator) -> LabelledBatch:
    _, deviation = _band_stats(batch)
    return _apply_tone(batch, batch.images + _per_image(_uniform(-most, most, batch, rng), batch) * deviation)


def _contrast(batch: LabelledBatch, most: float, rng: torch.Generator) -> LabelledBatch:
    mean, _ = _band_stats(batch)
    return _apply_tone(batch, mean + (batch.images - mean) * (1 + _per_image(_uniform(-most, most, batch, rng), batch)))


def _saturation(batch: LabelledBatch, most: float, rng: torch.Generator) -> LabelledBatch:
    # In stored numbers, the grey of reflectances and an index would be that of the reflectances.
    mean, deviation = _band_stats(batch)
    standard = (batch.images - mean) / deviation.clamp(min=_LEAST)
    grey = standard.mean(dim=1, keepdim=True)
    changed = grey + (standard - grey) * (1 + _per_image(_uniform(-most, most, batch, rng), batch))
    return _apply_tone(batch, mean + changed * deviation)


def _gamma(batch: LabelledBatch, most: float, rng: torch.Generator) -> LabelledBatch:
    hidden = ~batch.valid.unsqueeze(1)
    low = batch.images.masked_fill(hidden, torch.inf).amin((2, 3), keepdim=True)
    span = (batch.images.masked_fill(hidden, -torch.inf).amax((2, 3), keepdim=True) - low).clamp(min=_LEAST)
    exponents = 1 + _per_image(_uniform(-most, most, batch, rng), batch)
    return _apply_tone(batch, low + span * ((batch.images - low) / span).clamp(0, 1) ** exponents)


def _noise(batch: LabelledBatch, most: float, rng: torch.Generator) -> LabelledBatch:
    _, deviation = _band_stats(batch)
    # Drawn where the images are: a GPU would wait for as many numbers as the batch has.
    local = torch.Generator(batch.images.device).manual_seed(_randint(2**63 - 1, rng))
    noise = torch.randn(batch.images.shape, generator=local, device=batch.images.device)
    return _apply_tone(batch, batch.images + noise * deviation * _per_image(_uniform(0, most, batch, rng), batch))


def _band_stats(batch: LabelledBatch) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the valid pixels of each image and band: (B, C, 1, 1)."""
    valid = batch.valid.unsqueeze(1).to(batch.images.dtype)
    count = valid.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (batch.images * valid).sum((2, 3), keepdim=True) / count
    return mean, (((batch.images - mean) ** 2 * valid).sum((2, 3), keepdim=True) / count).sqrt()


def _apply_tone(batch: LabelledBatch, images: Tensor) -> LabelledBatch:
    return replace(batch, images=torch.where(batch.valid.unsqueeze(1), images, 0.0))


# ---- neighbourhoods


def _blur(batch: LabelledBatch, probability: float, rng: torch.Generator) -> LabelledBatch:
    return _filter(batch, probability, rng, _gaussian5x5)


def _median(batch: LabelledBatch, probability: float, rng: torch.Generator) -> LabelledBatch:
    return _filter(batch, probability, rng, _median3x3)


def _sharpen(batch: LabelledBatch, probability: float, rng: torch.Generator) -> LabelledBatch:
    return _filter(batch, probability, rng, lambda image, valid: 2 * image - _gaussian5x5(image, valid))


def _gaussian5x5(image: Tensor, valid: Tensor) -> Tensor:
    """Gaussian blur of (C, H, W) with a standard deviation of one pixel, over valid (H, W) neighbours."""
    weights = valid.unsqueeze(0).to(image.dtype)
    # The weights as one more band: GPUs convolve a single one in TF32, with three digits.
    blurred = gaussian_blur(torch.cat([image * weights, weights]), [5, 5], [1.0, 1.0])
    return blurred[:-1] / blurred[-1:].clamp(min=1e-6)


def _median3x3(image: Tensor, valid: Tensor) -> Tensor:
    """Median filter of (C, H, W) over valid (H, W) neighbours; NaN where there are none."""
    padded = torch.nn.functional.pad(image.masked_fill(~valid, torch.nan), (1, 1, 1, 1), mode="replicate")
    return padded.unfold(1, 3, 1).unfold(2, 3, 1).flatten(3).nanmedian(dim=3).values


def _filter(
    batch: LabelledBatch, probability: float, rng: torch.Generator, kernel: Callable[[Tensor, Tensor], Tensor]
) -> LabelledBatch:
    images = batch.images.clone()
    for index in _draw_images(batch, probability, rng):
        images[index] = kernel(batch.images[index], batch.valid[index])
    return _apply_tone(batch, images)


# ---- bands


def _drop_band(batch: LabelledBatch, probability: float, rng: torch.Generator) -> LabelledBatch:
    images, (mean, _) = batch.images.clone(), _band_stats(batch)
    for index in _draw_images(batch, probability, rng) if images.shape[1] > 1 else ():
        band = _randint(images.shape[1], rng)
        images[index, band] = mean[index, band]
    return _apply_tone(batch, images)


def _swap_bands(batch: LabelledBatch, probability: float, rng: torch.Generator) -> LabelledBatch:
    images = batch.images.clone()
    for index in _draw_images(batch, probability, rng) if images.shape[1] > 1 else ():
        a, b = torch.randperm(images.shape[1], generator=rng)[:2].tolist()
        images[index, a], images[index, b] = batch.images[index, b], batch.images[index, a]
    return replace(batch, images=images)


# ---- several images


def _cutmix(batch: LabelledBatch, probability: float, rng: torch.Generator) -> LabelledBatch:
    height, width = batch.labels.shape[-2:]
    parts = []
    for index in _draw_images(batch, probability, rng):
        rows, cols = (sorted((_randint(side + 1, rng), _randint(side + 1, rng))) for side in (height, width))
        parts.append((index, _randint(len(batch.labels), rng), slice(*rows), slice(*cols)))
    return _paste(batch, parts)


def _mosaic(batch: LabelledBatch, probability: float, rng: torch.Generator) -> LabelledBatch:
    row, col = (side // 2 for side in batch.labels.shape[-2:])
    quarters = [
        (rows, cols) for rows in (slice(0, row), slice(row, None)) for cols in (slice(0, col), slice(col, None))
    ]
    return _paste(
        batch,
        [
            (index, _randint(len(batch.labels), rng), rows, cols)
            for index in _draw_images(batch, probability, rng)
            for rows, cols in quarters
        ],
    )


def _paste(batch: LabelledBatch, parts: list[tuple[int, int, slice, slice]]) -> LabelledBatch:
    """Copy parts (target, source, rows, cols) from source images; all sources are read before they change."""
    images, valid, labels = batch.images.clone(), batch.valid.clone(), batch.labels.clone()
    objects = None if batch.objects is None else batch.objects.clone()
    for target, source, rows, cols in parts:
        images[target, :, rows, cols] = batch.images[source, :, rows, cols]
        valid[target, rows, cols] = batch.valid[source, rows, cols]
        labels[target, rows, cols] = batch.labels[source, rows, cols]
        if objects is not None and batch.objects is not None:
            objects[target, rows, cols] = batch.objects[source, rows, cols]
    return LabelledBatch(images, valid, labels, objects)


def _mixup(batch: LabelledBatch, probability: float, rng: torch.Generator) -> LabelledBatch:
    """Mix each image with another one; one ratio for the whole batch, drawn from Beta(1, 1)."""
    if float(torch.rand(1, generator=rng)) >= probability:
        return batch
    ratio = float(torch.rand(1, generator=rng))
    partner = _to_device_of(torch.randperm(len(batch.images), generator=rng), batch.labels)
    both = batch.valid & batch.valid[partner]
    images = (ratio * batch.images + (1 - ratio) * batch.images[partner]) * both.unsqueeze(1)
    labels, mixed = (own.masked_fill(~both, IGNORE) for own in (batch.labels, batch.labels[partner]))
    mixed_objects = None if batch.objects is None else batch.objects[partner]
    return LabelledBatch(images, both, labels, batch.objects, mixed, mixed_objects, ratio)


# ---- random numbers


def _uniform(low: float, high: float, batch: LabelledBatch, rng: torch.Generator) -> Tensor:
    """(B,) one number for each image."""
    return low + (high - low) * torch.rand(len(batch.images), generator=rng)


def _per_image(values: Tensor, batch: LabelledBatch) -> Tensor:
    """(B,) as (B, 1, 1, 1), on the device of the images."""
    return _to_device_of(values, batch.images).view(-1, 1, 1, 1)


def _to_device_of(values: Tensor, images: Tensor) -> Tensor:
    """A few numbers in the type of the images, on their device; a GPU's thread does not wait until they are there."""
    # CUDA copies them from main memory before the call returns; of other devices that is not known.
    return values.to(images, non_blocking=images.is_cuda)


def _draw_images(batch: LabelledBatch, probability: float, rng: torch.Generator) -> Iterator[int]:
    """Indices of random images."""
    yield from (torch.rand(len(batch.images), generator=rng) < probability).nonzero()[:, 0].tolist()


def _randint(end: int, rng: torch.Generator) -> int:
    return int(torch.randint(end, (1,), generator=rng))


TRANSFORMS: dict[Callable[..., LabelledBatch], tuple[str, ...]] = {
    _mosaic: ("mosaic",),
    _cutmix: ("cutmix",),
    _symmetries: ("symmetries",),
    _affine: ("rotation", "scale", "shift"),
    _blur: ("blur",),
    _median: ("median",),
    _sharpen: ("sharpen",),
    _brightness: ("brightness",),
    _contrast: ("contrast",),
    _saturation: ("saturation",),
    _gamma: ("gamma",),
    _drop_band: ("band_dropout",),
    _swap_bands: ("band_swap",),
    _noise: ("noise",),
    _mixup: ("mixup",),
}
"""Each transform and its settings, in the order of application; nothing follows mixup."""
