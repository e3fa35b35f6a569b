"""Calibration and precision-recall curves, against scikit-learn and torchmetrics."""

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import multiclass_calibration_error

from landscribe import verbs
from landscribe.assessment import counting
from landscribe.assessment.calibration import Calibration
from landscribe.commands.tables import print_measures
from landscribe.errors import RasterError, RecipeError
from landscribe.geo.classes import Classes
from landscribe.maps.class_map import CLASSES_TAG, classes_as_tag
from landscribe.maps.layers import STEPS
from worlds import METRE, pixel_box, write_polygons, write_raster

K, SIZE = 3, 4000
CLASSES = Classes.from_labels(["field", "house", "road"], background=False)


def drawn(seed=0):
    """Overconfident probabilities (K, pixels), and the classes of the pixels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (K, SIZE))
    probabilities = np.exp(1.5 * logits) / np.exp(1.5 * logits).sum(axis=0)
    reference = (logits + rng.gumbel(0, 1, (K, SIZE))).argmax(axis=0)
    return probabilities, reference.astype(np.uint8)


def in_bytes(probabilities):
    return np.rint(probabilities * STEPS).astype(np.uint8)


def calibrated(stored, reference, scale):
    return Calibration.of(reference, stored.argmax(axis=0).astype(np.uint8), stored, scale, 0.0)


# Oracles ------------------------------------------------------------------------------------------------------------


def test_average_precision_of_bytes_equals_that_of_scikit_learn():
    probabilities, reference = drawn()
    stored = in_bytes(probabilities)
    ours = calibrated(stored, reference, 1 / STEPS).average_precision
    expected = [metrics.average_precision_score(reference == index, stored[index]) for index in range(K)]
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_precision_and_recall_of_bytes_equal_those_of_scikit_learn():
    probabilities, reference = drawn()
    stored = in_bytes(probabilities)
    ours = calibrated(stored, reference, 1 / STEPS)
    for index in range(K):
        precision, recall, levels = metrics.precision_recall_curve(reference == index, stored[index])
        np.testing.assert_allclose(ours.precision[index, levels], precision[:-1], rtol=1e-12)
        np.testing.assert_allclose(ours.recall[index, levels], recall[:-1], rtol=1e-12)


def test_average_precision_of_float_probabilities_is_that_of_scikit_learn_within_a_bin():
    probabilities, reference = drawn()
    ours = calibrated(probabilities.astype(np.float32), reference, 1.0).average_precision
    expected = [metrics.average_precision_score(reference == index, probabilities[index]) for index in range(K)]
    np.testing.assert_allclose(ours, expected, atol=2e-3)


@pytest.mark.parametrize("spread", [3, 6, 12])
def test_average_precision_of_a_confident_network_is_that_of_scikit_learn(spread):
    """Most probabilities are within a thousandth of 0 and 1; as ties, they cost a twentieth."""
    rng = np.random.default_rng(0)
    reference = (rng.random(50_000) < 0.05).astype(np.uint8)
    probability = 1 / (1 + np.exp(-rng.normal(np.where(reference, 9, -9), spread)))
    stored = np.stack([1 - probability, probability]).astype(np.float32)
    ours = Calibration.of(reference, (probability > 0.5).astype(np.uint8), stored, 1.0, 0.0).average_precision
    expected = [metrics.average_precision_score(reference == index, stored[index]) for index in range(2)]
    np.testing.assert_allclose(ours, expected, atol=2e-3)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_each_probability_lies_in_the_level_from_its_lowest_to_the_next(probabilities):
    shares = np.array(probabilities)
    counts = Calibration.of(np.zeros(len(shares), np.uint8), np.zeros(len(shares), np.uint8), shares[None], 1.0, 0.0)
    edges = np.append(counts.probabilities, np.inf)
    np.testing.assert_array_equal(counts.levels[0, 1], np.histogram(shares, edges)[0])
    assert np.diff(counts.probabilities).max() <= 0.001 + 1e-12


def test_the_calibration_error_equals_that_of_torchmetrics():
    probabilities, reference = drawn()
    expected = multiclass_calibration_error(
        torch.from_numpy(probabilities.T), torch.from_numpy(reference.astype(np.int64)), K, n_bins=10, norm="l1"
    )
    ours = calibrated(probabilities, reference, 1.0).expected_calibration_error
    assert ours == pytest.approx(expected.item(), abs=1e-6)
    assert ours > 0.05


def test_the_reliability_curve_equals_that_of_scikit_learn():
    probabilities, reference = drawn()
    pixels, correct, confidence = calibrated(probabilities, reference, 1.0).reliability.T
    expected = calibration_curve(probabilities.argmax(axis=0) == reference, probabilities.max(axis=0), n_bins=10)
    filled = pixels > 0
    assert filled.sum() == 7
    np.testing.assert_allclose(correct[filled] / pixels[filled], expected[0])
    np.testing.assert_allclose(confidence[filled] / 2**26 / pixels[filled], expected[1])


def test_the_brier_score_equals_that_of_scikit_learn():
    probabilities, reference = drawn()
    # Of two classes, our sum over both is twice the score of scikit-learn.
    two = np.stack([probabilities[0], 1 - probabilities[0]])
    is_second = (reference > 0).astype(np.uint8)
    assert calibrated(two, is_second, 1.0).brier_score == pytest.approx(2 * metrics.brier_score_loss(is_second, two[1]))


# Laws and hand-derived numbers --------------------------------------------------------------------------------------


def test_certain_and_correct_probabilities_are_perfect():
    reference = np.array([0, 1, 2, 1], np.uint8)
    stored = np.where(reference == np.arange(K)[:, None], STEPS, 0).astype(np.uint8)
    perfect = calibrated(stored, reference, 1 / STEPS)
    assert (perfect.expected_calibration_error, perfect.brier_score) == (0, 0)
    assert perfect.average_precision.tolist() == [1, 1, 1]


def test_four_pixels_have_the_numbers_that_are_derived_by_hand():
    reference = np.array([0, 0, 1, 1], np.uint8)
    second = np.array([0.1, 0.6, 0.4, 0.8])
    two = calibrated(np.stack([1 - second, second]), reference, 1.0)
    # Confidence .9, .6, .6, .8; the map is right, wrong, wrong, right: .1 + .6 + .6 + .2, of four pixels.
    assert two.expected_calibration_error == pytest.approx(1.5 / 4)
    assert two.brier_score == pytest.approx(2 * (0.01 + 0.36 + 0.36 + 0.04) / 4)
    # In the order of their probability: right, wrong, right; precision 1 at recall 1/2, 2/3 at recall 1.
    assert two.average_precision[1] == pytest.approx(1 / 2 + 2 / 3 / 2)


def test_parts_sum_to_the_whole():
    probabilities, reference = drawn()
    stored = in_bytes(probabilities)
    whole = calibrated(stored, reference, 1 / STEPS)
    parts = calibrated(stored[:, :999], reference[:999], 1 / STEPS) + calibrated(
        stored[:, 999:], reference[999:], 1 / STEPS
    )
    np.testing.assert_array_equal(parts.levels, whole.levels)
    np.testing.assert_allclose(parts.reliability, whole.reliability)
    assert parts.brier_score == pytest.approx(whole.brier_score)


def test_a_class_without_reference_pixels_has_no_average_precision():
    probabilities, reference = drawn()
    reference[reference == 2] = 0
    summary = calibrated(in_bytes(probabilities), reference, 1 / STEPS).as_dict(CLASSES)
    row = summary["classes"][2]
    assert row["average_precision"] is None
    assert set(row["recall"]) == {None}
    assert summary["mean_average_precision"] == pytest.approx(
        np.mean([row["average_precision"] for row in summary["classes"][:2]])
    )


# Maps ---------------------------------------------------------------------------------------------------------------

HEIGHT, WIDTH = 40, 100


def world(folder, dtype):
    """A map, its reference, its probabilities as `predict` writes them, and the arrays."""
    probabilities, reference = drawn()
    stored = in_bytes(probabilities) if dtype == "uint8" else probabilities.astype(np.float32)
    stored, truth = stored.reshape(K, HEIGHT, WIDTH), reference.reshape(HEIGHT, WIDTH)
    mapped = stored.argmax(axis=0).astype(np.uint8)
    layers = stored.copy()
    layers[:, :5] = 255 if dtype == "uint8" else np.nan
    path = folder / "probabilities.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=K, dtype=dtype, crs="EPSG:32632", transform=METRE,
        nodata=255 if dtype == "uint8" else np.nan,
    ) as target:  # fmt: skip
        target.write(layers)
        target.descriptions = CLASSES.names
        if dtype == "uint8":
            target.scales = (1 / STEPS,) * K
    values = np.array(CLASSES.values, np.uint8)
    files = [write_raster(folder / f"{name}.tif", values[array]) for name, array in (("map", mapped), ("truth", truth))]
    with rasterio.open(files[0], "r+") as target:
        target.update_tags(**{CLASSES_TAG: classes_as_tag(CLASSES)})
    return *files, path, stored[:, 5:].reshape(K, -1), truth[5:].ravel()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_probabilities_of_a_map_are_compared_where_they_are_valid(tmp_path, dtype, monkeypatch, capsys):
    monkeypatch.setattr(counting, "_STRIP_PIXELS", 1000)
    monkeypatch.setattr(counting, "_PART_SIDE", 16)
    monkeypatch.setattr(counting, "_PART_PIXELS", 1000)
    mapped, truth, path, stored, reference = world(tmp_path, dtype)
    assessment = verbs.assess(mapped, reference=truth, probabilities=path)
    expected = calibrated(stored, reference, 1 / STEPS if dtype == "uint8" else 1.0)
    ours = assessment.calibration
    assert assessment.confusion.total == HEIGHT * WIDTH
    assert ours.pixels == 35 * WIDTH
    np.testing.assert_array_equal(ours.levels, expected.levels)
    assert ours.expected_calibration_error == pytest.approx(expected.expected_calibration_error)
    print_measures(assessment.as_dict())
    line = f"probabilities: calibration error (ECE) {ours.expected_calibration_error:.3f}, Brier score"
    assert line in capsys.readouterr().out


def test_probabilities_that_do_not_fit_are_refused(tmp_path):
    mapped, truth, path, *_ = world(tmp_path, "uint8")
    with rasterio.open(path, "r+") as target:
        target.scales = (1.0,) * K
    with pytest.raises(RasterError, match=r"holds the probability 2\d\d\. Expected 0 to 1"):
        verbs.assess(mapped, reference=truth, probabilities=path)
    with rasterio.open(path, "r+") as target:
        target.descriptions = ("field", "house", "river")
    with pytest.raises(RasterError, match="bands field, house, river, but no band road"):
        verbs.assess(mapped, reference=truth, probabilities=path)
    with pytest.raises(RasterError, match="lie on different grids"):
        verbs.assess(mapped, reference=truth, probabilities=write_raster(tmp_path / "a.tif", np.ones((9, 9), np.uint8)))
    with pytest.raises(RecipeError, match="--probabilities is one file, but 2 maps were given"):
        verbs.assess([mapped, mapped], reference=truth, probabilities=path)
    points = write_polygons(tmp_path / "points.gpkg", [pixel_box(9, 9, 1, 1).centroid], kind=["field"])
    with pytest.raises(RecipeError, match=r"--probabilities needs polygons, .* points\.gpkg holds points"):
        verbs.assess(mapped, reference=points, label_field="kind", probabilities=path)


def test_each_band_of_probabilities_has_its_own_scale_offset_and_unit(tmp_path):
    mapped, truth, path, *_ = world(tmp_path, "float32")
    whole = verbs.assess(mapped, reference=truth, probabilities=path).calibration
    with rasterio.open(path) as source:
        layers = source.read()
    scales, offsets, units = (0.01, 1e-4, 1.0), (0.0, 0.5, -5.0), (1.0, 1.0, 0.01)  # the last one in per cent
    numbers = zip(layers, scales, offsets, units, strict=True)
    encoded = [(band / unit - offset) / scale for band, scale, offset, unit in numbers]
    with rasterio.open(path, "r+") as target:
        target.write(np.stack(encoded).astype(np.float32))
        target.scales, target.offsets, target.units = scales, offsets, ("", "", "%")
    ours = verbs.assess(mapped, reference=truth, probabilities=path).calibration
    assert ours.expected_calibration_error == pytest.approx(whole.expected_calibration_error, abs=1e-4)
    assert ours.brier_score == pytest.approx(whole.brier_score, rel=1e-5)
    np.testing.assert_allclose(ours.average_precision, whole.average_precision, atol=1e-3)


def test_bytes_of_two_scales_have_the_average_precision_of_scikit_learn(tmp_path):
    mapped, truth, path, _, reference = world(tmp_path, "uint8")
    steps = np.array([STEPS, 100, 200])
    with rasterio.open(path, "r+") as target:
        layers = target.read()
        layers[:, 5:] = np.rint(layers[:, 5:] * (steps / STEPS)[:, None, None])
        target.write(layers)
        target.scales = tuple(1 / steps)
    ours = verbs.assess(mapped, reference=truth, probabilities=path).calibration
    shares = layers[:, 5:].reshape(K, -1)
    expected = [metrics.average_precision_score(reference == index, shares[index]) for index in range(K)]
    np.testing.assert_allclose(ours.average_precision, expected, atol=2e-3)
    np.testing.assert_allclose(
        ours.brier_score, np.square(shares / steps[:, None] - np.eye(K)[reference].T).sum(0).mean(), rtol=1e-6
    )
