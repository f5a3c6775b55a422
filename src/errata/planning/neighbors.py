"""Neighbors for neighbor-assisted editing, found in the file: those that the unedited model answers as the data say.

A fact needs at least two, one to edit with and the others to evaluate with (paper 2, section 3.2 and appendix B.2).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from errata.errors import FactError
from errata.evaluation import Key, Pair, make_plan, measure
from errata.facts import Fact, Neighbor, Probe, relation_of, template_of, templates_by_relation
from errata.models import EditableModel
from errata.results import Answer
from errata.runtime import Progress, silent

LEAST = 2
"""So many neighbors a fact must have that the model answers."""


@dataclass(frozen=True)
class Neighbors:
    """The facts with the neighbors that were found for them."""

    facts: tuple[Fact, ...]
    """Those that qualified, and the others where they were to be kept: `neighbors` to edit with, and of the
    neighborhood those that the model answers and that no edit sees."""
    qualified: tuple[int, ...]
    """Where each fact that qualified stood among those given."""
    reasons: Mapping[int, str] = field(default_factory=dict[int, str])
    """Why each other one did not."""
    asked: int = 0
    """Questions about neighbors, over all facts."""
    answered: int = 0
    """Of these, how many the model answers as the data say."""
    without_subject: int = 0
    """Of these, how many no template of the file fits: they can only be evaluated with."""
    corrected: int = 0
    """Neighbors of the file whose subject stood elsewhere than in the relation's templates."""

    def check(self) -> None:
        """Raise where nothing is left to edit with.

        Raises:
            FactError: no fact qualified.
        """
        if not self.qualified:
            raise FactError(
                f"No fact qualifies for neighbor-assisted editing: of the first one, {self.reasons[0]}. "
                "Give the facts more neighborhood_prompts with a target_true (docs/facts.md), or leave --neighbors out."
            )


def find_neighbors(
    model: EditableModel,
    facts: Sequence[Fact],
    seed: int = 0,
    count: int = 1,
    keep_unqualified: bool = False,
    on_progress: Progress = silent,
) -> Neighbors:
    """Choose up to `count` neighbors for each fact, and leave the rest of its neighborhood for evaluation.

    Candidates are the fact's neighbors and its neighborhood prompts; answered means that the whole answer, read
    teacher-forced, is the argmax of the model as it stands. In a plain prompt the subject is found by the templates
    of the relation, or else by any of the file. The seed chooses among those that can be edited with; with the old
    object first, then those whose subject nothing else asks about. No neighbor is about a subject that is edited.
    Facts that do not qualify are left out, or with `keep_unqualified` kept as they are, without neighbors.

    Raises:
        PromptTooLong: a question does not fit the model; the message names the fact.
    """
    found = _gather(facts)
    answers = _ask(model, found, on_progress)
    edited = {fact.subject for fact in facts}
    qualified: list[int] = []
    reasons: dict[int, str] = {}
    kept: list[Fact] = []
    for index, (fact, each) in enumerate(zip(facts, found, strict=True)):
        right = _answered(each, answers)
        with_neighbors = _qualified(fact, right, edited, seed, count)
        if with_neighbors is not None:
            kept.append(with_neighbors)
            qualified.append(index)
            continue
        reasons[index] = _reason(len(each), right)
        if keep_unqualified:
            kept.append(replace(fact, neighbors=()))
    counts = _counts(found, answers)
    return Neighbors(_without_each_other(kept), tuple(qualified), reasons, *counts)


@dataclass(frozen=True)
class _Candidate:
    """A question about a neighbor with the answer that the data give."""

    prompt: str
    target: str
    neighbor: Neighbor | None
    """None where its subject cannot be told."""
    item: str | Probe
    """As it stands among the neighborhood prompts."""
    corrected: bool = False
    where: str = ""
    """The fact that it comes from."""
    join: str | None = None

    @property
    def pair(self) -> Pair:
        """What is asked."""
        return Pair(self.prompt, self.target, f"{self.where}, a question about a neighbor", self.join)


def _gather(facts: Sequence[Fact]) -> list[list[_Candidate]]:
    """The candidates of each fact, each once: its neighbors, then its neighborhood prompts."""
    templates = templates_by_relation(facts)
    every = sorted(set(chain.from_iterable(templates.values())))
    found: list[list[_Candidate]] = []
    for number, fact in enumerate(facts, start=1):
        where = f"Fact {number} (about {fact.subject!r})"
        its = templates[relation_of(fact)]
        candidates: dict[tuple[str, str], _Candidate] = {}
        for one in chain(_from_neighbors(fact, its), _from_prompts(fact, its, every)):
            earlier = candidates.setdefault((one.prompt, one.target), one)
            candidates[one.prompt, one.target] = replace(earlier, item=one.item, where=where, join=fact.join)
        found.append(list(candidates.values()))
    return found


def _ask(
    model: EditableModel, found: Sequence[Sequence[_Candidate]], on_progress: Progress
) -> Mapping[Key, Answer]:
    """What the model thinks of every candidate."""
    pairs = [one.pair for each in found for one in each]
    return measure(model, make_plan(model, pairs), "neighbors", on_progress) if pairs else {}


def _answered(candidates: Sequence[_Candidate], answers: Mapping[Key, Answer]) -> list[_Candidate]:
    """Those that the model answers as the data say, one for each question."""
    right: dict[str, _Candidate] = {}
    for one in candidates:
        if answers[one.pair.key].correct:
            right.setdefault(one.prompt, one)
    return list(right.values())


def _from_neighbors(fact: Fact, templates: Sequence[str]) -> Iterator[_Candidate]:
    """The neighbors of the file; NOTE: in the published ones the subject is misplaced here and there."""
    for given in fact.neighbors:
        fitting = None if given.prompt in templates else template_of(given.question, templates)
        neighbor = given if fitting is None else Neighbor(*fitting, given.target)
        probe = Probe(given.question, given.target)
        yield _Candidate(probe.prompt, probe.target, neighbor, probe, neighbor != given)


def _from_prompts(fact: Fact, templates: Sequence[str], every: Sequence[str]) -> Iterator[_Candidate]:
    for item in fact.neighborhood_prompts:
        target = item.target if isinstance(item, Probe) else fact.target_true
        if target is None:
            continue
        prompt = item.prompt if isinstance(item, Probe) else item
        fitting = template_of(prompt, templates) or template_of(prompt, every)
        neighbor = None if fitting is None else Neighbor(*fitting, target)
        yield _Candidate(prompt, target, neighbor, item)


def _counts(
    found: Sequence[Sequence[_Candidate]], answers: Mapping[Key, Answer]
) -> tuple[int, int, int, int]:
    """Questions asked, answered, without a subject, and corrected, as `Neighbors` has them."""
    every = list(chain.from_iterable(found))
    return (
        len(every),
        sum(len(_answered(each, answers)) for each in found),
        sum(one.neighbor is None for one in every),
        sum(one.corrected for one in every),
    )


def _qualified(
    fact: Fact, right: Sequence[_Candidate], edited: Collection[str], seed: int, count: int
) -> Fact | None:
    """The fact with up to `count` neighbors; None where too few of its candidates can be used."""
    usable = [one for one in right if one.neighbor is not None and one.neighbor.subject not in edited]
    if len(right) < LEAST or not usable:
        return None
    rng = random.Random(f"neighbors/{seed}/{fact.subject}/{fact.prompt}")
    return _with(fact, right, _chosen(fact, right, usable, count, rng))


def _chosen(
    fact: Fact, right: Sequence[_Candidate], usable: Sequence[_Candidate], count: int, rng: random.Random
) -> list[_Candidate]:
    """Those to edit with; at least one of all is left to evaluate with."""

    def asked_elsewhere(one: _Candidate) -> bool:
        return one.neighbor is not None and any(
            one.neighbor.subject in other.prompt for other in right if other is not one
        )

    shuffled = rng.sample(usable, len(usable))
    shuffled.sort(key=lambda one: (one.target != fact.target_true, asked_elsewhere(one)))
    return shuffled[: min(count, len(right) - 1)]


def _with(fact: Fact, right: Sequence[_Candidate], chosen: Sequence[_Candidate]) -> Fact:
    """The fact with the chosen neighbors; the other candidates that the model answers are its neighborhood."""
    taken = {one.prompt for one in chosen}
    return replace(
        fact,
        neighbors=tuple(one.neighbor for one in chosen if one.neighbor is not None),
        neighborhood_prompts=tuple(one.item for one in right if one.prompt not in taken),
    )


def _without_each_other(facts: Sequence[Fact]) -> tuple[Fact, ...]:
    """The facts; what one of them is edited with leaves the neighborhood of every other, as long as one is left."""
    seen = {neighbor.question for fact in facts for neighbor in fact.neighbors}
    prepared: list[Fact] = []
    for fact in facts:
        unseen = tuple(
            item
            for item in fact.neighborhood_prompts
            if (item.prompt if isinstance(item, Probe) else item) not in seen
        )
        prepared.append(replace(fact, neighborhood_prompts=unseen or fact.neighborhood_prompts))
    return tuple(prepared)


def _reason(asked: int, right: Sequence[_Candidate]) -> str:
    """Why a fact does not qualify."""
    if asked == 0:
        return "it has neither neighbors nor neighborhood prompts with an answer"
    if len(right) < LEAST:
        return (
            f"the model answers {len(right)} of its {asked} neighbors as the data say, and {LEAST} are needed"
        )
    if all(one.neighbor is None for one in right):
        return "no template of the file fits its neighborhood prompts, so their subjects cannot be told"
    return "its neighbors are about subjects that are edited too"
