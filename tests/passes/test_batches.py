"""Batches of rows: padding, masks, groups of like length."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from errata.facts.fact import Fact
from errata.models.model import SHORTEST, EditableModel
from errata.passes.prompts import (
    EncodedRow,
    PromptBatch,
    batch_rows,
    by_length,
    encode_rows,
    kl_rows,
    like_lengths,
    pad,
    rewrite_rows,
)
from families import FAMILIES, tiny_model, tiny_tokenizer
from profiles import examples
from tokenizer_kinds import (
    CONTEXTS,
    model_with,
)


def facts_of(words: list[tuple[str, str, str]]) -> list[Fact]:
    return [Fact(f"{before}{{}} is", subject, target) for before, subject, target in words]


def rows_of(model: EditableModel, facts: list[Fact], contexts: tuple[str, ...]) -> list[EncodedRow]:
    """Fact by fact: the rewriting rows, then the KL row, as the Optimization stage has them."""
    rewriting, neutral = rewrite_rows(facts, contexts), kl_rows(facts)
    rows = [
        row
        for i in range(len(facts))
        for row in [*rewriting[i * len(contexts) :][: len(contexts)], neutral[i]]
    ]
    return encode_rows(model, rows)


def assert_same(one: PromptBatch, two: PromptBatch) -> None:
    """Raise unless two batches say the same; one may have a few more columns of padding, which nothing reads.

    Rows of a batch are cut to the longest of them, but never below `SHORTEST`: that many the batch may have had.
    """
    widths = [batch.tokens.mask.shape[1] for batch in (one, two)]
    assert max(widths) == min(widths) or max(widths) <= SHORTEST
    masks = [batch.tokens.mask for batch in (one, two)]
    ids = [batch.tokens.ids * batch.tokens.mask for batch in (one, two)]
    for mine, theirs in (masks, ids):
        width = min(widths)
        assert torch.equal(mine[:, :width], theirs[:, :width])
        assert not mine[:, width:].any()
        assert not theirs[:, width:].any()
    for name in ("fact", "lookup", "bare", "kind", "predict_row", "predict_at", "predict_id"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name


SHORT_WORDS = st.text("abco \u00e9", min_size=1, max_size=30).map(lambda text: f"{text.strip()}x")


@st.composite
def words_and_some(draw: st.DrawFn) -> tuple[list[tuple[str, str, str]], set[int]]:
    """The words of a few facts, and the numbers of some of them."""
    one = st.tuples(st.sampled_from(("", "The ")), SHORT_WORDS, SHORT_WORDS)
    words = draw(st.lists(one, min_size=1, max_size=5))
    return words, draw(st.sets(st.integers(0, len(words) - 1), min_size=1))


@examples(30)
@given(drawn=words_and_some())
@example(drawn=([("", "ax", "ax"), ("", "ax", "aax")], {0}))
def test_the_batch_of_some_facts_is_a_part_of_the_batch_of_all(
    drawn: tuple[list[tuple[str, str, str]], set[int]],
) -> None:
    model = model_with("words with their space")
    facts, kept = facts_of(drawn[0]), sorted(drawn[1])
    contexts = ("", "The quiet river.")
    whole = batch_rows(model, rows_of(model, facts, contexts))
    part = batch_rows(model, rows_of(model, [facts[index] for index in kept], contexts))
    assert_same(whole.of_facts(torch.tensor(kept))[0], part)
    assert_same(whole.of_facts(torch.arange(len(facts)))[0], whole)


def test_a_batch_says_of_every_row_what_it_is() -> None:
    model = model_with("marks for spaces, BOS")
    facts = [
        Fact("{} plays the", "Orin Vasker", "violin"),
        Fact("The capital of {} is", "Valdoria", "Kestrel"),
    ]
    rows = rows_of(model, facts, CONTEXTS)
    batch = batch_rows(model, rows)
    assert batch.fact.tolist() == [0] * 4 + [1] * 4
    assert batch.bare.tolist() == [True, False, False, False] * 2
    assert batch.rows_of("kl").tolist() == [3, 7]
    assert batch.lookup.tolist() == [row.lookup for row in rows]
    for number, row in enumerate(rows):
        mine = batch.predict_row == number
        assert batch.predict_at[mine].tolist() == list(row.text.predicted_at)
        assert batch.predict_id[mine].tolist() == list(row.text.target)
        assert batch.tokens.ids[number][batch.tokens.mask[number]].tolist() == list(row.text.ids)


@examples(60)
@given(rows=st.lists(st.lists(st.integers(3, 99), max_size=30), max_size=6))
def test_padding_is_right_of_the_tokens_and_in_float64_never_short(rows: list[list[int]]) -> None:
    for dtype, shortest in (("float32", 1), ("float64", SHORTEST)):
        tokens = pad(rows, tiny_model("gpt2", dtype))
        assert tokens.ids.shape == (len(rows), max(shortest, *map(len, rows), 0))
        for row, ids, mask in zip(rows, tokens.ids, tokens.mask, strict=True):
            assert ids[: len(row)].tolist() == row
            assert mask.tolist() == [True] * len(row) + [False] * (len(mask) - len(row))


def test_padding_needs_no_padding_token() -> None:
    """Llama with an added [PAD] has it behind the last row of its embeddings, GPT-2 has none at all."""
    model = tiny_model("gpt2")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer("byte_level").backend_tokenizer)
    for padding in (None, "[PAD]"):
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), pad_token=padding
        )
        other = EditableModel(model.model, tokenizer, model.architecture, "other")
        logits = other.logits_at(pad([[5, 6]], other), torch.tensor([0]), torch.tensor([1]))
        assert torch.equal(
            logits, model.logits_at(pad([[5, 6]], model), torch.tensor([0]), torch.tensor([1]))
        )


@given(lengths=st.lists(st.integers(1, 20), max_size=20), at_once=st.integers(1, 6))
def test_groups_by_length_hold_everything_once_longest_first(lengths: list[int], at_once: int) -> None:
    groups = list(by_length(lengths, at_once))
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(0 < len(group) <= at_once for group in groups)
    in_order = [lengths[index] for group in groups for index in group]
    assert in_order == sorted(lengths, reverse=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_encodes_its_facts(name: str) -> None:
    model = tiny_model(name)
    rows = rows_of(
        model, facts_of([("", "Orin Vasker", "violin"), ("The capital of ", "Valdoria", "Kestrel")]), CONTEXTS
    )
    batch = batch_rows(model, rows)
    assert int(batch.tokens.ids.max()) < model.model.config.vocab_size
    assert batch.tokens.ids.device == model.device


@given(lengths=st.lists(st.integers(1, 60), max_size=30), at_once=st.integers(1, 500))
def test_groups_of_like_length_hold_every_row_once_and_keep_the_limit(
    lengths: list[int], at_once: int
) -> None:
    groups = list(like_lengths(lengths, at_once, torch.device("cpu")))
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[index] for index in group) <= at_once


def test_few_short_rows_are_not_padded_to_a_long_one_and_a_pass_is_not_spent_on_a_token() -> None:
    lengths = [40, 10, 10, 9, 10]
    groups = list(like_lengths(lengths, 1000, torch.device("cpu")))
    assert groups == [[0], [1, 2, 4, 3]]
