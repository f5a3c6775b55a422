"""What a model answered, question by question: the raw outcomes that every score is computed from.

Nothing here is a mean over records. A number that was not one (a broken model) is kept as such: it is written as
`null`, and it never counts as a success.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, cast

from errata.errors import ResultsError

Phase = Literal["before", "after"]
"""Without and with the edit."""

NO_TOKEN = -1
"""Stands for the likeliest token where the model's output was not a number."""


@dataclass(frozen=True)
class Answer:
    """How likely one answer to one prompt was, read with the answer's own tokens fed in (teacher-forced)."""

    text: str
    tokens: tuple[int, ...]
    """The answer's tokens behind this prompt."""
    log_probabilities: tuple[float, ...]
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

    def to_json(self) -> dict[str, object]:
        """The answer as a JSON object."""
        return {
            "text": self.text,
            "tokens": list(self.tokens),
            "log_probabilities": [_from_float(value) for value in self.log_probabilities],
            "predicted": list(self.predicted),
            "predicted_text": self.predicted_text,
        }


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

    def to_json(self) -> dict[str, object]:
        """The question as a JSON object."""
        rival = None if self.rival is None else self.rival.to_json()
        return {"prompt": self.prompt, "wanted": self.wanted.to_json(), "rival": rival}


@dataclass(frozen=True)
class Continuation:
    """What the model went on to write by itself after a prompt, each time its likeliest token (free-running)."""

    prompt: str
    target: str
    target_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    """As many as the target has; fewer where the model ended its text or the context was full."""
    answer: str
    """Those tokens as text."""
    text: str
    """The continuation up to the end of its sentence, or of what was generated."""

    @property
    def exact(self) -> bool:
        """Whether the model wrote the target: the same text, or the same tokens."""
        return self.tokens == self.target_tokens or self.answer == self.target

    def to_json(self) -> dict[str, object]:
        """The continuation as a JSON object."""
        return {
            "prompt": self.prompt,
            "target": self.target,
            "target_tokens": list(self.target_tokens),
            "tokens": list(self.tokens),
            "answer": self.answer,
            "text": self.text,
        }


@dataclass(frozen=True)
class Outcomes:
    """All that was measured of one fact in one phase; an empty group was not asked."""

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

    @property
    def questions(self) -> tuple[Question, ...]:
        """The questions of all groups."""
        return tuple(question for name in GROUPS for question in self.group(name))

    def group(self, name: str) -> tuple[Question, ...]:
        """The questions of one of `GROUPS`."""
        return cast("tuple[Question, ...]", getattr(self, name))

    def to_json(self) -> dict[str, object]:
        """The outcomes as a JSON object."""
        row: dict[str, object] = {
            name: [question.to_json() for question in self.group(name)] for name in GROUPS
        }
        row["continuation"] = None if self.continuation is None else self.continuation.to_json()
        return row


GROUPS = tuple(field.name for field in fields(Outcomes) if field.name != "continuation")
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

    def to_json(self) -> dict[str, object]:
        """The record as a JSON object."""
        return {
            "case_id": self.case_id,
            "subject": self.subject,
            "prompt": self.prompt,
            "target_new": self.target_new,
            "target_true": self.target_true,
            "relation_id": self.relation_id,
            "before": None if self.before is None else self.before.to_json(),
            "after": self.after.to_json(),
        }


def record_from_json(value: object) -> Record:
    """The opposite of `Record.to_json`.

    Raises:
        ResultsError: something is missing or of the wrong type; the message names it.
    """
    row = _object(value, "record")
    case = row.get("case_id")
    if isinstance(case, bool) or not isinstance(case, int | str | None):
        raise ResultsError("case_id must be a whole number or a text.")
    return Record(
        case_id=case,
        subject=_text(row, "subject"),
        prompt=_text(row, "prompt"),
        target_new=_text(row, "target_new"),
        target_true=_text_or_none(row, "target_true"),
        relation_id=_text_or_none(row, "relation_id"),
        before=None if row.get("before") is None else _outcomes(row["before"]),
        after=_outcomes(row.get("after")),
    )


def _outcomes(value: object) -> Outcomes:
    row = _object(value, "before or after")
    groups = {name: tuple(_question(item) for item in _items(row, name)) for name in GROUPS}
    continuation = None if row.get("continuation") is None else _continuation(row["continuation"])
    return Outcomes(continuation=continuation, **groups)


def _question(value: object) -> Question:
    row = _object(value, "question")
    rival = None if row.get("rival") is None else _answer(row["rival"])
    return Question(_text(row, "prompt"), _answer(row.get("wanted")), rival)


def _answer(value: object) -> Answer:
    row = _object(value, "wanted or rival")
    return Answer(
        text=_text(row, "text"),
        tokens=_integers(row, "tokens"),
        log_probabilities=tuple(_to_float(item) for item in _items(row, "log_probabilities")),
        predicted=_integers(row, "predicted"),
        predicted_text=_text(row, "predicted_text"),
    )


def _continuation(value: object) -> Continuation:
    row = _object(value, "continuation")
    return Continuation(
        prompt=_text(row, "prompt"),
        target=_text(row, "target"),
        target_tokens=_integers(row, "target_tokens"),
        tokens=_integers(row, "tokens"),
        answer=_text(row, "answer"),
        text=_text(row, "text"),
    )


def _from_float(value: float) -> float | str | None:
    """JSON has no NaN and no infinity: `null` and "-inf" stand for them."""
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def _to_float(value: object) -> float:
    if value is None:
        return math.nan
    if value in ("inf", "-inf") or (isinstance(value, int | float) and not isinstance(value, bool)):
        return float(cast("float | str", value))
    raise ResultsError(f"log_probabilities must hold numbers, and holds {value!r}.")


def _object(value: object, name: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ResultsError(f"{name} must be an object in braces.")
    return cast("Mapping[str, object]", value)


def _items(row: Mapping[str, object], name: str) -> Sequence[object]:
    value = row.get(name)
    if not isinstance(value, list):
        raise ResultsError(f"{name} is missing or not a list.")
    return cast("Sequence[object]", value)


def _integers(row: Mapping[str, object], name: str) -> tuple[int, ...]:
    items = _items(row, name)
    if any(isinstance(item, bool) or not isinstance(item, int) for item in items):
        raise ResultsError(f"{name} must hold whole numbers.")
    return tuple(cast("Sequence[int]", items))


def _text(row: Mapping[str, object], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise ResultsError(f"{name} is missing or not a text.")
    return value


def _text_or_none(row: Mapping[str, object], name: str) -> str | None:
    return None if row.get(name) is None else _text(row, name)
