"""Other statements about the subjects of facts, in two parts that share no relation: to preserve, and to ask about.

An edit that was told to preserve some statements is judged by others: by those of relations that it never saw.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from errata.facts import wording
from errata.facts.fact import Fact
from errata.facts.preserving import asked_about, changed_relations, relations_by_subject, wordings_in_turn
from errata.facts.templates import templates_by_relation


@dataclass(frozen=True)
class Apart:
    """A fact with `preserve_prompts` to edit with, and statements about its subject to judge the edit by."""

    fact: Fact
    statements: tuple[str, ...]
    """Filled in with the subject; no template of their relations is among the fact's `preserve_prompts`."""


def statements_apart(
    facts: Sequence[Fact], ask: int, preserve: int, seed: int = 0, source: Sequence[Fact] | None = None
) -> list[Apart]:
    """Split the templates of the other relations in `source`: up to `preserve` to preserve, up to `ask` to ask.

    First come relations that `source` knows the subject in, then others; each relation goes to one of the two parts.
    Relations that the facts change for a subject, and what the facts are asked already, are in neither. Facts that
    bring preserve_prompts keep them, and no relation of theirs is asked.
    """
    known = [*facts, *(source or ())]
    templates, its, asked = templates_by_relation(known), relations_by_subject(known), asked_about(facts)
    found: list[Apart] = []
    for fact, changed in zip(facts, changed_relations(facts), strict=True):
        rng = random.Random(f"statements/{seed}/{fact.subject}/{fact.prompt}")
        own = [relation for relation in its[fact.subject] if relation not in changed]
        foreign = [relation for relation in templates if relation not in changed and relation not in own]
        order = [*rng.sample(own, len(own)), *rng.sample(foreign, len(foreign))]
        taken = asked[fact.subject]
        kept = fact.preserve_prompts
        if not kept and preserve:
            kept = tuple(wordings_in_turn(order[1::2], templates, fact, taken, rng))[:preserve]
        free = [relation for relation in order if not set(templates[relation]) & set(kept)]
        prompts = tuple(wordings_in_turn(free, templates, fact, taken, rng))[:ask]
        statements = tuple(wording.fill(template, fact.subject) for template in prompts)
        found.append(Apart(replace(fact, preserve_prompts=kept), statements))
    return found
