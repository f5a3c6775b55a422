"""What a model answered, question by question: the raw outcomes that every score is computed from.

Nothing here is a mean over records. A number that was not one (a broken model) is kept as such: it is written as
`null`, and it never counts as a success.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, ClassVar, Literal, cast

from errata.errors import ResultsError
from errata.results.groups import GROUPS
from errata.results.written import Continuation, Writing
from errata.runtime import NON_FINITE, Form, to_json

Phase = Literal["before", "after"]
"""Without and with the edit."""

NO_TOKEN = -1
"""Stands for the likeliest token where the model's output was not a number."""


@dataclass(frozen=True)
class Answer:
    """How likely one answer to one prompt was, read with the answer's own tokens fed in (teacher-forced)."""

    JSON: ClassVar = Form(title="wanted or rival")

    text: str
    tokens: tuple[int, ...]
    """The answer's tokens behind this prompt."""
    log_probabilities: Annotated[tuple[float, ...], NON_FINITE]
    """Of each of them, natural logarithm."""
    predicted: tuple[int, ...]
    """The likeliest token at each of their places."""
    predicted_text: str

    def __post_init__(self) -> None:
        sizes = {len(self.tokens), len(self.log_probabilities), len(self.predicted)}
        if len(sizes) != 1 or not self.tokens:
            raise ResultsError(
                "tokens, log_probabilities and predicted must be lists of one length, not empty."
            )

    @property
    def log_probability(self) -> float:
        """The mean over the answer's tokens, which is what "P" means in success."""
        return math.fsum(self.log_probabilities) / len(self.log_probabilities)

    @property
    def hits(self) -> tuple[bool, ...]:
        """For each token, whether it was the likeliest one."""
        return tuple(token == best for token, best in zip(self.tokens, self.predicted, strict=True))

    @property
    def correct(self) -> bool:
        """Whether every token was the likeliest one."""
        return all(self.hits)

    @property
    def broken(self) -> bool:
        """Whether the model's output was not a number somewhere."""
        return NO_TOKEN in self.predicted or any(math.isnan(value) for value in self.log_probabilities)


@dataclass(frozen=True)
class Question:
    """One prompt, the answer that is wanted, and the answer that must not be likelier (None where there is none)."""

    prompt: str
    wanted: Answer
    rival: Answer | None = None

    @property
    def success(self) -> bool | None:
        """P(wanted) > P(rival); None without a rival. False where either is not a number."""
        return None if self.rival is None else self.wanted.log_probability > self.rival.log_probability

    @property
    def broken(self) -> bool:
        """Whether the model's output was not a number somewhere."""
        return self.wanted.broken or (self.rival is not None and self.rival.broken)


@dataclass(frozen=True)
class Outcomes:
    """All that was measured of one fact in one phase; an empty group was not asked."""

    JSON: ClassVar = Form(
        write=lambda outcomes: {name: to_json(getattr(outcomes, name)) for name in _members_of(outcomes)},
        optional=("prefixed", "reversed", "two_hop", "others"),  # since schema 2
        title="before or after",
    )

    efficacy: tuple[Question, ...] = ()
    """The prompt itself: target_new wanted, target_true its rival."""
    generalization: tuple[Question, ...] = ()
    """Its paraphrases, likewise."""
    specificity: tuple[Question, ...] = ()
    """Other subjects: their own answer wanted, target_new its rival."""
    same_subject: tuple[Question, ...] = ()
    """Other facts of the edited subject."""
    unrelated: tuple[Question, ...] = ()
    """Facts of subjects that nobody touched."""
    continuation: Continuation | None = None
    prefixed: tuple[Question, ...] = ()
    """The prompt behind 50 tokens of unrelated text."""
    reversed: tuple[Question, ...] = ()
    """Asked from the new object's side: the subject, or what else follows about the object, is wanted."""
    two_hop: tuple[Question, ...] = ()
    """Questions whose answer follows from the new fact and a second one."""
    writing: Writing | None = None
    others: Mapping[str, tuple[Question, ...]] = field(
        default_factory=dict[str, tuple[Question, ...]], hash=False
    )
    """Groups that have no field of their own, by name; stored only where there are some."""

    @property
    def questions(self) -> tuple[Question, ...]:
        """The questions of all groups."""
        return tuple(question for name in GROUPS for question in self.group(name))

    def group(self, name: str) -> tuple[Question, ...]:
        """The questions of one of `GROUPS`."""
        if name in _OWN_FIELDS:
            return cast("tuple[Question, ...]", getattr(self, name))
        return self.others.get(name, ())


def outcomes_of(
    groups: Mapping[str, tuple[Question, ...]], continuation: Continuation | None, writing: Writing | None
) -> Outcomes:
    """The outcomes of questions by group, each where it belongs."""
    own = {name: questions for name, questions in groups.items() if name in _OWN_FIELDS}
    others = {name: questions for name, questions in groups.items() if name not in _OWN_FIELDS and questions}
    return Outcomes(continuation=continuation, writing=writing, others=others, **own)


def _members_of(outcomes: Outcomes) -> list[str]:
    """What is stored, in the order of files."""
    groups = [name for name in GROUPS if name in _OWN_FIELDS]
    return [*groups, "continuation", "writing", *(["others"] if outcomes.others else [])]


_OWN_FIELDS = frozenset(part.name for part in fields(Outcomes)) - {"continuation", "writing", "others"}
"""The groups that have a field of their own."""


@dataclass(frozen=True)
class Record:
    """One fact: what it says, and what was measured with and without the edit."""

    case_id: int | str | None
    subject: str
    prompt: str
    """Filled in with the subject."""
    target_new: str
    target_true: str | None
    relation_id: str | None
    before: Outcomes | None
    """None where there was no edit to be without."""
    after: Outcomes

    def phase(self, phase: Phase) -> Outcomes | None:
        """The outcomes of one phase.

        Raises:
            ValueError: there is no phase of that name.
        """
        if phase not in ("before", "after"):
            raise ValueError(f"There is no phase {phase!r}. Choose 'before' or 'after'.")
        return self.before if phase == "before" else self.after
