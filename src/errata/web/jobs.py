"""Work that takes its time, in a thread of its own: its place in the line, its progress, and the way to stop it."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from errata.errors import ErrataError
from errata.runtime import Pace, label
from errata.web.line import Line

logger = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "cancelled", "failed"]


class Cancelled(Exception):
    """The person who asked for the work has cancelled it."""


@dataclass(frozen=True)
class Stage:
    """How far a stage of the work is, in its own units (facts, layers, texts)."""

    name: str
    done: int
    total: int
    seconds_left: float | None
    """None as long as it cannot be told."""


@dataclass(frozen=True)
class View:
    """What there is to see of a job at one moment."""

    title: str
    state: State
    before: int
    """How many stand in the line before it."""
    stages: tuple[Stage, ...]
    seconds: float
    """Since it was asked for."""
    message: str
    """Why it failed."""
    passes: int = 0
    """Of the model, so far: a sign of life where facts are worked on together and none is done yet."""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "cancelled", "failed")


class Job:
    """Runs `work` as soon as the line lets it; the job itself is the listener for `on_progress`.

    What `work` raises ends it: `Cancelled` quietly, everything else with a message. `work` sees to it that nothing is
    left half-done.
    """

    def __init__(self, line: Line, title: str, work: Callable[["Job"], None]) -> None:
        self.title = title
        self._line, self._work = line, work
        self._ticket = line.enter()
        self._stages: dict[str, tuple[int, int, Pace]] = {}
        self._state: State = "waiting"
        self._message = ""
        self._passes = 0
        self._began = time.monotonic()
        self._ended: float | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"errata web: {title}", daemon=True)
        self._thread.start()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take note of how far a stage is.

        Raises:
            Cancelled: the job was cancelled.
        """
        self.check()
        with self._lock:
            pace = self._stages[stage][2] if stage in self._stages else Pace(done)
            pace.report(done)
            self._stages[stage] = (done, total, pace)

    def check(self) -> None:
        """Raise if the job was cancelled.

        Raises:
            Cancelled: it was.
        """
        if self._stop.is_set():
            raise Cancelled

    def passed(self) -> None:
        """Take note of one more pass of the model, which is about to begin.

        Raises:
            Cancelled: the job was cancelled.
        """
        self.check()
        with self._lock:
            self._passes += 1

    def cancel(self) -> None:
        """Ask it to stop: at once where it waits, otherwise before the model's next pass."""
        self._stop.set()
        self._line.nudge()

    def wait(self, seconds: float | None = None) -> View:
        """Wait until it is over, but not longer than so many seconds."""
        self._thread.join(seconds)
        return self.view()

    def view(self) -> View:
        """How it stands now."""
        with self._lock:
            stages = tuple(
                Stage(label(name), done, total, None if done >= total else pace.seconds_left(total))
                for name, (done, total, pace) in self._stages.items()
            )
        state, message = self._state, self._message
        seconds = (self._ended or time.monotonic()) - self._began
        return View(
            self.title, state, self._line.before(self._ticket), stages, seconds, message, self._passes
        )

    def _run(self) -> None:
        with self._line.turn(self._ticket, self._stop.is_set) as reached:
            if reached:
                self._state = "running"
                self._finish(*self._outcome())
            else:
                self._finish("cancelled", "")

    def _outcome(self) -> tuple[State, str]:
        try:
            self._work(self)
        except Cancelled:
            return "cancelled", ""
        except (ErrataError, OSError, MemoryError) as error:
            return "failed", str(error) or type(error).__name__
        except Exception as error:
            logger.exception("%s failed", self.title)
            return "failed", f"{type(error).__name__}: {error}"
        return "done", ""

    def _finish(self, state: State, message: str) -> None:
        self._ended = time.monotonic()
        self._message, self._state = message, state
