"""Measures of accuracy, against scikit-learn."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics

from landscribe.confusion import Confusion
from landscribe.errors import ClassError
from landscribe.geo.classes import Classes

K = 4
CLASSES = Classes.from_labels([0, 3, 5, 9], background=False)
indices = st.sampled_from([0, 1, 2, 3, 255])
pairs = st.integers(1, 60).flatmap(
    lambda size: st.tuples(arrays(np.uint8, size, elements=indices), arrays(np.uint8, size, elements=indices))
)


def confusion(pair) -> Confusion:
    return Confusion.of(CLASSES, *pair)


def known(pair) -> tuple[np.ndarray, np.ndarray]:
    reference, predicted = pair
    counted = (reference != 255) & (predicted != 255)
    return reference[counted], predicted[counted]


def test_values_of_classes_are_refused_where_indices_are_counted():
    values = np.array([0, 3, 9, 255], np.uint8)
    with pytest.raises(
        ClassError, match=r"^the arrays hold 0 to 9, 0 to 9\. Expected indices of classes, 0 to 3, or 255"
    ):
        Confusion.of(CLASSES, values, values)
    for odd in (np.array([-1, 3]), np.array([1.0, 2.0])):
        with pytest.raises(ClassError, match="Expected indices"):
            Confusion.of(CLASSES, np.array([1, 1]), odd)
    counted = Confusion.of(CLASSES, *2 * [CLASSES.to_indices(values)])
    assert counted.counts.diagonal().tolist() == [1, 1, 0, 1]


@given(pairs)
def test_counts_equal_those_of_scikit_learn(pair):
    reference, predicted = known(pair)
    expected = metrics.confusion_matrix(reference, predicted, labels=range(K)) if len(reference) else np.zeros((K, K))
    np.testing.assert_array_equal(confusion(pair).counts, expected)


@pytest.mark.parametrize(
    ("measure", "score"),
    [
        ("users_accuracy", metrics.precision_score),
        ("producers_accuracy", metrics.recall_score),
        ("f1", metrics.f1_score),
        ("iou", metrics.jaccard_score),
    ],
)
@settings(max_examples=50)
@given(pair=pairs)
def test_measures_by_class_equal_those_of_scikit_learn(measure, score, pair):
    reference, predicted = known(pair)
    ours = getattr(confusion(pair), measure)
    mapped, present = np.bincount(predicted, minlength=K) > 0, np.bincount(reference, minlength=K) > 0
    defined = {"users_accuracy": mapped, "producers_accuracy": present}.get(measure, mapped | present)
    np.testing.assert_array_equal(np.isnan(ours), ~defined)
    if len(reference):
        expected = score(reference, predicted, labels=range(K), average=None, zero_division=0)
        np.testing.assert_allclose(ours[defined], expected[defined], rtol=1e-12)


@given(pairs)
def test_overall_accuracy_equals_that_of_scikit_learn(pair):
    reference, predicted = known(pair)
    expected = metrics.accuracy_score(reference, predicted) if len(reference) else math.nan
    assert confusion(pair).overall_accuracy == pytest.approx(expected, nan_ok=True)


@given(pairs)
def test_means_leave_out_absent_classes(pair):
    reference, predicted = known(pair)
    occurring = np.unique(np.concatenate([reference, predicted]))
    if len(occurring):
        f1 = metrics.f1_score(reference, predicted, labels=occurring, average="macro", zero_division=0)
        iou = metrics.jaccard_score(reference, predicted, labels=occurring, average="macro", zero_division=0)
        assert (confusion(pair).mean_f1, confusion(pair).mean_iou) == (pytest.approx(f1), pytest.approx(iou))


@given(pairs, pairs)
def test_adding_confusions_merges_their_pixels(one, two):
    together = tuple(np.concatenate(parts) for parts in zip(one, two, strict=True))
    np.testing.assert_array_equal((confusion(one) + confusion(two)).counts, confusion(together).counts)


@given(pairs)
def test_adding_nothing_changes_nothing(pair):
    np.testing.assert_array_equal((confusion(pair) + Confusion.zeros(CLASSES)).counts, confusion(pair).counts)


@given(pairs)
def test_ignored_pixels_are_not_counted(pair):
    assert confusion(pair).total == len(known(pair)[0])


@given(pairs)
def test_swapping_map_and_reference_swaps_the_two_accuracies(pair):
    there, back = confusion(pair), confusion(pair[::-1])
    np.testing.assert_array_equal(there.users_accuracy, back.producers_accuracy)
    np.testing.assert_array_equal(there.f1, back.f1)


def test_arrays_of_two_dimensions_are_counted_like_flat_ones():
    reference, predicted = np.array([[0, 1], [1, 255]], np.uint8), np.array([[0, 1], [0, 0]], np.uint8)
    assert confusion((reference, predicted)).counts[:2, :2].tolist() == [[1, 0], [1, 1]]


def test_the_summary_holds_the_numbers_of_a_small_example():
    #            predicted
    # reference  0   3        user's accuracy of 0: 6/8, of 3: 1/2; producer's of 0: 6/7, of 3: 1/3
    #         0  6   1        F1 of 0: 12/15, of 3: 2/5; IoU of 0: 6/9, of 3: 1/4; overall 7/10
    #         3  2   1
    counts = np.zeros((K, K), np.int64)
    counts[:2, :2] = [[6, 1], [2, 1]]
    summary = Confusion(CLASSES, counts).as_dict()
    assert summary["overall_accuracy"] == pytest.approx(0.7)
    assert summary["mean_f1"] == pytest.approx((12 / 15 + 2 / 5) / 2)
    assert summary["mean_iou"] == pytest.approx((6 / 9 + 1 / 4) / 2)
    assert summary["mean_users_accuracy"] == pytest.approx((6 / 8 + 1 / 2) / 2)
    assert summary["mean_producers_accuracy"] == pytest.approx((6 / 7 + 1 / 3) / 2)
    assert [
        (row["name"], row["value"], row["reference_pixels"], row["predicted_pixels"]) for row in summary["classes"]
    ] == [
        ("0", 0, 7, 8),
        ("3", 3, 3, 2),
        ("5", 5, 0, 0),
        ("9", 9, 0, 0),
    ]
    assert summary["classes"][2]["f1"] is None


def test_the_summary_of_nothing_is_json_without_nan():
    text = json.dumps(Confusion.zeros(CLASSES).as_dict(), allow_nan=False)
    assert json.loads(text)["overall_accuracy"] is None


def test_counts_beyond_32_bits_are_exact():
    counts = np.zeros((K, K), np.int64)
    counts[0, 0], counts[0, 1] = 3 * 2**40, 2**40
    assert Confusion(CLASSES, counts).overall_accuracy == 0.75
