"""Questions with the answers that are expected: `Probe` about anything, `Neighbor` about another subject."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from errata import wording
from errata.wording import Flaw, inside


@dataclass(frozen=True)
class Probe:
    """A question, filled in, with the answer that is expected of the model.

    Raises:
        FactError: the prompt is empty, or one of the two is no text.
        EmptyTarget: the target is empty.
    """

    prompt: str
    target: str

    def __post_init__(self) -> None:
        flaws: list[Flaw] = []
        wording.settle(self, _probe_values(self.to_json(), "", None, flaws), flaws, "Probe")

    def to_json(self) -> dict[str, object]:
        """The probe as a JSON object."""
        return {"prompt": self.prompt, "target": self.target}


@dataclass(frozen=True)
class Neighbor:
    """A fact about another subject, with the same relation and the old object, that has to stay as it is.

    Raises:
        SubjectNotInPrompt, AmbiguousSubject: the prompt has no `{}` and the subject not at all, or twice.
        EmptyTarget: the target is empty.
        FactError: the prompt or the subject is empty, or one of the three is no text.
    """

    prompt: str
    subject: str
    target: str

    def __post_init__(self) -> None:
        flaws: list[Flaw] = []
        values = _neighbor_values(self.to_json(), "", flaws)
        wording.settle(self, values, flaws, f"Neighbor {self.subject!r}")

    @property
    def question(self) -> str:
        """The prompt, filled in with the subject."""
        return wording.fill(self.prompt, self.subject)

    @property
    def subject_span(self) -> tuple[int, int]:
        """Where the subject begins and ends in `question`, in characters."""
        return wording.span(self.prompt, self.subject)

    def to_json(self) -> dict[str, object]:
        """The neighbor as a JSON object."""
        return {"prompt": self.prompt, "subject": self.subject, "target": self.target}


def as_probe(item: object, field: str, flaws: list[Flaw], subject: str | None = None) -> Probe | None:
    """A `Probe`, or the mapping of one; `subject` is given where a `{}` may stand for it."""
    before = len(flaws)
    given = item.to_json() if isinstance(item, Probe) else item
    row = wording.mapping(given, field, ("prompt", "target"), flaws)
    values = {} if row is None else _probe_values(row, field, subject, flaws)
    return Probe(**values) if len(flaws) == before else None


def as_neighbor(item: object, field: str, flaws: list[Flaw]) -> Neighbor | None:
    """A `Neighbor`, or the mapping of one."""
    before = len(flaws)
    given = item.to_json() if isinstance(item, Neighbor) else item
    row = wording.mapping(given, field, ("prompt", "subject", "target"), flaws)
    values = {} if row is None else _neighbor_values(row, field, flaws)
    return Neighbor(**values) if len(flaws) == before else None


def _probe_values(
    row: Mapping[str, object], field: str, subject: str | None, flaws: list[Flaw]
) -> dict[str, str]:
    prompt = wording.prompt(row["prompt"], inside(field, "prompt"), flaws)
    return {
        "prompt": prompt if subject is None else wording.fill(prompt, subject),
        "target": wording.target(row["target"], inside(field, "target"), flaws),
    }


def _neighbor_values(row: Mapping[str, object], field: str, flaws: list[Flaw]) -> dict[str, str]:
    subject = wording.subject(row["subject"], inside(field, "subject"), flaws)
    return {
        "prompt": wording.template(row["prompt"], subject, inside(field, "prompt"), flaws),
        "subject": subject,
        "target": wording.target(row["target"], inside(field, "target"), flaws),
    }
