"""What a model answered, question by question: the raw outcomes that every score is computed from.

Nothing here is a mean over records. A number that was not one (a broken model) is kept as such: it is written as
`null`, and it never counts as a success.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Literal, cast

from errata.errors import ResultsError
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
        write=lambda outcomes: {
            name: to_json(getattr(outcomes, name)) for name in (*GROUPS, "continuation", "writing")
        },
        optional=("prefixed", "reversed", "two_hop"),  # since schema 2
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

    @property
    def questions(self) -> tuple[Question, ...]:
        """The questions of all groups."""
        return tuple(question for name in GROUPS for question in self.group(name))

    def group(self, name: str) -> tuple[Question, ...]:
        """The questions of one of `GROUPS`."""
        return cast("tuple[Question, ...]", getattr(self, name))


GROUPS = tuple(field.name for field in fields(Outcomes) if field.name not in ("continuation", "writing"))
"""The groups of questions, in the order in which they are reported."""


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
