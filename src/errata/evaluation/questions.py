"""Which questions a fact raises: its prompt, its paraphrases, and what has to stay as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from errata.facts import Fact, join_of
from errata.results import GROUPS, Ask, Edited

Key = tuple[str, str] | tuple[str, str, str]
"""A prompt and an answer; and what joins them where that is not what joins them by default."""


@dataclass(frozen=True)
class Pair:
    """A prompt with one answer to it, the fact and field that it comes from, and what joins them (see `Fact.join`)."""

    prompt: str
    target: str
    where: str
    join: str | None = None

    @property
    def key(self) -> Key:
        """What its answer is found by."""
        return key_of(self.prompt, self.target, self.join)


def key_of(prompt: str, target: str, join: str | None) -> Key:
    """What the answer to a prompt is found by among those measured."""
    if join is None or join == join_of(prompt, target):
        return prompt, target
    return prompt, target, join


@dataclass(frozen=True)
class Sheet:
    """The questions of one fact, by group (`results.GROUPS`)."""

    name: str
    fact: Fact
    groups: dict[str, tuple[Ask, ...]]

    @property
    def pairs(self) -> list[Pair]:
        """Every prompt with every answer to it."""
        return [
            Pair(ask.prompt, answer, f"{self.name}, {GROUPS[group].field}", self.fact.join)
            for group in GROUPS
            for ask in self.groups[group]
            for answer in ask.answers
        ]


def sheets(facts: Sequence[Fact], edited: Edited) -> list[Sheet]:
    """The questions of every fact, in the order given.

    An edited fact is no question about what must stay: `same_subject` leaves out what the edit itself writes, and
    `unrelated` leaves out every question about an edited subject (another record's, for example).
    """
    return [_sheet(f"Fact {number}", fact, edited) for number, fact in enumerate(facts, start=1)]


def _sheet(name: str, fact: Fact, edited: Edited) -> Sheet:
    case = "" if fact.case_id is None else f", case_id {fact.case_id}"
    groups = {group.name: tuple(group.ask(fact, edited)) for group in GROUPS.values()}
    return Sheet(f"{name} (about {fact.subject!r}{case})", fact, groups)
