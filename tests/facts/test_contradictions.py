"""One definition of "these facts contradict each other", and everyone who asks for it gets the same answer."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from errata.facts.contradictions import contradictions
from errata.facts.fact import Fact
from errata.facts.reading import check_facts

KESTREL = Fact("The capital of {} is", "Valdoria", "Kestrel")
PAIRS = (
    ("another target", replace(KESTREL, target_new="Lindale"), True),
    ("the subject written into the prompt", Fact("The capital of Valdoria is", "Valdoria", "Lindale"), True),
    ("other case and spaces", Fact("the  capital of {} is", "valdoria", "Lindale"), True),
    ("the same target", KESTREL, False),
    ("the target in other case, with a full stop", replace(KESTREL, target_new="kestrel."), False),
    ("another subject", replace(KESTREL, subject="Velmark", target_new="Lindale"), False),
    ("another question", Fact("The anthem of {} is", "Valdoria", "Lindale"), False),
)


@pytest.mark.parametrize(("what", "fact", "contradicts"), PAIRS, ids=[row[0] for row in PAIRS])
def test_the_definition(what: str, fact: Fact, contradicts: bool, tmp_path: Path) -> None:
    pairs = list(contradictions([KESTREL, fact]))
    assert bool(pairs) == contradicts
    assert not any(pair.known for pair in pairs)
    known = list(contradictions([fact], [("one", KESTREL)]))
    assert [(pair.fact, pair.earlier, pair.earlier_source, pair.known) for pair in known] == (
        [(fact, KESTREL, "one", True)] if contradicts else []
    )
    file = tmp_path / "facts.jsonl"
    rows = [
        {"prompt": one.prompt, "subject": one.subject, "target_new": one.target_new}
        for one in (KESTREL, fact)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert any("contradicts line 1" in problem.message for problem in check_facts(file)) == contradicts


def test_the_same_relation_of_a_subject() -> None:
    one = replace(KESTREL, relation_id="P36")
    other = Fact("The seat of government of {} is", "Valdoria", "Lindale", relation_id="P36")
    (pair,) = contradictions([one, other])
    assert not pair.same_question
    assert str(pair) == (
        "'The capital of Valdoria is' and 'The seat of government of Valdoria is', both relation P36 of 'Valdoria', "
        "have conflicting targets: 'Kestrel' (fact 1) and 'Lindale' (fact 2)"
    )
    assert not list(contradictions([one, replace(other, relation_id="P30")]))
    assert not list(contradictions([one, replace(other, relation_id=None)]))


def test_a_message_names_both_targets_and_where_they_are_from() -> None:
    facts = [KESTREL, replace(KESTREL, target_new="Lindale"), replace(KESTREL, target_new="Tarn")]
    assert [str(pair) for pair in contradictions(facts, sources=["line 1", "line 5", "line 9"])] == [
        "'The capital of Valdoria is' has conflicting targets: 'Kestrel' (line 1) and 'Lindale' (line 5)",
        "'The capital of Valdoria is' has conflicting targets: 'Kestrel' (line 1) and 'Tarn' (line 9)",
    ]


def test_facts_that_are_there_come_first() -> None:
    facts = [KESTREL, replace(KESTREL, target_new="Lindale")]
    pairs = list(contradictions(facts, [("edit 'one'", replace(KESTREL, target_new="Tarn"))]))
    assert [(pair.source, pair.earlier_source) for pair in pairs] == [
        ("fact 1", "edit 'one'"),
        ("fact 2", "edit 'one'"),
    ]
