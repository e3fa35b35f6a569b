"""Sizes of samples: the published examples, and laws of allocations."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscribe.errors import SampleError
from landscribe.estimation.intervals import interval_quantile
from landscribe.sampling.sizes import (
    allocate,
    expected_by_stratum,
    expected_overall,
    require_enough,
    simple_random_size,
    stratified_size,
)

# AcATaMa's example "Tinigua".
TINIGUA = np.array([1611984, 63375, 711441])
RULES = st.sampled_from(["auto", "proportional", "equal", "neyman"])
STRATA = st.lists(st.tuples(st.integers(200, 10**9), st.floats(0.05, 0.99)), min_size=1, max_size=8)


def test_equation_13_of_olofsson_2014_gives_641_units():
    shares, accuracies = [0.02, 0.015, 0.32, 0.645], [0.7, 0.6, 0.9, 0.95]
    size = stratified_size(shares, accuracies, 0.01)
    assert size == pytest.approx(640.536, abs=5e-4)
    assert math.ceil(size) == 641


def test_equation_13_gives_the_size_of_the_tinigua_example():
    size = stratified_size(TINIGUA / TINIGUA.sum(), [0.9, 0.8, 0.9], 0.0135)
    assert size == pytest.approx(502.607, abs=5e-4)
    assert (size * TINIGUA / TINIGUA.sum()) == pytest.approx([339.45, 13.35, 149.81], abs=5e-3)


def test_cochran_gives_the_simple_random_size_of_the_tinigua_example():
    assert round(simple_random_size(0.85, 0.04 / interval_quantile(0.95))) == 306


def test_the_finite_population_lowers_the_size_to_at_most_the_population():
    assert simple_random_size(0.5, 0.001, units=1000) < 1000
    assert stratified_size([0.5, 0.5], [0.5, 0.5], 0.001, units=1000) < 1000


@given(STRATA, st.integers(20, 1500), RULES)
def test_an_allocation_sums_to_the_size_with_two_units_of_each_stratum(strata, size, rule):
    units, accuracies = zip(*strata, strict=True)
    numbers = allocate(rule, size, units, accuracies)
    assert sum(numbers) == size
    assert min(numbers) >= 2


def test_auto_gives_rare_strata_fifty_units_and_shares_the_rest_by_size():
    assert allocate("auto", 641, [200_000, 150_000, 3_200_000, 6_450_000], [0.8] * 4) == [50, 50, 179, 362]


def test_auto_takes_all_units_of_a_stratum_with_fewer_than_fifty():
    assert allocate("auto", 500, [20, 10**6], [0.8, 0.8]) == [20, 480]


def test_neyman_gives_the_uncertain_stratum_more():
    # S is 0.5 and 0.3 in strata of one size.
    assert allocate("neyman", 800, [10**6, 10**6], [0.5, 0.9]) == [500, 300]


def test_the_expected_error_of_neyman_is_that_of_equation_13():
    shares, accuracies = np.array([0.02, 0.015, 0.32, 0.645]), [0.7, 0.6, 0.9, 0.95]
    units = (shares * 10**9).astype(int).tolist()
    deviations = np.sqrt(np.array(accuracies) * (1 - np.array(accuracies)))
    numbers = 640.536 * shares * deviations / (shares * deviations).sum()
    assert expected_overall(accuracies, numbers.tolist(), units, 0.95).standard_error == pytest.approx(0.01, rel=1e-4)


@given(STRATA, st.integers(20, 1500))
def test_expected_intervals_hold_the_accuracy_and_stay_between_0_and_1(strata, size):
    units, accuracies = zip(*strata, strict=True)
    numbers = allocate("equal", size, units, accuracies)
    for row in expected_by_stratum(accuracies, numbers, units, 0.95):
        assert 0 <= row.lower <= row.accuracy <= row.upper <= 1


def test_a_stratum_without_units_has_no_expected_accuracy():
    assert expected_by_stratum([0.8, 0.8], [0, 10], [100, 100], 0.95)[0] is None
    assert expected_overall([0.8, 0.8], [0, 10], [100, 100], 0.95) is None


def test_more_units_than_a_stratum_has_are_refused():
    with pytest.raises(SampleError, match="the size of stratum forest is 12, but it has 11 units"):
        require_enough(["water", "forest"], [1, 12], [1, 11])
