"""Continuations against a slow version, in batches of any size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errata.evaluation.evaluate import evaluate
from errata.evaluation.generation import LENGTH, SENTENCE_END, greedy
from errata.models.model import EditableModel
from evaluation_cases import (
    FACTS,
    exact_model,
    slow_ids,
    slow_logits,
)
from families import FAMILIES
from profiles import examples


@pytest.fixture
def gpt2() -> EditableModel:
    return exact_model("gpt2")


def slow_greedy(model: EditableModel, prompt: str, length: int) -> list[int]:
    ids = [int(token) for token in model.tokenizer(prompt)["input_ids"]]
    written: list[int] = []
    for _ in range(length):
        best = int(slow_logits(model, [*ids, *written])[-1].argmax())
        if best in model.tokenizer.all_special_ids:
            break
        written.append(best)
    return written


@pytest.mark.parametrize("family", FAMILIES)
def test_continuations_are_those_of_the_slow_version(family: str) -> None:
    model = exact_model(family)
    results = evaluate(model, FACTS)
    for fact, record in zip(FACTS, results.records, strict=True):
        said = record.after.continuation
        target = slow_ids(model, fact.question, fact.target_new)[1]
        slow = slow_greedy(model, fact.question, max(LENGTH, len(target)))
        assert said is not None
        assert (said.prompt, said.target) == (fact.question, fact.target_new)
        assert said.target_tokens == tuple(target)
        assert said.tokens == tuple(slow[: len(target)])
        assert said.answer == model.tokenizer.decode(slow[: len(target)]).strip()
        sentence = SENTENCE_END.search(text := model.tokenizer.decode(slow).strip())
        assert said.text == (text if sentence is None else text[: sentence.end()].strip())
        assert said.exact == (slow[: len(target)] == target)


@given(tokens_at_once=st.integers(1, 200))
@examples(5)
def test_the_size_of_batches_changes_nothing_in_what_is_written(tokens_at_once: int) -> None:
    model = exact_model("gpt2")
    ids = [tuple(map(int, model.tokenizer(fact.question)["input_ids"])) for fact in FACTS]
    lengths = [3, 9, 1, 14, 5]
    written = greedy(model, ids, lengths, tokens_at_once=tokens_at_once)
    assert written == greedy(model, ids, lengths)
    assert written == [
        tuple(slow_greedy(model, fact.question, length)) for fact, length in zip(FACTS, lengths, strict=True)
    ]


def test_prompts_of_like_length_are_written_on_together() -> None:
    model = exact_model("gpt2")
    ids = [tuple(range(5, 5 + length)) for length in (4, 6, 7)]
    passes: list[int] = []
    with model.hooked({model.block_path(0): lambda value: passes.append(len(value))}, "input"):
        written = greedy(model, ids, [10, 10, 10])
    assert passes == [3] * 13
    assert written == [tuple(greedy(model, [prompt], [10])[0]) for prompt in ids]
