"""Rows of Almanac's training text."""

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from errata.almanac.corpus import statement
from errata.almanac.rows import OBJECT, SUBJECT, SUBJECT_LAST, Encoder, rows
from errata.almanac.tables import load_world
from errata.almanac.vocabulary import (
    END_OF_TEXT_ID,
    train_tokenizer,
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer()


@pytest.mark.parametrize("inside", [False, True])
def test_tokens_know_their_part(tokenizer: PreTrainedTokenizerFast, inside: bool) -> None:
    encoder = Encoder(tokenizer)
    for entry in load_world().entries[::200]:
        ids, parts = encoder(statement(entry, 0), inside)
        subject = [i for i, part in zip(ids, parts, strict=True) if part in (SUBJECT, SUBJECT_LAST)]
        assert tokenizer.decode(subject).strip() == entry.subject
        assert parts.count(SUBJECT_LAST) == 1
        assert (
            tokenizer.decode([i for i, part in zip(ids, parts, strict=True) if part == OBJECT]).strip()
            == entry.object
        )


def test_rows_follow_their_seed(tokenizer: PreTrainedTokenizerFast) -> None:
    first, again = (rows(Encoder(tokenizer), END_OF_TEXT_ID, 64, 5, seed=3) for _ in range(2))
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(first.parts, again.parts)
    assert not torch.equal(first.ids, rows(Encoder(tokenizer), END_OF_TEXT_ID, 64, 5, seed=4).ids)
