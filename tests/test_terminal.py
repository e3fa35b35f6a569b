"""What is said while a long step runs where there is no terminal to draw bars on."""

import pytest

from landscribe import terminal


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Seconds that have passed, to be set."""
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_how_long_it_will_take_is_not_foreseen_from_the_first_few_steps(clock, capsys):
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


def test_after_a_minute_it_is_foreseen_from_whatever_is_done(clock, capsys):
    with terminal._lines("mapping x", 1000) as advance:
        clock[0] = 60
        advance(1)
    assert capsys.readouterr().err.splitlines()[0] == "mapping x: 1 of 1000, about 16 h 39 min left"
