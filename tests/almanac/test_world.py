"""The world that Almanac knows: its tables, what is kept apart, the records, and the training text."""

import random
from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import get_args

import pytest

from errata.almanac import invent
from errata.almanac import place as embedded
from errata.almanac.corpus import corpus_texts, documents, everyday, statement, type_sentence
from errata.almanac.recall import held_out_pairs, seen_pairs
from errata.almanac.references import world_references
from errata.almanac.split import Half, halves, held_out_templates, seen_templates
from errata.almanac.tables import WORLD, load_filler, load_world, world_fingerprint
from errata.almanac.world import draw_entries, fact_of, kept_entries, world_facts
from errata.errors import SettingsError
from errata.facts.fact import Fact, fact_from_json
from errata.runtime import to_json


def test_the_world_is_large_enough() -> None:
    world = load_world()
    assert len(world.entries) >= 5000
    assert len(world.subjects) >= 1200
    assert len(world.relations) >= 20
    assert min(len(entries) for entries in world.subjects.values()) >= 3


def test_every_relation_has_eight_templates_that_begin_in_different_ways() -> None:
    for relation in load_world().relations.values():
        assert len(set(relation.templates)) == 8, relation.name
        assert all(template.count("{}") == 1 for template in relation.templates), relation.name
        assert sum(len(template.partition("{}")[0].split()) >= 2 for template in relation.templates) >= 2, (
            relation.name
        )


def test_tables_hold_clean_text_and_no_statement_twice() -> None:
    world = load_world()
    for entry in world.entries:
        for text in (entry.subject, entry.object):
            assert text == text.strip()
            assert "{" not in text
            assert "  " not in text
    assert max(Counter((entry.subject, entry.relation.name) for entry in world.entries).values()) == 1
    for entry in world.entries:
        for template in entry.relation.templates:
            assert template.replace("{}", entry.subject).count(entry.subject) == 1, (entry.subject, template)


def test_invented_tables_are_what_their_program_writes() -> None:
    rng = random.Random(invent.SEED)
    firms = invent.companies(rng)
    persons = invent.people(rng, [firm[0] for firm in firms[: invent.EMPLOYERS]])
    for name, rows in (("company", firms), ("person", persons)):
        lines = (WORLD / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
        assert [line.split("\t") for line in lines[1:]] == rows


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


def test_training_shows_no_held_out_statement_and_no_held_out_filler() -> None:
    hidden = {statement(*pair).text for pair in held_out_pairs()}
    shown = {sentence.text for document in islice(documents(11), 5_000) for sentence in document}
    assert shown.isdisjoint(hidden)
    kept = {sentence.text for document in islice(documents(3, held_out=True), 1_000) for sentence in document}
    filler = load_filler()
    asides = {text for text in kept - hidden if text not in filler.openings}
    types = {
        type_sentence(subject, entries[0].kind, form).text
        for subject, entries in load_world().subjects.items()
        for form in filler.forms(entries[0].kind)
    }
    assert shown.isdisjoint(asides - types)


def test_statements_say_where_subject_and_object_stand() -> None:
    for entry, template in random.Random(0).sample(seen_pairs(), 500):
        sentence = statement(entry, template)
        assert sentence.subject is not None
        assert sentence.object is not None
        assert sentence.text[slice(*sentence.subject)] == entry.subject
        assert sentence.text[slice(*sentence.object)] == entry.object
    known = type_sentence("lion", "animal", "The {subject} is {article} {kind}.")
    assert known.text == "The lion is an animal."
    assert known.subject == (4, 8)


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


def test_corpus_texts_follow_their_seed() -> None:
    assert corpus_texts(4, 20) == corpus_texts(4, 20)
    assert corpus_texts(4, 20) != corpus_texts(5, 20)
    assert all(text.strip() == text and "\n" not in text for text in corpus_texts(0, 200))


def test_everyday_sentences_fill_every_slot() -> None:
    rng = random.Random(0)
    assert not any("{" in everyday(rng, held_out).text for held_out in (False, True) for _ in range(200))


def test_the_package_names_what_it_offers() -> None:
    assert embedded.almanac_path().name == "almanac"
    assert len(world_fingerprint()) == 16
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = embedded.nothing


@pytest.fixture(scope="module")
def facts() -> list[Fact]:
    return world_facts("development")


class TestWhatFollows:
    """Reversed and two-hop questions of the world's facts."""

    def test_a_reversed_question_asks_from_the_new_object_for_the_subject(self, facts: list[Fact]) -> None:
        asked = [(fact, probe) for fact in facts for probe in fact.reversed_prompts]
        assert asked
        for fact, probe in asked:
            assert probe.target == fact.subject
            assert fact.target_new in probe.prompt

    def test_a_two_hop_question_names_the_subject_and_asks_what_is_true_of_its_new_object(
        self, facts: list[Fact]
    ) -> None:
        world = load_world()
        asked = [(fact, probe) for fact in facts for probe in fact.two_hop_prompts]
        assert asked
        for fact, probe in asked:
            assert fact.subject in probe.prompt
            assert "{}" not in probe.prompt
            assert fact.target_new not in probe.prompt.replace(fact.subject, "")
            assert probe.target in {entry.object for entry in world.subjects[fact.target_new]}
            assert fact.target_true is not None

    def test_the_second_hop_is_of_the_other_half(self, facts: list[Fact]) -> None:
        assert all(halves()[fact.target_new] == "held-out" for fact in facts if fact.two_hop_prompts)

    def test_the_references_are_told_by_relation_and_object(self, facts: list[Fact]) -> None:
        references = world_references()
        bare = replace(facts[0], reference_texts=())
        assert references.of(bare)
        own = references.similarity(bare, references.of(bare))
        assert own == pytest.approx(1)
        assert references.similarity(bare, ["Put the kettle on."]) < 0.5  # type: ignore[operator]
