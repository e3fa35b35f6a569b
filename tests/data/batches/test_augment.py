"""Images, valid pixels and labels are transformed together, and no new label appears."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from landscribe.data.batches.augment import TRANSFORMS, LabelledBatch, augment
from landscribe.data.batches.augment_spec import PRESETS, AugmentSpec

NAMES = [name for names in TRANSFORMS.values() for name in names]
MOST = {"rotation": 180.0, "scale": 0.5, "shift": 0.5, "brightness": 2.0, "contrast": 0.9, "saturation": 0.9,
        "gamma": 0.9, "noise": 1.0}  # fmt: skip
ONLY_PIXELS = ("brightness", "contrast", "saturation", "gamma", "noise", "blur", "median", "sharpen", "band_dropout",
               "band_swap")  # fmt: skip


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(name: str) -> AugmentSpec:
    """A single transform at its maximum strength."""
    return AugmentSpec.of({"preset": "none", name: True if name == "symmetries" else MOST.get(name, 1.0)})


def numbered(count: int, height: int, width: int) -> LabelledBatch:
    """Images whose pixels equal their label; even pixels are valid."""
    labels = torch.arange(height * width).reshape(height, width).expand(count, -1, -1)
    return LabelledBatch(torch.stack([labels, labels + 1000], dim=1).float(), labels % 2 == 0, labels)


def scenery(count: int = 4, bands: int = 3, side: int = 32, dtype_top: float = 255.0) -> LabelledBatch:
    """Noise with two classes in halves, the last columns not valid."""
    labels = torch.zeros(count, side, side, dtype=torch.int64)
    labels[:, side // 2 :] = 1
    valid = torch.ones(count, side, side, dtype=torch.bool)
    valid[..., -4:] = False
    labels[~valid] = 255
    images = torch.rand(count, bands, side, side, generator=rng(1)) * dtype_top
    return LabelledBatch(images * valid.unsqueeze(1), valid, labels)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**31), bands=st.sampled_from([1, 3, 5]), top=st.sampled_from([1.0, 255.0, 10_000.0]))
def test_no_new_label_appears_and_pixels_stay_finite(name, seed, bands, top):
    before = scenery(bands=bands, side=16, dtype_top=top)
    after = augment(before, only(name), rng(seed))
    assert after.images.shape == before.images.shape
    assert set(after.labels.unique().tolist()) <= {0, 1, 255}
    assert torch.isfinite(after.images).all()
    assert (after.images[~after.valid.unsqueeze(1).expand_as(after.images)] == 0).all()
    assert (after.labels[~after.valid] == 255).all()


def test_a_dropped_band_is_the_mean_of_its_valid_pixels():
    before = scenery()
    after = augment(before, only("band_dropout"), rng())
    for image, was, valid in zip(after.images, before.images, before.valid, strict=True):
        (band,) = [index for index in range(3) if not torch.equal(image[index], was[index])]
        torch.testing.assert_close(image[band][valid], was[band][valid].mean().expand(int(valid.sum())))


@pytest.mark.parametrize("name", NAMES)
def test_a_training_in_bfloat16_augments_as_one_in_32_bits(name):
    before = scenery(side=64, dtype_top=10_000.0)
    expected = augment(before, only(name), rng())
    with torch.autocast("cpu", torch.bfloat16):
        after = augment(before, only(name), rng())
    assert torch.equal(after.images, expected.images)
    assert torch.equal(after.labels, expected.labels)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**31))
def test_objects_go_where_their_pixels_go_and_images_share_none(name, seed):
    before = scenery(side=16)
    objects = torch.zeros_like(before.labels)
    objects[:, 4:9, 2:8], objects[:, 4:9, 8:14] = 1, 2
    labels = (objects > 0).long()
    both = LabelledBatch(before.images, torch.ones_like(before.valid), labels, objects)
    after = augment(both, only(name), rng(seed))
    # Each image has numbers of its own: 1 and 2, 3 and 4, ...
    unmixed = after.labels != 255
    assert torch.equal((after.objects > 0)[unmixed], (after.labels == 1)[unmixed])
    assert set(after.objects.unique().tolist()) <= set(range(9))
    if name not in ("mosaic", "cutmix"):
        owners = [set(((own[own > 0] - 1) // 2).tolist()) for own in after.objects]
        assert all(owner <= {index} for index, owner in enumerate(owners))
    plain = augment(replace(both, objects=None), only(name), rng(seed))
    assert torch.equal(after.labels, plain.labels)
    assert torch.equal(after.images, plain.images)


@pytest.mark.parametrize("name", ONLY_PIXELS)
def test_tone_transforms_keep_labels_and_change_images(name):
    before = scenery()
    after = augment(before, only(name), rng())
    assert torch.equal(after.labels, before.labels)
    assert torch.equal(after.valid, before.valid)
    assert not torch.equal(after.images, before.images)


@pytest.mark.parametrize("name", ["blur", "median", "sharpen"])
def test_filters_keep_constant_images_constant_next_to_invalid_pixels(name):
    valid = torch.rand(2, 16, 16, generator=rng(2)) < 0.5
    labels = torch.zeros(2, 16, 16, dtype=torch.int64).masked_fill(~valid, 255)
    before = LabelledBatch(200.0 * valid.unsqueeze(1).expand(-1, 3, -1, -1), valid, labels)
    torch.testing.assert_close(augment(before, only(name), rng()).images, before.images)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_generator_gives_the_same_chips(name):
    first, second = (augment(scenery(), only(name), rng(5)) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)
    if name not in ("blur", "median", "sharpen"):  # sure to happen, and always the same
        assert not torch.equal(augment(scenery(), only(name), rng(6)).images, first.images)


@given(seed=st.integers(0, 2**31))
def test_mixup_is_the_weighted_sum_of_two_images_with_both_labels(seed):
    before = scenery()
    after = augment(before, only("mixup"), rng(seed))
    assert 0 <= after.mix_ratio <= 1
    assert after.mixed_labels is not None
    for image, mixed in zip(after.images, after.mixed_labels, strict=True):
        partners = [
            torch.allclose(image, after.mix_ratio * own + (1 - after.mix_ratio) * partner, atol=1e-3)
            and torch.equal(mixed, labels)
            for own in before.images
            for partner, labels in zip(before.images, before.labels, strict=True)
        ]
        assert any(partners)
    assert torch.equal(after.labels, before.labels)


def test_mixup_ignores_pixels_that_are_invalid_in_either_image():
    before = scenery(count=2)
    hidden = before.valid.clone()
    hidden[0, :8] = False
    batch = LabelledBatch(before.images * hidden.unsqueeze(1), hidden, before.labels.masked_fill(~hidden, 255))
    candidates = (augment(batch, only("mixup"), rng(seed)) for seed in range(50))
    after = next(mixed for mixed in candidates if torch.equal(mixed.valid[0], mixed.valid[1]))
    both = hidden[0] & hidden[1]
    for tensor in (after.labels, after.mixed_labels):
        assert ((tensor != 255) == both).all()
    assert torch.equal(after.valid, both.expand(2, -1, -1))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["band_swap", "mixup"])
def test_numbers_that_are_drawn_reach_a_gpu_without_a_wait(name):
    before = scenery()
    given = LabelledBatch(before.images.cuda(), before.valid.cuda(), before.labels.cuda())
    torch.cuda.set_sync_debug_mode("error")
    try:
        after = augment(given, only(name), rng())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(after.images.cpu(), augment(before, only(name), rng()).images)


def test_the_preset_none_changes_nothing():
    before = scenery()
    after = augment(before, AugmentSpec(preset="none"), rng())
    assert torch.equal(after.images, before.images)
    assert torch.equal(after.labels, before.labels)


def test_settings_override_the_preset():
    spec = AugmentSpec(preset="strong", rotation=0)
    assert spec.strength("rotation") == 0
    assert spec.strength("noise") == PRESETS["strong"]["noise"]
    assert set().union(*PRESETS.values()) <= set(NAMES) <= set(AugmentSpec.model_fields)


def test_images_valid_and_labels_get_the_same_symmetry():
    after = augment(numbered(64, 4, 4), only("symmetries"), rng())
    assert torch.equal(after.images[:, 0].long(), after.labels)
    assert torch.equal(after.images[:, 1].long(), after.labels + 1000)
    assert torch.equal(after.valid, after.labels % 2 == 0)


@pytest.mark.parametrize(("shape", "symmetries"), [((3, 3), 8), ((3, 4), 4)])
def test_all_symmetries_of_a_chip_occur_and_no_others(shape, symmetries):
    labels = augment(numbered(300, *shape), only("symmetries"), rng()).labels
    square = np.arange(shape[0] * shape[1]).reshape(shape)
    transposed = [square, square.T] if shape[0] == shape[1] else [square]
    expected = {side[::down, ::right].tobytes() for side in transposed for down in (1, -1) for right in (1, -1)}
    assert {label.numpy().tobytes() for label in labels} == expected
    assert len(expected) == symmetries


@pytest.mark.parametrize("name", ["rotation", "scale", "shift"])
def test_images_and_labels_are_warped_together(name):
    side = 64
    rows, cols = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    labels = ((rows - 20) ** 2 + (cols - 40) ** 2 < 100).long().expand(8, -1, -1)
    before = LabelledBatch(100.0 * labels.unsqueeze(1), torch.ones_like(labels, dtype=torch.bool), labels)
    after = augment(before, only(name), rng())
    # The disc and its label agree, except for pixels on its edge.
    labelled = after.labels != 255
    agree = ((after.images[:, 0] > 50) == (after.labels == 1))[labelled]
    assert agree.float().mean() > 0.995
    assert not torch.equal(after.labels, before.labels)


def test_corners_outside_a_rotated_image_are_ignored():
    before = LabelledBatch(
        torch.ones(16, 1, 32, 32), torch.ones(16, 32, 32, dtype=torch.bool), torch.zeros(16, 32, 32).long()
    )
    after = augment(before, only("rotation"), rng())
    uncovered = ~after.valid
    assert uncovered.any()
    assert (after.labels[uncovered] == 255).all()
    assert (after.labels[after.valid] == 0).all()
    assert after.valid[:, 12:20, 12:20].all()


def test_a_rotation_by_90_degrees_is_exact():
    before = numbered(1, 5, 5)
    before = LabelledBatch(before.images, torch.ones_like(before.valid), before.labels)
    from landscribe.data.batches.augment import _warp

    after = _warp(before, torch.zeros(1), torch.ones(1), torch.zeros(1, 2))
    assert torch.equal(after.labels[0], torch.rot90(before.labels[0], 1))


@pytest.mark.parametrize("name", ["cutmix", "mosaic"])
def test_pasted_pixels_keep_their_labels(name):
    labels = torch.arange(6).view(6, 1, 1).expand(6, 8, 8)
    before = LabelledBatch(labels.unsqueeze(1).float(), torch.ones_like(labels, dtype=torch.bool), labels)
    after = augment(before, only(name), rng(3))
    assert torch.equal(after.images[:, 0].long(), after.labels)
    assert any(len(label.unique()) > 1 for label in after.labels)


@pytest.mark.parametrize("name", ["brightness", "contrast", "gamma", "saturation", "noise"])
def test_the_tone_of_each_band_scales_with_the_range_of_that_band(name):
    small = scenery(dtype_top=1.0)
    # Such as reflectances, heights and an index side by side.
    factors = torch.logspace(-1, 3, small.images.shape[1]).view(1, -1, 1, 1)
    changed = augment(small, only(name), rng(2)).images * factors
    scaled = augment(replace(small, images=small.images * factors), only(name), rng(2)).images
    torch.testing.assert_close(scaled / factors, changed / factors, rtol=1e-3, atol=5e-4)
    assert not torch.equal(changed, small.images * factors)


@pytest.mark.parametrize(
    ("passes", "steps", "side", "expected"),
    [
        (31, 1001, 128, "standard"), (31, 2000, 128, "standard"), (31, 10_000, 128, "strong"),
        (31, 1001, 256, "strong"), (31, 1000, 256, "light"), (30, 10_000, 256, "light"), (400, 200, 256, "light"),
        (None, None, 256, "light"),
    ],
)  # fmt: skip
def test_auto_is_stronger_the_more_pixels_a_long_training_draws(passes, steps, side, expected):
    pixels = 8 * side**2
    assert AugmentSpec().resolved(passes, steps, pixels).preset == expected
    assert AugmentSpec(preset="standard").resolved(passes, steps, pixels).preset == "standard"
