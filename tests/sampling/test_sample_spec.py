"""The settings of a sample: each contradiction is one line."""

import pytest

from landscribe.errors import RecipeError
from landscribe.sampling.spec import SampleSpec


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "the size is missing; give size, standard_error, half_width or an allocation in numbers"),
        ({"half_width": 0.02, "standard_error": 0.01}, "standard_error and half_width both decide the size"),
        ({"size": 5, "allocation": "a=5"}, "size and allocation in numbers both decide the size"),
        ({"design": "cluster", "clusters": 5, "cluster_size": 10}, "add per_cluster"),
        ({"design": "simple", "size": 5, "strata": "a.tif"}, "strata belongs to design stratified"),
        ({"design": "simple", "size": 5, "allocation": "equal"}, "allocation belongs to design stratified"),
        ({"size": 5, "clusters": 5}, "clusters belongs to design cluster"),
        ({"size": 5, "buffer": 5}, "buffer_around and buffer belong together"),
        ({"size": 0}, "'size' is 0"),
        ({"size": 5, "allocation": "squal"}, "did you mean 'equal'"),
    ],
)
def test_a_contradiction_is_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        SampleSpec.of(settings)


def test_numbers_by_stratum_are_read_from_text():
    spec = SampleSpec.of({"allocation": 'forest=50, "water, deep=3"', "expected_accuracy": "forest=0.9"})
    assert spec.allocation == {"forest": 50, "water, deep": 3}
    assert spec.expected_accuracy == {"forest": 0.9}
    assert SampleSpec.of({"size": 5, "expected_accuracy": "0.7"}).expected_accuracy == 0.7
