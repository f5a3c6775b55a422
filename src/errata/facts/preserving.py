"""`preserve_prompts` and `edit_prompts` for facts that bring none, from the templates of a file."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from errata.facts import wording
from errata.facts.fact import Fact
from errata.facts.templates import relation_of, templates_by_relation


def with_preserve_prompts(
    facts: Sequence[Fact], rows: int, seed: int = 0, source: Sequence[Fact] | None = None
) -> list[Fact]:
    """Give every fact without preserve_prompts up to `rows` templates of the other relations in `source`.

    First come relations that `source` knows the subject in, then others; one wording of each before the second of
    any; the seed chooses. Without a `source` the facts themselves are it. Where a file names no relations, each
    prompt counts as one. Left out is, word for word, what the facts about the subject are asked (their questions,
    paraphrases and `same_subject_prompts`), and every relation that they change for it: what is to be changed cannot
    be preserved. For the same reason preserve_prompts that a fact brings lose what they are asked, and the prompts of
    such relations.
    """
    known = [*facts, *(source or ())]
    templates = templates_by_relation(known)
    every, its, asked = list(templates), relations_by_subject(known), asked_about(facts)
    prepared: list[Fact] = []
    for fact, changed in zip(facts, changed_relations(facts), strict=True):
        refused = {template for relation in changed for template in templates[relation]}
        taken = asked[fact.subject]
        prompts = tuple(
            template
            for template in fact.preserve_prompts
            if template not in refused and wording.fill(template, fact.subject) not in taken
        )
        if not prompts:
            rng = random.Random(f"preserve/{seed}/{fact.subject}/{fact.prompt}")
            own = [relation for relation in its[fact.subject] if relation not in changed]
            drawn = rng.sample(every, min(len(every), 2 * rows + len(own) + len(changed)))
            foreign = [relation for relation in drawn if relation not in changed and relation not in own]
            rng.shuffle(own)
            found = [
                *wordings_in_turn(own, templates, fact, taken, rng),
                *wordings_in_turn(foreign, templates, fact, taken, rng),
            ]
            prompts = tuple(found[:rows])
        prepared.append(replace(fact, preserve_prompts=prompts))
    return prepared


def with_edit_prompts(
    facts: Sequence[Fact], count: int, seed: int = 0, source: Sequence[Fact] | None = None
) -> list[Fact]:
    """Give every fact without edit_prompts up to `count` other templates of its relation in `source`; the seed chooses.

    Left out is what the facts about the subject are asked, also where it stands behind an opening. Where a file names
    no relations there are none.
    """
    templates, asked = templates_by_relation([*facts, *(source or ())]), asked_about(facts)
    prepared: list[Fact] = []
    for fact in facts:
        texts = tuple(asked[fact.subject])
        free = [
            template
            for template in templates[relation_of(fact)]
            if not any(text.endswith(wording.fill(template, fact.subject)) for text in texts)
        ]
        chosen = random.Random(f"edit/{seed}/{fact.subject}/{fact.prompt}").sample(free, len(free))[:count]
        prepared.append(fact if fact.edit_prompts else replace(fact, edit_prompts=tuple(chosen)))
    return prepared


def relations_by_subject(facts: Sequence[Fact]) -> dict[str, dict[str, None]]:
    """The relations that the facts have about each subject, in their order."""
    found: dict[str, dict[str, None]] = {}
    for fact in facts:
        found.setdefault(fact.subject, {})[relation_of(fact)] = None
    return found


def asked_about(facts: Sequence[Fact]) -> dict[str, set[str]]:
    """By subject, all that evaluation asks of the facts about it."""
    found: dict[str, set[str]] = {}
    for fact in facts:
        its = found.setdefault(fact.subject, set())
        its |= {fact.question, *fact.paraphrase_prompts}
        its |= {probe.prompt for probe in fact.same_subject_prompts}
    return found


def changed_relations(facts: Sequence[Fact]) -> Iterator[Collection[str]]:
    """For each fact the relations of its subject that the facts change."""
    its = relations_by_subject(facts)
    return (its[fact.subject] for fact in facts)


def wordings_in_turn(
    relations: Sequence[str],
    templates: Mapping[str, Sequence[str]],
    fact: Fact,
    asked: Collection[str],
    rng: random.Random,
) -> Iterator[str]:
    """One wording of each relation, another of each, ...; none that is asked."""
    queues: list[list[str]] = []
    for relation in relations:
        free = [one for one in templates[relation] if wording.fill(one, fact.subject) not in asked]
        queues.append(rng.sample(free, len(free)))
    for turn in range(max(map(len, queues), default=0)):
        yield from (queue[turn] for queue in queues if turn < len(queue))
