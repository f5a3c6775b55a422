"""Progress as people see it."""

import io

import pytest
from rich.console import Console

from errata.cli import bars
from errata.cli.bars import Bars, Lines
from errata.runtime.progress import Pace, duration


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(bars.time, "monotonic", lambda: self.now)


def test_the_time_left_counts_down_between_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace = Pace(10)
    assert pace.seconds_left(40) is None
    clock.now += 20
    pace.report(20)
    assert pace.seconds_left(40) == 40
    clock.now += 15
    assert pace.seconds_left(40) == 25
    clock.now += 100
    assert pace.seconds_left(40) == 0


def test_without_a_terminal_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    text = io.StringIO()
    lines = Lines(Console(file=text, width=80))
    for done in range(5):
        lines("optimization", done, 40)
        clock.now += 6
    assert text.getvalue() == "Values of the facts: 3 of 40, 0:03:42 left\n"


def test_bars_name_the_task_and_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")  # on a dumb terminal nothing moves
    text = io.StringIO()
    with Bars(Console(file=text, width=100, force_terminal=True), "Editing tiny") as listener:
        listener("spread", 1, 2)
        listener("something new", 1, 1)
    for words in ("Editing tiny", "Updates of the layers", "1/2", "Something new"):
        assert words in text.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7.24, "7.2 s"), (200.0, "3 min 20 s"), (3599.6, "1 h 00 min"), (7500.0, "2 h 05 min")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
