"""Messages of errors: foreign text in them is escaped."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscribe.errors import LandscribeError, is_printable, printable


@given(st.text(alphabet=st.characters()))
def test_printable_text_holds_no_control_character(text):
    shown = printable(text)
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")]
    assert shown.encode("utf-8") or not shown
    assert is_printable(shown)


@pytest.mark.parametrize("text", ["Häuser", "آب‌وهوا", "क्ष", "道路", "🌳", "a\\b", "1 %", " "])
def test_words_of_all_scripts_stay_as_they_are(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[31m", r"\x1b[31m"), ("\u202e", r"\u202e"), ("\udce9", r"\udce9"), ("\x9b2J", r"\x9b2J"), ("\t", r"\t")],
)
def test_control_characters_are_escaped(text, shown):
    assert printable(text) == shown


def test_the_message_of_an_error_is_one_line_without_control_characters():
    error = LandscribeError("'a\x1b]0;title\x07.tif' cannot be read: first\n  second.")
    assert str(error) == r"'a\x1b]0;title\x07.tif' cannot be read: first second."
