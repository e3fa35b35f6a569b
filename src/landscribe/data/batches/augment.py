"""Augmentation of images and labels together, on the batch, whatever the number of bands and the type of pixels.

Pixels are as stored: changes of tone are measured in the chip's own mean and deviation, so that they mean the same for
8 and 16 bits, reflectances and heights. Pixels that are not valid stay 0.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from landscribe.data.batches.augment_spec import AugmentSpec
from landscribe.geo.classes import IGNORE


@dataclass(frozen=True)
class Labelled:
    """A batch on its way through augmentation."""

    images: Tensor
    """(B, C, H, W) as stored, 0 where not valid."""
    valid: Tensor
    """(B, H, W)."""
    labels: Tensor
    """(B, H, W) indices, or ignore."""
    others: Tensor | None = None
    """(B, H, W): what else the images show, where two were mixed."""
    share: float = 1.0
    """How much of the images is what `labels` tell of; the rest is what `others` tell of."""


def augment(batch: Labelled, spec: AugmentSpec, rng: torch.Generator) -> Labelled:
    """Change a batch by chance, chip by chip.

    Args:
        batch: at least one chip.
        spec: what is done, and how strongly.
        rng: what chance is drawn from, on the CPU: the same state gives the same chips.

    Returns:
        The same shapes. Law: labels hold no index that they did not hold before, except ignore.
    """
    for change, names in CHANGES.items():
        strengths = [spec.strength(name) for name in names]
        if any(strengths):
            batch = change(batch, *strengths, rng)
    return batch


# ---- places


def _symmetries(batch: Labelled, _: float, rng: torch.Generator) -> Labelled:
    """One of the eight symmetries of the square for each chip; those that are not square are not turned."""
    square = batch.images.shape[-1] == batch.images.shape[-2]
    draws = torch.randint(0, 8, (len(batch.images),), generator=rng).tolist()

    def moved(items: Tensor) -> Tensor:
        return torch.stack([_symmetry(item, draw, square=square) for item, draw in zip(items, draws, strict=True)])

    return Labelled(moved(batch.images), moved(batch.valid), moved(batch.labels))


def _symmetry(item: Tensor, draw: int, *, square: bool) -> Tensor:
    if draw & 1:
        item = item.flip(-1)
    if draw & 2:
        item = item.flip(-2)
    return item.transpose(-1, -2) if square and draw & 4 else item


def _moved(batch: Labelled, degrees: float, share: float, way: float, rng: torch.Generator) -> Labelled:
    """Rotate, scale and shift, all at once, so that pixels are interpolated once."""
    angles = torch.deg2rad(_between(-degrees, degrees, batch, rng))
    # The matrix leads from the new chip to the old one: what is enlarged comes from less.
    factors = 1 / (1 + _between(-share, share, batch, rng))
    # A side is 2 long in the coordinates of `grid_sample`.
    shifts = torch.stack([_between(-2 * way, 2 * way, batch, rng) for _ in range(2)], dim=1)
    return _warped(batch, factors * torch.cos(angles), factors * torch.sin(angles), shifts)


def _warped(batch: Labelled, cos: Tensor, sin: Tensor, shift: Tensor) -> Labelled:
    """Chips seen through a similarity: images between pixels, labels at the nearest; ignore where nothing is."""
    height, width = batch.labels.shape[-2:]
    rows = [cos, -sin * height / width, shift[:, 0], sin * width / height, cos, shift[:, 1]]
    matrix = torch.stack(rows, dim=1).view(-1, 2, 3).to(batch.images)
    grid = torch.nn.functional.affine_grid(matrix, list(batch.images.shape), align_corners=False)

    def sampled(items: Tensor, mode: str) -> Tensor:
        return torch.nn.functional.grid_sample(items, grid, mode=mode, padding_mode="zeros", align_corners=False)

    # What is sampled from outside is 0: labels are moved up by one, so that 0 is none of them.
    raised = (batch.labels + 1).unsqueeze(1).to(batch.images.dtype)
    labels = sampled(raised, "nearest").squeeze(1).round().long() - 1
    covered = sampled(batch.valid.unsqueeze(1).to(batch.images.dtype), "bilinear").squeeze(1) > 1 - 1e-3
    labels = labels.masked_fill((labels < 0) | ~covered, IGNORE)
    return Labelled(sampled(batch.images, "bilinear") * covered.unsqueeze(1), covered, labels)


# ---- tones


def _brightened(batch: Labelled, most: float, rng: torch.Generator) -> Labelled:
    _, deviation = _tone(batch)
    return _toned(batch, batch.images + _each(_between(-most, most, batch, rng), batch) * deviation)


def _contrasted(batch: Labelled, most: float, rng: torch.Generator) -> Labelled:
    mean, _ = _tone(batch)
    return _toned(batch, mean + (batch.images - mean) * (1 + _each(_between(-most, most, batch, rng), batch)))


def _saturated(batch: Labelled, most: float, rng: torch.Generator) -> Labelled:
    grey = batch.images.mean(dim=1, keepdim=True)
    return _toned(batch, grey + (batch.images - grey) * (1 + _each(_between(-most, most, batch, rng), batch)))


def _gamma(batch: Labelled, most: float, rng: torch.Generator) -> Labelled:
    hidden = ~batch.valid.unsqueeze(1)
    low = batch.images.masked_fill(hidden, torch.inf).amin((2, 3), keepdim=True)
    span = (batch.images.masked_fill(hidden, -torch.inf).amax((2, 3), keepdim=True) - low).clamp(min=1e-6)
    exponents = 1 + _each(_between(-most, most, batch, rng), batch)
    return _toned(batch, low + span * ((batch.images - low) / span).clamp(0, 1) ** exponents)


def _noisy(batch: Labelled, most: float, rng: torch.Generator) -> Labelled:
    _, deviation = _tone(batch)
    noise = torch.randn(batch.images.shape, generator=rng).to(batch.images)
    return _toned(batch, batch.images + noise * deviation * _each(_between(0, most, batch, rng), batch))


def _tone(batch: Labelled) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the valid pixels of each chip and band: (B, C, 1, 1)."""
    known = batch.valid.unsqueeze(1).to(batch.images.dtype)
    count = known.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (batch.images * known).sum((2, 3), keepdim=True) / count
    return mean, (((batch.images - mean) ** 2 * known).sum((2, 3), keepdim=True) / count).sqrt()


def _toned(batch: Labelled, images: Tensor) -> Labelled:
    return Labelled(torch.where(batch.valid.unsqueeze(1), images, 0.0), batch.valid, batch.labels)


# ---- neighbourhoods


def _blurred(batch: Labelled, chance: float, rng: torch.Generator) -> Labelled:
    return _filtered(batch, chance, rng, _smooth)


def _median(batch: Labelled, chance: float, rng: torch.Generator) -> Labelled:
    return _filtered(batch, chance, rng, _middle)


def _sharpened(batch: Labelled, chance: float, rng: torch.Generator) -> Labelled:
    return _filtered(batch, chance, rng, lambda image, valid: 2 * image - _smooth(image, valid))


def _smooth(image: Tensor, valid: Tensor) -> Tensor:
    """Gaussian blur of (C, H, W) with a deviation of one pixel, over what is valid (H, W) around each."""
    known = valid.unsqueeze(0).to(image.dtype)
    weight = gaussian_blur(known, [5, 5], [1.0, 1.0])
    return gaussian_blur(image * known, [5, 5], [1.0, 1.0]) / weight.clamp(min=1e-6)


def _middle(image: Tensor, valid: Tensor) -> Tensor:
    """Median of 3 x 3 of (C, H, W), over what is valid (H, W) around each; NaN where nothing is."""
    padded = torch.nn.functional.pad(image.masked_fill(~valid, torch.nan), (1, 1, 1, 1), mode="replicate")
    return padded.unfold(1, 3, 1).unfold(2, 3, 1).flatten(3).nanmedian(dim=3).values


def _filtered(
    batch: Labelled, chance: float, rng: torch.Generator, change: Callable[[Tensor, Tensor], Tensor]
) -> Labelled:
    images = batch.images.clone()
    for place in _chosen(batch, chance, rng):
        images[place] = change(batch.images[place], batch.valid[place])
    return _toned(batch, images)


# ---- bands


def _without_a_band(batch: Labelled, chance: float, rng: torch.Generator) -> Labelled:
    images, (mean, _) = batch.images.clone(), _tone(batch)
    for place in _chosen(batch, chance, rng) if images.shape[1] > 1 else ():
        band = _below(images.shape[1], rng)
        images[place, band] = mean[place, band]
    return _toned(batch, images)


def _swapped(batch: Labelled, chance: float, rng: torch.Generator) -> Labelled:
    images = batch.images.clone()
    for place in _chosen(batch, chance, rng) if images.shape[1] > 1 else ():
        one, other = torch.randperm(images.shape[1], generator=rng)[:2].tolist()
        images[place, [one, other]] = batch.images[place, [other, one]]
    return Labelled(images, batch.valid, batch.labels)


# ---- several chips


def _cut_and_mixed(batch: Labelled, chance: float, rng: torch.Generator) -> Labelled:
    height, width = batch.labels.shape[-2:]
    parts = []
    for place in _chosen(batch, chance, rng):
        rows, cols = (sorted((_below(side + 1, rng), _below(side + 1, rng))) for side in (height, width))
        parts.append((place, _below(len(batch.labels), rng), slice(*rows), slice(*cols)))
    return _patched(batch, parts)


def _mosaics(batch: Labelled, chance: float, rng: torch.Generator) -> Labelled:
    row, col = (side // 2 for side in batch.labels.shape[-2:])
    quarters = [
        (rows, cols) for rows in (slice(0, row), slice(row, None)) for cols in (slice(0, col), slice(col, None))
    ]
    return _patched(
        batch,
        [
            (place, _below(len(batch.labels), rng), rows, cols)
            for place in _chosen(batch, chance, rng)
            for rows, cols in quarters
        ],
    )


def _patched(batch: Labelled, parts: list[tuple[int, int, slice, slice]]) -> Labelled:
    """Parts (to, from, rows, cols) of chips taken over from other chips, as these were before."""
    images, valid, labels = batch.images.clone(), batch.valid.clone(), batch.labels.clone()
    for place, source, rows, cols in parts:
        images[place, :, rows, cols] = batch.images[source, :, rows, cols]
        valid[place, rows, cols] = batch.valid[source, rows, cols]
        labels[place, rows, cols] = batch.labels[source, rows, cols]
    return Labelled(images, valid, labels)


def _mixed(batch: Labelled, chance: float, rng: torch.Generator) -> Labelled:
    """Each image with that of another chip; one share for the whole batch, drawn from Beta(1, 1)."""
    if float(torch.rand(1, generator=rng)) >= chance:
        return batch
    share = float(torch.rand(1, generator=rng))
    partner = torch.randperm(len(batch.images), generator=rng).to(batch.labels.device)
    both = batch.valid & batch.valid[partner]
    images = (share * batch.images + (1 - share) * batch.images[partner]) * both.unsqueeze(1)
    labels, others = (known.masked_fill(~both, IGNORE) for known in (batch.labels, batch.labels[partner]))
    return Labelled(images, both, labels, others, share)


# ---- chance


def _between(low: float, high: float, batch: Labelled, rng: torch.Generator) -> Tensor:
    """A number for each chip: (B,)."""
    return low + (high - low) * torch.rand(len(batch.images), generator=rng)


def _each(numbers: Tensor, batch: Labelled) -> Tensor:
    """(B,) as (B, 1, 1, 1) where the images are."""
    return numbers.to(batch.images).view(-1, 1, 1, 1)


def _chosen(batch: Labelled, chance: float, rng: torch.Generator) -> Iterator[int]:
    yield from (torch.rand(len(batch.images), generator=rng) < chance).nonzero()[:, 0].tolist()


def _below(end: int, rng: torch.Generator) -> int:
    return int(torch.randint(end, (1,), generator=rng))


CHANGES: dict[Callable[..., Labelled], tuple[str, ...]] = {
    _mosaics: ("mosaic",),
    _cut_and_mixed: ("cutmix",),
    _symmetries: ("symmetries",),
    _moved: ("rotation", "scale", "shift"),
    _blurred: ("blur",),
    _median: ("median",),
    _sharpened: ("sharpen",),
    _brightened: ("brightness",),
    _contrasted: ("contrast",),
    _saturated: ("saturation",),
    _gamma: ("gamma",),
    _without_a_band: ("band_dropout",),
    _swapped: ("band_swap",),
    _noisy: ("noise",),
    _mixed: ("mixup",),
}
"""Each change and the settings that it takes, in the order in which they are done; mixed images are not changed."""
