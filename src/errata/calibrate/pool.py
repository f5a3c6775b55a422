"""The facts of a calibration: those that the model knows, each with questions around it, in two parts by subject."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from errata.calibrate.request import LEAST, CalibrationRequest
from errata.errors import FactError
from errata.evaluation import known_facts
from errata.facts import Apart, Fact, Probe, relation_of, statements_apart
from errata.models import EditableModel
from errata.runtime import Progress

AT_ONCE = 256
"""Facts that are asked together; where that is enough, no more are."""
NEIGHBORS = 5
"""Questions about other subjects, for facts that bring none."""
STATEMENTS = 6
"""Other statements about each subject that are asked, and that are preserved, at most."""


@dataclass(frozen=True)
class Pool:
    """The facts of both parts; no subject is in both."""

    development: tuple[Apart, ...]
    held_out: tuple[Apart, ...]
    asked: int
    known: int


def find_pool(
    model: EditableModel, facts: Sequence[Fact], request: CalibrationRequest, on_progress: Progress
) -> Pool:
    """Choose facts that the model knows: every token of `target_true` is its likeliest after the prompt.

    One fact a subject, relations in turn, in an order that the seed decides. Facts are asked in draws until there are
    enough; facts without neighborhood prompts get known ones about other subjects of their relation.

    Raises:
        FactError: the model knows too few of them.
    """
    asked = [fact for fact in facts if fact.target_true is not None and fact.target_true != fact.target_new]
    asked = random.Random(f"calibrate/{request.seed}").sample(asked, len(asked))
    bare = any(not fact.neighborhood_prompts for fact in asked)
    wanted, known, done = request.development + request.held_out, list[Fact](), 0
    while done < len(asked) and (bare or len({fact.subject for fact in known}) < wanted):
        some = asked[done : done + AT_ONCE]
        known += known_facts(model, some).facts
        done += len(some)
        on_progress("known facts", min(len(known), wanted), wanted)
    order = _in_turn(known)
    if len(order) < 2 * LEAST:
        raise FactError(
            f"{model.name} knows {len(order)} of {done} subjects' facts, and calibration needs at least {2 * LEAST}. "
            "Give it facts that it knows: --facts FILE, or --facts counterfact."
        )
    parts = _split(order, request.development, request.held_out)
    development, held_out = (tuple(_with_questions(part, known, facts, request.seed)) for part in parts)
    return Pool(development, held_out, done, len(known))


def _in_turn(facts: Sequence[Fact]) -> list[Fact]:
    """One fact of each subject, from one relation after the other."""
    by_relation: dict[str, list[Fact]] = {}
    for fact in facts:
        by_relation.setdefault(relation_of(fact), []).append(fact)
    found: dict[str, Fact] = {}
    for turn in zip_longest(*by_relation.values()):
        for fact in turn:
            if fact is not None:
                found.setdefault(fact.subject, fact)
    return list(found.values())


def _split(order: Sequence[Fact], development: int, held_out: int) -> tuple[list[Fact], list[Fact]]:
    """Facts in turn to either part, until it is full; where there are too few, both shrink alike."""
    if len(order) < development + held_out:
        share = len(order) / (development + held_out)
        development = max(LEAST, min(len(order) - LEAST, round(share * development)))
        held_out = len(order) - development
    parts: tuple[list[Fact], list[Fact]] = ([], [])
    sizes = (development, held_out)
    for fact in order:
        open_parts = [number for number in (0, 1) if len(parts[number]) < sizes[number]]
        if open_parts:
            parts[min(open_parts, key=lambda number: len(parts[number]) / sizes[number])].append(fact)
    return parts


def _with_questions(
    part: Sequence[Fact], known: Sequence[Fact], source: Sequence[Fact], seed: int
) -> list[Apart]:
    """The facts of a part with neighbors, and other statements to preserve and to ask."""
    edited = {fact.subject for fact in part}
    by_relation: dict[str, dict[str, Fact]] = {}
    for fact in known:
        if fact.subject not in edited:
            by_relation.setdefault(relation_of(fact), {}).setdefault(fact.question, fact)
    neighbored = [_with_neighbors(fact, by_relation.get(relation_of(fact), {}), seed) for fact in part]
    return statements_apart(neighbored, STATEMENTS, STATEMENTS, seed, source)


def _with_neighbors(fact: Fact, others: Mapping[str, Fact], seed: int) -> Fact:
    if fact.neighborhood_prompts:
        return fact
    usable = [other for other in others.values() if other.target_true != fact.target_new]
    chosen = random.Random(f"neighbors/{seed}/{fact.question}").sample(usable, min(NEIGHBORS, len(usable)))
    probes = [Probe(other.question, str(other.target_true)) for other in chosen]
    return replace(fact, neighborhood_prompts=tuple(probes))
