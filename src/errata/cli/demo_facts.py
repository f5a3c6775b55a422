"""Which facts the demo edits: well-known ones of the embedded world, from the half that nothing was tuned on."""

from __future__ import annotations

import random
from itertools import chain, zip_longest

from errata.facts import Fact

FAMOUS: dict[str, tuple[str, ...]] = {
    "capital": ("France", "Egypt", "Italy", "China", "Kenya"),
    "creator": (
        "Hamlet",
        "Romeo and Juliet",
        "Animal Farm",
        "Robinson Crusoe",
        "Oliver Twist",
        "The Time Machine",
    ),
    "landmark_city": ("Eiffel Tower", "Colosseum", "Big Ben", "Louvre", "Tower Bridge"),
    "symbol": ("Gold", "Oxygen", "Silver", "Carbon"),
    "inventor": ("polio vaccine", "law of universal gravitation", "hot air balloon", "computer mouse"),
    "landform_country": ("Mount Everest", "Mount Fuji", "Mount Etna"),
    "city_country": ("Rome", "London", "Moscow", "Venice", "Amsterdam"),
    "animal_continent": ("giraffe", "tiger"),
    "language": ("Brazil",),
    "currency": ("Egypt",),
    "city_language": ("Vienna",),
}
"""Subjects by relation, the relations in the order in which the demo takes them."""


def famous_facts(count: int, seed: int) -> list[Fact]:
    """`count` facts, one of each relation and then another of each; the seed decides about whom."""
    from errata.almanac import fact_of, load_world

    entries = {(entry.relation.name, entry.subject): entry for entry in load_world().entries}
    drawn = random.Random(seed)
    columns = [
        [(name, subject) for subject in drawn.sample(names, len(names))] for name, names in FAMOUS.items()
    ]
    one_of_each_first = chain.from_iterable(zip_longest(*columns))
    chosen = [entries[pair] for pair in one_of_each_first if pair is not None]
    return [fact_of(entry) for entry in chosen[:count]]
