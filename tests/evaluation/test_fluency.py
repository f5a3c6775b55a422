"""Fluency by hand: n-gram entropy, words, sampled texts."""

import math
from dataclasses import replace

import pytest
import torch

from errata.evaluation.evaluate import evaluate
from errata.evaluation.fluency import ngram_entropy, sample_tokens, split_words
from errata.models.model import EditableModel
from families import tiny_model
from metric_cases import FACT
from tiny import fresh_model


@pytest.fixture
def gpt2() -> EditableModel:
    return tiny_model("gpt2", "float64")


class TestFluency:
    def test_entropy_by_hand(self) -> None:
        # 2-grams of "a b a b a": ab twice, ba twice: 1 bit. 3-grams: aba twice, bab once.
        third = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
        assert ngram_entropy("a b a b a") == pytest.approx((2 / 3 * 1 + 4 / 3 * third) / 2)

    def test_a_text_that_repeats_itself_has_none(self) -> None:
        assert ngram_entropy("no no no no no") == 0
        assert ngram_entropy("") == 0

    def test_words_are_told_apart_without_a_download(self) -> None:
        assert split_words("He didn't go, did he?") == ["He", "did", "n't", "go", ",", "did", "he", "?"]

    def test_texts_are_seeded_and_no_batch_changes_them(self, gpt2: EditableModel) -> None:
        prompts = [(5, 6), (7, 8, 9), (10, 11), (12, 13, 14)]
        whole = sample_tokens(gpt2, prompts, seed=3, length=12)
        assert whole == sample_tokens(gpt2, prompts, seed=3, length=12, tokens_at_once=1)
        assert whole != sample_tokens(gpt2, prompts, seed=4, length=12)
        assert [len(text) for text in whole] == [12] * 4

    def test_each_token_is_among_the_likeliest(self, gpt2: EditableModel) -> None:
        (text,) = sample_tokens(gpt2, [(5, 6)], length=8, top_k=2)
        ids = torch.tensor([[5, 6, *text]])
        with torch.no_grad():
            best = gpt2.model(input_ids=ids).logits[0].topk(3).indices
        assert all(token in best[1 + place] for place, token in enumerate(text))
        greedy = sample_tokens(gpt2, [(5, 6)], seed=1, length=8, top_k=1)
        assert greedy == sample_tokens(gpt2, [(5, 6)], seed=2, length=8, top_k=1)

    def test_a_text_ends_where_the_context_is_full(self) -> None:
        assert len(sample_tokens(fresh_model(length=10), [(5, 6, 7)], length=50)[0]) == 8

    def test_a_broken_model_writes_nothing(self) -> None:
        model = fresh_model()
        with torch.no_grad():
            model.site("ffn", 3).weight.fill_(torch.nan)
        assert sample_tokens(model, [(5, 6)], length=5) == [()]

    def test_a_record_is_the_mean_of_its_texts(self, gpt2: EditableModel) -> None:
        results = evaluate(gpt2, [FACT], fluency=True)
        writing = results.records[0].after.writing
        assert writing is not None
        assert writing.prompts == FACT.generation_prompts
        mean = sum(ngram_entropy(text) for text in writing.texts) / 2
        assert results.scores()["fluency"].mean == pytest.approx(mean)  # type: ignore[union-attr]
        assert results.scores()["consistency"] is not None

    def test_it_is_measured_on_request_only_and_where_there_are_prompts(self, gpt2: EditableModel) -> None:
        assert evaluate(gpt2, [FACT]).scores()["fluency"] is None
        assert (
            evaluate(gpt2, [replace(FACT, generation_prompts=())], fluency=True).scores()["fluency"] is None
        )
