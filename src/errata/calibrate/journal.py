"""The folder of a calibration in the cache: its trials, one line each, and its clock.

Its name is a digest of everything that a trial's outcome depends on, so the same command finds it again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from errata.calibrate.objective import Measures
from errata.calibrate.request import Trial
from errata.runtime import Progress, atomic_file, cache_root, from_json, to_json, write_json

FOLDER = "calibrations"
SAVE_SECONDS = 1.0
"""The clock is saved as often, so a run that is killed forgets no more of its time."""


class BudgetSpent(Exception):
    """The time of the search is over, in the middle of a trial."""


@dataclass
class Clock:
    """The time that a calibration has used, in all its runs."""

    file: Path
    used: float = 0.0
    deadline: float | None = None
    """Where set, `watch` raises when so much time is used."""
    _resumed: float = field(default_factory=time.monotonic)
    _saved: float = 0.0

    @classmethod
    def of(cls, file: Path) -> Clock:
        """The clock in a file, running."""
        try:
            used = float(json.loads(file.read_text(encoding="utf-8"))["seconds"])
        except (OSError, ValueError, LookupError, TypeError):
            used = 0.0
        return cls(file, used)

    def tick(self) -> float:
        """The seconds used so far; they are saved now and then."""
        now = time.monotonic()
        self.used, self._resumed = self.used + now - self._resumed, now
        if now - self._saved >= SAVE_SECONDS:
            self._saved = now
            with atomic_file(self.file) as aside:
                write_json(aside, {"seconds": self.used})
        return self.used

    def watched(self, on_progress: Progress) -> Progress:
        """The listener, with the deadline looked at whenever something is reported.

        Raises:
            BudgetSpent: when it is called after the deadline.
        """

        def watch(stage: str, done: int, total: int) -> None:
            on_progress(stage, done, total)
            if self.tick() > (self.deadline or float("inf")):
                raise BudgetSpent

        return watch


@dataclass(frozen=True)
class Journal:
    """The trials of one calibration on disk."""

    folder: Path

    @classmethod
    def of(cls, digest: str) -> Journal:
        """The folder of that digest in the user's cache."""
        folder = cache_root() / FOLDER / digest
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    @property
    def values(self) -> Path:
        """Where trials keep and find finished values: those of all calibrations."""
        return self.folder.parent / "values"

    def clock(self) -> Clock:
        """The clock, running."""
        return Clock.of(self.folder / "clock.json")

    def created(self, today: str) -> str:
        """The day on which the calibration was begun: `today` if that is now."""
        file = self.folder / "created.json"
        if not file.is_file():
            with atomic_file(file) as aside:
                write_json(aside, {"created": today})
        return str(json.loads(file.read_text(encoding="utf-8"))["created"])

    def trials(self) -> list[Trial]:
        """The finished trials; a line that was cut off counts as none, and so does all behind it."""
        found: list[Trial] = []
        for line in self._lines("trials.jsonl"):
            try:
                found.append(from_json(Trial, json.loads(line), "trial"))
            except ValueError:
                break
        return found

    def add(self, trials: list[Trial], trial: Trial) -> None:
        """Append a trial to those before it; the file is replaced as a whole."""
        trials.append(trial)
        with atomic_file(self.folder / "trials.jsonl") as aside, aside.open("w", encoding="utf-8") as lines:
            for one in trials:
                lines.write(json.dumps(to_json(one), ensure_ascii=False) + "\n")
            lines.flush()
            os.fsync(lines.fileno())

    def exam(self, name: str) -> tuple[bool, Measures | None]:
        """Whether an exam on held-out facts was finished, and its outcome (None: the edit failed)."""
        stored = self._exams().get(name, ...)
        if stored is ...:
            return False, None
        return True, None if stored is None else from_json(Measures, stored, name)

    def keep_exam(self, name: str, measures: Measures | None) -> None:
        """Keep the outcome of an exam on held-out facts."""
        with atomic_file(self.folder / "held-out.json") as aside:
            write_json(aside, {**self._exams(), name: to_json(measures)})

    def _exams(self) -> Mapping[str, object]:
        text = "".join(self._lines("held-out.json"))
        return cast("Mapping[str, object]", json.loads(text)) if text else {}

    def _lines(self, name: str) -> list[str]:
        try:
            return (self.folder / name).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
