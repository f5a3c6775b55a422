"""What rows begin with runs once, and every row is cut out of the clean passes at its own tokens."""

import pytest
import torch
from transformers import DynamicCache

from errata.models.model import Tokens
from errata.passes import clean
from errata.passes.clean import Cut, clean_passes, shared_beginnings
from families import tiny_model
from tolerances import DEPTH, FORWARD, assert_agree

IDS = torch.tensor(
    [[5, 6, 7, 8, 9, 3], [5, 6, 7, 8, 2, 0], [5, 6, 4, 0, 0, 0], [1, 2, 3, 4, 5, 6], [5, 6, 7, 8, 9, 3]]
)
LENGTHS = torch.tensor([6, 5, 3, 6, 6])
MOST = torch.tensor([5, 4, 2, 5, 3])


def tokens() -> Tokens:
    return Tokens(IDS, torch.arange(6)[None, :] < LENGTHS[:, None])


def test_a_row_shares_what_it_begins_with_up_to_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(clean.PASS_TOKENS, "cpu", 0)
    assert shared_beginnings(tokens(), MOST).tolist() == [4, 4, 2, 0, 3]


def test_little_in_common_is_not_worth_a_pass() -> None:
    assert shared_beginnings(tokens(), MOST).tolist() == [0] * 5


@pytest.mark.parametrize("shared", [[0, 0, 0, 0, 0], [4, 4, 2, 0, 3]])
def test_cut_tokens_are_those_of_whole_passes(shared: list[int]) -> None:
    model = tiny_model("llama", "float32")
    groups = [torch.tensor([0, 3]), torch.tensor([4, 1, 2])]
    passes = clean_passes(model, tokens(), groups, LENGTHS, [1], 2, torch.tensor(shared))
    rows, start = torch.tensor([4, 2, 0, 1]), torch.tensor([3, 2, 5, 4])
    cut = Cut(passes, rows, start)
    output, cache = cut.output(1, 1), cut.cache(2)
    assert cache is not None
    assert cache.get_seq_length() == 5
    for place, (row, first) in enumerate(zip(rows.tolist(), start.tolist(), strict=True)):
        whole = DynamicCache()
        text = Tokens(IDS[row : row + 1, : LENGTHS[row]], torch.ones(1, int(LENGTHS[row]), dtype=torch.bool))
        outputs, _ = model.block_outputs(text, [1], whole)
        assert_agree(output[place, 0], outputs[1][0, first], FORWARD, DEPTH)
        for layer in range(2, model.layers):
            held, plain = cache.layers[layer], whole.layers[layer]
            assert_agree(held.keys[place, :, 5 - first :], plain.keys[0, :, :first], FORWARD, DEPTH)
            assert_agree(held.values[place, :, 5 - first :], plain.values[0, :, :first], FORWARD, DEPTH)
