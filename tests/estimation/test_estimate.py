"""Estimates of accuracy and area: published tables to the last digit, laws, and samples of drawn populations."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import landscribe as ls
from landscribe.errors import SampleError
from landscribe.estimation.estimate import _Estimators
from landscribe.estimation.sample_tables import LabelledSample, Strata
from landscribe.estimation.totals import Population

Z = stats.norm.ppf(0.975)


def counted(matrix, names):
    """Rows of counts: rows of the matrix are the map's classes, which are the strata."""
    return pd.DataFrame(
        [
            {"stratum": mapped, "map": mapped, "reference": reference, "count": matrix[row][col]}
            for row, mapped in enumerate(names)
            for col, reference in enumerate(names)
            if matrix[row][col]
        ]
    )


def strata(names, units, area=None):
    table = pd.DataFrame({"stratum": names, "units": units})
    return table if area is None else table.assign(area=area)


def values(estimates):
    return [each.value for each in estimates.values()]


def errors(estimates):
    return [each.se for each in estimates.values()]


def half_widths(estimates):
    return [(each.upper - each.lower) / 2 for each in estimates.values()]


def digits(decimals):
    return {"rel": 0, "abs": 0.50001 * 10**-decimals}


CHANGE = ("deforestation", "gain", "stable forest", "stable non-forest")
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
OLOFSSON_2014 = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]


@pytest.fixture(scope="module")
def olofsson_2014():
    return ls.estimate(counted(OLOFSSON_2014, CHANGE), strata(CHANGE, PIXELS, PIXELS * 0.09))


@pytest.mark.parametrize(
    ("measure", "expected", "standard_errors"),
    [
        ("users", [0.88, 0.7333333333, 0.9272727273, 0.9630769231],
         [0.0377760113, 0.0514066401, 0.0202782499, 0.0104762759]),
        ("producers", [0.7486614048, 0.8471563981, 0.9345089086, 0.9616089928],
         [0.1088315576, 0.129800184, 0.0175124605, 0.0093681303]),
        ("shares", [0.0235086247, 0.0129846154, 0.3175221445, 0.6459846154],
         [0.0034907224, 0.0021291531, 0.0087924242, 0.0092299639]),
    ],
)  # fmt: skip
def test_table_8_of_olofsson_2014_has_these_digits(olofsson_2014, measure, expected, standard_errors):
    assert values(getattr(olofsson_2014, measure)) == pytest.approx(expected, **digits(10))
    assert errors(getattr(olofsson_2014, measure)) == pytest.approx(standard_errors, **digits(10))


def test_an_estimate_is_one_line_in_python(olofsson_2014):
    assert repr(olofsson_2014) == "Estimate(overall=0.947 (0.928 to 0.965), confidence=0.95, units=640, classes=4)"


def test_areas_of_olofsson_2014_are_hectares(olofsson_2014):
    hectares = [21157.7622378, 11686.1538462, 285769.9300699, 581386.1538462]
    assert values(olofsson_2014.areas) == pytest.approx(hectares, **digits(7))
    ranges = [6157.6343861, 3755.8260254, 15509.8362982, 16281.6563522]  # 1.96 standard errors
    assert [1.96 * se for se in errors(olofsson_2014.areas)] == pytest.approx(ranges, **digits(7))
    # No gain is among the 165 units of stable forest, nor the 75 of deforestation: that interval is another.
    expected = np.array(ranges)[[0, 2, 3]] * Z / 1.96
    assert np.array(half_widths(olofsson_2014.areas))[[0, 2, 3]] == pytest.approx(expected, rel=1e-7)


def wilson_of(count, units):
    """Wilson's interval of a share, as in textbooks."""
    share, squared = count / units, Z**2
    half = Z * math.sqrt(share * (1 - share) / units + squared / (4 * units**2))
    return np.array([share + squared / (2 * units) - half, share + squared / (2 * units) + half]) / (
        1 + squared / units
    )


def test_the_area_of_gain_in_olofsson_2014_reaches_to_gain_that_165_units_of_forest_can_miss(olofsson_2014):
    """By hand: Zou and Donner 2008, with Wilson's intervals of 0, 55, 0 and 1 of the units of the strata.

    Where units differ, an interval has the size whose variance p (1 - p) / size is that with n - 1: n - 1 units.
    """
    below = above = 0.0
    for pixels, count, units in zip(PIXELS, (0, 55, 0, 1), (75, 75, 165, 325), strict=True):
        lower, upper = wilson_of(count * (1 - 1 / units), units - 1) if count else (0.0, wilson_of(0, units)[1])
        below += (pixels * 0.09 * (count / units - lower)) ** 2
        above += (pixels * 0.09 * (upper - count / units)) ** 2
    gain = olofsson_2014.areas["gain"]
    assert (gain.value - gain.lower, gain.upper - gain.value) == pytest.approx((below**0.5, above**0.5), rel=1e-9)
    assert gain.upper - gain.value > 1.5 * Z * gain.se


def test_overall_accuracy_and_matrix_of_olofsson_2014(olofsson_2014):
    assert olofsson_2014.overall.value == pytest.approx(0.9465118881, **digits(10))
    assert olofsson_2014.overall.se == pytest.approx(0.0094304172, **digits(10))
    matrix = [
        [0.0176, 0, 0.0013333333, 0.0010666667],
        [0, 0.011, 0.0016, 0.0024],
        [0.0019393939, 0, 0.2967272727, 0.0213333333],
        [0.0039692308, 0.0019846154, 0.0178615385, 0.6211846154],
    ]
    np.testing.assert_allclose(olofsson_2014.matrix, matrix, atol=0.5001e-10, rtol=0)
    assert list(olofsson_2014.matrix.index) == list(olofsson_2014.matrix.columns) == list(CHANGE)


def test_example_1_of_olofsson_2013_has_these_digits():
    names, units = ("1", "2", "3"), [22_353, 1_122_543, 610_228]
    result = ls.estimate(counted([[97, 0, 3], [3, 279, 18], [2, 1, 97]], names), strata(names, units))
    assert (result.overall.value, result.overall.se) == pytest.approx((0.94441678, 0.01116440), **digits(8))
    assert values(result.users) == pytest.approx([0.97, 0.93, 0.97])
    assert [Z * se for se in errors(result.users)] == pytest.approx([0.0336029, 0.0289203, 0.0336029], **digits(7))
    assert values(result.producers) == pytest.approx([0.4806308243, 0.9941886771, 0.8969258968], **digits(10))
    ranges = [0.2245304, 0.0113252, 0.0412054]
    assert [Z * se for se in errors(result.producers)] == pytest.approx(ranges, **digits(7))
    assert values(result.areas) == pytest.approx([45112.4, 1050067.27, 659944.33], **digits(1))
    assert errors(result.areas) == pytest.approx([10751.4045, 17652.0438, 18635.8559], **digits(4))
    first = result.areas["1"]
    assert (first.lower, first.upper) == pytest.approx((24040.03, 66184.77), **digits(2))


def test_example_2_of_olofsson_2013_has_shares_as_units():
    names = ("1", "2", "3")
    result = ls.estimate(
        counted([[127, 66, 54], [2, 322, 17], [0, 15, 540]], names), strata(names, [0.007, 0.295, 0.698])
    )
    assert result.overall.value == pytest.approx(0.9612973753, **digits(10))
    assert Z * result.overall.se == pytest.approx(0.0118642725, **digits(10))
    assert values(result.users) == pytest.approx([0.5141700405, 0.9442815249, 0.972972973], **digits(10))
    ranges = [0.0624562734, 0.0243814197, 0.0135033876]
    assert [Z * se for se in errors(result.users)] == pytest.approx(ranges, **digits(10))
    assert values(result.producers) == pytest.approx([0.6753468084, 0.9307202679, 0.9766497594], **digits(10))
    ranges = [0.3045836864, 0.0293817216, 0.0096037152]
    assert [Z * se for se in errors(result.producers)] == pytest.approx(ranges, **digits(10))
    assert values(result.areas) == pytest.approx([0.0053293956, 0.2992983601, 0.6953722444], **digits(10))


def stehman_2014():
    mapped = ["AAAAAAABBB", "ABBBBBBBBB", "BBCCCCCCBB", "DDDDDDDDDD"]
    reference = ["AAAAACBABC", "ABBBBBAABB", "CCCCCDDBBA", "DDDDDDDCCB"]
    rows = [
        {"stratum": stratum, "map": each, "reference": true}
        for stratum, row, truth in zip("ABCD", mapped, reference, strict=True)
        for each, true in zip(row, truth, strict=True)
    ]
    return pd.DataFrame(rows), strata(list("ABCD"), [40_000, 30_000, 20_000, 10_000])


def test_stehman_2014_has_strata_that_are_no_map_classes():
    result = ls.estimate(*stehman_2014())
    assert values(result.shares) == pytest.approx([0.35, 0.34, 0.20, 0.11])
    expected = [0.0822477963, 0.0758530744, 0.0642797704, 0.0307222323]
    assert errors(result.shares) == pytest.approx(expected, **digits(10))
    assert values(result.users) == pytest.approx([0.7419354839, 0.5744680851, 0.5, 0.7], **digits(10))
    expected = [0.1645420176, 0.1247822472, 0.2151119433, 0.1526761278]
    assert errors(result.users) == pytest.approx(expected, **digits(10))
    assert values(result.producers) == pytest.approx([0.6571428571, 0.7941176471, 0.3, 0.6363636364], **digits(10))
    expected = [0.147710095, 0.1165479135, 0.1504108263, 0.1622796715]
    assert errors(result.producers) == pytest.approx(expected, **digits(10))
    assert (result.overall.value, result.overall.se) == pytest.approx((0.63, 0.0846421881), **digits(10))
    matrix = [[0.23, 0.04, 0.04, 0], [0.12, 0.27, 0.08, 0], [0, 0.02, 0.06, 0.04], [0, 0.01, 0.02, 0.07]]
    np.testing.assert_allclose(result.matrix, matrix, atol=1e-12)


TINIGUA = ("forest", "water", "other")


def test_acatama_example_has_the_areas_and_equation_7_of_olofsson():
    """AcATaMa itself prints other errors of producer's accuracy: it divides by another total."""
    pixels = np.array([1_611_984, 63_375, 711_441])
    matrix = [[287, 1, 25], [3, 43, 4], [11, 1, 127]]
    result = ls.estimate(counted(matrix, TINIGUA), strata(TINIGUA, pixels, pixels * 0.09))
    assert result.overall.value == pytest.approx(0.91445, **digits(5))
    assert result.overall.se == pytest.approx(0.0128, **digits(4))
    assert values(result.users) == pytest.approx([0.91693, 0.86, 0.91367], **digits(5))
    assert errors(result.users) == pytest.approx([0.01562, 0.04957, 0.02391], **digits(5))
    assert values(result.producers) == pytest.approx([0.96093, 0.84147, 0.82927], **digits(5))
    assert errors(result.producers) == pytest.approx([0.01032, 0.09464, 0.02656], **digits(5))
    assert values(result.areas) == pytest.approx([138436.62858, 5829.38003, 70545.99139], **digits(5))
    assert errors(result.areas) == pytest.approx([2709.37784, 712.02037, 2711.10722], **digits(5))
    first = result.areas["forest"]
    assert (first.lower, first.upper) == pytest.approx((133126.24802, 143747.00915), abs=0.1)  # theirs with z = 1.96
    assert sum(values(result.areas)) == pytest.approx(214_812.0)


def test_no_interval_has_the_length_zero_where_no_unit_is_wrong():
    names = ("1", "2", "3", "4")
    pixels = np.array([67_246, 79_983, 825_123, 651_448])
    matrix = [[15, 0, 0, 0], [0, 15, 0, 1], [0, 0, 14, 0], [0, 1, 0, 18]]
    result = ls.estimate(counted(matrix, names), strata(names, pixels, pixels * 0.09))
    assert result.overall.value == pytest.approx(0.975806, **digits(6))
    assert 1.96 * result.overall.se == pytest.approx(0.041823, **digits(6))
    assert [1.96 * se for se in errors(result.users)] == pytest.approx([0, 0.1225, 0, 0.103158], **digits(6))
    assert values(result.areas) == pytest.approx([6052.14, 9834.371941, 74261.07, 55994.418059], **digits(6))
    assert [1.96 * se for se in errors(result.areas)] == pytest.approx([0, 6112.125597, 0, 6112.125597], **digits(6))
    for measure in (result.users, result.producers, result.f1, result.shares, result.areas):
        for each in measure.values():
            assert each.lower <= each.value <= each.upper
            assert each.upper - each.lower > 1e-3 * each.value
    assert (result.users["1"].lower, result.users["1"].upper) == pytest.approx((0.7961, 1), abs=1e-4)


# Units of Tyukavina et al. 2025, table A.1.1, as they follow from the sums of its strata: (units of the map, km² of a
# unit), then (count, share in the map, share in the reference).
TYUKAVINA = {
    (788_889_906, 0.000754548): [(2, 0, 1), (132, 0, 0)],
    (781_490_883, 0.0004261): [(3, 0, 1), (1, 0, 0.1), (96, 0, 0)],
    (1_280_971_777, 0.00073879): [(8, 0, 1), (1, 0.3, 0.1), (204, 0, 0)],
    (859_622_001, 0.000565682): [(109, 0, 0)],
    (909_836_775, 0.000736237): [(5, 0, 1), (1, 0.2, 0.3), (1, 0.2, 0), (143, 0, 0)],
    (20_652_357, 0.000701678): [(53, 1, 1), (1, 0.7, 0.8), (1, 0.6, 0.7), (1, 0.5, 0), (44, 1, 0)],
    (1_749_051_047, 0.000390463): [(123, 1, 1), (1, 0.9, 1), (1, 0.5, 0.5), (1, 0.7, 0.4), (27, 1, 0)],
    (199_430_534, 0.000740631): [(62, 1, 1), (1, 1, 0.9), (37, 1, 0)],
    (986_295_412, 0.000420496): [(93, 1, 1), (7, 1, 0)],
    (234_157_691, 0.000690284): [(62, 1, 1), (1, 0.8, 0.5), (37, 1, 0)],
}


def test_strata_whose_units_differ_in_area_give_the_digits_of_tyukavina_2025():
    rows = [
        {"stratum": index, "count": count, "map_share": mapped, "reference_share": reference, "area": area}
        for index, ((_, area), units) in enumerate(TYUKAVINA.items())
        for count, mapped, reference in units
    ]
    result = ls.estimate(rows, strata(range(10), [units for units, _ in TYUKAVINA]), share_of="loss")
    assert result.areas["loss"].value == pytest.approx(1223902.897388578, rel=1e-12)
    assert result.areas["loss"].se == pytest.approx(31611.10237731219, rel=1e-9)
    assert 100 * result.overall.value == pytest.approx(92.08917027110765, rel=1e-12)
    assert 100 * result.overall.se == pytest.approx(0.7080369844100617, rel=1e-9)
    assert 100 * result.users["loss"].value == pytest.approx(80.6910638941078, rel=1e-12)
    assert 100 * result.users["loss"].se == pytest.approx(1.8257849453559096, rel=1e-9)
    assert 100 * result.producers["loss"].value == pytest.approx(93.62678076530403, rel=1e-12)
    assert 100 * result.producers["loss"].se == pytest.approx(1.3788953825926273, rel=1e-9)
    assert result.matrix.to_numpy().sum() == pytest.approx(1)


def test_an_area_is_as_uncertain_as_the_areas_of_its_units_unless_that_of_the_stratum_is_known():
    """By hand: 3 of 300 units, all of class x, with a mean area of 4 and a standard deviation of 2."""
    rows = [{"stratum": "all", "map": "x", "reference": "x", "area": area} for area in (2, 4, 6)]
    area = ls.estimate(rows, strata(["all"], [300]), finite_population=True).areas["x"]
    assert (area.value, area.se) == pytest.approx((1200, 300 * 2 / math.sqrt(3) * math.sqrt(1 - 3 / 300)))
    known = ls.estimate(rows, strata(["all"], [300], [1200])).areas["x"]
    assert (known.value, known.se) == pytest.approx((1200, 0))


def test_estimated_areas_of_strata_add_their_variance_to_both_ends_of_an_interval():
    areas = np.tile([1.0, 1.0, 1.0, 13.0], 10)
    rows = pd.DataFrame({
        "stratum": ["a"] * 20 + ["b"] * 20, "map": ["a"] * 20 + ["b"] * 20,
        "reference": ["a"] * 19 + ["b"] * 20 + ["a"], "area": areas,
    })  # fmt: skip
    units = [10_000, 30_000]
    estimated = ls.estimate(rows, strata(["a", "b"], units))
    known = ls.estimate(rows, strata(["a", "b"], units, [4 * each for each in units]))
    for measure in ("producers", "shares"):
        each, other = getattr(estimated, measure)["a"], getattr(known, measure)["a"]
        added = Z**2 * (each.se**2 - other.se**2)
        assert added > (0.1 * Z * each.se) ** 2
        assert each.value == pytest.approx(other.value)
        assert (each.value - each.lower) ** 2 == pytest.approx((other.value - other.lower) ** 2 + added)
        assert (each.upper - each.value) ** 2 == pytest.approx((other.upper - other.value) ** 2 + added)


def with_moments(n, sum_x, sum_y, sxx, syy, sxy):
    """Values x and y of n units with these sums and sums of squares about their means."""
    basis = np.linalg.qr(np.stack([np.ones(n), *np.random.default_rng(0).normal(size=(2, n))], axis=1))[0]
    x = sum_x / n + np.sqrt(sxx) * basis[:, 1]
    return x, sum_y / n + sxy / np.sqrt(sxx) * basis[:, 1] + np.sqrt(syy - sxy**2 / sxx) * basis[:, 2]


@pytest.mark.parametrize(
    ("map_share", "expected", "standard_error"),
    [(17.40936388, 1086017.079202585, 106327.70099311872), (None, 1116448.854282674, 205535.113223563)],
)
def test_a_map_as_covariate_halves_the_standard_error_in_tyukavina_2025(map_share, expected, standard_error):
    n, units = 70, 27_374
    x, y = with_moments(n, 1263.9084994659997, 2854.950675816, 67968.13608857032, 272994.9703768369, 116881.23175820448)
    known = None if map_share is None else np.array([map_share / 1000])
    table = Strata(("all",), np.array([float(units)]), None, known)
    # Areas of units of 1000 km², as shares.
    shares = [np.stack([each / 1000, 1 - each / 1000], axis=1) for each in (x, y)]
    sample = LabelledSample(
        table, ("loss", "other"), np.zeros(n, np.intp), *shares, np.ones(n, np.intp), np.ones(n), np.full(n, 1000.0),
        cluster=None, has_shares=True,
    )  # fmt: skip
    loss = _Estimators(Population(sample, corrects=True), 0.95).areas()[0]
    assert (loss.value, loss.se) == pytest.approx((expected, standard_error), rel=1e-11)


labels = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from("xyz")), min_size=4)


def table_of(units):
    rows = pd.DataFrame(units, columns=["stratum", "map", "reference"])
    names = sorted(set(rows["stratum"]))
    return rows, strata(names, [1000 * (1 + "ab".index(name)) for name in names])


@settings(max_examples=30)
@given(labels)
def test_rows_of_counts_are_the_units_one_by_one(units):
    rows, population = table_of(units)
    grouped = rows.groupby(list(rows.columns)).size().rename("count").reset_index()
    one, other = ls.estimate(rows, population), ls.estimate(grouped, population)
    for ours, theirs in zip(_numbers(one), _numbers(other), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-7, nan_ok=True)


@settings(max_examples=30)
@given(labels)
def test_each_unit_as_its_own_cluster_is_no_cluster(units):
    rows, population = table_of(units)
    alone = ls.estimate(rows, population, finite_population=False)
    clusters = ls.estimate(rows.assign(cluster=range(len(rows))), population)
    for name in ("users", "producers", "shares", "areas"):
        for key, each in getattr(alone, name).items():
            other = getattr(clusters, name)[key]
            assert (each.value, each.se) == pytest.approx((other.value, other.se), rel=1e-6, abs=1e-7, nan_ok=True)


@settings(max_examples=30)
@given(labels)
def test_intervals_hold_their_estimate_and_have_a_length(units):
    result = ls.estimate(*table_of(units))
    for each in (result.overall, *result.users.values(), *result.producers.values(), *result.shares.values()):
        if each.units:
            assert 0 <= each.lower <= each.value <= each.upper <= 1
            assert each.upper - each.lower > 1e-4
        else:
            assert math.isnan(each.value)
    assert sum(values(result.areas)) == pytest.approx(sum(table_of(units)[1]["units"]))
    np.testing.assert_allclose(result.matrix.to_numpy().sum(axis=0), values(result.shares), atol=1e-12)


@settings(max_examples=30)
@given(labels, st.floats(0.1, 100))
def test_a_common_factor_of_weights_and_of_areas_changes_no_accuracy(units, factor):
    rows, population = table_of(units)
    plain = ls.estimate(rows, population)
    scaled = ls.estimate(rows.assign(weight=factor, area=factor), population)
    for ours, theirs in zip(_numbers(plain), _numbers(scaled), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-7, nan_ok=True)
    assert values(scaled.areas) == pytest.approx([factor * value for value in values(plain.areas)])


def _numbers(result):
    estimates = (result.overall, *result.users.values(), *result.producers.values(), *result.shares.values())
    return [(each.value, each.se, each.lower, each.upper) for each in estimates]


def test_clusters_have_the_variance_between_their_totals():
    """By hand: 3 of 10 clusters of 4 units, of which 4, 2 and 3 are correct: the error of a mean of three numbers."""
    rows = [
        {"stratum": "all", "cluster": index, "map": "x", "reference": "x" if unit < correct else "y"}
        for index, correct in enumerate((4, 2, 3))
        for unit in range(4)
    ]
    result = ls.estimate(rows, strata(["all"], [40]))
    assert (result.overall.value, result.overall.se) == pytest.approx((0.75, np.std([1, 0.5, 0.75], ddof=1) / 3**0.5))
    # t with 2 degrees of freedom, 4.303, reaches beyond 1: Wilson at 9 effective units takes over.
    assert result.overall.lower < 0.75 - 2 * result.overall.se < result.overall.upper < 1


def test_intervals_of_clusters_have_the_t_quantile_of_clusters_less_strata():
    rows = [
        {"stratum": stratum, "cluster": f"{stratum}{index}", "map": "x", "reference": "x" if unit < correct else "y"}
        for stratum in "ab"
        for index, correct in enumerate((4, 6, 5, 5))
        for unit in range(10)
    ]
    overall = ls.estimate(rows, strata(["a", "b"], [5000, 5000])).overall
    reach = stats.t(8 - 2).ppf(0.975) * overall.se
    assert (overall.value - overall.lower, overall.upper - overall.value) == pytest.approx((reach, reach))


def test_a_stratum_with_one_unit_has_the_variance_of_the_sample_and_a_warning():
    rows = [("a", "x", "x")] * 5 + [("a", "x", "y")] * 5 + [("b", "x", "x")]
    result = ls.estimate(pd.DataFrame(rows, columns=["stratum", "map", "reference"]), strata(["a", "b"], [1000, 1000]))
    assert "stratum b has one unit" in result.warnings[0]
    correct = [1] * 5 + [0] * 5 + [1]
    expected = math.sqrt(0.25 * 0.99 * np.var(correct[:10], ddof=1) / 10 + 0.25 * np.var(correct, ddof=1))
    assert result.overall.se == pytest.approx(expected)


def test_a_class_that_is_not_in_the_map_has_an_area_and_no_users_accuracy():
    rows = [("x", "x", "x", 40), ("x", "x", "new", 10)]
    result = ls.estimate(
        pd.DataFrame(rows, columns=["stratum", "map", "reference", "count"]), strata(["x"], [1000], [50])
    )
    assert result.areas["new"].value == pytest.approx(10)
    assert result.producers["new"].value == 0
    assert 0 < result.producers["new"].upper < 1
    assert math.isnan(result.users["new"].value)
    assert result.as_dict()["users"]["new"] == {"value": None, "se": None, "lower": None, "upper": None, "units": 0}


def test_a_warning_names_map_classes_with_few_units(caplog):
    rows = pd.DataFrame([("x", "x", "x", 29), ("y", "y", "y", 30)], columns=["stratum", "map", "reference", "count"])
    result = ls.estimate(rows, strata(["x", "y"], [500, 500]))
    assert len(result.warnings) == 1
    assert "fewer than 30 units of the map class x (29):" in caplog.text


@pytest.mark.parametrize(
    ("sample", "population", "message"),
    [
        ({"map": ["x"], "reference": ["x"]}, {"stratum": ["a"], "units": [5]}, "but not stratum"),
        ({"stratum": ["a"], "map": ["x"]}, {"stratum": ["a"], "units": [5]}, "but not reference"),
        ({"stratum": ["a"], "map": ["x"], "reference": ["x"]}, {"stratum": ["a"]}, "but not units"),
        ({"stratum": ["b"], "map": ["x"], "reference": ["x"]}, {"stratum": ["a"], "units": [5]}, "in stratum b, but"),
        ({"stratum": ["a"], "map": ["x"], "reference": [None]}, {"stratum": ["a"], "units": [5]}, "1 of 1 row"),
        ({"stratum": ["a"], "map": ["x"], "reference": [""]}, {"stratum": ["a"], "units": [5]}, "no class in column"),
        ({"stratum": ["a"], "map": ["x"], "reference": ["x"]}, {"stratum": ["a", "a"], "units": [5, 5]}, "'a' twice"),
        ({"stratum": ["a"], "map": ["x"], "reference": ["x"]}, {"stratum": ["a", "b"], "units": [5, 5]}, "no unit in"),
        ({"stratum": ["a"] * 6, "map": ["x"] * 6, "reference": ["x"] * 6}, {"stratum": ["a", "b"], "units": [5, 9]},
         "no unit in stratum b"),
        ({"stratum": ["a"] * 6 + ["b"], "map": ["x"] * 7, "reference": ["x"] * 7},
         {"stratum": ["a", "b"], "units": [5, 9]}, "'a' has 5 units, but 6"),
        ({"stratum": ["a"], "map": ["x"], "reference": ["x"], "count": [1.5]}, {"stratum": ["a"], "units": [5]}, "1.5"),
        ({"stratum": ["a"], "map": ["x"], "reference": ["x"], "area": [0]}, {"stratum": ["a"], "units": [5]},
         "above 0"),
        ({"stratum": ["a"], "map_share": [1.2], "reference_share": [1]}, {"stratum": ["a"], "units": [5]}, "1.2"),
        ({"stratum": ["a", "b"], "map": ["x"] * 2, "reference": ["x"] * 2, "cluster": [1, 1]},
         {"stratum": ["a", "b"], "units": [5, 9]}, "cluster '1' lies in 2 strata"),
        ({"stratum": [], "map": [], "reference": []}, {"stratum": ["a"], "units": [5]}, "no rows"),
        ("points.csv", {"stratum": ["a"], "units": [5]}, "the sample is str, which is no table"),
        ([{"stratum": "a", "map": "a", "reference": "a"}], {"a": 5}, "strata is dict, which is no table"),
        ([{"stratum": 1, "map": 1, "reference": "1"}], {"stratum": [1], "units": [5]}, "class 1 is text in some"),
        ([{"stratum": "1", "map": 1, "reference": 1}], {"stratum": [1], "units": [5]}, "stratum 1 is text in some"),
        ([{"stratum": None, "map": 1, "reference": 1}], {"stratum": [1], "units": [5]}, "1 row of the sample have no"),
        ([{"stratum": 1, "map": 1, "reference": 1, "area": 0.0}], {"stratum": [1], "units": [5]}, "holds 0.0; exp"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_refused(sample, population, message):
    with pytest.raises(SampleError, match=message):
        ls.estimate(sample, population)


@pytest.mark.parametrize("confidence", [0, 1, 95, "0.9"])
def test_a_confidence_outside_0_and_1_is_refused(confidence):
    with pytest.raises(SampleError, match="confidence"):
        ls.estimate(*stehman_2014(), confidence=confidence)


def test_a_class_that_is_not_listed_is_refused():
    with pytest.raises(SampleError, match="has the class D, but the classes are A, B, C"):
        ls.estimate(*stehman_2014(), classes=["A", "B", "C"])


def test_a_class_that_is_listed_twice_is_refused():
    with pytest.raises(SampleError, match="Expected each class once"):
        ls.estimate(*stehman_2014(), classes=["A", "B", "C", "D", "A"])


@pytest.mark.parametrize("dtype", ["category", "string", "string[pyarrow]", object])
def test_the_type_of_a_column_does_not_matter(dtype):
    sample, strata = map(pd.DataFrame, stehman_2014())
    texts = {name: dtype for name in ("stratum", "map", "reference") if name in sample}
    typed = ls.estimate(sample.astype(texts), strata.astype({"stratum": dtype}))
    assert typed.overall == ls.estimate(sample, strata).overall
    assert type(typed.overall.se) is float


def test_shares_are_those_of_the_areas_with_a_covariate_too():
    rng = np.random.default_rng(0)
    truth = rng.random(40)
    rows = {
        "stratum": ["a"] * 40,
        "map_share": np.clip(truth + 0.1 * rng.normal(size=40), 0, 1),
        "reference_share": truth,
    }
    result = ls.estimate(rows, {"stratum": ["a"], "units": [5000], "area": [200.0], "map_share": [0.4]})
    for share, area in zip(result.shares.values(), result.areas.values(), strict=True):
        assert (share.value, share.se) == pytest.approx((area.value / 200, area.se / 200))
    direct = ls.estimate(rows, {"stratum": ["a"], "units": [5000], "area": [200.0]})
    assert result.shares["class"].se < direct.shares["class"].se / 2


@pytest.mark.parametrize(
    ("columns", "strata", "settings", "words"),
    [
        ({}, {"map_share": [0.3]}, {}, "strata have the column map_share, but the sample has one class in each unit"),
        ({}, {}, {"share_of": "forest"}, "share_of is 'forest', but the sample has one class in each unit"),
        ({"reference_share": [0.5] * 4}, {}, {}, "the sample has the column reference_share, but no map_share"),
    ],
)
def test_shares_are_refused_where_the_sample_has_classes(columns, strata, settings, words):
    rows = {"stratum": ["a"] * 4, "map": ["forest", "field"] * 2, "reference": ["forest", "forest", "field", "field"]}
    with pytest.raises(SampleError, match=words):
        ls.estimate(rows | columns, {"stratum": ["a"], "units": [50]} | strata, **settings)


def test_a_map_share_that_does_not_vary_is_refused():
    rows = {"stratum": ["a"] * 4, "map_share": [1] * 4, "reference_share": [0, 1, 1, 0.5]}
    with pytest.raises(SampleError, match="the sample has one map_share in all units of each stratum"):
        ls.estimate(rows, {"stratum": ["a"], "units": [50], "map_share": [0.9]})


def test_a_regression_on_two_units_is_refused():
    rows = {"stratum": ["a"] * 2, "map_share": [0, 1], "reference_share": [0, 1]}
    with pytest.raises(SampleError, match="at least 3 units; the sample has 2 units"):
        ls.estimate(rows, {"stratum": ["a"], "units": [50], "map_share": [0.9]})


def test_a_regression_on_few_units_warns_that_its_intervals_are_normal():
    rows = {"stratum": ["a"] * 40, "map_share": [0, 1] * 20, "reference_share": [0, 1] * 19 + [1, 0]}
    strata = {"stratum": ["a"], "units": [5000], "map_share": [0.4]}
    assert "regression estimator: their intervals are normal" in ls.estimate(rows, strata).warnings[0]
    many = {name: column * 2 for name, column in rows.items()}
    assert ls.estimate(many, strata).warnings == ()


def test_a_regression_that_leads_below_0_gives_an_area_of_0_with_an_interval():
    rows = {
        "stratum": ["a"] * 6,
        "map_share": [0.3, 0.5, 0.6, 0.2, 0.4, 0.5],
        "reference_share": [0, 0.1, 0.2, 0, 0.05, 0.1],
    }
    areas = ls.estimate(rows, {"stratum": ["a"], "units": [5000], "map_share": [0.02]}).areas
    assert values(areas) == [0, 5000]
    for area in areas.values():
        assert 0 <= area.lower <= area.value <= area.upper <= 5000
        assert area.lower < area.upper


HALF = [("a", "a", "a", 24), ("a", "a", "b", 6), ("b", "b", "b", 24), ("b", "b", "a", 6)]


def half_labelled():
    return pd.DataFrame(HALF, columns=["stratum", "map", "reference", "count"])


@pytest.mark.parametrize(
    "strata",
    [
        {"units": [0.6, 0.4]},
        {"units": [60, 40]},
        {"units": [59.7, 39.8]},  # rounded
        {"share": [0.6, 0.4]},
        {"share": [60, 40]},
        {"share": [60, 40], "area": [6, 4]},
    ],
)
def test_shares_and_per_cent_of_a_population_give_the_intervals_of_a_large_one(strata):
    """By hand: 0.8 correct in both strata of 30, √((0.6² + 0.4²) 0.16 / 29)."""
    overall = ls.estimate(half_labelled(), {"stratum": ["a", "b"], **strata}).overall
    assert overall.se == pytest.approx(math.sqrt(0.52 * 0.16 / 29))
    large = ls.estimate(half_labelled(), {"stratum": ["a", "b"], "units": [6e8, 4e8]}).overall
    assert (overall.lower, overall.upper) == pytest.approx((large.lower, large.upper))


def test_units_that_sum_to_100_are_per_cent_with_a_warning_or_a_population_of_100_by_request(caplog):
    strata = {"stratum": ["a", "b"], "units": [60, 40]}
    ls.estimate(half_labelled(), strata)
    assert "units of the strata sum to 100: they are taken as per cent" in caplog.text
    caplog.clear()
    # Half of the first stratum and a quarter of the second are not in the sample.
    overall = ls.estimate(half_labelled(), strata, finite_population=True).overall
    assert overall.se == pytest.approx(math.sqrt((0.36 * 0.5 + 0.16 * 0.25) * 0.16 / 29))
    ls.estimate(half_labelled(), {"stratum": ["a", "b"], "share": [60, 40]})
    assert "per cent" not in caplog.text


def test_a_sample_of_all_100_units_is_no_sample_of_per_cent():
    rows = pd.DataFrame([("a", "a", "a", 60), ("b", "b", "a", 40)], columns=["stratum", "map", "reference", "count"])
    overall = ls.estimate(rows, strata(["a", "b"], [60, 40])).overall
    assert (overall.lower, overall.value, overall.upper) == (0.6, 0.6, 0.6)


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        (
            {"units": [6, 4]},
            {},
            "'a' has 6 units, but 30 of them .* if it holds shares of the population, name it share",
        ),
        ({"share": [0.6, 0.3]}, {}, "column share of the strata sums to 0.9; expected 1, or 100"),
        ({"share": [0.6, 0.4]}, {"finite_population": True}, "does not say how large the population is"),
        ({"share": [-0.6, 1.6]}, {}, "column share of strata holds -0.6"),
    ],
)
def test_sizes_of_strata_that_are_neither_numbers_nor_shares_are_refused(columns, settings, message):
    with pytest.raises(SampleError, match=message):
        ls.estimate(half_labelled(), {"stratum": ["a", "b"], **columns}, **settings)


def test_units_drawn_in_proportion_to_their_areas_have_equal_weight():
    rng = np.random.default_rng(0)
    areas, is_correct = rng.uniform(1, 9, 80), np.arange(80) < 60
    sample = pd.DataFrame({
        "stratum": "all", "map": "a", "reference": np.where(is_correct, "a", "b"), "area": areas, "weight": 1 / areas,
    })  # fmt: skip
    overall = ls.estimate(sample, [{"stratum": "all", "units": 10**7, "area": 4e7}]).overall
    # The chance of a unit is its area: shares of area are shares of units (Tyukavina et al. 2025, A.1.2).
    assert overall.value == pytest.approx(60 / 80)
    assert overall.se == pytest.approx(np.sqrt(0.75 * 0.25 / 79), rel=1e-5)


def test_producers_accuracy_without_a_seen_omission_is_as_uncertain_as_the_omissions_that_a_sample_can_miss():
    rows = [
        {"stratum": "rare", "map": "rare", "reference": "rare", "count": 50},
        {"stratum": "other", "map": "other", "reference": "other", "count": 150},
    ]
    strata = [{"stratum": "rare", "units": 10_000}, {"stratum": "other", "units": 990_000}]
    result = ls.estimate(rows, strata)
    # Wilson's upper end of 0 of 150 is z² / (150 + z²), the lower end of 50 of 50 is 50 / (50 + z²).
    missed, least = 990_000 * Z**2 / (150 + Z**2), 10_000 * 50 / (50 + Z**2)
    assert result.producers["rare"].value == 1
    # The smallest ratio r of hit and missed with 10 000 - r 0 = √((10 000 - least)² + (r missed)²).
    ratio = math.sqrt(least * (20_000 - least)) / missed
    assert result.producers["rare"].lower == pytest.approx(ratio / (1 + ratio), rel=1e-9)
    others = result.areas["other"]
    assert others.lower == pytest.approx(990_000 - missed, rel=1e-6)
    # All of the others are in the sample: none can be missed.
    census = ls.estimate([rows[0], rows[1] | {"count": 990_000}], strata, finite_population=True)
    assert (census.producers["rare"].lower, census.producers["rare"].upper) == (1, 1)


def test_the_interval_of_f1_counts_what_agrees_twice():
    """By hand: MOVER of 2 · hit / (2 · hit + errors), with Wilson's limits of 28 of 30 units and of 0 of 100.

    Where units differ, an interval has the size whose variance p (1 - p) / size is that with n - 1: n - 1 units.
    """
    rows = [("a", "a", "a", 28), ("a", "a", "b", 2), ("b", "b", "b", 100)]
    sample = pd.DataFrame(rows, columns=["stratum", "map", "reference", "count"])
    f1 = ls.estimate(sample, strata(["a", "b"], [1000, 100_000])).f1["a"]
    hit, wrong = 28 / 30 * 1000, 2 / 30 * 1000
    least, most = 1000 * wilson_of(28 / 30 * 29, 29)
    fewer, more, missed = hit - least, most - hit, 100_000 * wilson_of(0, 100)[1]
    # The smallest ratio r with 2 hit - r wrong = √((2 fewer + r fewer)² + (r missed)²): its square, in powers of r.
    powers = [wrong**2 - fewer**2 - missed**2, -4 * hit * wrong - 4 * fewer**2, 4 * hit**2 - 4 * fewer**2]
    ratio = max(np.roots(powers))
    rest = (wrong - more) / (2 * hit + 2 * more)
    expected = (2 * hit / (2 * hit + wrong), ratio / (1 + ratio), 1 / (1 + rest))
    assert (f1.value, f1.lower, f1.upper) == pytest.approx(expected)


matrices = st.lists(st.lists(st.integers(0, 12), min_size=3, max_size=3).filter(any), min_size=3, max_size=3)


@settings(max_examples=30)
@given(matrices)
def test_every_interval_is_its_estimate_if_all_units_are_in_the_sample(matrix):
    units = [sum(row) for row in matrix]
    result = ls.estimate(counted(matrix, "xyz"), strata(list("xyz"), units, [2.0 * each for each in units]))
    for measure in ({"": result.overall}, result.users, result.producers, result.f1, result.shares, result.areas):
        for each in measure.values():
            assert (each.lower, each.upper) == pytest.approx((each.value, each.value), nan_ok=True)


@settings(max_examples=30)
@given(matrices, st.sampled_from([100, 3000, 10**6]))
def test_the_interval_of_the_rest_is_the_mirrored_one(matrix, units):
    """Of two classes, the share of one is 1 less that of the other."""
    first, rest = [], []
    for row, others in zip("xyz", matrix, strict=True):
        first += [{"stratum": row, "map": row, "reference": "x", "count": others[0]}]
        rest += [{"stratum": row, "map": row, "reference": "y", "count": others[1] + others[2]}]
    rows = pd.DataFrame(first + rest)
    rows = rows[rows["count"] > 0]
    result = ls.estimate(rows, strata(list("xyz"), [units, 2 * units, 40 * units]), classes="xyz").shares
    assert result["x"].lower == pytest.approx(1 - result["y"].upper, abs=1e-9)
    assert result["x"].upper == pytest.approx(1 - result["y"].lower, abs=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 40), st.integers(2, 40))
def test_the_accuracy_of_one_stratum_without_an_error_has_the_interval_of_wilson(correct, wrong):
    """Of a map class that is a stratum, whatever the other strata hold."""
    total = correct + wrong
    counts = [[correct, wrong], [0, 30]] if correct in (0, total) else [[total, 0], [wrong, 30]]
    result = ls.estimate(counted(counts, "xy"), strata(list("xy"), [10**6, 10**7]))
    expected = wilson_of(counts[0][0], total)
    users = result.users["x"]
    assert (users.lower, users.upper) == pytest.approx((max(0, expected[0]), min(1, expected[1])), abs=1e-9)


def test_a_stratum_wholly_in_the_sample_hides_nothing():
    """By hand: of strata of 60 (all in the sample, 48 correct) and 4000 units (40, none wrong), only the second may."""
    rows = [("a", "a", "a", 48), ("a", "a", "b", 12), ("b", "b", "b", 40)]
    sample = pd.DataFrame(rows, columns=["stratum", "map", "reference", "count"])
    overall = ls.estimate(sample, strata(["a", "b"], [60, 4000])).overall
    assert overall.value == pytest.approx(4048 / 4060)
    assert overall.upper == overall.value
    missed = 4000 * wilson_of(0, 40 / (1 - 40 / 4000))[1]
    assert overall.lower == pytest.approx((4048 - missed) / 4060, rel=1e-9)
