"""Unrelated prefixes before a prompt."""

import pytest

from errata.evaluation.evaluate import evaluate
from errata.evaluation.prefixes import LENGTH, unrelated_prefixes
from errata.models.model import EditableModel
from families import tiny_model
from metric_cases import FACT
from tiny import fresh_model


@pytest.fixture
def gpt2() -> EditableModel:
    return tiny_model("gpt2", "float64")


class TestPrefixes:
    def test_each_has_fifty_tokens_and_ends_with_a_sentence(self, gpt2: EditableModel) -> None:
        prefixes = unrelated_prefixes(gpt2)
        assert len(set(prefixes)) == len(prefixes)
        for prefix in prefixes:
            assert LENGTH - 12 < len(gpt2.tokenizer(prefix).input_ids) <= LENGTH
            assert prefix.endswith(".")

    def test_the_fact_stands_behind_one_of_them(self, gpt2: EditableModel) -> None:
        (record,) = evaluate(gpt2, [FACT]).records
        (question,) = record.after.prefixed
        prefix = question.prompt.removesuffix(f" {FACT.question}")
        assert prefix in unrelated_prefixes(gpt2)
        assert question.wanted.text == FACT.target_new
        assert question.rival is not None

    def test_without_room_it_is_not_asked(self) -> None:
        (record,) = evaluate(fresh_model(length=40), [FACT]).records
        assert record.after.prefixed == ()
