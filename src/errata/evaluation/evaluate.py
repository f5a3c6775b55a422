"""Evaluation: what a model answers to the questions of its facts, with and without an edit.

`questions` says what is asked, `probabilities` how likely the answers are, `generation` what the model writes by
itself. The outcome is a `Results` of raw answers; `errata.scores` computes everything else from it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypedDict

from typing_extensions import Unpack

from errata.edits import Edit
from errata.errors import FactError
from errata.evaluation.fluency import writings
from errata.evaluation.generation import continuations, continue_texts
from errata.evaluation.journal import Journal, Stage
from errata.evaluation.perplexity import measure_texts
from errata.evaluation.prefixes import with_prefixed
from errata.evaluation.probabilities import Plan, make_plan, measure
from errata.evaluation.questions import Ask, Edited, Key, Sheet, key_of, sheets
from errata.evaluation.references import References, references_of
from errata.facts import Fact
from errata.models import EditableModel
from errata.results import (
    GROUPS,
    Answer,
    Continuation,
    Outcomes,
    Phase,
    PlainText,
    Question,
    Record,
    Results,
    Writing,
    outcomes_of,
)
from errata.runtime import Progress, silent

__all__ = ["EvaluationOptions", "EvaluationWords", "continue_texts", "evaluate"]


@dataclass(frozen=True)
class EvaluationOptions:
    """What is measured of a model besides the plain questions of the facts, and where finished batches are kept."""

    generate: bool = True
    """The greedy answers to the prompts."""
    trustworthy: bool = True
    """The prompts behind a prefix too, and the reversed and two-hop questions."""
    fluency: bool = False
    """100 tokens after each generation prompt, sampled with the seed."""
    references: References | None = None
    """What consistency compares these with; default: the facts' own reference_texts, with statistics of them."""
    texts: Sequence[str] = ()
    """Plain texts whose perplexity is measured."""
    seed: int = 0
    keep_in: str | os.PathLike[str] | None = None
    """A folder for finished batches until the evaluation is done: one that was killed goes on from them."""

    def journal_of(self, model: EditableModel) -> Journal:
        """Where finished batches are kept."""
        return Journal() if self.keep_in is None else Journal.of(Path(self.keep_in), model)


class EvaluationWords(TypedDict, total=False):
    """The keywords of `evaluate`: the fields of `EvaluationOptions`."""

    generate: bool
    trustworthy: bool
    fluency: bool
    references: References | None
    texts: Sequence[str]
    seed: int
    keep_in: str | os.PathLike[str] | None


def evaluate(
    model: EditableModel,
    facts: Sequence[Fact],
    edit: Edit | None = None,
    on_progress: Progress = silent,
    **words: Unpack[EvaluationWords],
) -> Results:
    """Ask the model everything that the facts let one ask (METHODS "Evaluation").

    With an edit: once without it ("before") and once with it ("after"); the model is then as it was. Without one:
    the model as it stands, as "after". Every field of `EvaluationOptions` may be given by its name (`generate=`,
    `trustworthy=`, `fluency=`, `references=`, `texts=`, `seed=`, `keep_in=`).

    Raises:
        PromptTooLong: a question does not fit the model; the message names the fact and the field.
        FactError: there are no facts.
        SettingsError: fluency is asked for, and a package that it needs is not installed.
        ValueError: none of the texts has two tokens or more.
        AlreadyApplied, WrongModel: the edit is in the model already, or belongs to another one.
    """
    if not facts:
        raise FactError("There are no facts to evaluate. Give at least one.")
    exam = _Exam.of(model, facts, edit, EvaluationOptions(**words), on_progress)
    settings = {**_settings(exam), "edit_facts_asked": _asked(facts, edit)}
    phases: dict[Phase, _Answers] = {}
    if edit is None:
        phases["after"] = exam.run("as it stands")
    else:
        phases["before"] = exam.run("before")
        with edit.applied(model):
            exam.journal.enter(edit)
            phases["after"] = exam.run("after")
    records = _records(exam.sheets, phases)
    exam.journal.close()
    described = None if edit is None else _describe(edit)
    texts: dict[Phase, tuple[PlainText, ...]] = {}
    if exam.options.texts:
        texts = {phase: one.texts for phase, one in phases.items()}
    return Results(records, model.name, model.revision, described, settings, texts)


@dataclass(frozen=True)
class _Answers:
    """What one state of the weights answers: to every fact, and about the plain texts."""

    outcomes: Sequence[Outcomes]
    texts: tuple[PlainText, ...]


@dataclass(frozen=True)
class _Exam:
    """All that is asked, put once with each state of the weights."""

    model: EditableModel
    sheets: Sequence[Sheet]
    plan: Plan
    options: EvaluationOptions
    references: References | None
    on_progress: Progress
    journal: Journal

    @classmethod
    def of(
        cls,
        model: EditableModel,
        facts: Sequence[Fact],
        edit: Edit | None,
        options: EvaluationOptions,
        on_progress: Progress,
    ) -> "_Exam":
        """The questions of the facts, tokenised."""
        asked = sheets(facts, Edited((*facts, *(edit.facts if edit is not None else ()))))
        if options.trustworthy:
            asked = with_prefixed(model, asked)
        else:
            left_out = {name: () for name, group in GROUPS.items() if group.optional}
            asked = [replace(sheet, groups={**sheet.groups, **left_out}) for sheet in asked]
        plan = make_plan(model, [pair for sheet in asked for pair in sheet.pairs])
        journal = options.journal_of(model)
        references = (options.references or references_of(facts)) if options.fluency else None
        return cls(model, asked, plan, options, references, on_progress, journal)

    def run(self, phase: str) -> _Answers:
        """What the weights answer as they are now."""
        model, options = self.model, self.options
        answers = measure(model, self.plan, f"probabilities {phase}", self.on_progress, journal=self.journal)
        said: Sequence[Continuation | None] = [None] * len(self.sheets)
        if options.generate:
            said = continuations(model, self.sheets, self._stage(f"generation {phase}"))
        written: Sequence[Writing | None] = [None] * len(self.sheets)
        if options.fluency:
            stage = self._stage(f"texts {phase}")
            written = writings(model, self.sheets, self.references, options.seed, stage)
        outcomes = [
            _outcomes(sheet, answers, one, other)
            for sheet, one, other in zip(self.sheets, said, written, strict=True)
        ]
        return _Answers(outcomes, tuple(measure_texts(model, options.texts)) if options.texts else ())

    def _stage(self, name: str) -> Stage:
        return Stage(name, self.on_progress, self.journal)


def _asked(facts: Sequence[Fact], edit: Edit | None) -> int | None:
    """How many of the edit's facts are evaluated: all of them, or the scores say nothing about the others."""
    return None if edit is None else len({fact.key for fact in edit.facts} & {fact.key for fact in facts})


def _outcomes(
    sheet: Sheet,
    answers: Mapping[Key, Answer],
    continuation: Continuation | None,
    writing: Writing | None,
) -> Outcomes:
    def put(ask: Ask) -> Question:
        join = sheet.fact.join
        rival = None if ask.rival is None else answers[key_of(ask.prompt, ask.rival, join)]
        return Question(ask.prompt, answers[key_of(ask.prompt, ask.wanted, join)], rival)

    groups = {name: tuple(put(ask) for ask in asks) for name, asks in sheet.groups.items()}
    return outcomes_of(groups, continuation, writing)


def _records(sheets: Sequence[Sheet], phases: Mapping[Phase, _Answers]) -> tuple[Record, ...]:
    """The outcomes of each fact before and after; without an edit there is no before."""
    before = phases["before"].outcomes if "before" in phases else [None] * len(sheets)
    return tuple(
        Record(
            case_id=sheet.fact.case_id,
            subject=sheet.fact.subject,
            prompt=sheet.fact.question,
            target_new=sheet.fact.target_new,
            target_true=sheet.fact.target_true,
            relation_id=sheet.fact.relation_id,
            before=one,
            after=other,
        )
        for sheet, one, other in zip(sheets, before, phases["after"].outcomes, strict=True)
    )


def _settings(exam: _Exam) -> dict[str, object]:
    """What it takes to measure the same again; the fingerprint is of the weights as they stand at the start."""
    model, options = exam.model, exam.options
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "fingerprint": model.measure_fingerprint(),
        "edits_already_applied": len(model.ledger.owners),
        "generate": options.generate,
        "fluency": options.fluency,
        "seed": options.seed,
        "texts": len(options.texts),
        "trustworthy": options.trustworthy,
    }


def _describe(edit: Edit) -> dict[str, object]:
    """What tells the edit from others, in the types of JSON."""
    origin: dict[str, object] = {part.name: getattr(edit.origin, part.name) for part in fields(edit.origin)}
    counts = {"facts": len(edit.facts), "dropped": len(edit.dropped)}
    described: dict[str, object] = json.loads(json.dumps({**origin, **counts}, default=dict))
    return described
