"""Confidence intervals hold the truth about as often as they say; `benchmarks/coverage.py` has the long version."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import landscribe as ls

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "coverage.py"))


@pytest.mark.parametrize("design", BENCHMARK["DESIGNS"])
def test_intervals_of_95_percent_hold_the_truth_in_about_95_percent_of_samples(design):
    """Of 30 samples: below 85 % in one of a thousand runs if the intervals hold it in 95 % of samples."""
    assert np.mean(list(BENCHMARK["coverage"](design, 30).values())) > 0.85


class Strata:
    """A map whose classes are strata of these shares, and the chance of each class of the reference in each of them."""

    def __init__(self, shares, chances, sizes):
        self.shares, self.chances, self.sizes, self.estimates = np.array(shares), np.array(chances), sizes, {}
        self.names = [str(index) for index in range(len(shares))]

    def truth(self):
        areas, hits = self.shares @ self.chances, self.shares * np.diag(self.chances)
        by_class = {"shares": areas, "users": np.diag(self.chances), "producers": hits / areas}
        return by_class | {"overall": hits.sum(keepdims=True)}

    def estimate(self, counts):
        """Estimates of a sample with these counts, as rows of the map's classes."""
        rows = [
            {"stratum": mapped, "map": mapped, "reference": true, "count": count}
            for mapped, row in zip(self.names, counts, strict=True)
            for true, count in zip(self.names, row, strict=True)
            if count
        ]
        strata = [{"stratum": name, "units": 1e7 * share} for name, share in zip(self.names, self.shares, strict=True)]
        result = ls.estimate(rows, strata, classes=self.names)
        by_class = {name: list(getattr(result, name).values()) for name in ("shares", "users", "producers")}
        return by_class | {"overall": [result.overall]}

    def samples(self, count, seed=0):
        rng = np.random.default_rng(seed)
        draws = (
            [rng.multinomial(*each).tolist() for each in zip(self.sizes, self.chances, strict=True)]
            for _ in range(count)
        )
        keys = [tuple(map(tuple, drawn)) for drawn in draws]
        self.estimates |= {key: self.estimate(key) for key in set(keys) - set(self.estimates)}
        return [self.estimates[key] for key in keys]


RARE = [  # a rare class in a small stratum, of which a large one hides some
    Strata([0.01, 0.99], [[0.9, 0.1], [0.01, 0.99]], [50, 100]),
    Strata([0.01, 0.99], [[0.9, 0.1], [0.002, 0.998]], [50, 300]),
    Strata([0.05, 0.95], [[0.9, 0.1], [0.02, 0.98]], [50, 150]),
]
ORDINARY = [
    Strata([0.3, 0.7], [[0.85, 0.15], [0.12, 0.88]], [150, 150]),
    Strata([0.2, 0.3, 0.5], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.05, 0.1, 0.85]], [100, 100, 150]),
]


@pytest.mark.parametrize("strata", [*RARE, *ORDINARY], ids=lambda strata: str(strata.sizes))
def test_intervals_hold_the_truth_of_rare_and_of_common_classes_in_19_of_20_samples(strata):
    """Normal intervals hold the areas of the first three in 63, 45 and 89 of 100."""
    truth, samples = strata.truth(), strata.samples(300 if strata in RARE else 150)
    for measure, values in truth.items():
        for index, value in enumerate(values):
            ends = [(each[measure][index].lower, each[measure][index].upper) for each in samples]
            assert np.mean([lower <= value <= upper for lower, upper in ends]) > 0.905, (measure, index)


@pytest.mark.parametrize("strata", ORDINARY, ids=lambda strata: str(strata.sizes))
def test_intervals_of_common_classes_are_as_wide_as_the_normal_ones(strata):
    samples = strata.samples(60)
    for measure in strata.truth():
        each = np.array([[(one.upper - one.lower, one.se) for one in sample[measure]] for sample in samples])
        widths, ses = np.moveaxis(each.mean(axis=0), -1, 0)
        assert widths == pytest.approx(2 * 1.96 * ses, rel=0.02), measure


@pytest.mark.parametrize("strata", RARE, ids=lambda strata: str(strata.sizes))
def test_intervals_of_rare_areas_are_at_most_half_wider_than_the_spread_of_the_estimates(strata):
    areas = [sample["shares"][0] for sample in strata.samples(300)]
    spread = np.sqrt(np.sum(strata.shares**2 * strata.chances[:, 0] * (1 - strata.chances[:, 0]) / strata.sizes))
    assert np.mean([each.upper - each.lower for each in areas]) < 1.5 * 2 * 1.96 * spread
