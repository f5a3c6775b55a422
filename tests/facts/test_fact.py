"""Facts: what each field accepts, what a fact that cannot be used says, and that what is written is read again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errata.errors import AmbiguousSubject, EmptyTarget, FactError, SubjectNotInPrompt
from errata.facts.fact import Fact, fact_from_json
from errata.facts.probes import Neighbor, Probe
from errata.facts.reading import read_facts, write_facts
from errata.runtime import to_json
from fact_rows import (
    OWN,
    filled,
    neighbors,
    subjects,
    templates,
    texts,
)
from profiles import examples

# ---- the dataclasses


def test_a_fact_settles_lists_mappings_and_white_space():
    fact = Fact(
        prompt="The capital of {} is \n",
        subject=" Valdoria ",
        target_new=" Kestrel\n",
        target_true=" Mirenth",
        paraphrase_prompts=["\n\nValdoria's  capital, "],
        neighborhood_prompts=["Ostrania's capital is", {"prompt": "Lund is in ", "target": " Tarn"}],
    )
    assert (fact.prompt, fact.subject) == ("The capital of {} is \n", "Valdoria")
    assert (fact.target_new, fact.target_true) == ("Kestrel", "Mirenth")
    assert fact.paraphrase_prompts == ("\n\nValdoria's  capital, ",)
    assert fact.neighborhood_prompts == ("Ostrania's capital is", Probe("Lund is in ", "Tarn"))
    assert fact.neighborhood == (Probe("Ostrania's capital is", "Mirenth"), Probe("Lund is in ", "Tarn"))
    assert fact.question == "The capital of Valdoria is \n"
    assert fact.key == ("Valdoria", "The capital of {} is \n")
    assert hash(fact) == hash(fact_from_json(to_json(fact)))


@pytest.mark.parametrize(
    ("prompt", "template"),
    [
        ("Rome is the capital of", "{} is the capital of"),
        ("Who founded Rome?", "Who founded {}?"),
        ("It stands in Rome", "It stands in {}"),
        ("Rome", "{}"),
        ("{Rome} and {curly}", "{{}} and {curly}"),
        ("{0} is {}", "{0} is {}"),
        ("Rome, seen from {}", "Rome, seen from {}"),
    ],
)
def test_a_prompt_with_its_subject_becomes_a_template(prompt: str, template: str):
    for made in (Fact(prompt, "Rome", "x"), Neighbor(prompt, "Rome", "x")):
        start, end = made.subject_span
        assert made.prompt == template
        assert made.question == prompt.replace("{}", "Rome")
        assert made.question[start:end] == "Rome"
        assert (made.question[:start], made.question[end:]) == tuple(template.split("{}"))


def test_plain_neighborhood_prompts_are_left_out_without_a_true_target():
    fact = Fact("{} is", "A", "b", neighborhood_prompts=("C is", Probe("D is", "e")))
    assert fact.neighborhood == (Probe("D is", "e"),)


def test_a_slot_in_prompts_about_the_same_subject_is_filled():
    fact = fact_from_json(OWN)
    assert fact.paraphrase_prompts == ("Ships bound for Port Avel cross the",)
    assert fact.generation_prompts == ("From the quays of Port Avel you see",)
    assert fact.same_subject_prompts == (Probe("The mayor of Port Avel is", "Orin Vasker"),)


def test_edit_prompts_stay_templates():
    assert fact_from_json(OWN).edit_prompts == ("The quays of {} are on the",)


def test_preserve_prompts_stay_templates():
    expected = ("The mayor of {} is called", "The bridge of {} was built by")
    assert fact_from_json(OWN).preserve_prompts == expected
    assert fact_from_json(to_json(fact_from_json(OWN))).preserve_prompts == expected


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"preserve_prompts": ["{} is", "Tarn is in"]},
            SubjectNotInPrompt,
            "preserve_prompts[1]: Subject 'Rome' does not occur",
        ),
        ({"preserve_prompts": ["Rome is Rome"]}, AmbiguousSubject, "preserve_prompts[0]: Subject 'Rome'"),
        ({"preserve_prompts": "{} is"}, FactError, "preserve_prompts: must be a list, and is a text."),
        (
            {"prompt": "Tarn is in"},
            SubjectNotInPrompt,
            "prompt: Subject 'Rome' does not occur in 'Tarn is in'.",
        ),
        ({"prompt": "ROME is in"}, SubjectNotInPrompt, "It occurs with other capital letters."),
        ({"prompt": "Rome is Rome in"}, AmbiguousSubject, "prompt: Subject 'Rome' occurs more than once"),
        ({"prompt": "{} is {}"}, AmbiguousSubject, "prompt: has 2 '{}'"),
        ({"prompt": " "}, FactError, "prompt: is empty."),
        ({"subject": ""}, FactError, "subject: is empty."),
        ({"subject": "a {}"}, FactError, "subject: holds '{}'"),
        ({"target_new": "  "}, EmptyTarget, "target_new: is empty. Write the answer that is expected"),
        ({"target_true": ""}, EmptyTarget, "target_true: is empty."),
        ({"target_new": 7}, FactError, "target_new: must be a text in quotes, and is a number."),
        ({"target_new": "\ud800"}, FactError, "target_new: holds half of a surrogate pair"),
        ({"paraphrase_prompts": "Rome"}, FactError, "paraphrase_prompts: must be a list, and is a text."),
        ({"paraphrase_prompts": ("a", "")}, FactError, "paraphrase_prompts[1]: is empty."),
        (
            {"unrelated_prompts": ("a",)},
            FactError,
            "unrelated_prompts[0]: must be an object with prompt, target",
        ),
        ({"unrelated_prompts": ({"prompt": "a"},)}, FactError, "unrelated_prompts[0].target: is missing."),
        (
            {"neighbors": ({"prompt": "a", "subject": "b", "target": "c"},)},
            SubjectNotInPrompt,
            "neighbors[0].prompt",
        ),
        ({"case_id": True}, FactError, "case_id: must be a whole number or a text, and is true or false."),
        ({"relation_id": 3}, FactError, "relation_id: must be a text"),
    ],
)
def test_a_fact_that_cannot_be_used_says_why(changes: dict[str, Any], error: type[FactError], message: str):
    with pytest.raises(FactError) as caught:
        fact_from_json({"prompt": "{} lies in", "subject": "Rome", "target_new": "x"} | changes)
    assert type(caught.value) is error
    assert message in str(caught.value)


def test_accents_stored_in_two_ways_are_named():
    with pytest.raises(SubjectNotInPrompt, match="how accents are stored"):
        Fact("Cafe\u0301 Lund is in", "Caf\u00e9 Lund", "x")


def test_an_overlapping_second_occurrence_is_seen():
    with pytest.raises(AmbiguousSubject):
        Fact("anana is", "ana", "x")


def test_the_constructors_raise_the_same_errors():
    with pytest.raises(
        SubjectNotInPrompt, match=r"Fact about 'Rome' \(case_id 4\): prompt: Subject 'Rome' does not"
    ):
        Fact("Tarn is in", "Rome", "x", case_id=4)
    with pytest.raises(EmptyTarget, match="Probe: target: is empty"):
        Probe("a", " ")
    with pytest.raises(EmptyTarget, match="Neighbor 'a': target: is empty"):
        Neighbor("{} is", "a", "")


# ---- the round trip


prompts = subjects


probes = st.fixed_dictionaries({"prompt": prompts, "target": filled})


def lists(members: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(members, min_size=1, max_size=2)


rows = st.fixed_dictionaries(
    {"prompt": templates, "subject": subjects, "target_new": filled},
    optional={
        "target_true": filled,
        "paraphrase_prompts": lists(prompts),
        "neighborhood_prompts": lists(prompts | probes),
        "neighbors": lists(neighbors),
        "generation_prompts": lists(prompts),
        "relation_id": texts,
        "case_id": st.integers() | texts,
        "same_subject_prompts": lists(probes),
        "unrelated_prompts": lists(probes),
        "attribute_prompts": lists(prompts),
        "reference_texts": lists(texts),
    },
)


@examples(100)
@given(rows)
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any]):
    fact = fact_from_json(row)
    file = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    write_facts(file, [fact])
    assert read_facts(file) == [fact]
    assert fact_from_json(to_json(fact)) == fact
    assert replace(fact, target_new="other").key == fact.key


def test_default_fields_are_left_out():
    row = to_json(Fact("{} is", "A", "b"))
    assert row == {"prompt": "{} is", "subject": "A", "target_new": "b"}


def test_gzip_is_written_by_name_and_read_by_content(tmp_path: Path):
    packed, plain = tmp_path / "facts.jsonl.gz", tmp_path / "renamed.txt"
    write_facts(packed, [fact_from_json(OWN)])
    write_facts(tmp_path / "again.gz", [fact_from_json(OWN)])
    assert packed.read_bytes() == (tmp_path / "again.gz").read_bytes()
    packed.rename(plain)
    assert read_facts(plain) == [fact_from_json(OWN)]
