"""What else follows from a new fact of the world: questions from its object's side, and questions of two hops.

Reversed: after "The capital of France is Rome", "The city of Rome belongs to the country" asks for France. Two hops:
"The official language of the country where the Louvre stands is" takes the new fact and what is true of its object.
The object is a subject of the other half, so no draw from one half edits the second hop.
"""

from __future__ import annotations

import random
import re

from errata.almanac.split import halves, seeded, seen_templates
from errata.almanac.tables import Entry, load_world
from errata.facts import Probe

INVERSES = {"capital": "city_country"}
"""The relation of the object that the new fact implies: its answer is the subject."""
ASKED_BACK = {
    "capital": "{} is the capital city of",
    "symbol": "The element with the chemical symbol {} is",
}
"""Words of our own for relations in which an object belongs to one subject; training has none like these."""
PHRASES = {
    "capital": "the capital of {}",
    "city_country": "the country of the city {}",
    "work_country": "the country of origin of the work {}",
    "invention_country": "the country where the {} originated",
    "landmark_city": "the city in which {} stands",
    "landmark_country": "the country in which {} stands",
    "landform_country": "the country of {}",
    "birth_city": "the city where {} was born",
    "employer": "the employer of {}",
    "headquarters": "the city where {} has its headquarters",
    "founding_country": "the country where {} was founded",
}
"""How a sentence names an object by its subject, for relations whose objects have facts of their own."""
NAMED = re.compile(r"\b[Tt]he (?:(?:city|country|company|firm)(?: of)? )?\{\}")
"""What stands before a name, and is too much before a phrase: "the city of {}"."""
TWO_HOPS = 2


def reversed_prompts(entry: Entry, target_new: str) -> tuple[Probe, ...]:
    """Questions about the new object whose answer is the subject; none for most relations."""
    rng = seeded("reversed", entry.subject, entry.relation.name)
    probes: list[Probe] = []
    if entry.relation.name in ASKED_BACK:
        probes.append(Probe(ASKED_BACK[entry.relation.name].replace("{}", target_new), entry.subject))
    for other in _facts_of(entry, target_new):
        if other.relation.name == INVERSES.get(entry.relation.name) and other.object != entry.subject:
            probes.append(Probe(other.prompt(rng.choice(seen_templates(other))), entry.subject))
    return tuple(probes)


def two_hop_prompts(entry: Entry, target_new: str) -> tuple[Probe, ...]:
    """Questions about the subject's new object, named by the subject, whose answer was another one before."""
    phrase = PHRASES.get(entry.relation.name)
    if phrase is None:
        return ()
    rng = seeded("two hops", entry.subject, entry.relation.name)
    old = {other.relation.name: other.object for other in load_world().subjects.get(entry.object, ())}
    known = [other for other in _facts_of(entry, target_new) if old.get(other.relation.name) != other.object]
    # The subject itself is no second hop: that the capital of France lies in France says nothing new.
    known = [other for other in known if other.object != entry.subject]
    chosen = rng.sample(known, min(TWO_HOPS, len(known)))
    return tuple(_two_hop(rng, other, phrase.replace("{}", entry.subject)) for other in chosen)


def _two_hop(rng: random.Random, second: Entry, named: str) -> Probe:
    """A question about the second hop with the phrase in place of its subject."""
    template = second.relation.templates[rng.choice(seen_templates(second))]
    text = NAMED.sub("{}", template).replace("{}", named)
    return Probe(text[0].upper() + text[1:], second.object)


def _facts_of(entry: Entry, target_new: str) -> tuple[Entry, ...]:
    """What the world says about the new object, where it is a subject of the other half."""
    if halves().get(target_new) in (None, halves()[entry.subject]):
        return ()
    return load_world().subjects[target_new]
