"""What stands between a prompt and its target, and that files say it and are written as before."""

from __future__ import annotations

from pathlib import Path

import pytest

from errata.errors import FactError
from errata.facts import Fact, fact_from_json, join_of, joined, read_facts, write_facts
from errata.runtime import to_json

CHAT = "<|im_start|>user\nWhat is the capital of {}?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("prompt", "target"),
    [
        ("The capital of France is", "Rome"),
        ("What is the capital of France?", "Rome"),
        ('The word "love" in French is', "amour"),
        ('The opposite of "hot"', "cold"),
        ("What he said was \u201cno\u201d", "again"),
        ("Jonas'", "harp"),
        ("France ->", "Rome"),
        ("France:", "Rome"),
        ('{"capital":', '"Rome"'),
        ("\ud55c\uad6d\uc758 \uc218\ub3c4\ub294", "\uc11c\uc6b8"),
        ("\u0421\u0442\u043e\u043b\u0438\u0446\u0430 \u2014", "\u0420\u0438\u043c"),
        ("\u0627\u0644\u0639\u0627\u0635\u0645\u0629", "\u0631\u0648\u0645\u0627"),
    ],
)
def test_one_space_where_people_write_one(prompt: str, target: str) -> None:
    assert join_of(prompt, target) == " "
    assert joined(prompt, target) == f"{prompt} {target}"


@pytest.mark.parametrize(
    ("prompt", "target"),
    [
        ("\u6cd5\u56fd\u7684\u9996\u90fd\u662f", "\u5df4\u9ece"),
        ("\u4e2d\u56fd\u306e\u9996\u90fd\u306f", "\u5317\u4eac"),
        ("\u30ab\u30ca", "\u30ab\u30ca"),
        ("\uff8a\uff9d", "\uff76\uff85"),
        ("\u6771\u4eac\uff1a", "Tokyo"),
        ("\u300c", "Tokyo"),
        ("\u0e40\u0e21\u0e37\u0e2d\u0e07\u0e2b\u0e25\u0e27\u0e07\u0e04\u0e37\u0e2d", "\u0e01"),
        ("\u0e9a", "\u0e9b"),
        ("\u1780", "\u1781"),
        ("\u1000", "\u1001"),
        ("\U00020000", "\U00020001"),
        ("assistant\n", "Oslo"),
        ("The capital is ", "Oslo"),
        ("Tab\t", "Oslo"),
        ('He is called "', "Oslo"),
        ('{"capital": "', "Oslo"),
        ('{"capital":"', "Oslo"),
        ('("', "Oslo"),
        ("\u201c", "Oslo"),
        ("\u00ab", "Oslo"),
        ("Oslo (", "Norway"),
        ("[", "1"),
        ("{", "1"),
        ("It costs $", "5"),
        ("<|assistant|>", "Oslo"),
        ("<answer>", "Oslo"),
    ],
)
def test_nothing_where_people_write_nothing(prompt: str, target: str) -> None:
    assert join_of(prompt, target) == ""


def test_the_field_decides_where_there_is_one() -> None:
    assert join_of("The capital is", "Rome", "") == ""
    assert join_of("\u662f", "\u5df4\u9ece", " ") == " "
    fact = Fact("The capital of {} is", "France", "Rome", join="")
    assert fact.join_before("Rome") == ""
    with pytest.raises(FactError, match="join: must be"):
        Fact("The capital of {} is", "France", "Rome", join="a")
    with pytest.raises(FactError, match="join: must be a text"):
        fact_from_json({"prompt": "{} is", "subject": "a", "target_new": "b", "join": 1})


def test_white_space_that_is_written_before_a_target_counts_where_none_is_put() -> None:
    assert Fact("The capital of {} is", "France", " Rome").join is None
    assert Fact("The capital of {} is ", "France", " Rome").join is None
    assert Fact("{}\u7684\u9996\u90fd\u662f", "\u6cd5\u56fd", " \u5df4\u9ece").join == " "
    assert Fact("{}\u7684\u9996\u90fd\u662f", "\u6cd5\u56fd", "\u5df4\u9ece").join is None
    assert Fact('It is "', "It", "x").join is None


def test_files_keep_prompts_as_written_and_have_no_join_where_none_was_given(tmp_path: Path) -> None:
    facts = [Fact(CHAT, "Japan", "Oslo", "Tokyo"), Fact("{} is", "a", "b", join=""), Fact("{} is", "c", "d")]
    write_facts(tmp_path / "facts.jsonl", facts)
    assert read_facts(tmp_path / "facts.jsonl") == facts
    assert facts[0].prompt == CHAT
    assert [row.get("join") for row in map(to_json, facts)] == [None, "", None]  # type: ignore[attr-defined]
    assert to_json(facts[2]) == {"prompt": "{} is", "subject": "c", "target_new": "d"}


def test_recipes_of_facts_joined_by_spaces_are_what_they_were() -> None:
    assert Fact("{} is", "a", "b", join=" ").unusual_joins(3) == ()
    assert Fact(CHAT, "Japan", "Oslo").unusual_joins() == (("",),)
    neighbor = {"prompt": "{}\u306f", "subject": "b", "target": "c"}
    assert Fact("{} is", "a", "b", neighbors=[neighbor]).unusual_joins(1) == ((" ", ""),)
