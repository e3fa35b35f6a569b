"""Names of bands: what is one name, and what is none."""

import pytest

from landscribe.geo.rasters.derived.band_names import matched_bands, moved_band


@pytest.mark.parametrize(
    ("names", "requested", "indices"),
    [
        (["vv", "VH"], ["VH", "VV"], [1, 0]),
        (["B02", "b_3", "B8A"], ["B8a", "B2", "B03"], [2, 0, 1]),
        (["B01", "B1", "nir"], ["nir", "B01"], [2, 0]),  # equal names come first
        (["B01", "B1", "nir"], ["nir", "b1"], None),
        (["450.5", "660.05", "900"], ["450.5", "660.5"], None),
        (["B1_2", "B3"], ["B12", "B3"], None),
        (["B10", "B1"], ["B1", "B10"], [1, 0]),
        (["band1", "band2"], ["band2", "band1"], None),
        (["band1_1", "band2_1", "band1_2"], ["band1_1", "band2_1"], None),
        (["red", "red", "nir"], ["nir", "red"], None),
        (["red"], ["red", "nir"], None),
    ],
)
def test_wanted_bands_are_found_by_names_that_say_what_they_are(names, requested, indices):
    assert matched_bands(names, requested) == indices


@pytest.mark.parametrize(
    ("names", "requested", "moved"),
    [
        (["VH", "VV", "x"], ["VV", "VH", "y"], 0),
        (["VV", "y", "VH"], ["VV", "VH", "z"], 2),
        (["vv", "y"], ["VV", "VH"], None),
        (["band2", "band1"], ["band1", "band2"], None),
    ],
)
def test_a_band_has_moved_if_its_name_stands_elsewhere(names, requested, moved):
    assert moved_band(names, requested) == moved
