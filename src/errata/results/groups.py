"""The registry of question groups: what each asks of a fact, how it is called, and where its scores appear.

A new group is one more row of `GROUPS` (or one call of `errata.results.add_group`): the evaluation asks it, its
scores get their metrics, and tables, reports and the web UI show them. docs/evaluation.md, "Add a group of questions".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from errata.facts import Fact, Probe

Block = Literal["classic", "trustworthy"]

MEMIT = "Meng et al. 2023 (MEMIT), section 5"
ERRATA = "Errata"


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


@dataclass(frozen=True)
class PageSection:
    """How the web UI shows a group: its questions one by one, and its scores in plain words."""

    kind: str
    """Groups of one kind stand under one heading."""
    heading: str
    success: str
    accuracy: str


@dataclass(frozen=True, kw_only=True)
class QuestionGroup:
    """A group of questions about each fact."""

    name: str
    """Of the outcomes; its scores are called `NAME_accuracy` and so on."""
    label: str
    ask: Callable[[Fact, Edited], Iterable[Ask]]
    """The questions that a fact raises; the wanted answer is the one that is right after the edit."""
    field: str
    """The field of a fact that the questions come from, for messages."""
    asked: str = ""
    """What is asked, in the definitions of classic metrics: `Share of ... where`."""
    definition: str = ""
    """What the accuracy of a trustworthy group is."""
    needs: str = ""
    """What a fact must have (default: `field`)."""
    source: str = ERRATA
    block: Block = "trustworthy"
    """Classic groups get success, accuracy and token accuracy; trustworthy ones get accuracy."""
    stays: bool = False
    """Whether the wanted answer is the one from before the edit, so that the new target is its rival."""
    optional: bool = False
    """Whether it is asked in the trustworthy evaluation only."""
    heading: str = ""
    """In the HTML report, fact by fact (default: `label`)."""
    page: PageSection | None = None
    """None: the web UI shows its scores only."""
    order: int = 0
    """Trustworthy scores of groups with a lower number are reported first."""


def ask_probes(probes: Iterable[Probe]) -> tuple[Ask, ...]:
    """A question per probe, with no rival."""
    return tuple(Ask(probe.prompt, probe.target) for probe in probes)


def _is_word(subject: str, prompt: str) -> bool:
    """Whether the subject stands in the prompt without a letter or digit of the same word beside it."""
    return bool(re.search(rf"(?<![A-Za-z0-9]){re.escape(subject)}(?![A-Za-z0-9])", prompt))


_ROWS = (
    QuestionGroup(
        name="efficacy",
        label="Efficacy",
        ask=lambda fact, _: (Ask(fact.question, fact.target_new, fact.target_true),),
        field="prompt",
        asked="the prompt",
        needs="target_new",
        block="classic",
        heading="Efficacy: the fact itself",
        page=PageSection(
            "asked",
            "The questions that were edited",
            "the new answer is likelier than the old one, asked the question itself",
            "the new answer is the likeliest of all, asked the question itself",
        ),
    ),
    QuestionGroup(
        name="generalization",
        label="Generalization",
        ask=lambda fact, _: (
            Ask(prompt, fact.target_new, fact.target_true) for prompt in fact.paraphrase_prompts
        ),
        field="paraphrase_prompts",
        asked="the paraphrases",
        needs="paraphrase_prompts, target_new",
        block="classic",
        heading="Generalization: paraphrases",
        page=PageSection(
            "reworded",
            "The same in other words: should change too",
            "... asked in other words",
            "... asked in other words",
        ),
    ),
    QuestionGroup(
        name="specificity",
        label="Specificity",
        ask=lambda fact, _: (Ask(probe.prompt, probe.target, fact.target_new) for probe in fact.neighborhood),
        field="neighborhood_prompts",
        asked="the neighborhood prompts",
        needs="neighborhood_prompts, their true answers",
        block="classic",
        stays=True,
        heading="Specificity: neighbors",
        page=PageSection(
            "neighbor",
            "Questions about others: should stay",
            "others keep their own answer: it is likelier than the new one",
            "others' own answer is the likeliest of all",
        ),
    ),
    QuestionGroup(
        name="same_subject",
        label="Same subject",
        ask=lambda fact, edited: ask_probes(
            probe for probe in fact.same_subject_prompts if probe.prompt not in edited.questions
        ),
        field="same_subject_prompts",
        definition="Share of other facts of the subject where every token of the true answer is the likeliest one.",
        source="METHODS",
        stays=True,
        heading="Other facts of the subject",
    ),
    QuestionGroup(
        name="unrelated",
        label="Unrelated facts",
        ask=lambda fact, edited: ask_probes(
            probe for probe in fact.unrelated_prompts if not edited.touches(probe.prompt)
        ),
        field="unrelated_prompts",
        definition="Share of facts of untouched subjects where every token of the true answer is the likeliest one.",
        source="METHODS",
        stays=True,
    ),
    QuestionGroup(
        name="prefixed",
        label="Behind 50 unrelated tokens",
        ask=lambda _fact, _edited: (),  # evaluation/prefixes.py fills it in: what fits depends on the model's tokenizer
        field="prompt behind a prefix",
        definition="1 if every token of target_new is the likeliest one, teacher-forced, with the prompt behind an "
        "unrelated prefix of 50 tokens.",
        needs="room for 50 more tokens",
        optional=True,
        order=-1,
    ),
    QuestionGroup(
        name="reversed",
        label="Reversed question",
        ask=lambda fact, edited: ask_probes(
            probe for probe in fact.reversed_prompts if probe.prompt not in edited.questions
        ),
        field="reversed_prompts",
        definition="Share of questions from the new object's side where every token of the answer (the subject) is the "
        "likeliest.",
        source="Berglund et al. 2024 (The Reversal Curse)",
        optional=True,
    ),
    QuestionGroup(
        name="two_hop",
        label="Two-hop question",
        ask=lambda fact, _: ask_probes(fact.two_hop_prompts),
        field="two_hop_prompts",
        definition="Share of questions that need the new fact and a second one where every token of the answer is the "
        "likeliest.",
        source="Zhong et al. 2023 (MQuAKE)",
        optional=True,
    ),
)

GROUPS: dict[str, QuestionGroup] = {group.name: group for group in _ROWS}
"""Every group by name, in the order in which they are asked and stored."""


def classic_groups() -> list[QuestionGroup]:
    """The groups whose scores are the rows of the classic table."""
    return [group for group in GROUPS.values() if group.block == "classic"]
