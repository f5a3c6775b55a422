"""What is to be written into a model: `Fact`, and the questions that show whether it was written well.

A prompt is a template with one `{}` where the subject goes. White space is settled here and nowhere else: prompts lose
what trails, targets lose what surrounds them, and whoever joins a prompt and a target puts one space between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import cast

from errata import wording
from errata.wording import Flaw


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
        values = _probe_values(_fields_of(self), "", flaws)
        _settle(self, values, flaws, "Probe")

    def to_json(self) -> dict[str, str]:
        return {"prompt": self.prompt, "target": self.target}


@dataclass(frozen=True)
class Neighbor:
    """A fact about another subject, with the same relation and the old object, that has to stay as it is.

    Raises:
        SubjectNotInPrompt, AmbiguousSubject: as in `Fact`.
        EmptyTarget: the target is empty.
    """

    prompt: str
    subject: str
    target: str

    def __post_init__(self) -> None:
        flaws: list[Flaw] = []
        values = _neighbor_values(_fields_of(self), "", flaws)
        _settle(self, values, flaws, f"Neighbor {self.subject!r}")

    @property
    def question(self) -> str:
        """The prompt, filled in with the subject."""
        return wording.fill(self.prompt, self.subject)

    @property
    def subject_span(self) -> tuple[int, int]:
        """Where the subject begins and ends in `question`, in characters."""
        return wording.span(self.prompt, self.subject)

    def to_json(self) -> dict[str, str]:
        return {"prompt": self.prompt, "subject": self.subject, "target": self.target}


@dataclass(frozen=True)
class Fact:
    """One statement to write into a model: to `prompt` about `subject` the answer shall be `target_new`.

    Lists are accepted where tuples stand, `{"prompt", "target"}` mappings where a `Probe` stands, and a prompt that
    holds its subject once in place of the `{}`. A plain text among the neighborhood prompts expects `target_true`.

    Raises:
        SubjectNotInPrompt: the prompt has neither a `{}` nor the subject.
        AmbiguousSubject: it has two.
        EmptyTarget: a target is empty.
        FactError: anything else is missing, empty, or of the wrong type.
    """

    prompt: str
    subject: str
    target_new: str
    target_true: str | None = None
    paraphrase_prompts: tuple[str, ...] = ()
    neighborhood_prompts: tuple[str | Probe, ...] = ()
    neighbors: tuple[Neighbor, ...] = ()
    generation_prompts: tuple[str, ...] = ()
    relation_id: str | None = None
    case_id: int | str | None = None
    same_subject_prompts: tuple[Probe, ...] = ()
    unrelated_prompts: tuple[Probe, ...] = ()
    attribute_prompts: tuple[str, ...] = ()
    reference_texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        flaws: list[Flaw] = []
        values = _fact_values(_fields_of(self), flaws)
        case = "" if self.case_id is None else f" (case_id {self.case_id})"
        _settle(self, values, flaws, f"Fact about {self.subject!r}{case}")

    @property
    def question(self) -> str:
        """The prompt, filled in with the subject."""
        return wording.fill(self.prompt, self.subject)

    @property
    def subject_span(self) -> tuple[int, int]:
        """Where the subject begins and ends in `question`, in characters."""
        return wording.span(self.prompt, self.subject)

    @property
    def key(self) -> tuple[str, str]:
        """What is asked, (subject, prompt): two facts with one key are duplicates or contradict each other."""
        return (self.subject, self.prompt)

    @property
    def neighborhood(self) -> tuple[Probe, ...]:
        """The neighborhood prompts with their answers; a plain text is left out where there is no `target_true`."""
        probes: list[Probe] = []
        for item in self.neighborhood_prompts:
            if isinstance(item, Probe):
                probes.append(item)
            elif self.target_true is not None:
                probes.append(Probe(item, self.target_true))
        return tuple(probes)

    def to_json(self) -> dict[str, object]:
        """The fact as a row of Errata's own JSONL; fields that have their default are left out."""
        row: dict[str, object] = {}
        for field in fields(self):
            value: object = getattr(self, field.name)
            if field.default is MISSING or value != field.default:
                row[field.name] = _plain(value)
        return row


FIELDS = tuple(field.name for field in fields(Fact))
REQUIRED = ("prompt", "subject", "target_new")


def fact_from_json(row: Mapping[str, object]) -> Fact:
    """The fact of one row of Errata's own JSONL: the opposite of `Fact.to_json`.

    Raises:
        FactError: as `Fact`, and for a field that is missing or unknown.
    """
    flaws: list[Flaw] = []
    wording.unknown(row, "", FIELDS, flaws)
    fact = _fact(row, flaws)
    if fact is None:
        raise flaws[0].as_error("Row of a fact")
    return fact


def _fields_of(instance: Probe | Neighbor | Fact) -> dict[str, object]:
    return {field.name: getattr(instance, field.name) for field in fields(instance)}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("tuple[object, ...]", value)]
    return value.to_json() if isinstance(value, Probe | Neighbor) else value


def _settle(instance: object, values: Mapping[str, object], flaws: list[Flaw], where: str) -> None:
    """Raise the first flaw, or put the normalised values where the given ones were."""
    if flaws:
        raise flaws[0].as_error(where)
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def _fact(row: Mapping[str, object], flaws: list[Flaw]) -> Fact | None:
    """The fact of a row, or None when there are flaws; all of them are noted, not only the first."""
    values = _fact_values(row, flaws)
    # The values are settled, so the constructor finds nothing new: it is the one place that makes a Fact.
    return None if flaws else Fact(**values)  # type: ignore[arg-type]


def _probe_values(
    row: Mapping[str, object], field: str, flaws: list[Flaw], subject: str | None = None
) -> dict[str, str]:
    prompt = wording.prompt(row["prompt"], wording.inside(field, "prompt"), flaws)
    return {
        "prompt": prompt if subject is None else wording.fill(prompt, subject),
        "target": wording.target(row["target"], wording.inside(field, "target"), flaws),
    }


def _neighbor_values(row: Mapping[str, object], field: str, flaws: list[Flaw]) -> dict[str, str]:
    subject = wording.subject(row["subject"], wording.inside(field, "subject"), flaws)
    return {
        "prompt": wording.template(row["prompt"], subject, wording.inside(field, "prompt"), flaws),
        "subject": subject,
        "target": wording.target(row["target"], wording.inside(field, "target"), flaws),
    }


def _fact_values(row: Mapping[str, object], flaws: list[Flaw]) -> dict[str, object]:
    """Every field that the row has, settled; what is wrong is noted in `flaws`."""
    flaws.extend(Flaw(name, "is missing; every fact needs it.") for name in REQUIRED if name not in row)
    values: dict[str, object] = {}
    subject = ""
    if "subject" in row:
        subject = values["subject"] = wording.subject(row["subject"], "subject", flaws)
    if "prompt" in row:
        values["prompt"] = wording.template(row["prompt"], subject, "prompt", flaws)
    if "target_new" in row:
        values["target_new"] = wording.target(row["target_new"], "target_new", flaws)
    if row.get("target_true") is not None:
        values["target_true"] = wording.target(row["target_true"], "target_true", flaws)
    for name, reader in _LISTS.items():
        if name in row:
            read = [
                reader(item, field, subject, flaws) for field, item in wording.items(row[name], name, flaws)
            ]
            values[name] = tuple(item for item in read if item is not None)
    return values | _labels(row, flaws)


def _labels(row: Mapping[str, object], flaws: list[Flaw]) -> dict[str, object]:
    relation, case = row.get("relation_id"), row.get("case_id")
    if relation is not None:
        relation = wording.text(relation, "relation_id", flaws)
    if case is not None and (isinstance(case, bool) or not isinstance(case, int | str)):
        flaws.append(Flaw("case_id", f"must be a whole number or a text, and is {wording.kind(case)}."))
    return {"relation_id": relation, "case_id": case}


def _plain_prompt(item: object, field: str, subject: str, flaws: list[Flaw]) -> str:
    return wording.prompt(item, field, flaws)


def _own_prompt(item: object, field: str, subject: str, flaws: list[Flaw]) -> str:
    """A prompt about the fact's own subject, for which a `{}` may stand."""
    return wording.fill(wording.prompt(item, field, flaws), subject)


def _reference(item: object, field: str, subject: str, flaws: list[Flaw]) -> str:
    return wording.text(item, field, flaws)


def _probe(item: object, field: str, subject: str | None, flaws: list[Flaw]) -> Probe | None:
    """A `Probe`, or the mapping of one; a subject is given where a `{}` may stand for it."""
    before = len(flaws)
    row = (
        _fields_of(item)
        if isinstance(item, Probe)
        else wording.mapping(item, field, ("prompt", "target"), flaws)
    )
    values = None if row is None else _probe_values(row, field, flaws, subject)
    return None if values is None or len(flaws) > before else Probe(**values)


def _foreign_probe(item: object, field: str, subject: str, flaws: list[Flaw]) -> Probe | None:
    return _probe(item, field, None, flaws)


def _text_or_probe(item: object, field: str, subject: str, flaws: list[Flaw]) -> str | Probe | None:
    return wording.prompt(item, field, flaws) if isinstance(item, str) else _probe(item, field, None, flaws)


def _neighbor(item: object, field: str, subject: str, flaws: list[Flaw]) -> Neighbor | None:
    if isinstance(item, Neighbor):
        return item
    before = len(flaws)
    row = wording.mapping(item, field, ("prompt", "subject", "target"), flaws)
    values = None if row is None else _neighbor_values(row, field, flaws)
    return None if values is None or len(flaws) > before else Neighbor(**values)


_LISTS: dict[str, Callable[[object, str, str, list[Flaw]], str | Probe | Neighbor | None]] = {
    "paraphrase_prompts": _own_prompt,
    "neighborhood_prompts": _text_or_probe,
    "neighbors": _neighbor,
    "generation_prompts": _own_prompt,
    "same_subject_prompts": _probe,
    "unrelated_prompts": _foreign_probe,
    "attribute_prompts": _plain_prompt,
    "reference_texts": _reference,
}
