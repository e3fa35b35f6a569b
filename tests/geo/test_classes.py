"""The class table: values, indices, names and labels."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscribe.errors import ClassError
from landscribe.geo.classes import (
    IGNORE,
    ClassEntry,
    Classes,
    default_colour,
    hex_colour,
    is_colour,
    label_key,
    read_class_table,
    rgb,
)

words = st.text(st.characters(categories=["L"]), min_size=1, max_size=8)
tables = st.lists(st.integers(0, 254), min_size=1, max_size=12, unique=True).map(
    lambda values: Classes(tuple(ClassEntry(value, f"class {value}", "#00ff7f", f"label {value}") for value in values))
)


def entry(value: int, name: str = "house", colour: str = "#ff0000", label: int | str = "H") -> ClassEntry:
    return ClassEntry(value, name, colour, label)


@given(tables, st.data())
def test_indices_come_back_from_values(classes, data):
    indices = data.draw(st.lists(st.sampled_from([*range(len(classes)), IGNORE]), max_size=20))
    array = np.array(indices, np.uint8)
    np.testing.assert_array_equal(classes.to_indices(classes.to_values(array)), array)


@given(tables)
def test_the_index_of_a_value_is_its_row_in_the_table(classes):
    np.testing.assert_array_equal(classes.to_indices(np.array(classes.values, np.uint8)), np.arange(len(classes)))


@given(st.one_of(st.lists(words, min_size=1, max_size=10), st.lists(st.integers(-5, 400), min_size=1)), st.booleans())
def test_the_table_does_not_depend_on_the_order_of_the_labels(labels, background):
    reversed_labels = list(reversed(labels))
    assert Classes.from_labels(labels, background=background) == Classes.from_labels(
        reversed_labels + labels, background=background
    )


@given(st.lists(st.integers(0, 254), min_size=1))
def test_small_whole_labels_are_kept_as_values(labels):
    assert Classes.from_labels(labels, background=False).values == tuple(sorted(set(labels)))


def test_words_are_numbered_from_1_in_alphabetical_order():
    classes = Classes.from_labels(["road", "house", "water", "house"], background=False)
    assert [(c.value, c.name, c.label) for c in classes] == [
        (1, "house", "house"),
        (2, "road", "road"),
        (3, "water", "water"),
    ]


def test_numbers_that_do_not_fit_are_numbered_from_1_and_keep_their_label():
    classes = Classes.from_labels([300, -1, 7], background=False)
    assert [(c.value, c.name, c.label) for c in classes] == [(1, "-1", -1), (2, "7", 7), (3, "300", 300)]


@pytest.mark.parametrize("others", [{65535: 1}, {100: 1, 300: 2}, {-1: 1}, {1: 1, 255: 2}])
@pytest.mark.parametrize("background", [True, False])
def test_a_label_0_is_the_background_also_where_other_numbers_are_renumbered(others, background):
    classes = Classes.from_labels([0, *others], background=background)
    assert {entry.label: entry.value for entry in classes} == {0: 0} | others
    assert [entry.label for entry in classes.foreground] == list(others)


def test_renumbered_labels_are_logged_in_one_line(caplog):
    with caplog.at_level(logging.INFO):
        Classes.from_labels([0, 100, 300], background=False)
        Classes.from_labels(["road", "house"], background=True)
        Classes.from_labels([0, 3], background=False)
    assert caplog.messages == ["labels are not all from 0 to 254: 100 has value 1, 300 has value 2"]


def test_background_is_added_with_value_0():
    classes = Classes.from_labels(["house"], background=True)
    assert [(c.value, c.name) for c in classes] == [(0, "background"), (1, "house")]


def test_a_label_0_is_the_background():
    assert Classes.from_labels([0, 1], background=True).values == (0, 1)


def test_the_word_background_is_value_0_and_the_others_are_numbered_from_1():
    classes = Classes.from_labels(["water", "background", "artificial"], background=True)
    assert [(c.value, c.name) for c in classes] == [(0, "background"), (1, "artificial"), (2, "water")]


def test_more_classes_than_a_byte_holds_are_refused():
    with pytest.raises(ClassError, match=r"hold 255 different values \('house 0', 'house 1', .*label_field"):
        Classes.from_labels([f"house {number}" for number in range(255)], background=True)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (entry(1, "road", label="R"), "class value '1' occurs twice"),
        (entry(2, "house", label="R"), "class name 'house' occurs twice"),
        (entry(2, "road", label="H"), "class label 'H' occurs twice"),
    ],
    ids=["value", "name", "label"],
)
def test_duplicates_in_the_table_are_refused(second, message):
    with pytest.raises(ClassError, match=message):
        Classes((entry(1), second))


def test_a_number_and_the_same_number_as_a_word_are_the_same_label():
    with pytest.raises(ClassError, match="class label '1' occurs twice"):
        Classes((entry(1, "house", label=1), entry(2, "road", label="1")))


@pytest.mark.parametrize("value", [-1, 255, 1000])
def test_values_outside_a_byte_are_refused_with_the_remedy(value):
    with pytest.raises(ClassError, match=f"class 'house' has value {value}.*label = {value}"):
        Classes((entry(value),))


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_a_colour_is_the_same_as_text_and_as_numbers(colour):
    text = hex_colour(colour)
    assert rgb(text) == rgb(text.upper()) == colour
    assert is_colour(text)
    assert label_key(text.upper()) == text


def test_channels_beyond_a_byte_are_clipped():
    assert hex_colour([-1, 256, 300]) == "#00ffff"


@pytest.mark.parametrize("colour", ["red", "#ff00", "#ff00zz", "ff0000", "#ff000000", "#ff0000\n"])
def test_colours_that_are_not_rrggbb_are_refused(colour):
    with pytest.raises(ClassError, match="Expected '#rrggbb'"):
        Classes((entry(1, colour=colour),))


def test_an_empty_table_is_refused():
    with pytest.raises(ClassError, match="the class table is empty"):
        Classes(())


def test_unlisted_values_of_a_mask_are_refused_with_their_counts():
    classes = Classes.from_labels([0, 1], background=False)
    with pytest.raises(ClassError, match=r"the mask holds 7 \(3\), 9 \(1\), not in the class table. Expected 0, 1"):
        classes.to_indices(np.array([[0, 7, 7], [1, 9, 7], [255, 0, 1]], np.uint8))


def test_unlisted_labels_are_refused_with_their_counts_and_file():
    classes = Classes.from_labels(["house", "road"], background=False)
    with pytest.raises(
        ClassError, match=r"a\.gpkg holds 'huose' \(2\), not in the class table. Expected 'house', 'road'"
    ):
        classes.values_of(["house", "huose", "huose"], "a.gpkg")


def test_values_of_labels_follow_the_table():
    classes = Classes((entry(5, "road", label="R"), entry(2, "house", label="H")))
    assert classes.values_of(["H", "R", "H"], "a.gpkg").tolist() == [2, 5, 2]


def test_background_is_ignore_if_the_table_has_no_value_0():
    assert Classes((entry(1),)).background == IGNORE


def test_the_foreground_is_all_but_the_background():
    classes = Classes.from_labels(["house", "road"], background=True)
    assert [c.name for c in classes.foreground] == ["house", "road"]


def test_the_first_sixteen_classes_have_different_colours():
    assert len({default_colour(index, background=False) for index in range(16)}) == 16


@given(st.integers(), st.sampled_from(["{:d}", "{:+d}", "{:08d}", "{:d}.", "{:d}.00", " {:d} "]))
def test_a_whole_number_is_one_label_however_it_is_written(number, form):
    assert label_key(form.format(number)) == label_key(number) == str(number)


def test_a_number_of_thousands_of_digits_is_a_label():
    assert label_key("0" * 5000) == "0"
    assert label_key("-" + "7" * 5000) == "-" + "7" * 5000


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_class_table_may_have_the_separator_of_a_spreadsheet(tmp_path, separator):
    path = tmp_path / "classes.csv"
    rows = [("value", "name", "colour", "label"), ("0", "other", "", "2"), ("7", "forest", "#145a32", "")]
    path.write_text("".join(f"{separator.join(row)}\n" for row in rows), encoding="utf-8-sig")
    assert read_class_table(str(path)) == [(0, "other", None, 2), (7, "forest", "#145a32", None)]


def test_a_class_table_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(ClassError, match=r"nothere\.csv cannot be read: No such file or directory\. .* Check the path"):
        read_class_table(str(tmp_path / "nothere.csv"))
