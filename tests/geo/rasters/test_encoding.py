"""Encoding: numbers with other scale and offset tags keep their physical values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscribe.errors import RasterError
from landscribe.geo.rasters.encoding import Encoding, conversions

encodings = st.builds(
    Encoding, st.floats(1e-6, 1e3), st.floats(-1e3, 1e3), st.sampled_from(["", "percent", "K", "reflectance"])
)


def physical(stored, encoding):
    return (stored * encoding.scale + encoding.offset) * (0.01 if encoding.unit == "percent" else 1)


@given(st.floats(-1e4, 1e4), encodings, encodings)
def test_converted_numbers_have_the_same_physical_value(stored, own, other):
    factor, offset = own.to(other)
    largest = max(abs(physical(stored, own)), abs(own.offset), abs(other.offset), abs(own.scale * stored))
    assert physical(stored * factor + offset, other) == pytest.approx(physical(stored, own), abs=1e-9 * (1 + largest))


@given(encodings)
def test_an_encoding_is_the_same_as_itself_in_single_precision(own):
    rounded = Encoding(float(np.float32(own.scale)), float(np.float32(own.offset)), own.unit)
    assert own.is_same(rounded)


def test_sentinel_2_before_and_since_baseline_4_differ_by_1000():
    assert conversions(["new"], [Encoding(1e-4, -0.1)], [Encoding(1e-4)], ["old"]) == [(1, pytest.approx(-1000))]


def test_per_cent_are_hundredths():
    assert Encoding(unit="percent").to(Encoding(1e-4)) == (pytest.approx(100), 0)


@pytest.mark.parametrize("own", [Encoding(1e-4), Encoding(offset=-0.1), Encoding(unit="%")])
def test_tags_on_one_side_only_are_refused_with_both(own):
    with pytest.raises(RasterError, match=r"band 1 of new.tif has scale .* but old.tif has none"):
        conversions(["band 1 of new.tif"], [own], [Encoding()], ["old.tif"])
    with pytest.raises(RasterError, match=r"band 1 of new.tif has no scale and offset tags, but old.tif has scale"):
        conversions(["band 1 of new.tif"], [Encoding()], [own], ["old.tif"])


def test_units_other_than_per_cent_do_not_matter():
    assert conversions(["a"], [Encoding(unit="m")], [Encoding()], ["b"]) is None
