"""What is to be written into a model, and the questions that show how well it was written.

A prompt is a template with one `{}` where the subject goes. White space is settled when a fact is made and
nowhere else: prompts stay as written, targets lose what surrounds them. What stands between the two is `join`, or
what `errata.facts.joining` finds. `docs/facts.md` describes the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from errata.facts import wording
from errata.facts.joining import SPACE, join_of
from errata.facts.probes import Neighbor, Probe, fact_values
from errata.facts.wording import Flaw
from errata.runtime import Form, object_of


@dataclass(frozen=True, init=False)
class Fact:
    """One statement to write into a model: to `prompt` about `subject` the answer shall be `target_new`.

    A prompt may hold its subject, once, in place of the `{}`. In paraphrase_prompts, generation_prompts and
    same_subject_prompts a `{}` is filled with the subject. A plain text among the neighborhood_prompts expects
    target_true as its answer. preserve_prompts are templates of other statements about the subject, whose answers an
    edit can be told to leave as they are; edit_prompts are templates that ask the same as `prompt`, to edit with and
    never to evaluate with. reversed_prompts and two_hop_prompts are questions whose answer follows from the new fact:
    from its object's side, and together with a second fact. Objects of JSON are taken for the `Probe` or `Neighbor`
    that they describe. `join` stands between each prompt of the record and its target; None leaves it to `join_of`.

    Raises:
        SubjectNotInPrompt: the prompt has neither a `{}` nor the subject.
        AmbiguousSubject: it has two.
        EmptyTarget: a target is empty.
        FactError: anything else is missing, empty, or of the wrong type.
    """

    JSON: ClassVar = Form(read=lambda value, name: fact_from_json(object_of(value, name)), omit_defaults=True)

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
    preserve_prompts: tuple[str, ...] = ()
    target_id: str | None = None
    reversed_prompts: tuple[Probe, ...] = ()
    two_hop_prompts: tuple[Probe, ...] = ()
    edit_prompts: tuple[str, ...] = ()
    join: str | None = None

    # Written out, because more is accepted than is kept: any sequence for a tuple, an object of JSON for a Probe.
    def __init__(
        self,
        prompt: str,
        subject: str,
        target_new: str,
        target_true: str | None = None,
        paraphrase_prompts: Sequence[str] = (),
        neighborhood_prompts: Sequence[str | Probe | Mapping[str, str]] = (),
        neighbors: Sequence[Neighbor | Mapping[str, str]] = (),
        generation_prompts: Sequence[str] = (),
        relation_id: str | None = None,
        case_id: int | str | None = None,
        same_subject_prompts: Sequence[Probe | Mapping[str, str]] = (),
        unrelated_prompts: Sequence[Probe | Mapping[str, str]] = (),
        attribute_prompts: Sequence[str] = (),
        reference_texts: Sequence[str] = (),
        preserve_prompts: Sequence[str] = (),
        target_id: str | None = None,
        reversed_prompts: Sequence[Probe | Mapping[str, str]] = (),
        two_hop_prompts: Sequence[Probe | Mapping[str, str]] = (),
        edit_prompts: Sequence[str] = (),
        join: str | None = None,
    ) -> None:
        given: dict[str, object] = {
            "prompt": prompt,
            "subject": subject,
            "target_new": target_new,
            "target_true": target_true,
            "paraphrase_prompts": paraphrase_prompts,
            "neighborhood_prompts": neighborhood_prompts,
            "neighbors": neighbors,
            "generation_prompts": generation_prompts,
            "relation_id": relation_id,
            "case_id": case_id,
            "same_subject_prompts": same_subject_prompts,
            "unrelated_prompts": unrelated_prompts,
            "attribute_prompts": attribute_prompts,
            "reference_texts": reference_texts,
            "preserve_prompts": preserve_prompts,
            "target_id": target_id,
            "reversed_prompts": reversed_prompts,
            "two_hop_prompts": two_hop_prompts,
            "edit_prompts": edit_prompts,
            "join": join,
        }
        flaws: list[Flaw] = []
        case = "" if case_id is None else f" (case_id {case_id})"
        values = fact_values(given, flaws)
        wording.settle(self, values, flaws, f"Fact about {subject!r}{case}")

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
        """Subject and prompt: two facts with one key ask the same (see also `contradictions`)."""
        return (self.subject, self.prompt)

    def join_before(self, target: str) -> str:
        """What stands between `question` and a target."""
        return join_of(self.question, target, self.join)

    def unusual_joins(self, neighbors: int = 0) -> tuple[tuple[str, ...], ...]:
        """What joins the fact's and its first neighbors' prompts to their targets; empty where it is a space each.

        So recipes of what was computed before there were other joins stay what they were.
        """
        own = self.join_before(self.target_new)
        joins = (own, *(join_of(one.question, one.target, self.join) for one in self.neighbors[:neighbors]))
        return (joins,) if set(joins) != {SPACE} else ()

    @property
    def neighborhood(self) -> tuple[Probe, ...]:
        """The neighborhood prompts with their answers, less plain texts where there is no target_true."""
        probes: list[Probe] = []
        for item in self.neighborhood_prompts:
            if isinstance(item, Probe):
                probes.append(item)
            elif self.target_true is not None:
                probes.append(Probe(item, self.target_true))
        return tuple(probes)


FIELDS = tuple(field.name for field in fields(Fact))


def fact_from_json(row: Mapping[str, object]) -> Fact:
    """The fact of one row of Errata's own JSONL: the opposite of `to_json`.

    Raises:
        FactError: as `Fact`, and for a field that is missing or unknown.
    """
    flaws: list[Flaw] = []
    wording.unknown(row, "", FIELDS, flaws)
    fact = fact_of_row(row, flaws)
    if fact is None:
        raise flaws[0].as_error("Row of a fact")
    return fact


def fact_of_row(row: Mapping[str, object], flaws: list[Flaw]) -> Fact | None:
    """The fact of a row, or None when there are flaws; all of them are noted, not only the first."""
    values = fact_values(row, flaws)
    # The values are settled, so the constructor finds nothing new: it is the one place that makes a Fact.
    return None if flaws else Fact(**values)  # type: ignore[arg-type]
