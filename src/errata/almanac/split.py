"""What is kept apart: the two halves of the subjects, and the (fact, template) pairs that training never shows.

All of it hangs on the names alone, so a new line in a table moves no other subject's templates.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Literal, get_args

from errata.almanac.tables import Entry, load_world

Half = Literal["development", "held-out"]

SPLIT_SEED = 2024
HELD_OUT_SHARE = 0.4
HELD_OUT_TEMPLATES = 3


@cache
def halves() -> dict[str, Half]:
    """Which half each subject belongs to: of every kind of subject, half and half."""
    subjects = load_world().subjects
    order = sorted(subjects, key=lambda name: (subjects[name][0].kind, seeded("half", name).random(), name))
    names = get_args(Half)
    return {subject: names[index % 2] for index, subject in enumerate(order)}


@cache
def held_out_templates(entry: Entry) -> frozenset[int]:
    """The templates whose statement of this entry is in no training text: none, or three."""
    rng = seeded("templates", entry.subject, entry.relation.name)
    if rng.random() >= HELD_OUT_SHARE:
        return frozenset()
    return frozenset(rng.sample(range(len(entry.relation.templates)), HELD_OUT_TEMPLATES))


@cache
def seen_templates(entry: Entry) -> tuple[int, ...]:
    """The other templates, in order."""
    held_out = held_out_templates(entry)
    return tuple(index for index in range(len(entry.relation.templates)) if index not in held_out)


def seeded(*words: object) -> random.Random:
    """A generator that depends on nothing but the words."""
    return random.Random("/".join(str(word) for word in (SPLIT_SEED, *words)))
