"""Which trial comes next: the planned points of a stage first, then what a seeded TPE sampler proposes.

A proposal depends on the trials so far and the seed, and on nothing else: a search that goes on from its journal
proposes what it would have proposed without the stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from errata.calibrate.request import Trial
from errata.calibrate.space import STAGES, TRIALS, Knob, Space, Stage, StageSpace, Value, in_words

ATTEMPTS = 5
"""Draws for a point that was not tried yet; then the stage counts as done."""
BASE = "as it comes"
"""The stage of the first trial."""


@dataclass(frozen=True)
class Proposal:
    """The settings of a trial that differ from the method as it comes."""

    stage: Stage
    settings: Mapping[str, object]


@dataclass(frozen=True)
class Search:
    """The search as a function of its history."""

    space: Space
    seed: int
    trials: int | None = None
    """In all, at most; a smaller number makes every stage shorter."""

    def propose(self, history: Sequence[Trial], stage: Stage) -> Proposal | None:
        """The next trial of a stage; None where the stage is done."""
        own = [trial for trial in history if trial.stage == stage]
        if len(own) >= self.room(stage):
            return None
        before = [trial for trial in history if trial.stage not in STAGES[STAGES.index(stage) :]]
        anchor = best_of(before)
        space = self.space.stage(stage, {**self.space.base, **anchor.settings})
        if not space.knobs:
            return None
        tried = [dict(trial.settings) for trial in history]
        for point in space.planned[len(own) :]:
            settings = {**anchor.settings, **point}
            if settings not in tried:
                return Proposal(stage, settings)
        for attempt in range(ATTEMPTS):
            asked = self._ask(space, [anchor, *own], 100 * len(history) + attempt)
            settings = {**anchor.settings, **asked}
            if settings not in tried:
                return Proposal(stage, settings)
        return None

    def room(self, stage: Stage) -> int:
        """How many trials a stage may have."""
        if self.trials is None:
            return TRIALS[stage]
        whole = sum(TRIALS.values())
        ends = [sum(TRIALS[one] for one in STAGES[:number]) for number in range(len(STAGES) + 1)]
        number = STAGES.index(stage)
        first, last = (
            min(self.trials, round(self.trials * end / whole)) for end in ends[number : number + 2]
        )
        return last - first

    def _ask(self, space: StageSpace, past: Sequence[Trial], number: int) -> dict[str, Value]:
        """One point from the sampler, which knows the trials of the stage and the anchor."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=1_000_003 * self.seed + number, n_startup_trials=1)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        spread = {knob.name: _distribution(knob) for knob in space.knobs}
        for trial in past:
            params = {knob.name: self._param(trial, knob) for knob in space.knobs}
            if all(_inside(knob, params[knob.name]) for knob in space.knobs):
                study.add_trial(
                    optuna.trial.create_trial(params=params, distributions=spread, value=trial.score)
                )
        drawn: Mapping[str, Any] = study.ask(spread).params
        return {knob.name: _settled(knob, drawn[knob.name]) for knob in space.knobs}

    def _param(self, trial: Trial, knob: Knob) -> Any:
        return in_words({**self.space.base, **trial.settings}[knob.name])


def best_of(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest score; of several the first."""
    return max(trials, key=lambda trial: (trial.score, -trial.number))


def _inside(knob: Knob, value: Any) -> bool:
    return value in knob.choices if knob.choices else knob.low <= value <= knob.high


def _settled(knob: Knob, value: Any) -> Value:
    """The value with three digits, inside the knob's bounds."""
    return value if knob.choices else min(knob.high, max(knob.low, float(f"{value:.3g}")))


def _distribution(knob: Knob) -> Any:
    import optuna

    if knob.choices:
        return optuna.distributions.CategoricalDistribution(knob.choices)
    return optuna.distributions.FloatDistribution(knob.low, knob.high, log=knob.log)
