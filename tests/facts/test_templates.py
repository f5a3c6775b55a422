"""Templates of a file: which wordings a relation has, and whom a plain question is about."""

import pytest

from errata.facts.fact import Fact
from errata.facts.templates import relation_of, template_of, templates_by_relation

TONGUE = ("The mother tongue of {} is", "{}, a native speaker of", "{} is")


def test_a_relation_has_the_prompts_of_all_its_facts() -> None:
    facts = [
        Fact("{} plays the", "Orin", "violin", relation_id="plays"),
        Fact("{} was made by", "Zentro", "Lumbra"),
        Fact("The instrument of {} is the", "Petra", "harp", relation_id="plays"),
        Fact("{} plays the", "Mira", "horn", relation_id="plays"),
    ]
    assert templates_by_relation(facts) == {
        "plays": ("{} plays the", "The instrument of {} is the"),
        "{} was made by": ("{} was made by",),
    }
    assert [relation_of(fact) for fact in facts[:2]] == ["plays", "{} was made by"]


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("The mother tongue of Jonas is", ("The mother tongue of {} is", "Jonas")),
        ("Jonas is", ("{} is", "Jonas")),
        ("Jonas (the .* man), a native speaker of", ("{}, a native speaker of", "Jonas (the .* man)")),
        ("Jonas, a native speaker", None),
        (", a native speaker of", None),
        (" Jonas is", None),
        ("The {} is", None),
        ("", None),
    ],
)
def test_the_template_that_leaves_the_shortest_subject(question: str, found: tuple[str, str] | None) -> None:
    assert template_of(question, TONGUE) == found
