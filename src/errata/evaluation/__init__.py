"""Evaluation: what a model answers to the questions of its facts, with and without an edit.

`questions` says what is asked, `probabilities` how likely the answers are, `generation` what the model writes by
itself. The outcome is a `Results` of raw answers; `errata.scores` computes everything else from it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields

from errata.edits import Edit
from errata.errors import FactError
from errata.evaluation.generation import continuations, continue_texts
from errata.evaluation.probabilities import Plan, make_plan, measure
from errata.evaluation.questions import Ask, Edited, Sheet, sheets
from errata.facts import Fact
from errata.model import EditableModel
from errata.outcomes import Answer, Continuation, Outcomes, Question, Record
from errata.progress import Progress, silent
from errata.results import Results

__all__ = ["continue_texts", "evaluate"]


def evaluate(
    model: EditableModel,
    facts: Sequence[Fact],
    edit: Edit | None = None,
    on_progress: Progress = silent,
    generate: bool = True,
) -> Results:
    """Ask the model everything that the facts let one ask (METHODS "Evaluation").

    With an edit: once without it ("before") and once with it ("after"); the model is then as it was. Without one:
    the model as it stands, as "after". `generate=False` leaves out what the model writes by itself.

    Raises:
        PromptTooLong: a question does not fit the model; the message names the fact and the field.
        FactError: there are no facts.
        AlreadyApplied, WrongModel: the edit is in the model already, or belongs to another one.
    """
    if not facts:
        raise FactError("There are no facts to evaluate. Give at least one.")
    asked = sheets(facts, Edited((*facts, *(edit.facts if edit is not None else ()))))
    plan = make_plan(model, [pair for sheet in asked for pair in sheet.pairs])
    settings = _settings(model, generate)

    def run(phase: str) -> list[Outcomes]:
        return _run(model, asked, plan, phase, on_progress, generate)

    before: list[Outcomes] | list[None] = [None] * len(facts)
    if edit is None:
        after = run("as it stands")
    else:
        before = run("before")
        with edit.applied(model):
            after = run("after")
    records = [
        _record(sheet.fact, one, other) for sheet, one, other in zip(asked, before, after, strict=True)
    ]
    described = None if edit is None else _describe(edit)
    return Results(tuple(records), model.name, model.revision, described, settings)


def _run(
    model: EditableModel,
    asked: Sequence[Sheet],
    plan: Plan,
    phase: str,
    on_progress: Progress,
    generate: bool,
) -> list[Outcomes]:
    """The outcomes of every fact with the weights as they are now."""
    answers = measure(model, plan, f"probabilities {phase}", on_progress)
    said: Sequence[Continuation | None] = [None] * len(asked)
    if generate:
        said = continuations(model, asked, f"generation {phase}", on_progress)
    return [_outcomes(sheet, answers, text) for sheet, text in zip(asked, said, strict=True)]


def _outcomes(
    sheet: Sheet, answers: Mapping[tuple[str, str], Answer], continuation: Continuation | None
) -> Outcomes:
    def put(ask: Ask) -> Question:
        rival = None if ask.rival is None else answers[ask.prompt, ask.rival]
        return Question(ask.prompt, answers[ask.prompt, ask.wanted], rival)

    groups = {name: tuple(put(ask) for ask in asks) for name, asks in sheet.groups.items()}
    return Outcomes(continuation=continuation, **groups)


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


def _settings(model: EditableModel, generate: bool) -> dict[str, object]:
    """What it takes to measure the same again; the fingerprint is of the weights as they stand at the start."""
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "fingerprint": model.measure_fingerprint(),
        "edits_already_applied": len(model.written),
        "generate": generate,
    }


def _describe(edit: Edit) -> dict[str, object]:
    """What tells the edit from others, in the types of JSON."""
    origin: dict[str, object] = {
        field.name: getattr(edit.origin, field.name) for field in fields(edit.origin)
    }
    counts = {"facts": len(edit.facts), "dropped": len(edit.dropped)}
    described: dict[str, object] = json.loads(json.dumps({**origin, **counts}, default=dict))
    return described
