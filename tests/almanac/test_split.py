"""What is kept apart: halves, and templates that training never shows."""

from collections import Counter
from typing import get_args

from errata.almanac.recall import held_out_pairs, seen_pairs
from errata.almanac.split import Half, halves, held_out_templates
from errata.almanac.tables import load_world
from errata.almanac.world import world_facts


def test_halves_share_no_subject_and_have_the_same_size() -> None:
    sizes = Counter(halves().values())
    assert abs(sizes["development"] - sizes["held-out"]) <= 1
    for half in get_args(Half):
        assert {halves()[fact.subject] for fact in world_facts(half, 30, seed=5)} == {half}
    by_kind = Counter(
        (entries[0].kind, halves()[subject]) for subject, entries in load_world().subjects.items()
    )
    for kind in {kind for kind, _ in by_kind}:
        assert abs(by_kind[kind, "development"] - by_kind[kind, "held-out"]) <= 1


def test_forty_percent_of_the_entries_have_three_templates_held_out() -> None:
    world = load_world()
    counts = Counter(len(held_out_templates(entry)) for entry in world.entries)
    assert set(counts) == {0, 3}
    assert 0.37 < counts[3] / len(world.entries) < 0.43
    assert len(seen_pairs()) + len(held_out_pairs()) == 8 * len(world.entries)
