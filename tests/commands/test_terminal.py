"""Progress without a terminal: lines of text, remaining time, and interruptions."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from landscribe.commands import tables, terminal
from landscribe.errors import RasterError


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Seconds that have passed, to be set."""
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_no_remaining_time_is_shown_after_the_first_few_steps(clock, capsys):
    said = []
    with terminal._lines("mapping x", 1000) as advance:
        for seconds, steps in ((16, 1), (32, 99), (40, 1), (48, 99)):
            clock[0] = seconds
            advance(steps)
            said.append(capsys.readouterr().err)
    assert said == [
        "mapping x: 1 of 1000\n",
        "mapping x: 100 of 1000, about 4 min 48 s left\n",
        "",  # a line each 15 s at most
        "mapping x: 200 of 1000, about 3 min 12 s left\n",
    ]


def test_after_a_minute_the_remaining_time_is_shown_from_any_progress(clock, capsys):
    with terminal._lines("mapping x", 1000) as advance:
        clock[0] = 60
        advance(1)
    assert capsys.readouterr().err.splitlines()[0] == "mapping x: 1 of 1000, about 16 h 39 min left"


class Cleared:
    """Sends its process a signal while it is cleared away, where Python drops what the signal raises."""

    def __init__(self, by: signal.Signals) -> None:
        self.by = by

    def __del__(self) -> None:
        os.kill(os.getpid(), self.by)
        time.sleep(0)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interruption_during_garbage_collection_is_not_lost(by, capsys):
    reached = []

    def work() -> None:
        for step in range(1000):
            if step == 3:
                Cleared(by)
            reached.append(step)
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt), terminal._interruptible():
        work()
    assert 3 in reached
    assert len(reached) < 1000
    assert not capsys.readouterr().err


TITLE = "a\x1b]0;owned\x07[red].tif"
"""A file name that renames the terminal's window, and looks like markup of rich."""
SHOWN = r"a\x1b]0;owned\x07[red].tif"


@pytest.mark.parametrize("write", [terminal.say, terminal.show, terminal._Remarks().emit], ids=["say", "show", "log"])
def test_control_characters_of_names_do_not_reach_the_terminal(write, capsys):
    is_log = getattr(write, "__name__", "") == "emit"
    write(logging.LogRecord("x", logging.INFO, "", 0, "%s", (TITLE,), None) if is_log else TITLE)
    assert "".join(capsys.readouterr()) == f"{SHOWN}\n"


def test_control_characters_of_names_do_not_reach_bars_or_lines(capsys):
    for reporter in (terminal._bar, terminal._lines):
        with reporter(f"mapping {TITLE}", 1) as advance:
            advance(1, note=TITLE)
        shown = capsys.readouterr().err
        assert "\x1b]0" not in shown
        assert "\x07" not in shown
        assert SHOWN.removesuffix(".tif") in shown


def test_control_characters_of_names_do_not_reach_tables(capsys):
    tables._print_table(["class", TITLE], [[TITLE, "1"]])
    assert capsys.readouterr().out.count(SHOWN) == 2


@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), OSError(28, "No space left on device")])
def test_an_error_of_the_machine_ends_a_command_with_one_line(error, capsys):
    def app(**_):
        raise error

    with pytest.raises(SystemExit) as ended:
        terminal.end_with_code_of(app)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_two_spaces_of_a_path_are_two_spaces_of_the_message(capsys):
    def app(**_):
        raise RasterError("/data/north  2024.tif does not exist.\nCheck the path.")

    with pytest.raises(SystemExit):
        terminal.end_with_code_of(app)
    assert capsys.readouterr().err == "landscribe: /data/north  2024.tif does not exist. Check the path.\n"


def test_characters_that_a_pipe_cannot_hold_are_escaped_and_json_stays_json():
    shown = {"class": "łąka 🌳 Häuser"}
    code = (
        "from landscribe.commands import tables, terminal\n"
        f"text, shown = '█ {shown['class']}', {shown}\n"
        "terminal.end_with_code_of(lambda **_: (terminal.show(text), tables.print_json(shown)) and 0)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "cp1252"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    line, _, text = ended.stdout.decode("cp1252").partition("\n")
    assert ended.returncode == 0, ended.stderr
    assert line == r"\u2588 \u0142\u0105ka \U0001f333 Häuser"
    assert json.loads(text) == shown
