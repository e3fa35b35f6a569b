"""Scaling of pixels for the network."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from landscribe import verbs
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.errors import ChipError
from landscribe.model import Model, Scaling
from landscribe.nn.encoders.weights import Weights
from landscribe.training.scaling import scaling_of
from worlds import noise, write_raster

SIDE = 32


def chips_of(folder, array: np.ndarray, **options) -> Chips:
    image = write_raster(folder / "scene.tif", array, **options)
    labels = write_raster(folder / "labels.tif", np.tile([1, 2], (SIDE, SIDE // 2)).astype(np.uint8))
    return verbs.chip(images=[image], labels=labels, out=folder / "chips", size=8, val=0, test=0)


def seen(chips: Chips, scaling: Scaling) -> np.ndarray:
    """(bands, n) valid pixels as the network sees them."""
    parts = []
    for number in range(len(chips)):
        pixels, valid, _ = ChipReader(chips).read(number)
        wide = torch.from_numpy(pixels.astype(np.float64))[None]
        parts.append(scaling.apply(wide, torch.from_numpy(valid)[None])[0].numpy()[:, valid])
    return np.concatenate(parts, axis=1)


def scaled(chips: Chips, wanted: str = "auto", **known) -> Scaling:
    return scaling_of(chips, wanted, **({"encoder": "resnet18", "weights": None} | known))


def test_uint8_pixels_are_divided_by_255(tmp_path):
    chips = chips_of(tmp_path, noise(3, SIDE, SIDE))
    assert scaled(chips) == Scaling(offset=(0.0,) * 3, factor=(1 / 255,) * 3)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_percentiles_of_wide_integers_become_1_and_minus_1_despite_outliers(tmp_path, dtype):
    array = noise(2, SIDE, SIDE, dtype) * np.array([10, 100], dtype)[:, None, None]
    array[:, 0, :10] = 32_000  # a cloud
    array[:, 20:, 20:] = 0  # nodata
    chips = chips_of(tmp_path, array, nodata=0)
    assert scaled(chips) == scaled(chips, "percentiles")
    shares = np.stack([np.quantile(seen(chips, scaled(chips)), share, axis=1) for share in (0.02, 0.98)])
    np.testing.assert_allclose(shares, [[-1, -1], [1, 1]], atol=0.02)


@pytest.mark.parametrize(("dtype", "offset"), [("int32", 10_000), ("int32", -5_000_000), ("float32", 290)])
def test_percentiles_of_numbers_far_from_0_become_1_and_minus_1(tmp_path, dtype, offset):
    array = noise(2, SIDE, SIDE, "int32") % 40 + offset + np.array([0, 20])[:, None, None]
    array[:, 0, :10] += 10**8  # dead pixels, far above
    chips = chips_of(tmp_path, array.astype(dtype))
    values = seen(chips, scaled(chips, "percentiles"))
    shares = np.stack([np.quantile(values, share, axis=1, method="inverted_cdf") for share in (0.02, 0.98)])
    np.testing.assert_allclose(shares, [[-1, -1], [1, 1]], atol=0.03)


def test_a_band_with_one_value_but_for_a_few_pixels_is_standardised(tmp_path):
    array = noise(2, SIDE, SIDE, "uint16")
    array[1] = 0
    array[1, 3, :15] = 20_000  # 1.5 % of the pixels
    chips = chips_of(tmp_path, array)
    assert scaled(chips) == scaled(chips, "percentiles")
    values = seen(chips, scaled(chips))
    assert values[0].min() > -2
    np.testing.assert_allclose([values[1].mean(), values[1].std()], [0, 1], atol=1e-4)
    assert scaled(chips).offset[0] == (np.quantile(array[0], 0.02) + np.quantile(array[0], 0.98)) / 2


def test_float_pixels_are_standardised(tmp_path):
    chips = chips_of(tmp_path, noise(2, SIDE, SIDE, "float32") / 1000)
    assert scaled(chips) == scaled(chips, "standardise")
    values = seen(chips, scaled(chips))
    np.testing.assert_allclose(values.mean(axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(values.std(axis=1), 1, atol=1e-3)


def test_range_scaling_requires_integers(tmp_path):
    chips = chips_of(tmp_path, noise(2, SIDE, SIDE, "int16"))
    assert scaled(chips, "range") == Scaling(offset=(-32768.0,) * 2, factor=(1 / 65535,) * 2)
    floating = replace(chips, metadata=chips.metadata.model_copy(update={"dtype": "float32"}))
    with pytest.raises(ChipError, match="chips are float32, which has no limits"):
        scaled(floating, "range")


@pytest.mark.parametrize("wanted", ["percentiles", "standardise"])
@pytest.mark.parametrize(("dtype", "value"), [("uint16", 7), ("float32", 0.1), ("float64", 1e5 / 3)])
def test_a_constant_band_becomes_0(tmp_path, wanted, dtype, value):
    array = noise(2, SIDE, SIDE, dtype)
    array[1] = value
    chips = chips_of(tmp_path, array)
    scaling = scaled(chips, wanted)
    np.testing.assert_allclose(seen(chips, scaling)[1], 0, atol=1e-2)
    assert scaling.factor[1] == 1


def test_scaling_for_pretrained_weights_has_their_mean_and_deviation(tmp_path):
    chips = chips_of(tmp_path, noise(3, SIDE, SIDE), descriptions=["green", "red", "blue"])
    pretrained = scaled(chips, weights=Weights("imagenet"))
    # ImageNet: red, green and blue have means 0.485, 0.456, 0.406 and deviations 0.229, 0.224, 0.225.
    assert pretrained.offset == pytest.approx((255 * 0.456, 255 * 0.485, 255 * 0.406))
    assert pretrained.factor == pytest.approx((1 / 255 / 0.224, 1 / 255 / 0.229, 1 / 255 / 0.225))


def test_the_model_keeps_its_scaling(tmp_path):
    chips = chips_of(tmp_path, noise(2, SIDE, SIDE, "uint16"))
    settings = {"architecture": "fcn", "encoder": "plain", "options": {"encoder_widths": [8, 8]}}
    verbs.train(chips, out=tmp_path / "model", steps=1, scaling="standardise", **settings)
    assert Model.load(tmp_path / "model").scaling == scaled(chips, "standardise")
