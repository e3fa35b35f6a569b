"""Confidence intervals hold the truth about as often as they say; `benchmarks/coverage.py` has the long version."""

import runpy
from pathlib import Path

import numpy as np
import pytest

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "coverage.py"))


@pytest.mark.parametrize("design", BENCHMARK["DESIGNS"])
def test_intervals_of_95_percent_hold_the_truth_in_about_95_percent_of_samples(design):
    """Of 30 samples: below 85 % in one of a thousand runs if the intervals hold it in 95 % of samples."""
    assert np.mean(list(BENCHMARK["coverage"](design, 30).values())) > 0.85
