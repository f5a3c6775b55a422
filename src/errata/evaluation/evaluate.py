"""Evaluation: what a model answers to the questions of its facts, with and without an edit.

`questions` says what is asked, `probabilities` how likely the answers are, `generation` what the model writes by
itself. The outcome is a `Results` of raw answers; `errata.scores` computes everything else from it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from errata.edits import Edit
from errata.errors import FactError
from errata.evaluation.fluency import writings
from errata.evaluation.generation import continuations, continue_texts
from errata.evaluation.journal import Journal
from errata.evaluation.perplexity import measure_texts
from errata.evaluation.prefixes import with_prefixed
from errata.evaluation.probabilities import Plan, make_plan, measure
from errata.evaluation.questions import Ask, Edited, Sheet, sheets
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

__all__ = ["continue_texts", "evaluate"]


def evaluate(
    model: EditableModel,
    facts: Sequence[Fact],
    edit: Edit | None = None,
    on_progress: Progress = silent,
    generate: bool = True,
    *,
    trustworthy: bool = True,
    fluency: bool = False,
    references: References | None = None,
    texts: Sequence[str] = (),
    seed: int = 0,
    keep_in: str | os.PathLike[str] | None = None,
) -> Results:
    """Ask the model everything that the facts let one ask (METHODS "Evaluation").

    With an edit: once without it ("before") and once with it ("after"); the model is then as it was. Without one:
    the model as it stands, as "after".

    `generate=False` leaves out the greedy answers, `trustworthy=False` the prompts behind a prefix and the reversed and
    two-hop questions. `fluency=True` lets the model also write 100 tokens after each generation prompt, sampled with
    the seed; `references` are what consistency compares these with (default: the facts' own reference_texts, with
    statistics of them). `texts` are plain texts whose perplexity is measured. Finished batches are kept in the folder
    `keep_in`, if given, until the evaluation is done: one that was killed goes on from them, with the same numbers.

    Raises:
        PromptTooLong: a question does not fit the model; the message names the fact and the field.
        FactError: there are no facts.
        SettingsError: fluency is asked for, and a package that it needs is not installed.
        ValueError: none of the texts has two tokens or more.
        AlreadyApplied, WrongModel: the edit is in the model already, or belongs to another one.
    """
    if not facts:
        raise FactError("There are no facts to evaluate. Give at least one.")
    exam = _exam(model, facts, edit, trustworthy, on_progress)
    journal = Journal() if keep_in is None else Journal.of(Path(keep_in), model)
    exam = replace(exam, generate=generate, texts=texts, seed=seed, journal=journal)
    if fluency:
        exam = replace(exam, fluency=True, references=references or references_of(facts))
    settings = {**_settings(model, exam), "trustworthy": trustworthy, "edit_facts_asked": _asked(facts, edit)}

    before: list[Outcomes] | list[None] = [None] * len(facts)
    read: dict[Phase, tuple[PlainText, ...]] = {}
    if edit is None:
        after, read["after"] = exam.run("as it stands")
    else:
        before, read["before"] = exam.run("before")
        with edit.applied(model):
            journal.enter(edit)
            after, read["after"] = exam.run("after")
    records = [
        _record(sheet.fact, one, other) for sheet, one, other in zip(exam.sheets, before, after, strict=True)
    ]
    journal.close()
    described = None if edit is None else _describe(edit)
    return Results(
        tuple(records), model.name, model.revision, described, settings, read if exam.texts else {}
    )


@dataclass(frozen=True)
class _Exam:
    """All that is asked, put once with each state of the weights."""

    model: EditableModel
    sheets: Sequence[Sheet]
    plan: Plan
    on_progress: Progress
    generate: bool = True
    fluency: bool = False
    references: References | None = None
    texts: Sequence[str] = ()
    seed: int = 0
    journal: Journal = field(default_factory=Journal)

    def run(self, phase: str) -> tuple[list[Outcomes], tuple[PlainText, ...]]:
        """The outcomes of every fact, and of the plain texts, with the weights as they are now."""
        answers = measure(
            self.model, self.plan, f"probabilities {phase}", self.on_progress, journal=self.journal
        )
        said: Sequence[Continuation | None] = [None] * len(self.sheets)
        if self.generate:
            stage = f"generation {phase}"
            said = continuations(self.model, self.sheets, stage, self.on_progress, journal=self.journal)
        written: Sequence[Writing | None] = [None] * len(self.sheets)
        if self.fluency:
            stage = f"texts {phase}"
            written = writings(
                self.model, self.sheets, self.references, self.seed, stage, self.on_progress, self.journal
            )
        outcomes = [
            _outcomes(sheet, answers, one, other)
            for sheet, one, other in zip(self.sheets, said, written, strict=True)
        ]
        return outcomes, tuple(measure_texts(self.model, self.texts)) if self.texts else ()


def _exam(
    model: EditableModel, facts: Sequence[Fact], edit: Edit | None, trustworthy: bool, on_progress: Progress
) -> _Exam:
    """The questions of the facts, tokenised."""
    asked = sheets(facts, Edited((*facts, *(edit.facts if edit is not None else ()))))
    if trustworthy:
        asked = with_prefixed(model, asked)
    else:
        left_out = {name: () for name, group in GROUPS.items() if group.optional}
        asked = [replace(sheet, groups={**sheet.groups, **left_out}) for sheet in asked]
    plan = make_plan(model, [pair for sheet in asked for pair in sheet.pairs])
    return _Exam(model, asked, plan, on_progress)


def _asked(facts: Sequence[Fact], edit: Edit | None) -> int | None:
    """How many of the edit's facts are evaluated: all of them, or the scores say nothing about the others."""
    return None if edit is None else len({fact.key for fact in edit.facts} & {fact.key for fact in facts})


def _outcomes(
    sheet: Sheet,
    answers: Mapping[tuple[str, str], Answer],
    continuation: Continuation | None,
    writing: Writing | None,
) -> Outcomes:
    def put(ask: Ask) -> Question:
        rival = None if ask.rival is None else answers[ask.prompt, ask.rival]
        return Question(ask.prompt, answers[ask.prompt, ask.wanted], rival)

    groups = {name: tuple(put(ask) for ask in asks) for name, asks in sheet.groups.items()}
    return outcomes_of(groups, continuation, writing)


def _record(fact: Fact, before: Outcomes | None, after: Outcomes) -> Record:
    return Record(
        case_id=fact.case_id,
        subject=fact.subject,
        prompt=fact.question,
        target_new=fact.target_new,
        target_true=fact.target_true,
        relation_id=fact.relation_id,
        before=before,
        after=after,
    )


def _settings(model: EditableModel, exam: _Exam) -> dict[str, object]:
    """What it takes to measure the same again; the fingerprint is of the weights as they stand at the start."""
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "fingerprint": model.measure_fingerprint(),
        "edits_already_applied": len(model.ledger.owners),
        "generate": exam.generate,
        "fluency": exam.fluency,
        "seed": exam.seed,
        "texts": len(exam.texts),
    }


def _describe(edit: Edit) -> dict[str, object]:
    """What tells the edit from others, in the types of JSON."""
    origin: dict[str, object] = {part.name: getattr(edit.origin, part.name) for part in fields(edit.origin)}
    counts = {"facts": len(edit.facts), "dropped": len(edit.dropped)}
    described: dict[str, object] = json.loads(json.dumps({**origin, **counts}, default=dict))
    return described
