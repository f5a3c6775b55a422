"""The one definition of "these facts contradict each other"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from errata.facts.fact import Fact
from errata.facts.wording import short

_Table = dict[tuple[str, ...], tuple[str, Fact]]


@dataclass(frozen=True)
class Contradiction:
    """Two facts about one subject that cannot both hold, and where each of them is from (such as `line 3`)."""

    fact: Fact
    earlier: Fact
    source: str
    earlier_source: str
    known: bool = False
    """Whether the earlier fact is one of those that are there already."""

    @property
    def same_question(self) -> bool:
        """Whether both ask the same; otherwise they share the relation only."""
        return plain(self.fact.question) == plain(self.earlier.question)

    def __str__(self) -> str:
        there = f"{short(self.earlier.target_new)} ({self.earlier_source})"
        here = f"{short(self.fact.target_new)} ({self.source})"
        if self.same_question:
            return f"{short(self.fact.question)} has conflicting targets: {there} and {here}"
        return (
            f"{short(self.earlier.question)} and {short(self.fact.question)}, both relation "
            f"{self.fact.relation_id} of {self.fact.subject!r}, have conflicting targets: {there} and {here}"
        )


def contradictions(
    facts: Iterable[Fact], known: Iterable[tuple[str, Fact]] = (), sources: Sequence[str] = ()
) -> Iterator[Contradiction]:
    """Each fact that contradicts one of the known facts or, if none, an earlier one of the sequence.

    Two facts contradict each other if they have the same subject and ask the same question, or have the same
    subject and relation_id, and their targets differ. Case, white space and a full stop at the end make no difference.

    Args:
        facts: The facts to look at; each yields at most one pair, with the first earlier fact that it contradicts.
        known: Facts that are there already, each with where it is from.
        sources: Where each of `facts` is from (default: `fact 1`, `fact 2` ...).
    """
    there: _Table = {}
    for source, fact in known:
        there.update(dict.fromkeys(_keys(fact), (source, fact)))
    seen: _Table = {}
    for index, fact in enumerate(facts):
        source = sources[index] if sources else f"fact {index + 1}"
        for table in (there, seen):
            pair = _conflicting(table, fact)
            if pair is not None:
                yield Contradiction(fact, pair[1], source, pair[0], known=table is there)
                break
        for key in _keys(fact):
            seen.setdefault(key, (source, fact))


def plain(text: str) -> str:
    """The text without what makes no difference: case, white space, a full stop at its end."""
    return " ".join(text.split()).rstrip(".").casefold()


def _conflicting(table: _Table, fact: Fact) -> tuple[str, Fact] | None:
    """The first entry of the table that has a key of the fact and another target."""
    for key in _keys(fact):
        source, earlier = table.get(key, ("", fact))
        if plain(earlier.target_new) != plain(fact.target_new):
            return source, earlier
    return None


def _keys(fact: Fact) -> list[tuple[str, ...]]:
    """What two facts that contradict each other have in common."""
    subject = plain(fact.subject)
    keys: list[tuple[str, ...]] = [("question", subject, plain(fact.question))]
    if fact.relation_id is not None:
        keys.append(("relation", subject, fact.relation_id))
    return keys
