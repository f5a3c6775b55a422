"""Records of facts of Almanac's world."""

import random
from dataclasses import replace

import pytest

from errata.almanac import place as embedded
from errata.almanac.split import halves, held_out_templates, seen_templates
from errata.almanac.tables import load_world, world_fingerprint
from errata.almanac.world import draw_entries, fact_of, kept_entries, world_facts
from errata.errors import SettingsError
from errata.facts.fact import Fact, fact_from_json
from errata.runtime import to_json


@pytest.fixture(scope="module")
def some_facts() -> list[Fact]:
    return [fact_of(entry) for entry in random.Random(0).sample(load_world().entries, 400)]


def test_a_draw_of_everything_has_every_entry() -> None:
    numbers = [entry.number for entry in draw_entries("all", None, 0)]
    assert sorted(numbers) == list(range(len(load_world().entries)))


def test_every_entry_is_a_full_record(some_facts: list[Fact]) -> None:
    world = load_world()
    for fact in some_facts:
        assert fact.target_true is not None
        assert fact.target_new != fact.target_true
        assert fact.relation_id is not None
        assert fact.target_new in world.objects(fact.relation_id)
        assert len(set(fact.paraphrase_prompts)) == 4
        assert fact.question not in fact.paraphrase_prompts
        assert all(prompt.count(fact.subject) >= 1 for prompt in fact.paraphrase_prompts)
        assert 5 <= len(fact.neighborhood) <= 10
        assert fact.neighbors
        assert len(fact.generation_prompts) == 4
        assert len(fact.unrelated_prompts) == 5
        assert fact.reference_texts
        assert all(fact.target_new in text for text in fact.reference_texts)


def test_what_is_to_be_preserved_is_about_other_relations_and_never_asked(some_facts: list[Fact]) -> None:
    world = load_world()
    relation_of = {template: name for name, one in world.relations.items() for template in one.templates}
    for fact in some_facts:
        own = {entry.relation.name for entry in world.subjects[fact.subject]} - {fact.relation_id}
        named = [relation_of[template] for template in fact.preserve_prompts]
        assert set(named[: len(own)]) == own
        assert len(named) == 8
        records = [fact_of(entry) for entry in world.subjects[fact.subject]]
        asked = {probe.prompt for record in records for probe in record.same_subject_prompts}
        assert asked.isdisjoint(template.format(fact.subject) for template in fact.preserve_prompts)


def test_foreign_templates_are_of_relations_that_the_subject_lacks() -> None:
    world = load_world()
    relation_of = {template: name for name, one in world.relations.items() for template in one.templates}
    ours, theirs = (world_facts("development", 30, 0, preserve=which) for which in ("own", "foreign"))
    for one, other in zip(ours, theirs, strict=True):
        own = {entry.relation.name for entry in world.subjects[other.subject]}
        assert own.isdisjoint(relation_of[template] for template in other.preserve_prompts)
        assert replace(other, preserve_prompts=one.preserve_prompts) == one


def test_probes_are_true_and_about_whom_they_should_be(some_facts: list[Fact]) -> None:
    world = load_world()
    answers = {
        (entry.prompt(template), entry.object): entry
        for entry in world.entries
        for template in range(len(entry.relation.templates))
    }
    for fact in some_facts:
        half = halves()[fact.subject]
        for probe in fact.neighborhood:
            assert answers[probe.prompt, probe.target].relation.name == fact.relation_id
            assert halves()[answers[probe.prompt, probe.target].subject] != half
        for probe in fact.unrelated_prompts:
            assert halves()[answers[probe.prompt, probe.target].subject] != half
        for probe in fact.same_subject_prompts:
            assert answers[probe.prompt, probe.target].subject == fact.subject
        for neighbor in fact.neighbors:
            assert answers[neighbor.question, neighbor.target].relation.name == fact.relation_id
            assert neighbor.question not in {probe.prompt for probe in fact.neighborhood}


def test_held_out_templates_come_first_among_the_paraphrases(some_facts: list[Fact]) -> None:
    entries = {entry.number: entry for entry in load_world().entries}
    for fact in some_facts:
        entry = entries[int(str(fact.case_id))]
        held_out = {entry.prompt(template) for template in held_out_templates(entry)}
        assert held_out <= set(fact.paraphrase_prompts[:3])
        assert fact.prompt in {entry.relation.templates[template] for template in seen_templates(entry)}


def test_draws_follow_their_seed_and_repeat_no_subject_early() -> None:
    subjects = sum(half == "held-out" for half in halves().values())
    assert world_facts("held-out", 10, seed=1) == world_facts("held-out", 30, seed=1)[:10]
    assert world_facts("held-out", 10, seed=1) != world_facts("held-out", 10, seed=2)
    draw = draw_entries("held-out", 1000, 1)
    assert draw == draw_entries("held-out", 1000, 1)
    assert len({entry.subject for entry in draw[:subjects]}) == min(1000, subjects)
    assert len(set(draw)) == 1000


def test_a_draw_of_a_thousand_edits_no_kept_entry() -> None:
    draw = draw_entries("development", 1000, 0)
    kept = {entry.number for subject in load_world().subjects for entry in kept_entries(subject)}
    assert kept.isdisjoint(entry.number for entry in draw)


def test_a_record_survives_its_file(some_facts: list[Fact]) -> None:
    for fact in some_facts[:100]:
        assert fact_from_json(to_json(fact)) == fact


@pytest.mark.parametrize(("half", "count"), [("neither", 1), ("held-out", 100_000)])
def test_a_draw_that_cannot_be_made_says_why(half: str, count: int) -> None:
    with pytest.raises(SettingsError, match=r"halves are|Ask for that many at most"):
        world_facts(half, count)


def test_the_package_names_what_it_offers() -> None:
    assert (embedded.almanac_path() / "config.json").is_file()
    assert len(world_fingerprint()) == 16
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = embedded.nothing
