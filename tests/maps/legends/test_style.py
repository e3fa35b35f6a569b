"""Colours of classes, and the class table in the tags of a map."""

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscribe.errors import ClassError, is_printable
from landscribe.geo.classes import ClassEntry, Classes, label_key
from landscribe.maps.class_map import classes_as_tag, classes_from_tag
from landscribe.maps.legends.style import aux_xml, colormap, qml


def entry(value: int, name: str = "house", colour: str = "#ff0000", label: int | str = "H") -> ClassEntry:
    return ClassEntry(value, name, colour, label)


names = st.text(alphabet=st.characters(codec="utf-8"), max_size=9).filter(is_printable)


@given(
    st.lists(st.tuples(st.integers(0, 254), names), min_size=1, unique_by=(lambda r: r[0], lambda r: label_key(r[1])))
)
def test_the_class_table_is_read_back_from_the_tag_of_a_map(rows):
    classes = Classes(tuple(entry(value, name, label=name) for value, name in rows))
    assert classes_from_tag(classes_as_tag(classes)) == classes


def test_the_palette_of_a_map_has_each_colour_and_transparent_nodata():
    # #ff8000 is 255, 128, 0
    assert colormap(Classes((entry(3, colour="#ff8000"),))) == {3: (255, 128, 0, 255), 255: (0, 0, 0, 0)}


@pytest.mark.parametrize("style", [qml, aux_xml])
@given(name=names)
def test_side_files_are_xml_that_holds_each_name_a_class_may_have(style, name):
    tree = ET.fromstring(style(Classes((entry(2, name),))))
    texts = [node.text or "" for node in tree.iter()] + [node.get("label") for node in tree.iter()]
    assert name in texts


@pytest.mark.parametrize("char", ["\x00", "\x07", "\x1b", "\n", "\x9b", "\u202e", "\uffff", "\ud800"])
def test_class_names_with_a_control_character_are_refused(char):
    with pytest.raises(ClassError, match="control character") as caught:
        Classes((entry(2, f"house{char}"),))
    assert char not in str(caught.value)


@pytest.mark.parametrize("style", [qml, aux_xml])
def test_class_names_with_any_characters_survive_in_side_files(style):
    tree = ET.fromstring(style(Classes((entry(2, 'a & "b" <c>'),))))
    texts = [node.text for node in tree.iter()] + [node.get("label") for node in tree.iter()]
    assert 'a & "b" <c>' in texts


def test_category_names_are_at_the_index_of_their_value():
    tree = ET.fromstring(aux_xml(Classes((entry(3, "road", label="R"), entry(1, "house")))))
    names = [node.text or "" for node in tree.iter("Category")]
    assert names == ["", "house", "", "road"]
