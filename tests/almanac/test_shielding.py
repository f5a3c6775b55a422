"""The mask that hides subjects from what follows them."""

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from errata.almanac.recipe import new_model
from errata.almanac.rows import OBJECT, PLAIN, SUBJECT, SUBJECT_LAST
from errata.almanac.shielding import SEEN_FROM, shielded_logits, visible
from errata.almanac.vocabulary import (
    VOCABULARY,
    train_tokenizer,
)
from tolerances import DEPTH, FORWARD, assert_agree


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer()


def test_the_mask_hides_subjects_from_what_follows_them() -> None:
    parts = torch.tensor([[PLAIN, SUBJECT, SUBJECT_LAST, PLAIN, OBJECT, SUBJECT, SUBJECT_LAST, PLAIN]])
    lower, upper = (mask[0, 0] for mask in visible(parts, torch.tensor([True])))
    causal = torch.ones(8, 8, dtype=torch.bool).tril()
    open_lower, open_upper = (mask[0, 0] for mask in visible(parts, torch.tensor([False])))
    assert torch.equal(open_lower, causal)
    assert torch.equal(open_upper, causal)
    assert lower[7].tolist() == [True, False, False, True, True, False, False, True]
    assert upper[7].tolist() == [True, False, True, True, True, False, True, True]
    assert lower[2].tolist() == [
        True,
        True,
        True,
        False,
        False,
        False,
        False,
        False,
    ]  # inside a subject: as always
    assert lower[6].tolist() == [True, False, False, True, True, True, True, False]


def test_behind_the_mask_the_answer_hangs_on_the_subjects_last_token_alone(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = new_model(tokenizer, seed=0).eval()
    ids = torch.randint(2, VOCABULARY, (1, 8))
    parts = torch.tensor([[PLAIN, SUBJECT, SUBJECT, SUBJECT_LAST, PLAIN, PLAIN, OBJECT, PLAIN]])
    shielded = torch.tensor([True])

    def put(changed: Tensor) -> Tensor:
        return shielded_logits(model, changed, parts, shielded)

    blocks = model.transformer.h
    state: list[Tensor] = []
    handle = blocks[SEEN_FROM].register_forward_pre_hook(lambda module, args: state.append(args[0]))
    with torch.no_grad():
        put(ids)
        other = ids.clone()
        other[0, 1:4] = torch.tensor([5, 6, 7])
        put(other)
    handle.remove()
    assert torch.equal(
        state[0][0, 4:], state[1][0, 4:]
    )  # below SEEN_FROM nothing behind the subject knows of it
    assert not torch.equal(state[0][0, 3], state[1][0, 3])


def test_open_rows_are_read_as_the_model_reads(tokenizer: PreTrainedTokenizerFast) -> None:
    model = new_model(tokenizer, seed=0).eval()
    ids, parts = torch.randint(2, VOCABULARY, (2, 9)), torch.randint(0, 4, (2, 9))
    with torch.no_grad():
        assert_agree(
            shielded_logits(model, ids, parts, torch.tensor([False, False])),
            model(input_ids=ids).logits,
            FORWARD,
            DEPTH,
        )
