"""What follows from an edit: reversed and two-hop questions."""

from dataclasses import replace

import pytest

from errata.almanac.references import world_references
from errata.almanac.split import halves
from errata.almanac.tables import load_world
from errata.almanac.world import world_facts
from errata.facts.fact import Fact


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
