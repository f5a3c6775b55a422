"""The collapse guard: measure the model before and after every write, and say when it has lost too much.

Two figures stand for the model's health: its perplexity on a fixed set of texts (the mean over texts of
exp(-(1/N) sum log P), as ME-PPL-50 is counted) and its accuracy on neighbors: facts about
other subjects that the unedited model knows. Beyond a bound a write is to be taken back.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from errata.errors import SettingsError
from errata.evaluation import Edited, Pair, make_plan, measure, text_perplexity
from errata.facts import Fact, Probe, joined
from errata.models import ALMANAC, EditableModel
from errata.moments import EMBEDDED, corpus_texts

TEXTS = 50
PROBES = 100
PLAIN_TEXTS = (
    "The train was late, so we waited on the platform and talked about the weather.",
    "Water boils at a lower temperature high in the mountains than at the sea.",
    "She opened the window, looked at the garden for a while and went back to her book.",
    "In the first half of the year, sales rose while the costs stayed about the same.",
    "To make the dough, mix flour, salt and water, and let it rest for an hour.",
    "The committee meets on the first Monday of every month to discuss the budget.",
    "If the light does not turn on, check first whether the cable is plugged in.",
    "He had never been fond of long speeches, and this one was no exception.",
    "Most birds in this forest leave in autumn and come back in the spring.",
    "The old bridge was closed last week because one of its pillars has a crack.",
    "Children learn to count long before they understand what numbers are.",
    "After the match both teams thanked the crowd, and the lights went out slowly.",
)
"""What perplexity is measured on where the facts bring nothing."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """How much a model may lose before a write is taken back.

    `texts`: what perplexity is measured on; default: texts of the embedded corpus for the embedded model, the
    neighborhood prompts with their answers for every other, and a few plain sentences where the facts have none.
    Neighborhood prompts that an edit sees (the question of a fact, or one of its neighbors) do not count.

    Raises:
        SettingsError: a bound that every write, or none, would break.
    """

    max_perplexity_ratio: float = 3.0
    """Perplexity after a write, over that of the unedited model."""
    min_accuracy_ratio: float = 0.5
    """The share of the neighbors known before that must still be known."""
    texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse bounds without a sense."""
        if not self.max_perplexity_ratio > 1:
            raise SettingsError(f"The guard's perplexity bound must be above 1: {self.max_perplexity_ratio}.")
        if not 0 <= self.min_accuracy_ratio < 1:
            raise SettingsError(
                f"The guard's accuracy bound must be 0 or more and below 1: {self.min_accuracy_ratio}."
            )


@dataclass(frozen=True)
class Health:
    """What was measured of a model at one time."""

    perplexity: float
    accuracy: float


class Watch:
    """A guard on duty: knows the model's health before the first write."""

    def __init__(self, guard: Guard, model: EditableModel, facts: Sequence[Fact], seed: int) -> None:
        self._guard = guard
        self._model = model
        self._texts = guard.texts or _default_texts(model, facts, seed)
        self._joins = {
            (one.prompt, one.target): fact.join
            for fact in facts
            for one in fact.neighborhood
            if fact.join is not None
        }
        self._probes = self._known(_neighbors(facts, seed))
        self.before = self.measure()

    def measure(self) -> Health:
        """The model's health now."""
        right = self._right(self._probes)
        return Health(
            text_perplexity(self._model, self._texts),
            sum(right) / len(right) if right else 1.0,
        )

    def complaint(self, now: Health) -> str:
        """Which bound is broken, in words; "" while all is well."""
        limit = self._guard.max_perplexity_ratio * self.before.perplexity
        if not math.isfinite(now.perplexity) or now.perplexity > limit:
            return (
                f"perplexity on {len(self._texts)} texts rose from {self.before.perplexity:.4g} to "
                f"{now.perplexity:.4g}, and the guard allows {limit:.4g}"
            )
        if now.accuracy < self._guard.min_accuracy_ratio:
            return (
                f"of {len(self._probes)} neighbors that the model knew, {100 * now.accuracy:.0f} % are left, and the "
                f"guard asks for {100 * self._guard.min_accuracy_ratio:.0f} %"
            )
        return ""

    def _known(self, probes: Sequence[Probe]) -> list[Probe]:
        return [probe for probe, right in zip(probes, self._right(probes), strict=True) if right][:PROBES]

    def _right(self, probes: Sequence[Probe]) -> list[bool]:
        """Whether every token of each answer is the likeliest one, teacher-forced."""
        if not probes:
            return []
        pairs = [
            Pair(one.prompt, one.target, "guard, neighbor", self._joins.get((one.prompt, one.target)))
            for one in probes
        ]
        answers = measure(self._model, make_plan(self._model, pairs))
        return [answers[pair.key].correct for pair in pairs]


def _neighbors(facts: Sequence[Fact], seed: int) -> list[Probe]:
    """Some neighborhood prompts that no edit sees or is about, each once: twice as many as are asked."""
    edited = Edited(facts)
    seen = {neighbor.question for fact in facts for neighbor in fact.neighbors}
    found = dict.fromkeys(probe for fact in facts for probe in fact.neighborhood)
    probes = [probe for probe in found if probe.prompt not in seen and not edited.touches(probe.prompt)]
    return random.Random(seed).sample(probes, min(2 * PROBES, len(probes)))


def _default_texts(model: EditableModel, facts: Sequence[Fact], seed: int) -> tuple[str, ...]:
    if model.name == ALMANAC:
        return tuple(text for text, _ in zip(corpus_texts(EMBEDDED), range(TEXTS), strict=False))
    known = [joined(probe.prompt, probe.target) for probe in _neighbors(facts, seed)]
    return tuple(known[:TEXTS]) or PLAIN_TEXTS
