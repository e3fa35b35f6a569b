"""The threshold with the highest F1-score, against scikit-learn's curve."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import f1_score, precision_recall_curve

from landscribe.confusion import Confusion
from landscribe.geo.classes import IGNORE, Classes
from landscribe.inference.threshold import BINS, ThresholdCurve, count_bins

CLASSES = Classes.from_labels(["house"], background=True)


def curve(reference, probability) -> ThresholdCurve:
    return ThresholdCurve(count_bins(torch.from_numpy(reference), torch.from_numpy(probability)).numpy())


@st.composite
def pixels(draw, *, of_bins=False):
    """Class indices, some of them ignored, and probabilities; these are multiples of 1 / BINS if `of_bins`."""
    count = draw(st.integers(1, 60))
    reference = draw(arrays.arrays(np.uint8, count, elements=st.sampled_from([0, 1, IGNORE])))
    fractions = st.integers(1, BINS - 1).map(lambda k: k / BINS) if of_bins else st.floats(0, 1, width=32)
    return reference, draw(arrays.arrays(np.float32, count, elements=fractions))


def best_of_sklearn(reference, probability):
    """The highest F1-score over all thresholds."""
    precision, recall, _ = precision_recall_curve(reference, probability)
    return np.nan_to_num(2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()


@given(pixels(of_bins=True))
def test_the_best_f1_is_the_highest_of_the_precision_recall_curve(drawn):
    reference, probability = drawn
    best, labelled = curve(reference, probability).best, reference != IGNORE
    if not (reference == 1).any():
        assert best is None
        return
    threshold, score = best
    assert score == pytest.approx(best_of_sklearn(reference[labelled], probability[labelled]))
    assert score == pytest.approx(f1_score(reference[labelled], probability[labelled] >= threshold))


@given(pixels(), st.integers(0, BINS - 1))
def test_the_curve_has_the_f1_of_the_map_with_that_threshold(drawn, step):
    reference, probability = drawn
    mapped = (probability >= step / BINS).astype(np.uint8)
    f1 = Confusion.of(CLASSES, reference, mapped).f1[1]
    assert curve(reference, probability).f1[step] == np.nan_to_num(f1)


@given(pixels(), pixels())
def test_adding_curves_adds_their_pixels(one, other):
    both = curve(*map(np.concatenate, zip(one, other, strict=True)))
    assert (both.counts == curve(*one).counts + curve(*other).counts).all()


@pytest.mark.parametrize(
    ("background", "house", "threshold"), [(0.125, 0.25, 0.25), (0.25, 0.875, 0.5), (0.75, 0.875, 0.75 + 1 / BINS)]
)
def test_of_equal_scores_the_threshold_nearest_to_a_half_is_chosen(background, house, threshold):
    assert curve(np.uint8([0, 1]), np.float32([background, house])).best == (threshold, 1)


def test_probabilities_that_are_not_numbers_count_as_zero():
    counts = curve(np.uint8([1, 1]), np.float32([np.nan, 1])).counts
    assert (counts[1, 0], counts[1, -1]) == (1, 1)


def test_pixels_are_counted_without_waiting_for_the_device():
    # What depends on the numbers of a tensor cannot be computed without any.
    reference = torch.empty(2, 8, 8, dtype=torch.uint8, device="meta")
    assert count_bins(reference, torch.empty(2, 8, 8, device="meta")).shape == (2, BINS)
