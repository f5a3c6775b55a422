"""`with_preserve_prompts`: which statements about a subject are kept when a file names none."""

from dataclasses import replace

import pytest

from errata.facts.fact import Fact
from errata.facts.preserving import with_preserve_prompts
from errata.facts.probes import Probe

TEMPLATES = {
    "sea": ("The harbour of {} lies on the", "Ships leave {} for the"),
    "mayor": ("The mayor of {} is", "{} elected", "{} is governed by"),
    "river": ("{} lies on the river", "The river of {} is the"),
    "bridge": ("The bridge of {} was built by",),
}
WORLD = [
    Fact(template, subject, "Lumbra", relation_id=relation)
    for relation, templates in TEMPLATES.items()
    for template, subject in zip(templates, ("Lindale", "Old Tarn", "Mirenth"), strict=False)
]
HARBOUR = Fact("The harbour of {} lies on the", "Port Avel", "North Sea", relation_id="sea")
RELATION = {template: relation for relation, several in TEMPLATES.items() for template in several}


def relations(fact: Fact) -> list[str]:
    return [RELATION[template] for template in fact.preserve_prompts]


def test_without_own_relations_there_is_one_wording_of_each_other_relation() -> None:
    (found,) = with_preserve_prompts([HARBOUR], 3, source=WORLD)
    assert sorted(relations(found)) == ["bridge", "mayor", "river"]


def test_the_subjects_own_relations_come_first() -> None:
    source = [*WORLD, Fact("{} elected", "Port Avel", "Orin", relation_id="mayor")]
    for seed in range(5):
        (found,) = with_preserve_prompts([HARBOUR], 4, seed, source)
        assert relations(found)[:3] == ["mayor"] * 3
        assert relations(found)[3] in ("river", "bridge")


def test_a_relation_that_is_changed_for_the_subject_is_not_preserved() -> None:
    facts = [HARBOUR, Fact("{} elected", "Port Avel", "Orin", relation_id="mayor")]
    found = with_preserve_prompts(facts, 8, source=WORLD)
    assert all(set(relations(fact)) == {"river", "bridge"} for fact in found)


def test_prompts_of_the_file_stay_unless_the_facts_change_what_they_say() -> None:
    given = replace(HARBOUR, preserve_prompts=("{} elected", "The old bridge of {} spans the"))
    other = Fact("{} elected", "Port Avel", "Orin", relation_id="mayor")
    assert with_preserve_prompts([given], 1, source=WORLD) == [given]
    found = with_preserve_prompts([given, other], 1, source=WORLD)
    assert found[0].preserve_prompts == ("The old bridge of {} spans the",)


def test_what_evaluation_asks_is_not_trained_on() -> None:
    asked = (Probe("The bridge of Port Avel was built by", "Orin"), Probe("Port Avel elected", "Mira"))
    (found,) = with_preserve_prompts([replace(HARBOUR, same_subject_prompts=asked)], 9, source=WORLD)
    assert sorted(relations(found)) == ["mayor", "mayor", "river", "river"]
    assert "{} elected" not in found.preserve_prompts


def test_the_seed_decides_and_nothing_else() -> None:
    drawn = {with_preserve_prompts([HARBOUR], 2, seed, WORLD)[0].preserve_prompts for seed in range(20)}
    assert len(drawn) > 3
    alone, beside = (with_preserve_prompts(facts, 2, 1, WORLD) for facts in ([HARBOUR], [WORLD[0], HARBOUR]))
    assert alone[0] == beside[1]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_file_without_relations_is_told_apart_by_its_prompts(rows: int) -> None:
    facts = [replace(fact, relation_id=None) for fact in (HARBOUR, *WORLD[1:4])]
    found = with_preserve_prompts(facts, rows)
    assert len(found[0].preserve_prompts) == min(rows, 3)
    assert HARBOUR.prompt not in found[0].preserve_prompts


def test_a_file_of_one_relation_has_nothing_to_offer() -> None:
    assert with_preserve_prompts([HARBOUR], 4) == [HARBOUR]


def test_what_another_fact_about_the_subject_is_asked_is_not_preserved() -> None:
    paraphrase = "As its capital, France has"
    facts = [
        Fact("The capital of {} is", "France", "Cairo", paraphrase_prompts=(paraphrase,)),
        Fact("As its capital, {} has", "Belgium", "Cairo"),
        Fact("{} borders on", "France", "Chad", preserve_prompts=("As its capital, {} has", "{} speaks")),
    ]
    found = with_preserve_prompts(facts, 9)
    for fact in (found[0], found[2]):
        assert paraphrase not in [prompt.replace("{}", "France") for prompt in fact.preserve_prompts]
    assert found[2].preserve_prompts == ("{} speaks",)
