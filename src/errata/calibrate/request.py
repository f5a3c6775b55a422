"""What is asked of a calibration, and what comes of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from errata.calibrate.objective import Measures
from errata.errors import SettingsError
from errata.facts import Fact
from errata.methods import method_named
from errata.settings import DEFAULT_METHOD

LEAST = 2
"""Facts of each part, at least."""


@dataclass(frozen=True)
class CalibrationRequest:
    """One calibration of a method on a model.

    Raises:
        SettingsError, UnknownSetting: a method that cannot be calibrated, or a number that no run can use.
    """

    method: str = DEFAULT_METHOD
    facts: Sequence[Fact] | None = None
    """To choose known ones from; default: Errata's own set, for the embedded model facts of its world."""
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    """Settings that stay as they are here and are not searched."""
    development: int = 12
    """Facts to search with."""
    held_out: int = 12
    """Facts to report on."""
    budget: float | None = 600.0
    """Seconds in all, those of earlier runs that were stopped included; None: until the search is done."""
    trials: int | None = None
    """Trials in all, at most."""
    covariance: str | os.PathLike[str] | None = None
    texts: Sequence[str] | None = None
    """Plain texts whose perplexity is bounded; default: Errata's own, for the embedded model text of its world."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be calibrated."""
        row = method_named(self.method)
        if not row.optimizes_values:
            raise SettingsError(
                f"{row.name} cannot be calibrated: it optimizes no values. `errata methods` lists those that do."
            )
        for name, value in (("development", self.development), ("held_out", self.held_out)):
            if value < LEAST:
                raise SettingsError(f"Calibration needs at least {LEAST} {name} facts: {value}.")
        if self.trials is not None and self.trials < 1:
            raise SettingsError(f"Calibration needs at least 1 trial: {self.trials}.")
        if self.budget is not None and not self.budget > 0:
            raise SettingsError(f"The budget must be above 0 seconds: {self.budget}.")


@dataclass(frozen=True)
class Trial:
    """An edit with some settings, and what was measured of it."""

    number: int
    """0 is the method as it comes."""
    stage: str
    settings: Mapping[str, object]
    """Those that differ from the method as it comes, by their paths."""
    measures: Measures | None
    """None where the edit failed."""
    score: float
    seconds: float
    error: str = ""
    """Why it failed."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What was measured on the facts that the search has not seen."""

    unedited: Measures
    as_it_comes: Measures | None
    calibrated: Measures | None
    as_it_comes_score: float
    calibrated_score: float

    @property
    def improves(self) -> bool:
        """Whether the calibrated settings are better than the method as it comes."""
        return self.calibrated_score > self.as_it_comes_score


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The outcome: every trial, the best one, and how it does on held-out facts."""

    request: CalibrationRequest
    model: str
    fingerprint: str
    created: str
    """The day on which it was begun."""
    base: str
    """The preset that the method comes with, by name."""
    known: tuple[int, int]
    """Facts that the model knows, of so many asked."""
    counts: tuple[int, int]
    """Development and held-out facts."""
    unedited: Measures
    trials: tuple[Trial, ...]
    best: Trial
    values: Mapping[str, object]
    """All settings of the best trial, by their paths."""
    held_out: HeldOut
    seconds: float
    ended: str
    """Why the search ended: "budget", "trials" or "done"."""

    @property
    def source(self) -> str:
        """Where the preset's values come from, in a sentence."""
        development, held_out = self.counts
        return (
            f"calibrated on {self.created} with {development} facts, tested on {held_out} others "
            f"(errata calibrate, seed {self.request.seed}, {len(self.trials)} trials)"
        )
