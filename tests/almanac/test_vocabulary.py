"""Almanac's tokenizer."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from errata.almanac.tables import load_world
from errata.almanac.vocabulary import (
    END_OF_TEXT,
    END_OF_TEXT_ID,
    PADDING,
    PADDING_ID,
    VOCABULARY,
    train_tokenizer,
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer()


def test_the_tokenizer_loads_by_itself_and_loses_nothing(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == VOCABULARY
    assert loaded.convert_tokens_to_ids([END_OF_TEXT, PADDING]) == [END_OF_TEXT_ID, PADDING_ID]
    for text in ("The capital of France is Paris.", "Ünknown wörds, 北京 and  two spaces"):
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert loaded.decode(loaded(text)["input_ids"]) == text


def test_objects_are_of_one_token_and_of_several(tokenizer: PreTrainedTokenizerFast) -> None:
    lengths = [len(tokenizer(f" {entry.object}")["input_ids"]) for entry in load_world().entries]
    assert sum(length == 1 for length in lengths) > 0.5 * len(lengths)
    assert sum(length > 1 for length in lengths) > 0.1 * len(lengths)
