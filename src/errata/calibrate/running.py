"""The calibration itself: trial after trial within the budget, then the best settings on held-out facts."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from errata.almanac import corpus_texts, world_facts
from errata.calibrate.exam import Exam
from errata.calibrate.familiar import familiar_facts, plain_texts
from errata.calibrate.journal import BudgetSpent, Clock, Journal
from errata.calibrate.moments import measure_ahead
from errata.calibrate.objective import Measures, score
from errata.calibrate.pool import Pool, find_pool
from errata.calibrate.presets import preset_text
from errata.calibrate.request import Calibration, CalibrationRequest, HeldOut, Trial
from errata.calibrate.search import BASE, Search, best_of
from errata.calibrate.space import STAGES, TIME, Space, Stage
from errata.errors import ErrataError
from errata.facts import Apart, Fact
from errata.methods import contexts_for, fitting_preset, method_named
from errata.models import ALMANAC, EditableModel
from errata.planning import EditRequest, prepare
from errata.runtime import Progress, atomic_file, digest_of, silent, to_json
from errata.settings import DEFAULT, Preset, build, dotted, flatten, load_presets

VERSION = 1
"""Of how trials are made and measured: raised when their numbers change, so that old ones are not found any more."""
ALMANAC_FACTS, ALMANAC_TEXTS = 200, 50
HELD_OUT_SHARE = 0.6
"""Of the budget, at most this part waits for the exam on held-out facts."""
MARGIN = 1.2
"""That exam is expected to take so much longer than the first trial, fact by fact."""

OnTrial = Callable[[Trial, int], None]
"""Called after each trial, with the number of the best one so far."""


def calibrate(
    model: EditableModel,
    request: CalibrationRequest,
    on_progress: Progress = silent,
    on_trial: OnTrial = lambda trial, best: None,
) -> Calibration:
    """Search the settings of a method for a model; the model itself is left as it was. Nothing is installed.

    Stopped and called again with the same request, it goes on from its journal in the user's cache.

    Raises:
        FactError: the model knows too few of the facts.
        CovarianceError: second moments cannot be measured, or are damaged or another model's.
        SettingsError, UnsupportedArchitecture: the method does not fit the model, with any settings.
        MissingExtra: optuna is not installed.
    """
    return _Calibration.of(model, request, on_progress).run(on_trial)


@dataclass(frozen=True)
class _Calibration:
    """All that trials share."""

    model: EditableModel
    request: CalibrationRequest
    on_progress: Progress
    preset: Preset
    space: Space
    pool: Pool
    texts: tuple[str, ...]
    contexts: tuple[str, ...]
    journal: Journal
    clock: Clock

    @classmethod
    def of(cls, model: EditableModel, request: CalibrationRequest, on_progress: Progress) -> _Calibration:
        """Choose the facts, and find the journal of an earlier run."""
        began = time.monotonic()
        method = method_named(request.method)
        presets = load_presets(request.method)
        preset = presets.for_model(model.name, model.layers, DEFAULT)
        preset = fitting_preset(model, preset, dotted(request.settings))
        settings = build(method.settings, preset.values, request.settings)
        method.check(model, settings)
        pool = find_pool(model, _candidates(model, request), request, on_progress)
        own = dotted(request.settings)
        space = Space(flatten(settings), model.layers, presets.layer_rules, frozenset(own))
        texts = _texts(model, request)
        contexts = contexts_for(model, method, settings, request.seed)
        journal = Journal.of(_digest(model, request, space, pool, (texts, contexts)))
        clock = journal.clock()
        clock.used += time.monotonic() - began
        return cls(model, request, on_progress, preset, space, pool, texts, contexts, journal, clock)

    def run(self, on_trial: OnTrial) -> Calibration:
        """Search, and ask the held-out facts."""
        if self.request.covariance is None:
            measure_ahead(self.model, self.request.method, self.space, self.on_progress)
        exam = Exam.of(self.model, self.pool.development, self.texts, self.on_progress)
        trials = self.journal.trials()
        if not trials:
            self._add(trials, self._trial(exam, trials, BASE, {}), on_trial)
        ended = self._search(exam, trials, on_trial)
        best = best_of(trials)
        held_out = self._held_out(best)
        return Calibration(
            request=self.request,
            model=self.model.name,
            fingerprint=self.model.fingerprint,
            created=self.journal.created(datetime.date.today().isoformat()),
            base=self.preset.name,
            known=(self.pool.known, self.pool.asked),
            counts=(len(self.pool.development), len(self.pool.held_out)),
            unedited=exam.unedited,
            trials=tuple(trials),
            best=best,
            values=self._whole(best.settings),
            held_out=held_out,
            seconds=self.clock.tick(),
            ended=ended,
        )

    def _search(self, exam: Exam, trials: list[Trial], on_trial: OnTrial) -> str:
        """Make trials until the search is done, or its time or number is over; says which."""
        search, limit = (
            Search(self.space, self.request.seed, self.request.trials),
            self._search_time(trials[0]),
        )
        first = next((STAGES.index(one) for one in STAGES if one == trials[-1].stage), 0)
        for stage in STAGES[first:]:
            end = None if limit is None else limit * TIME[stage]
            while (proposal := search.propose(trials, stage)) is not None:
                if end is not None and self.clock.tick() >= end:
                    break
                self.clock.deadline = limit
                try:
                    trial = self._trial(exam, trials, stage, proposal.settings)
                except BudgetSpent:
                    return "budget"
                finally:
                    self.clock.deadline = None
                self._add(trials, trial, on_trial)
        if limit is not None and self.clock.tick() >= limit:
            return "budget"
        return "trials" if self.request.trials is not None else "done"

    def _search_time(self, first: Trial) -> float | None:
        """When the search has to end so that the held-out facts can be asked within the budget."""
        if self.request.budget is None:
            return None
        share = len(self.pool.held_out) / len(self.pool.development)
        needed = 2 * MARGIN * share * first.seconds
        return self.request.budget - min(needed, HELD_OUT_SHARE * self.request.budget)

    def _trial(
        self, exam: Exam, trials: Sequence[Trial], stage: Stage | str, settings: Mapping[str, object]
    ) -> Trial:
        """Edit the facts with these settings, and measure."""
        began = self.clock.tick()
        measures, error = self._measured(exam, settings)
        return Trial(
            number=len(trials),
            stage=stage,
            settings=dict(settings),
            measures=measures,
            score=score(measures, exam.unedited),
            seconds=round(self.clock.tick() - began, 3),
            error=error,
        )

    def _measured(self, exam: Exam, settings: Mapping[str, object]) -> tuple[Measures | None, str]:
        """What is measured with these settings, or why the edit failed; the method as it comes must not fail."""
        request = EditRequest(
            exam.facts,
            self.request.method,
            preset=self._file(settings),
            contexts=self.contexts,
            covariance=self.request.covariance,
            keep_in=self.journal.values,
            seed=self.request.seed,
            check=False,
        )
        watched = self.clock.watched(self.on_progress)
        try:
            edit = prepare(self.model, request).run(watched)
            return exam.measure(edit, watched), ""
        except ErrataError as failure:
            if not settings:
                raise
            return None, str(failure)

    def _whole(self, settings: Mapping[str, object]) -> dict[str, object]:
        """All settings of a trial."""
        return {**self.space.base, **settings}

    def _file(self, settings: Mapping[str, object]) -> str:
        """The settings of a trial as a preset in a file: a trial is edited as its preset will be."""
        path = self.journal.folder / "trial.toml"
        with atomic_file(path) as aside:
            aside.write_text(preset_text(self.request.method, self._whole(settings)), encoding="utf-8")
        return str(path)

    def _add(self, trials: list[Trial], trial: Trial, on_trial: OnTrial) -> None:
        self.journal.add(trials, trial)
        on_trial(trial, best_of(trials).number)

    def _held_out(self, best: Trial) -> HeldOut:
        """Edit the held-out facts with the settings that the method comes with, and with the best ones."""
        exam = Exam.of(self.model, self.pool.held_out, self.texts, self.on_progress)
        plain, found = self._held_out_exam(exam, {}), self._held_out_exam(exam, best.settings)
        return HeldOut(
            unedited=exam.unedited,
            as_it_comes=plain,
            calibrated=found,
            as_it_comes_score=score(plain, exam.unedited),
            calibrated_score=score(found, exam.unedited),
        )

    def _held_out_exam(self, exam: Exam, settings: Mapping[str, object]) -> Measures | None:
        name = digest_of(dict(settings))
        done, measures = self.journal.exam(name)
        if not done:
            measures, _ = self._measured(exam, settings)
            self.journal.keep_exam(name, measures)
        return measures


def _candidates(model: EditableModel, request: CalibrationRequest) -> Sequence[Fact]:
    """The facts to choose from: of the embedded model's world those of the half that presets are tuned on."""
    if request.facts is not None:
        return request.facts
    if model.name == ALMANAC:
        return world_facts("development", ALMANAC_FACTS, request.seed)
    return familiar_facts(request.seed)


def _texts(model: EditableModel, request: CalibrationRequest) -> tuple[str, ...]:
    if request.texts is not None:
        return tuple(request.texts)
    if model.name == ALMANAC:
        return tuple(corpus_texts(0, ALMANAC_TEXTS, held_out=True))
    return plain_texts()


def _digest(
    model: EditableModel,
    request: CalibrationRequest,
    space: Space,
    pool: Pool,
    texts: tuple[tuple[str, ...], tuple[str, ...]],
) -> str:
    """A digest of all that the outcome of trials, and their order, depend on."""
    recipe = {
        "version": VERSION,
        "fingerprint": model.fingerprint,
        "dtype": str(model.dtype),
        "method": request.method,
        "base": to_json(space.base),
        "fixed": sorted(space.fixed),
        "facts": [_described(part) for part in (pool.development, pool.held_out)],
        "texts": texts,
        "trials": request.trials,
        "covariance": None if request.covariance is None else str(request.covariance),
        "seed": request.seed,
    }
    return digest_of(recipe)


def _described(part: Sequence[Apart]) -> list[object]:
    return [[to_json(one.fact), list(one.statements)] for one in part]
