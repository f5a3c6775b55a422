"""`find_neighbors`: which facts qualify, what is edited with, and what is left to evaluate with."""

from dataclasses import replace

import pytest

from errata import load
from errata.almanac import place as embedded
from errata.facts.fact import Fact
from errata.facts.probes import Neighbor, Probe
from errata.models.model import EditableModel
from errata.planning.neighbors import Neighbors, find_neighbors
from families import tiny_model
from tiny import SAYS, parrot


@pytest.fixture(scope="module")
def model() -> EditableModel:
    """Right where the answer is "the", however often, and wrong elsewhere."""
    return parrot()


HARP = Fact(
    "{} plays the",
    "Orin Vasker",
    "violin",
    SAYS,
    neighborhood_prompts=[
        "Mira Tolland plays the",
        "Hale Corvin plays the",
        Probe("Edda Rowe plays the", "harp"),
        Probe("Jonas Whitlock plays the", f"{SAYS} harp"),
        "A horn is what Petra Lund plays",
    ],
    relation_id="plays",
)


def questions(fact: Fact) -> list[str]:
    return [probe.prompt for probe in fact.neighborhood]


def test_one_neighbor_to_edit_with_and_the_others_that_are_answered_to_evaluate_with(
    model: EditableModel,
) -> None:
    found = find_neighbors(model, [HARP])
    (fact,) = found.facts
    (neighbor,) = fact.neighbors
    assert neighbor.subject in ("Mira Tolland", "Hale Corvin")
    assert (neighbor.prompt, neighbor.target) == ("{} plays the", SAYS)
    left = {"Mira Tolland", "Hale Corvin"} - {neighbor.subject}
    assert questions(fact) == [f"{left.pop()} plays the", "A horn is what Petra Lund plays"]
    assert all(isinstance(item, str) for item in fact.neighborhood_prompts)
    assert (found.asked, found.answered, found.without_subject) == (5, 3, 1)
    assert (found.qualified, found.reasons) == ((0,), {})


def test_the_rest_of_the_fact_is_as_it_was(model: EditableModel) -> None:
    (fact,) = find_neighbors(model, [HARP]).facts
    assert replace(fact, neighbors=(), neighborhood_prompts=HARP.neighborhood_prompts) == HARP


def test_any_template_of_the_file_will_do_where_the_relation_has_none(model: EditableModel) -> None:
    other = Fact("A horn is what {} plays", "Zentro", "Lumbra", SAYS, relation_id="other")
    found = find_neighbors(model, [HARP, other], count=9)
    assert {one.subject for one in found.facts[0].neighbors} < {"Mira Tolland", "Hale Corvin", "Petra Lund"}
    assert found.without_subject == 0
    assert (len(found.facts[0].neighbors), len(found.facts[0].neighborhood)) == (2, 1)


def test_neighbors_of_the_file_are_asked_too_and_each_question_counts_once(model: EditableModel) -> None:
    neighbors = (
        Neighbor("{} plays the", "Hale Corvin", SAYS),
        Neighbor("The instrument of {} is", "Ada", SAYS),
    )
    fact = replace(HARP, neighbors=neighbors, neighborhood_prompts=HARP.neighborhood_prompts[1:2])
    found = find_neighbors(model, [fact])
    assert (found.asked, found.answered) == (2, 2)
    (kept,) = found.facts
    assert {kept.neighbors[0].question, *questions(kept)} == {
        "Hale Corvin plays the",
        "The instrument of Ada is",
    }


def test_a_misplaced_subject_is_corrected(model: EditableModel) -> None:
    neighbors = (Neighbor("Mira Tolland {} the", "plays", SAYS),)
    found = find_neighbors(model, [replace(HARP, neighbors=neighbors, neighborhood_prompts=("So plays",))])
    assert found.facts[0].neighbors == (Neighbor("{} plays the", "Mira Tolland", SAYS),)
    assert found.corrected == 1


def test_the_old_object_is_preferred_and_a_subject_that_nothing_else_asks_about(model: EditableModel) -> None:
    prompts = (
        Probe("Edda Rowe plays the", f"{SAYS} {SAYS}"),
        "Hale Corvin plays the",
        "Mira Tolland plays the",
        "Where is Hale Corvin",
    )
    for seed in range(8):
        (fact,) = find_neighbors(model, [replace(HARP, neighborhood_prompts=prompts)], seed).facts
        assert fact.neighbors[0].subject == "Mira Tolland"


def test_the_seed_chooses(model: EditableModel) -> None:
    chosen = {find_neighbors(model, [HARP], seed).facts[0].neighbors[0].subject for seed in range(12)}
    assert chosen == {"Mira Tolland", "Hale Corvin"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"neighborhood_prompts": ()}, "it has neither neighbors nor neighborhood prompts with an answer"),
        ({"target_true": None, "neighborhood_prompts": ("Ada plays the",)}, "it has neither neighbors nor"),
        ({"neighborhood_prompts": HARP.neighborhood_prompts[1:4]}, "the model answers 1 of its 3 neighbors"),
        ({"neighborhood_prompts": ("A horn", "A harp")}, "no template of the file fits"),
    ],
)
def test_a_fact_that_does_not_qualify_is_left_out_or_kept_without(
    model: EditableModel, change: dict[str, object], reason: str
) -> None:
    fact = replace(HARP, **change)  # type: ignore[arg-type]
    found = find_neighbors(model, [fact, HARP])
    assert found.qualified == (1,)
    assert len(found.facts) == 1
    assert found.reasons[0].startswith(reason)
    kept = find_neighbors(model, [fact, HARP], keep_unqualified=True)
    assert kept.facts == (replace(fact, neighbors=()), *found.facts)


def test_a_subject_that_is_edited_is_no_neighbor_to_edit_with(model: EditableModel) -> None:
    edited = [Fact("{} was born in", name, "Lindale") for name in ("Mira Tolland", "Hale Corvin")]
    found = find_neighbors(model, [HARP, *edited])
    assert found.reasons[0] == "its neighbors are about subjects that are edited too"


def test_no_facts_and_no_candidates(model: EditableModel) -> None:
    assert find_neighbors(model, []) == Neighbors((), ())
    assert find_neighbors(tiny_model("llama"), [replace(HARP, neighborhood_prompts=())]).facts == ()


def test_the_embedded_model_answers_for_nearly_all_facts_of_its_world() -> None:
    facts = embedded.world_facts("development", 40)
    found = find_neighbors(load(embedded.almanac_path()), facts)
    assert len(found.qualified) >= 36
    for fact in found.facts:
        assert fact.neighbors[0].subject not in {one.subject for one in facts}
        assert fact.neighbors[0].question not in questions(fact)
        assert len(fact.neighborhood) >= 1
