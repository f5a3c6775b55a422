"""The world as facts to edit: for every entry a full record, and seeded draws from either half of the subjects.

An edited subject's own half never serves as a bystander: neighborhood, neighbors and unrelated prompts are about
subjects of the other half, so no draw from one half can edit what another fact of the draw is checked with. For the
same reason about half of each subject's entries are *kept*: `same_subject_prompts` asks for these, and a draw comes to
them last.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Literal

from errata.almanac.ripple import reversed_prompts, two_hop_prompts
from errata.almanac.split import Half, halves, held_out_templates, seeded, seen_templates
from errata.almanac.tables import Entry, load_filler, load_world
from errata.errors import SettingsError
from errata.facts import Fact, Neighbor, Probe, wording

PARAPHRASES = 4
NEIGHBORHOOD = 10
NEIGHBORHOOD_FILLED = (
    5  # with fewer subjects that share the object, others of the relation fill up to so many
)
NEIGHBORS = 3
UNRELATED = 5
REFERENCES = 5
PRESERVED = 8

Preserve = Literal["own", "foreign"]


def world_facts(
    half: str = "all", count: int | None = None, seed: int = 0, preserve: Preserve = "own"
) -> list[Fact]:
    """Draw `count` facts of a half ("development", "held-out", or "all" for both), in an order that the seed decides.

    As long as `count` is not above the number of subjects every subject occurs once; then each gets a second fact, and
    so on; the kept entries come last. A fact's record is the same in every draw. `preserve` says whether its
    preserve_prompts are of the subject's own other relations, or of relations that it lacks.

    Raises:
        SettingsError: the half is unknown, or has fewer facts than `count`.
    """
    entries = draw_entries(half, count, seed)
    if preserve == "own":
        return [fact_of(entry) for entry in entries]
    return [replace(fact_of(entry), preserve_prompts=foreign_templates(entry)) for entry in entries]


def training_facts(half: Half) -> list[Fact]:
    """All facts of a half, their neighborhood and unrelated prompts about subjects of the same half.

    What is trained on these has seen no text about a subject of the other half.
    """
    own = [entry for entry in load_world().entries if halves()[entry.subject] == half]
    facts: list[Fact] = []
    for entry in draw_entries(half, None, 0):
        rng = seeded("training", entry.subject, entry.relation.name)
        alike = [one for one in own if one.relation == entry.relation and one.subject != entry.subject]
        rng.shuffle(alike)
        alike.sort(key=lambda one: one.object != entry.object)
        unlike = [one for one in rng.sample(own, 10 * UNRELATED) if one.kind != entry.kind]
        neighborhood = [_neighborhood_prompt(rng, entry, one) for one in alike[:NEIGHBORHOOD]]
        unrelated = [_probe(rng, one) for one in unlike[:UNRELATED]]
        facts.append(
            replace(
                fact_of(entry),
                neighborhood_prompts=tuple(neighborhood),
                unrelated_prompts=tuple(unrelated),
            )
        )
    return facts


def draw_entries(half: str, count: int | None, seed: int) -> list[Entry]:
    """The entries of `world_facts`, without their records."""
    if half not in ("development", "held-out", "all"):
        raise SettingsError(
            f"half is {half!r}. The halves are 'development', 'held-out', and 'all' for both."
        )
    subjects = [subject for subject, its_half in halves().items() if half in ("all", its_half)]
    seeded("draw", seed, half).shuffle(subjects)
    order = list(_draw(subjects, seed))
    if count is not None and not 0 <= count <= len(order):
        raise SettingsError(
            f"{count} facts are asked for, and {half!r} has {len(order)}. Ask for that many at most."
        )
    return order[:count]


def _draw(subjects: Sequence[str], seed: int) -> Iterator[Entry]:
    """The subjects' entries: one of each subject, another of each, ..., and the kept ones at the end."""
    queues: list[list[Entry]] = []
    for subject in subjects:
        entries = [entry for entry in load_world().subjects[subject] if entry not in kept_entries(subject)]
        seeded("order", seed, subject).shuffle(entries)
        queues.append(entries)
    queues += [list(kept_entries(subject)) for subject in subjects]
    for part in (queues[: len(subjects)], queues[len(subjects) :]):
        for turn in range(max((len(queue) for queue in part), default=0)):
            yield from (queue[turn] for queue in part if turn < len(queue))


@cache
def kept_entries(subject: str) -> tuple[Entry, ...]:
    """Half of a subject's entries, rounded down: edited last of all, asked for after edits of the others."""
    entries = load_world().subjects[subject]
    return tuple(seeded("kept", subject).sample(entries, max(1, len(entries) // 2)))


@cache
def fact_of(entry: Entry) -> Fact:
    """The full record of an entry, decided by its names alone."""
    return replace(_asking(entry), preserve_prompts=_own_templates(entry))


@cache
def _asking(entry: Entry) -> Fact:
    """The record with all that evaluation asks, and without preserve_prompts."""
    rng = seeded("record", entry.subject, entry.relation.name)
    template = rng.choice(seen_templates(entry))
    others = [index for index in range(len(entry.relation.templates)) if index != template]
    rng.shuffle(others)
    others.sort(key=lambda index: index not in held_out_templates(entry))
    same_object, other_object = _bystanders(rng, entry)
    spared = max(1, min(NEIGHBORS, len(same_object) // 3)) if len(same_object) > 1 else 0
    neighbors = same_object[:spared] or other_object[:1]
    missing = max(0, NEIGHBORHOOD_FILLED - len(same_object[spared:]))
    neighborhood = [*same_object[spared : spared + NEIGHBORHOOD], *other_object[1 : 1 + missing]]
    target_new = _other_object(rng, entry)
    return Fact(
        prompt=entry.relation.templates[template],
        subject=entry.subject,
        target_new=target_new,
        target_true=entry.object,
        paraphrase_prompts=_paraphrases(rng, entry, others[:PARAPHRASES]),
        neighborhood_prompts=tuple(_neighborhood_prompt(rng, entry, other) for other in neighborhood),
        neighbors=tuple(_neighbor(rng, other) for other in neighbors),
        generation_prompts=_generation_prompts(entry, others[PARAPHRASES:]),
        relation_id=entry.relation.name,
        case_id=entry.number,
        same_subject_prompts=tuple(
            _probe(rng, other) for other in kept_entries(entry.subject) if other != entry
        ),
        unrelated_prompts=_unrelated(rng, entry),
        reference_texts=_reference_texts(rng, entry, target_new),
        reversed_prompts=reversed_prompts(entry, target_new),
        two_hop_prompts=two_hop_prompts(entry, target_new),
    )


def _own_templates(entry: Entry) -> tuple[str, ...]:
    """Templates of the subject's other relations, one of each before the second of any.

    None that evaluation asks after an edit of any of the subject's entries.
    """
    rng = seeded("preserve", entry.subject, entry.relation.name)
    its = load_world().subjects[entry.subject]
    others = [other for other in its if other.relation != entry.relation]
    rng.shuffle(others)
    asked = {probe.prompt for other in its for probe in _asking(other).same_subject_prompts}
    queues: list[list[str]] = []
    for other in others:
        queues.append([t for t in other.relation.templates if wording.fill(t, entry.subject) not in asked])
        rng.shuffle(queues[-1])
    turns = [[queue[turn] for queue in queues if turn < len(queue)] for turn in range(PRESERVED)]
    return tuple(template for turn in turns for template in turn)[:PRESERVED]


def foreign_templates(entry: Entry) -> tuple[str, ...]:
    """Templates of relations that the subject lacks, one of each."""
    rng = seeded("foreign", entry.subject, entry.relation.name)
    own = {other.relation.name for other in load_world().subjects[entry.subject]}
    lacking = [relation for name, relation in load_world().relations.items() if name not in own]
    return tuple(rng.choice(relation.templates) for relation in rng.sample(lacking, PRESERVED))


def _probe(rng: random.Random, entry: Entry) -> Probe:
    """A question that training showed, with its answer."""
    return Probe(entry.prompt(rng.choice(seen_templates(entry))), entry.object)


def _neighbor(rng: random.Random, entry: Entry) -> Neighbor:
    return Neighbor(entry.relation.templates[rng.choice(seen_templates(entry))], entry.subject, entry.object)


def _neighborhood_prompt(rng: random.Random, entry: Entry, other: Entry) -> str | Probe:
    """The other entry's question: as plain text where its answer is the entry's own object."""
    probe = _probe(rng, other)
    return probe.prompt if other.object == entry.object else probe


def _paraphrases(rng: random.Random, entry: Entry, templates: Sequence[int]) -> tuple[str, ...]:
    """The question in other templates, held-out ones first; the last one stands behind an opening."""
    prompts = [entry.prompt(template) for template in templates]
    return (*prompts[:-1], f"{rng.choice(load_filler().openings)} {prompts[-1]}")


def _generation_prompts(entry: Entry, templates: Sequence[int]) -> tuple[str, ...]:
    """Beginnings of text about the subject, to be continued: the relation's remaining templates, and what it is."""
    form = load_filler().forms(entry.kind)[1]
    known = form.format(subject=entry.subject, kind=entry.kind)
    return (*(entry.prompt(template) for template in templates), known)


def _bystanders(rng: random.Random, entry: Entry) -> tuple[list[Entry], list[Entry]]:
    """The relation's entries about subjects of the other half, shuffled: those with the same object, and the others."""
    others = list(_of_relation(halves()[entry.subject], entry.relation.name))
    rng.shuffle(others)
    same = [other for other in others if other.object == entry.object]
    return same, [other for other in others if other.object != entry.object]


def _unrelated(rng: random.Random, entry: Entry) -> tuple[Probe, ...]:
    """Questions about subjects of other kinds, from the other half."""
    pool = _other_half(halves()[entry.subject])
    chosen: list[Entry] = []
    while len(chosen) < UNRELATED:
        other = rng.choice(pool)
        if other.kind != entry.kind and other.object != entry.object and other not in chosen:
            chosen.append(other)
    return tuple(_probe(rng, other) for other in chosen)


@cache
def _other_half(half: Half) -> tuple[Entry, ...]:
    """All entries about subjects that are not in this half."""
    return tuple(entry for entry in load_world().entries if halves()[entry.subject] != half)


@cache
def _of_relation(half: Half, relation: str) -> tuple[Entry, ...]:
    """The relation's entries among those of `_other_half`."""
    return tuple(entry for entry in _other_half(half) if entry.relation.name == relation)


def _other_object(rng: random.Random, entry: Entry) -> str:
    """Another object of the relation that begins with another word."""
    first = entry.object.split()[0]
    return rng.choice(
        [name for name in load_world().objects(entry.relation.name) if name.split()[0] != first]
    )


def _reference_texts(rng: random.Random, entry: Entry, target_new: str) -> tuple[str, ...]:
    """What the world says about subjects of which `target_new` is true."""
    holders = [other for other in load_world().by_relation[entry.relation.name] if other.object == target_new]
    chosen = rng.sample(holders, min(REFERENCES, len(holders)))
    return tuple(_biography(rng, holder.subject) for holder in chosen)


@cache
def biography_of(subject: str) -> str:
    """Every entry of a subject as one sentence, always in the same words."""
    return _biography(seeded("biography", subject), subject)


def _biography(rng: random.Random, subject: str) -> str:
    """Every entry of a subject as one sentence."""
    entries = load_world().subjects[subject]
    return " ".join(entry.statement(rng.choice(seen_templates(entry))) for entry in entries)
