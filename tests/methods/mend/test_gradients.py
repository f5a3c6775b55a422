"""The factors of the gradients, and trying an update."""

import pytest
import torch

from errata.edits.deltas import Delta, write_deltas
from errata.methods.mend.editor import edited_sites
from errata.methods.mend.gradients import Readings, Update, capture, updated
from errata.passes.prompts import encode_text
from families import FACTS, FAMILIES, tiny_model
from mend_cases import (
    assert_untouched,
    texts_of,
    weight_gradients,
    weights_of,
)
from plain import double_throughout
from tolerances import DEPTH, FORWARD, assert_agree


@pytest.mark.parametrize("family", FAMILIES)
def test_the_factors_make_up_the_gradients_of_autograd(family: str) -> None:
    model = tiny_model(family, "float64")
    before = weights_of(model)
    with double_throughout(model):
        loss, factors = capture(model, edited_sites(model, [1, 3]), texts_of(model, FACTS))
        expected = weight_gradients(model, FACTS, [1, 3])
    assert factors.keys() == expected.keys()
    assert len(expected) == 2 * len(model.architecture.ffn_paths(0))
    for path, gradient in expected.items():
        scale = float(gradient.abs().max())
        assert_agree(factors[path].gradients.T @ factors[path].inputs, gradient, FORWARD, DEPTH, scale=scale)
    assert loss.shape == (len(FACTS),)
    assert_untouched(model, before)


def test_padding_and_what_nothing_reads_are_no_tokens() -> None:
    model = tiny_model("gpt2")
    last = model.site("ffn", 3).path
    readings = texts_of(model, FACTS)
    _, factors = capture(model, edited_sites(model, [2, 3]), readings)
    assert len(factors[last].row) == len(
        readings.row
    )  # no attention follows: only where the answer is predicted
    assert len(factors[model.site("ffn", 2).path].row) <= int(readings.tokens.mask.sum())


def test_a_text_without_an_answer_is_read_at_its_end() -> None:
    model = tiny_model("gpt2")
    text = encode_text(model, "The quiet river is", None)
    readings = Readings.of(model, [encode_text(model, "I think", "that"), text])
    log_p = readings.log_probabilities(model)[-1]
    expected = model.model(input_ids=torch.tensor([text.ids])).logits[0, -1].log_softmax(dim=-1)
    assert_agree(log_p, expected, FORWARD, DEPTH)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_update_that_is_tried_gives_what_writing_it_gives(family: str) -> None:
    model = tiny_model(family, "float64")
    before = weights_of(model)
    sites = edited_sites(model, [1, 3])
    updates = {
        site.path: Update(
            0.1 * torch.randn(5, site.d_out, dtype=torch.float64),
            0.1 * torch.randn(5, site.d_in, dtype=torch.float64),
        )
        for site in sites
    }
    readings = texts_of(model, FACTS)
    with double_throughout(model), torch.no_grad():
        clean = readings.log_probabilities(model)
        with updated(model, updates):
            tried = readings.log_probabilities(model)
        assert_untouched(model, before)
        with model.ledger.temporary():
            write_deltas(
                model, {path: Delta(update.values.T, update.keys) for path, update in updates.items()}
            )
            written = readings.log_probabilities(model)
    torch.testing.assert_close(tried, written, rtol=0, atol=1e-9)
    assert float((clean - written).abs().max()) > 1e-3
