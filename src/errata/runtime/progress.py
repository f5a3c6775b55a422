"""How a long computation tells how far it is, without knowing who listens."""

import time
from datetime import timedelta
from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Called with the stage's name, how many units are done, and how many there are in all."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take note."""
        ...


def silent(stage: str, done: int, total: int) -> None:
    """The listener that does nothing: the library's default."""


LABELS = {
    "covariance": "Second moments of the keys",
    "optimization": "Values of the facts",
    "spread": "Updates of the layers",
}
"""What a person is told a stage is; other stages are shown by their own names."""


def label(stage: str) -> str:
    """The stage in words."""
    return LABELS.get(stage, stage.capitalize())


class Pace:
    """How fast a stage is, from its first report on (a resumed run begins in the middle)."""

    def __init__(self, done: int) -> None:
        self._first = self._done = done
        self._began = self._reported = time.monotonic()

    def report(self, done: int) -> None:
        """Take note that so much is done now."""
        if done != self._done:
            self._done, self._reported = done, time.monotonic()

    def seconds_left(self, total: int) -> float | None:
        """Counts down between two reports; None as long as it cannot be told."""
        advanced = self._done - self._first
        if advanced <= 0:
            return None
        whole = (self._reported - self._began) / advanced * (total - self._done)
        return max(0.0, whole - (time.monotonic() - self._reported))


def clock(seconds: float) -> str:
    """0:00:07"""
    return str(timedelta(seconds=round(seconds)))


def duration(seconds: float) -> str:
    """How long something took, for people: "7.2 s", "3 min 20 s", "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left:02d} min" if hours else f"{minutes} min {rest:02d} s"
