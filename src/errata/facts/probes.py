"""Questions with the answers that are expected, `Probe` and `Neighbor`, and the fields of a fact, which hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from errata.facts import wording
from errata.facts.joining import join_of
from errata.facts.wording import Flaw, inside


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
        wording.settle(self, _probe_values(vars(self), "", None, flaws), flaws, "Probe")


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
        values = _neighbor_values(vars(self), "", flaws)
        wording.settle(self, values, flaws, f"Neighbor {self.subject!r}")

    @property
    def question(self) -> str:
        """The prompt, filled in with the subject."""
        return wording.fill(self.prompt, self.subject)

    @property
    def subject_span(self) -> tuple[int, int]:
        """Where the subject begins and ends in `question`, in characters."""
        return wording.span(self.prompt, self.subject)


REQUIRED = ("prompt", "subject", "target_new")


def fact_values(row: Mapping[str, object], flaws: list[Flaw]) -> dict[str, object]:
    """Every field of a fact that the row has, settled; what is wrong is noted in `flaws`."""
    flaws.extend(Flaw(name, "is missing; every fact needs it.") for name in REQUIRED if name not in row)
    values: dict[str, object] = {}
    subject = ""
    if "subject" in row:
        subject = values["subject"] = wording.subject(row["subject"], "subject", flaws)
    if "prompt" in row:
        values["prompt"] = wording.template(row["prompt"], subject, "prompt", flaws)
    if "target_new" in row:
        values["target_new"] = wording.target(row["target_new"], "target_new", flaws)
    true = row.get("target_true")
    values["target_true"] = None if true is None else wording.target(true, "target_true", flaws)
    for name, reader in _READERS.items():
        if name in row:
            read = [
                reader(item, field, subject, flaws) for field, item in wording.items(row[name], name, flaws)
            ]
            values[name] = tuple(item for item in read if item is not None)
    return values | {"join": _join(row, values, flaws)} | _labels(row, flaws)


def _join(row: Mapping[str, object], values: Mapping[str, object], flaws: list[Flaw]) -> str | None:
    """The record's `join`. White space that is written before target_new counts, where none is put by default."""
    join = wording.join(row.get("join"), "join", flaws)
    target, settled, prompt = row.get("target_new"), values.get("target_new"), values.get("prompt")
    if join is not None or not isinstance(target, str) or not settled or not isinstance(prompt, str):
        return join
    before = target[: len(target) - len(target.lstrip())]
    return before if before and not prompt[-1:].isspace() and not join_of(prompt, str(settled)) else None


def _as_probe(item: object, field: str, flaws: list[Flaw], subject: str | None = None) -> Probe | None:
    """A `Probe`, or the mapping of one; `subject` is given where a `{}` may stand for it."""
    before = len(flaws)
    given = vars(item) if isinstance(item, Probe) else item
    row = wording.mapping(given, field, ("prompt", "target"), flaws)
    values = {} if row is None else _probe_values(row, field, subject, flaws)
    return Probe(**values) if len(flaws) == before else None


def _as_neighbor(item: object, field: str, subject: str, flaws: list[Flaw]) -> Neighbor | None:
    """A `Neighbor`, or the mapping of one, which has a subject of its own."""
    before = len(flaws)
    given = vars(item) if isinstance(item, Neighbor) else item
    row = wording.mapping(given, field, ("prompt", "subject", "target"), flaws)
    values = {} if row is None else _neighbor_values(row, field, flaws)
    return Neighbor(**values) if len(flaws) == before else None


def _probe_values(
    row: Mapping[str, object], field: str, subject: str | None, flaws: list[Flaw]
) -> dict[str, str]:
    prompt = wording.prompt(row["prompt"], inside(field, "prompt"), flaws)
    return {
        "prompt": prompt if subject is None else prompt.replace(wording.SLOT, subject),
        "target": wording.target(row["target"], inside(field, "target"), flaws),
    }


def _neighbor_values(row: Mapping[str, object], field: str, flaws: list[Flaw]) -> dict[str, str]:
    subject = wording.subject(row["subject"], inside(field, "subject"), flaws)
    return {
        "prompt": wording.template(row["prompt"], subject, inside(field, "prompt"), flaws),
        "subject": subject,
        "target": wording.target(row["target"], inside(field, "target"), flaws),
    }


def _labels(row: Mapping[str, object], flaws: list[Flaw]) -> dict[str, object]:
    labels: dict[str, object] = {}
    for name in ("relation_id", "target_id"):
        value = row.get(name)
        labels[name] = None if value is None else wording.text(value, name, flaws)
    case = row.get("case_id")
    if case is not None and (isinstance(case, bool) or not isinstance(case, int | str)):
        flaws.append(Flaw("case_id", f"must be a whole number or a text, and is {wording.kind(case)}."))
    return {**labels, "case_id": case}


# One reader for the members of each list: (member, name of its field, the fact's subject, flaws) -> settled member.
_Reader = Callable[[object, str, str, list[Flaw]], "str | Probe | Neighbor | None"]


def _prompt(item: object, field: str, subject: str, flaws: list[Flaw]) -> str:
    return wording.prompt(item, field, flaws)


def _own_prompt(item: object, field: str, subject: str, flaws: list[Flaw]) -> str:
    """A prompt about the fact's own subject, for which a `{}` may stand."""
    return wording.prompt(item, field, flaws).replace(wording.SLOT, subject)


def _own_template(item: object, field: str, subject: str, flaws: list[Flaw]) -> str:
    """A template for the fact's own subject, which may stand in it, once, in place of the `{}`."""
    return wording.template(item, subject, field, flaws)


def _text(item: object, field: str, subject: str, flaws: list[Flaw]) -> str:
    return wording.text(item, field, flaws)


def _probe(item: object, field: str, subject: str, flaws: list[Flaw]) -> Probe | None:
    return _as_probe(item, field, flaws)


def _own_probe(item: object, field: str, subject: str, flaws: list[Flaw]) -> Probe | None:
    """A probe about the fact's own subject, for which a `{}` may stand."""
    return _as_probe(item, field, flaws, subject)


def _prompt_or_probe(item: object, field: str, subject: str, flaws: list[Flaw]) -> str | Probe | None:
    return wording.prompt(item, field, flaws) if isinstance(item, str) else _as_probe(item, field, flaws)


_READERS: dict[str, _Reader] = {
    "paraphrase_prompts": _own_prompt,
    "neighborhood_prompts": _prompt_or_probe,
    "neighbors": _as_neighbor,
    "generation_prompts": _own_prompt,
    "same_subject_prompts": _own_probe,
    "unrelated_prompts": _probe,
    "reversed_prompts": _probe,
    "two_hop_prompts": _probe,
    "attribute_prompts": _prompt,
    "reference_texts": _text,
    "preserve_prompts": _own_template,
    "edit_prompts": _own_template,
}
