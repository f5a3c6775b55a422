"""Which questions a fact raises: its prompt, its paraphrases, and what has to stay as it was."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from errata.facts import Fact, Probe
from errata.results import GROUPS


@dataclass(frozen=True)
class Pair:
    """A prompt with one answer to it, and the fact and field that it comes from."""

    prompt: str
    target: str
    where: str


@dataclass(frozen=True)
class Ask:
    """A question before it was put: `Question`, without what the model thinks of it."""

    prompt: str
    wanted: str
    rival: str | None = None

    @property
    def answers(self) -> tuple[str, ...]:
        """The answers whose probability is asked for."""
        return (self.wanted,) if self.rival is None else (self.wanted, self.rival)


@dataclass(frozen=True)
class Sheet:
    """The questions of one fact, by group (`outcomes.GROUPS`)."""

    name: str
    fact: Fact
    groups: dict[str, tuple[Ask, ...]]

    @property
    def pairs(self) -> list[Pair]:
        """Every prompt with every answer to it."""
        return [
            Pair(ask.prompt, answer, f"{self.name}, {FIELDS[group]}")
            for group in GROUPS
            for ask in self.groups[group]
            for answer in ask.answers
        ]


FIELDS = {
    "efficacy": "prompt",
    "generalization": "paraphrase_prompts",
    "specificity": "neighborhood_prompts",
    "same_subject": "same_subject_prompts",
    "unrelated": "unrelated_prompts",
    "prefixed": "prompt behind a prefix",
    "reversed": "reversed_prompts",
    "two_hop": "two_hop_prompts",
}
"""The field of a fact that each group comes from."""


@dataclass(frozen=True)
class Edited:
    """What an edit is about: no question of its own is a fact of an untouched subject, or another fact of one."""

    facts: Sequence[Fact]

    @cached_property
    def questions(self) -> frozenset[str]:
        """What is asked by the edited facts' own prompts."""
        return frozenset(fact.question for fact in self.facts)

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """Each edited subject once."""
        return tuple(dict.fromkeys(fact.subject for fact in self.facts))

    @cached_property
    def _touched(self) -> dict[str, bool]:
        return {}

    def touches(self, prompt: str) -> bool:
        """Whether an edited subject occurs in the prompt, as a word of its own."""
        if prompt not in self._touched:
            self._touched[prompt] = any(
                subject in prompt and _is_word(subject, prompt) for subject in self.subjects
            )
        return self._touched[prompt]


def sheets(facts: Sequence[Fact], edited: Edited) -> list[Sheet]:
    """The questions of every fact, in the order given.

    An edited fact is no question about what must stay: `same_subject` leaves out what the edit itself writes, and
    `unrelated` leaves out every question about an edited subject (another record's, for example).
    """
    return [_sheet(f"Fact {number}", fact, edited) for number, fact in enumerate(facts, start=1)]


def _sheet(name: str, fact: Fact, edited: Edited) -> Sheet:
    new, true = fact.target_new, fact.target_true
    case = "" if fact.case_id is None else f", case_id {fact.case_id}"
    same = [probe for probe in fact.same_subject_prompts if probe.prompt not in edited.questions]
    unrelated = [probe for probe in fact.unrelated_prompts if not edited.touches(probe.prompt)]
    groups = {
        "efficacy": (Ask(fact.question, new, true),),
        "generalization": tuple(Ask(prompt, new, true) for prompt in fact.paraphrase_prompts),
        "specificity": tuple(Ask(probe.prompt, probe.target, new) for probe in fact.neighborhood),
        "same_subject": _plain(same),
        "unrelated": _plain(unrelated),
        "prefixed": (),
        "reversed": _plain(
            [probe for probe in fact.reversed_prompts if probe.prompt not in edited.questions]
        ),
        "two_hop": _plain(fact.two_hop_prompts),
    }
    return Sheet(f"{name} (about {fact.subject!r}{case})", fact, groups)


def _plain(probes: Sequence[Probe]) -> tuple[Ask, ...]:
    return tuple(Ask(probe.prompt, probe.target) for probe in probes)


def _is_word(subject: str, prompt: str) -> bool:
    """Whether the subject stands in the prompt without a letter or digit of the same word beside it."""
    return bool(re.search(rf"(?<![A-Za-z0-9]){re.escape(subject)}(?![A-Za-z0-9])", prompt))
