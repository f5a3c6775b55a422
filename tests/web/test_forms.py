"""What is typed into the page becomes facts, or an error at its field."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from errata.facts.fact import Fact
from errata.facts.reading import write_facts
from errata.web.forms import LONGEST, FormError, draft_of, facts_of_file, question_of
from families import FACTS


def test_braces_mark_the_subject() -> None:
    fact = draft_of({"prompt": "The capital of {France} is ", "target_new": " Cairo "}).fact
    assert (fact.prompt, fact.subject, fact.target_new) == ("The capital of {} is", "France", "Cairo")


def test_a_subject_can_have_a_field_of_its_own() -> None:
    plain = draft_of({"prompt": "The capital of France is", "subject": "France", "target_new": "Cairo"}).fact
    empty = draft_of({"prompt": "The capital of {} is", "subject": "France", "target_new": "Cairo"}).fact
    assert plain == empty == Fact("The capital of {} is", "France", "Cairo")


def test_paraphrases_and_neighbors_stand_one_a_line() -> None:
    draft = draft_of(
        {
            "prompt": "The capital of {France} is",
            "target_new": "Cairo",
            "paraphrases": "{France}, whose capital is\n\n  {} has its capital in",
            "neighbors": "The capital of {Spain} is => Madrid\nThe capital of Peru is",
        }
    )
    assert draft.fact.paraphrase_prompts == ("France, whose capital is", "France has its capital in")
    assert [probe.prompt for probe in draft.fact.neighborhood] == ["The capital of Spain is"]
    assert draft.keep == ("The capital of Peru is",)


def test_what_was_left_open_is_taken_from_the_model() -> None:
    draft = draft_of({"prompt": "The capital of {France} is", "target_new": "Cairo", "neighbors": "Peru has"})
    fact = draft.completed({"The capital of France is": "Paris", "Peru has": "Lima"})
    assert fact.target_true == "Paris"
    assert [(probe.prompt, probe.target) for probe in fact.neighborhood] == [("Peru has", "Lima")]
    assert draft.completed({"The capital of France is": "cairo", "Peru has": ""}) == draft.fact


@pytest.mark.parametrize(
    ("typed", "field", "told"),
    [
        ({"prompt": "", "target_new": "x"}, "prompt", "in braces"),
        ({"prompt": "The capital is", "target_new": "x"}, "prompt", "Which word is the subject"),
        ({"prompt": "{A} and {B} are", "target_new": "x"}, "prompt", "several pairs"),
        ({"prompt": "The {} is", "target_new": "x"}, "subject", "Which word is the subject"),
        (
            {"prompt": "The capital of Spain is", "subject": "France", "target_new": "x"},
            "subject",
            "does not contain",
        ),
        ({"prompt": "Go go is", "subject": "o", "target_new": "x"}, "subject", "more than once"),
        ({"prompt": "{Spain} is", "subject": "France", "target_new": "x"}, "subject", "The braces say"),
        ({"prompt": "{Spain} is", "target_new": " "}, "target_new", "new answer"),
        ({"prompt": "{Spain} is", "target_new": "x", "target_true": "x"}, "target_true", "the same"),
        ({"prompt": "{Spain} is", "target_new": "x", "neighbors": "Q =>"}, "neighbors", "lacks"),
        ({"prompt": "{Spain} is", "target_new": "x", "paraphrases": "a\n" * 30}, "paraphrases", "30 questions"),
        ({"prompt": "{S} is" + "x" * 10_000_000, "target_new": "x"}, "prompt", "10,000,006 characters"),
        ({"prompt": "{S} is", "target_new": "x" * (LONGEST + 1)}, "target_new", "too long"),
    ],
)  # fmt: skip
def test_an_error_names_its_field(typed: Mapping[str, str], field: str, told: str) -> None:
    with pytest.raises(FormError) as raised:
        draft_of(typed)
    assert told in raised.value.fields[field]
    assert len(str(raised.value)) < 500


def test_a_question_is_neither_empty_nor_endless() -> None:
    assert question_of("The capital of {France} is ") == "The capital of France is"
    for text in ("  ", "x" * 10_000_000):
        with pytest.raises(FormError):
            question_of(text)


def test_a_file_is_read_or_its_lines_are_told(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    write_facts(good, FACTS)
    assert [draft.fact for draft in facts_of_file(good, "good.jsonl")] == list(FACTS)
    bad.write_text('{"prompt": "A is", "subject": "B", "target_new": "C"}\nnot JSON\n', encoding="utf-8")
    with pytest.raises(FormError, match=r"(?s)mine\.jsonl cannot be used.*line 1.*line 2"):
        facts_of_file(bad, "mine.jsonl")
