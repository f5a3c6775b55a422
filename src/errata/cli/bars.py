"""Progress: bars with the time left in a terminal, a line now and then in a file or pipe."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from errata.runtime import Pace, clock, duration, label

__all__ = ["Bars", "Lines", "Pace", "clock", "duration"]

LINE_SECONDS = 15.0
"""Between two lines, where there is no terminal for bars."""


class TimeLeftColumn(ProgressColumn):
    """The time left, told from the whole stage: rich's own looks at half a minute, and some steps take longer."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """The column's text for one task."""
        pace: Pace | None = task.fields.get("pace")
        left = None if pace is None or task.total is None else pace.seconds_left(int(task.total))
        return Text(
            "" if left is None or task.finished else f"{clock(left)} left", style="progress.remaining"
        )


class CountColumn(ProgressColumn):
    """How many of how many, where that is known."""

    def render(self, task: Task) -> Text:
        """The column's text for one task."""
        count = "" if task.total is None else f"{int(task.completed)}/{int(task.total)}"
        return Text(count, style="progress.download")


class Bars:
    """A listener that draws one bar for the whole task and one below it per stage; they vanish at the end."""

    def __init__(self, console: Console, task: str) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            CountColumn(),
            TimeElapsedColumn(),
            TimeLeftColumn(),
            console=console,
            transient=True,
        )
        self._progress.add_task(task, total=None)
        self._stages: dict[str, tuple[TaskID, Pace]] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Draw how far a stage is."""
        if stage not in self._stages:
            pace = Pace(done)
            self._stages[stage] = (self._progress.add_task(label(stage), total=total, pace=pace), pace)
        bar, pace = self._stages[stage]
        pace.report(done)
        self._progress.update(bar, completed=done, total=total)

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class Lines:
    """A listener that prints a line when some time has passed since the last one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._paces: dict[str, Pace] = {}
        self._last = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Say how far a stage is, unless that was done a short while ago."""
        pace = self._paces.setdefault(stage, Pace(done))
        pace.report(done)
        if time.monotonic() - self._last < LINE_SECONDS:
            return
        self._last = time.monotonic()
        left = pace.seconds_left(total)
        soon = "" if left is None or done == total else f", {clock(left)} left"
        self._console.print(f"{label(stage)}: {done} of {total}{soon}", soft_wrap=True)
