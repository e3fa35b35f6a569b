"""Fingerprints: equal where every field is, and clear about the fields that differ."""

import math

from hypothesis import given
from hypothesis import strategies as st

from landscribe.fingerprint import Fingerprint, read_fingerprint

VALUES = st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=4)
FIELDS = st.dictionaries(
    st.text("abc", min_size=1, max_size=2),
    VALUES
    | st.lists(VALUES, max_size=2)
    | st.lists(st.dictionaries(st.text("abc", min_size=1, max_size=2), VALUES, max_size=2), max_size=2)
    | st.dictionaries(st.text("abc", min_size=1, max_size=2), VALUES, max_size=2),
    max_size=4,
)


@given(FIELDS, FIELDS)
def test_fingerprints_differ_where_their_differences_say_so(fields, other):
    now, before = Fingerprint.of(fields), Fingerprint.of(other)
    assert (now == before) == (fields == {} == other or (other != {} and now.differences(before.fields) == ""))


@given(FIELDS.filter(bool))
def test_a_fingerprint_equals_itself_though_it_holds_nan(fields):
    assert Fingerprint.of({**fields, "nodata": math.nan}).differences({**fields, "nodata": math.nan}) == ""


def test_a_nested_field_is_named_by_its_path():
    now = Fingerprint.of({"seed": 0, "train": {"batch": 4, "loss": "dice"}})
    assert now.differences({"seed": 0, "train": {"batch": 2, "loss": "dice"}}) == "train.batch (2, now 4)"


def test_of_a_list_of_tables_the_field_that_differs_is_named():
    scenes = [{"image": ["a.tif"], "labels": "old.gpkg"}, {"image": ["b.tif"], "labels": None}]
    changed = [scenes[0] | {"labels": "new.gpkg"}, scenes[1]]
    assert Fingerprint.of({"scenes": changed}).differences({"scenes": scenes}) == (
        "scenes.0.labels (old.gpkg, now new.gpkg)"
    )


def test_of_lists_of_tables_of_different_lengths_the_lengths_are_named():
    now = Fingerprint.of({"scenes": [{"image": "a.tif"}, {"image": "b.tif"}]})
    assert now.differences({"scenes": [{"image": "a.tif"}]}) == "scenes (1, now 2)"


def test_two_long_values_show_where_they_differ():
    folder = "/data/" + "a/" * 60
    text = Fingerprint.of({"image": f"{folder}north.tif"}).differences({"image": f"{folder}south.tif"})
    assert text == f"image (…{folder[-20:]}south.tif, now …{folder[-20:]}north.tif)"


def test_of_many_fields_three_are_named_and_the_rest_counted():
    now = Fingerprint.of(dict.fromkeys("abcde", 1))
    assert now.differences(dict.fromkeys("abcde", 0)) == "a (0, now 1), b (0, now 1), c (0, now 1) and 2 more"


def test_a_field_of_the_earlier_result_alone_is_a_difference():
    assert Fingerprint.of({"seed": 0}).differences({"seed": 0, "tta": True}) == "tta (true, now not set)"


def test_one_of_two_fingerprints_claims_a_file(tmp_path):
    path = tmp_path / "plan.json"
    assert Fingerprint.of({"batch": 1}).claim(path)
    assert not Fingerprint.of({"batch": 2}).claim(path)
    assert read_fingerprint(path) == {"batch": 1}


def test_a_damaged_file_holds_no_fingerprint(tmp_path):
    (tmp_path / "plan.json").write_text("{")
    assert read_fingerprint(tmp_path / "plan.json") == {} == read_fingerprint(tmp_path / "absent.json")
