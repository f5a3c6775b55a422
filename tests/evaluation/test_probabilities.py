"""Probabilities of answers against a slow version, and the plan of the passes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errata.evaluation.evaluate import evaluate
from errata.evaluation.probabilities import make_plan, measure
from errata.evaluation.questions import Edited, Pair, sheets
from errata.models.model import EditableModel
from errata.results.outcomes import Outcomes, Question
from evaluation_cases import (
    FACTS,
    assert_same_answer,
    assert_same_outcomes,
    exact_model,
    slow_answer,
    slow_ids,
)
from families import FAMILIES
from profiles import examples


@pytest.fixture
def gpt2() -> EditableModel:
    return exact_model("gpt2")


def slow_question(model: EditableModel, prompt: str, wanted: str, rival: str | None) -> Question:
    return Question(
        prompt,
        slow_answer(model, prompt, wanted),
        None if rival is None else slow_answer(model, prompt, rival),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_outcomes_are_those_of_the_slow_version(family: str) -> None:
    model = exact_model(family)
    results = evaluate(model, FACTS)
    for fact, record in zip(FACTS, results.records, strict=True):
        new, true = fact.target_new, fact.target_true
        rewrite = [slow_question(model, fact.question, new, true)]
        paraphrases = [slow_question(model, prompt, new, true) for prompt in fact.paraphrase_prompts]
        neighborhood = [slow_question(model, probe.prompt, probe.target, new) for probe in fact.neighborhood]
        same = [slow_question(model, p.prompt, p.target, None) for p in fact.same_subject_prompts[:1]]
        unrelated = [slow_question(model, p.prompt, p.target, None) for p in fact.unrelated_prompts[:1]]
        assert record.before is None
        assert len(record.after.efficacy) == 1
        prefixed = [slow_question(model, question.prompt, new, true) for question in record.after.prefixed]
        expected = Outcomes(
            tuple(rewrite),
            tuple(paraphrases),
            tuple(neighborhood),
            tuple(same),
            tuple(unrelated),
            prefixed=tuple(prefixed),
        )
        assert_same_outcomes(replace(record.after, continuation=None), expected)


# Order and batches.
@given(order=st.permutations(range(len(FACTS))))
@examples(5)
def test_the_order_of_facts_changes_nothing(order: list[int]) -> None:
    model = exact_model("gpt2")
    plain = evaluate(model, FACTS).records
    shuffled = evaluate(model, [FACTS[index] for index in order]).records
    for index, record in zip(order, shuffled, strict=True):
        assert record.prompt == plain[index].prompt
        assert_same_outcomes(record.after, plain[index].after)


PAIRS = [pair for sheet in sheets(FACTS, Edited(FACTS)) for pair in sheet.pairs]


@given(tokens_at_once=st.integers(1, 400))
@examples(8)
def test_the_size_of_batches_changes_nothing(tokens_at_once: int) -> None:
    model = exact_model("gpt2")
    plan = make_plan(model, PAIRS)
    whole, parts = measure(model, plan), measure(model, plan, tokens_at_once=tokens_at_once)
    assert whole.keys() == parts.keys() == {(pair.prompt, pair.target) for pair in PAIRS}
    for key, answer in whole.items():
        assert_same_answer(parts[key], answer)


class TestPlan:
    def rows(self, model: EditableModel, *pairs: tuple[str, str]) -> list[tuple[int, ...]]:
        return list(make_plan(model, [Pair(*pair, "here") for pair in pairs]).rows)

    def test_a_pair_that_comes_twice_runs_once(self, gpt2: EditableModel) -> None:
        assert len(self.rows(gpt2, ("Jonas lives in", "Rome"), ("Jonas lives in", "Rome"))) == 1

    def test_answers_of_one_token_share_their_prompt(self, gpt2: EditableModel) -> None:
        pairs = [("Jonas plays", "the"), ("Jonas plays", "in")]
        assert all(len(slow_ids(gpt2, *pair)[1]) == 1 for pair in pairs)
        assert len(self.rows(gpt2, *pairs)) == 1

    def test_a_text_that_another_begins_with_is_not_run(self, gpt2: EditableModel) -> None:
        rows = self.rows(
            gpt2,
            ("Jonas", "plays the harp"),
            ("Jonas plays", "the harp in Port Avel"),
            ("Jonas plays the", "harp"),
            ("Jonas plays the", "violin in Port Avel"),
        )
        assert len(rows) == 2

    def test_batches_stay_within_their_limits(self, gpt2: EditableModel) -> None:
        sizes: list[tuple[int, int]] = []
        model = Watched(gpt2, sizes)
        plan = make_plan(gpt2, PAIRS)
        measure(model, plan, tokens_at_once=64)
        assert sum(rows for rows, _ in sizes) == len(plan.rows)
        assert len(sizes) > 1
        assert all(rows * width <= 64 for rows, width in sizes)
        assert [width for _, width in sizes] == sorted((width for _, width in sizes), reverse=True)


def Watched(model: EditableModel, sizes: list[tuple[int, int]]) -> EditableModel:
    """The same model, noting rows and width of each batch that it is given."""

    class Watching(EditableModel):
        def logits_at(self, tokens, rows, positions):  # type: ignore[no-untyped-def]
            sizes.append((tokens.ids.shape[0], tokens.ids.shape[1]))
            return super().logits_at(tokens, rows, positions)

    return Watching(model.model, model.tokenizer, model.architecture, model.name)
