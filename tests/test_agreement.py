"""Measures of agreement: published tables to every digit, scikit-learn, and laws."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics

from landscribe import agreement
from landscribe.confusion import Confusion
from landscribe.estimation.estimate import estimate
from landscribe.geo.classes import Classes

matrices = st.integers(2, 5).flatmap(lambda k: arrays(np.int64, (k, k), elements=st.integers(0, 9)))
filled = matrices.filter(lambda matrix: matrix.sum() > 0)

# diffeR's example; rows are the reference.
PONTIUS = np.array([[3, 1, 2], [2, 3, 0], [1, 3, 1]]).T
# micer's example of six classes; rows are the reference.
MICER = np.array([
    [75, 7, 59, 46, 1, 6], [13, 20585, 62, 617, 142, 21], [10, 8, 196, 33, 22, 12], [63, 138, 34, 2413, 84, 1],
    [1, 64, 75, 72, 270, 2], [1, 5, 0, 1, 1, 158],
]).T  # fmt: skip
CLASSES = Classes.from_labels(["barren", "forest", "impervious", "low", "mixed", "water"], background=False)


def pixels_of(matrix):
    """The class of each pixel in the reference and in the map."""
    reference, mapped = np.indices(matrix.shape).reshape(2, -1)
    return np.repeat(reference, matrix.ravel()), np.repeat(mapped, matrix.ravel())


# Published tables ---------------------------------------------------------------------------------------------------


def test_disagreement_equals_the_example_of_differ():
    assert agreement.quantity(PONTIUS).tolist() == [0, 2, 2]
    assert agreement.exchange(PONTIUS).tolist() == [4, 2, 2]
    assert agreement.shift(PONTIUS).tolist() == [2, 2, 2]


def by_map_totals(counts, totals):
    """Sample counts (rows = map) as a sample that is stratified by map class, with the pixels of each class."""
    names = [f"{index}" for index in range(len(totals))]
    sample = [
        {"stratum": row, "map": row, "reference": column, "count": int(count)}
        for row, counted in zip(names, counts, strict=True)
        for column, count in zip(names, counted, strict=True)
        if count
    ]
    return estimate(sample, [{"stratum": name, "units": total} for name, total in zip(names, totals, strict=True)])


@pytest.mark.filterwarnings("ignore")
def test_disagreement_of_an_estimated_matrix_equals_the_example_of_differ_with_map_totals():
    shares = by_map_totals(PONTIUS.T, [2000, 4000, 6000]).matrix.T
    total = {
        name: 12_000 * getattr(agreement, name)(shares).sum() / 2
        for name in ("quantity", "allocation", "exchange", "shift")
    }
    assert total["quantity"] == pytest.approx(4133.3333, abs=5e-5)
    assert total["exchange"] == pytest.approx(2000)
    assert total["shift"] == pytest.approx(1266.6667, abs=5e-5)
    assert total["quantity"] + total["allocation"] == pytest.approx(7400)


@pytest.mark.filterwarnings("ignore")
def test_disagreement_of_the_estimated_matrix_of_olofsson_2014():
    counts = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
    shares = by_map_totals(counts, [200_000, 150_000, 3_200_000, 6_450_000]).matrix.T
    expected = {"quantity": 0.0044932401, "allocation": 0.0489948718, "exchange": 0.0444923077, "shift": 0.0045025641}
    for name, value in expected.items():
        assert getattr(agreement, name)(shares).sum() / 2 == pytest.approx(value, abs=5e-11)


def test_efficacy_equals_that_of_micer():
    """micer adds 1e-5 to each denominator, so it differs from the formula by about as much."""
    assert agreement.efficacy(MICER) == pytest.approx(0.7937787502, abs=2e-5)
    of_users, of_producers = agreement.users_efficacy(MICER), agreement.producers_efficacy(MICER)
    np.testing.assert_allclose(of_users, [0.382614, 0.775349, 0.692325, 0.866065, 0.548568, 0.951423], atol=2e-5)
    # The baseline of forest is .82: there, 1e-5 is magnified.
    np.testing.assert_allclose(of_producers, [0.456616, 0.939895, 0.450841, 0.723554, 0.509136, 0.788324], atol=8e-5)


def test_accuracy_of_the_example_of_micer_to_every_printed_digit():
    confusion = Confusion(CLASSES, MICER)
    assert round(confusion.overall_accuracy, 10) == 0.9367143648
    assert confusion.users_accuracy.round(6).tolist() == [0.386598, 0.960121, 0.697509, 0.882913, 0.557851, 0.951807]
    assert confusion.producers_accuracy.round(6).tolist() == [0.460123, 0.989331, 0.460094, 0.758328, 0.519231, 0.79]
    assert confusion.f1.round(6).tolist() == [0.420168, 0.974507, 0.554455, 0.815892, 0.537849, 0.863388]
    assert confusion.mean_producers_accuracy == pytest.approx(0.66285098, abs=5e-8)
    assert confusion.mean_users_accuracy == pytest.approx(0.73946650, abs=5e-8)


# scikit-learn -------------------------------------------------------------------------------------------------------


@given(filled)
def test_kappa_equals_that_of_scikit_learn(matrix):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single class
        expected = metrics.cohen_kappa_score(*pixels_of(matrix), labels=range(len(matrix)))
    assert agreement.kappa(matrix) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(filled)
def test_mcc_equals_that_of_scikit_learn_where_it_is_defined(matrix):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single class
        expected = metrics.matthews_corrcoef(*pixels_of(matrix))
    ours = agreement.mcc(matrix)
    one_class = 1 in (np.count_nonzero(matrix.sum(axis=0)), np.count_nonzero(matrix.sum(axis=1)))
    assert np.isnan(ours) == one_class
    if not one_class:
        assert ours == pytest.approx(expected, abs=1e-9)


@given(filled)
def test_specificity_is_the_recall_of_all_other_classes_together(matrix):
    reference, mapped = pixels_of(matrix)
    for index in range(len(matrix)):
        others = (reference != index, mapped != index)
        expected = metrics.recall_score(*others, zero_division=np.nan)
        assert agreement.specificity(matrix)[index] == pytest.approx(expected, nan_ok=True)
        expected = metrics.precision_score(*others, zero_division=np.nan)
        assert agreement.negative_predictive_value(matrix)[index] == pytest.approx(expected, nan_ok=True)


# Laws ---------------------------------------------------------------------------------------------------------------


@given(filled)
def test_quantity_and_allocation_are_all_disagreement_of_a_map_and_of_each_class(matrix):
    by_class = agreement.quantity(matrix) + agreement.allocation(matrix)
    np.testing.assert_array_equal(by_class, matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix))
    assert by_class.sum() / 2 == matrix.sum() - np.trace(matrix)


@given(filled)
def test_exchange_and_shift_are_allocation(matrix):
    by_class = agreement.exchange(matrix) + agreement.shift(matrix)
    np.testing.assert_array_equal(by_class, agreement.allocation(matrix))
    assert np.all(agreement.shift(matrix) >= 0)


@given(filled)
def test_two_classes_never_shift(matrix):
    assert agreement.shift(matrix[:2, :2]).tolist() == [0, 0]


@given(filled)
def test_measures_of_both_sides_are_the_same_for_the_transposed_matrix(matrix):
    for measure in (agreement.kappa, agreement.mcc, agreement.quantity, agreement.exchange, agreement.shift):
        np.testing.assert_allclose(measure(matrix), measure(matrix.T), atol=1e-12)


@given(filled, st.floats(0.001, 1000))
def test_rates_of_counts_are_those_of_shares(matrix, factor):
    for measure in (agreement.kappa, agreement.efficacy, agreement.users_efficacy, agreement.specificity):
        np.testing.assert_allclose(measure(matrix * factor), measure(matrix), atol=1e-9)


def test_a_perfect_map_has_kappa_mcc_and_efficacy_of_one():
    confusion = Confusion(CLASSES, np.diag([1, 2, 3, 4, 5, 6]))
    assert (confusion.kappa, confusion.mcc, confusion.efficacy) == pytest.approx((1, 1, 1))
    assert (confusion.quantity_disagreement, confusion.allocation_disagreement) == (0, 0)


def test_the_summary_holds_disagreement_and_for_two_classes_specificity():
    summary = Confusion(
        Classes.from_labels(["ground", "house"], background=False), np.array([[6, 2], [1, 1]])
    ).as_dict()
    assert summary["specificity"] == pytest.approx(6 / 8)
    assert summary["negative_predictive_value"] == pytest.approx(6 / 7)
    assert (summary["quantity_disagreement"], summary["allocation_disagreement"]) == (0.1, 0.2)
    assert [row["quantity"] for row in summary["classes"]] == [0.1, 0.1]
    assert "specificity" not in Confusion(CLASSES, MICER).as_dict()
