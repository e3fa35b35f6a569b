"""Messages of errors: foreign text in them is escaped."""

import inspect
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

import landscribe
from landscribe.errors import (
    LandscribeError,
    ResourceError,
    counted,
    first_line,
    is_printable,
    machine_errors,
    printable,
)


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


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("Unable to allocate 9 GiB"), r"out of memory \(Unable to allocate 9 GiB\)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), "out of memory"),
        (
            RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly. Details are lost"),
            r'reads chips ended \(DataLoader worker \(pid\(s\) 7, 8\) exited .* if __name__ == "__main__".*--workers 0',
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that"),
            r"reads chips ended \(DataLoader worker \(pid 7\) .* Bus error\)\. Memory.*--shm-size.*--workers 0",
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17.55 GB)"), "out of memory"),
        (RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA"), "out of memory"),
        (RecursionError("maximum recursion depth"), "nested too deeply"),
        (PermissionError(13, "Permission denied", "a.tif"), "a.tif cannot be read or written: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device.*free disk space"),
        (TimeoutError(), r"^another process or machine does not answer \(TimeoutError\)\. Repeat"),
        (ConnectionResetError(104, "Connection reset by peer"), r"does not answer \(Connection reset by peer\)"),
        (TimeoutError(110, "Connection timed out", "a.tif"), "a.tif cannot be read or written: Connection timed out"),
    ],
)
def test_errors_of_the_machine_become_one_line(error, message):
    with pytest.raises(ResourceError, match=message), machine_errors():
        raise error


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes"), ValueError("x"), KeyError("x")])
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(type(error)), machine_errors():
        raise error


def test_every_verb_turns_errors_of_the_machine_into_one_line():
    verbs = {name: getattr(landscribe, name) for name in landscribe.__all__}
    # `loader` is a part of the network's room, no verb; `estimate` takes tables, and no file or network.
    verbs = {
        name: verb for name, verb in verbs.items() if inspect.isfunction(verb) and name not in ("loader", "estimate")
    }
    assert {"chip", "train", "predict", "run", "demo", "cross_validate", "summary"} <= set(verbs)
    for name, verb in verbs.items():
        context = inspect.getclosurevars(verb).nonlocals["self"]  # of the decorator
        assert context.func is machine_errors.__wrapped__, name


@pytest.mark.parametrize("text", ["no such name. Expected another.", "no such name. Expected another"])
def test_a_reason_within_a_message_has_no_full_stop_of_its_own(text):
    assert f"{first_line(ValueError(text))}. Copy it." == "no such name. Expected another. Copy it."
    assert first_line(ValueError()) == "ValueError"


def test_one_thing_is_singular():
    assert [counted(count, "mask") for count in (0, 1, 2)] == ["0 masks", "1 mask", "2 masks"]
