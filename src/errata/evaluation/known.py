"""Which facts a model knows: those whose true answer it gives, token by token the likeliest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from errata.evaluation.journal import Journal
from errata.evaluation.probabilities import make_plan, measure
from errata.evaluation.questions import Pair, key_of
from errata.facts import Fact
from errata.models import EditableModel
from errata.runtime import Progress, silent

STAGE = "known facts"
FACTS_AT_ONCE = 512
"""Facts of a round: batches of like length are made within one, and a limit is checked after it."""


@dataclass(frozen=True)
class Known:
    """The facts that a model knows, of those it was asked."""

    facts: tuple[Fact, ...]
    """In the order given."""
    asked: int
    """How many facts were asked; fewer than were given where the limit was reached."""
    unanswerable: int
    """How many of the others before that have no `target_true`."""

    @property
    def share(self) -> float:
        """Known facts over asked ones; 0 where none could be asked."""
        return len(self.facts) / self.asked if self.asked else 0.0


def known_facts(
    model: EditableModel,
    facts: Sequence[Fact],
    limit: int | None = None,
    keep_in: str | os.PathLike[str] | None = None,
    on_progress: Progress = silent,
) -> Known:
    """The facts whose `target_true` is what the model as it stands says after their prompt.

    Every token of the answer must be the argmax, fed the prompt and the answer's tokens before it. Facts without
    `target_true` are left out. With `limit` only the first so many known ones are found. With `keep_in`, a folder,
    finished batches are kept there: a run that was killed resumes from them and finds the same.

    Raises:
        PromptTooLong: a prompt does not fit the model; the message names the fact.
        ValueError: the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"A limit of {limit} known facts leaves nothing to find. Give 1 or more.")
    journal = Journal() if keep_in is None else Journal.of(Path(keep_in), model)
    known: list[Fact] = []
    asked = unanswerable = 0
    for start in range(0, len(facts), FACTS_AT_ONCE):
        chunk = facts[start : start + FACTS_AT_ONCE]
        report = _Counting(on_progress, start, len(chunk), len(facts))
        for fact, right in zip(chunk, _says(model, chunk, start, journal, report), strict=True):
            asked += right is not None
            unanswerable += right is None
            if right:
                known.append(fact)
            if len(known) == limit:
                break
        if len(known) == limit:
            break
    journal.close()
    return Known(tuple(known), asked, unanswerable)


@dataclass(frozen=True)
class _Counting:
    """Progress of a round of facts, told as progress over all of them."""

    on_progress: Progress
    start: int
    size: int
    all: int

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.on_progress(stage, self.start + self.size * done // total, self.all)


def _says(
    model: EditableModel, facts: Sequence[Fact], first: int, journal: Journal, on_progress: Progress
) -> list[bool | None]:
    """Whether the model gives each fact's true answer; None where the fact has none."""
    pairs = [
        Pair(
            fact.question, fact.target_true, f"Fact {number} (about {fact.subject!r}), target_true", fact.join
        )
        for number, fact in enumerate(facts, start=first + 1)
        if fact.target_true is not None
    ]
    answers = measure(model, make_plan(model, pairs), STAGE, on_progress, journal=journal) if pairs else {}
    return [
        None
        if fact.target_true is None
        else answers[key_of(fact.question, fact.target_true, fact.join)].correct
        for fact in facts
    ]
