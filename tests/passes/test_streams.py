"""Kept streams and sums over chunks: whatever is shared, put away or taken in parts, the numbers are the same."""

import pytest
import torch
from torch import Tensor

from errata.edits.deltas import Delta
from errata.models.model import Site
from errata.passes import shelf as shelf_module
from errata.passes.row_batches import batches_of
from errata.solve import keys as keys_module
from errata.solve.keys import KeyPrompts, KeyStreams
from errata.solve.least_squares import LeastSquares
from errata.solve.spread import Write, spread
from families import CONTEXTS, FACTS, FAMILIES, tiny_model
from plain import double_throughout
from spread_cases import moment_of, settings_of
from stream_cases import values_of
from tolerances import DEPTH, FORWARD, assert_agree

PEOPLE = ("Orin Vasker", "Mira Tolland", "Jonas Whitlock", "Edda Rowe", "Hale Corvin", "Zentro", "Bellwether")


TEMPLATES = ("{} plays the", "The mother tongue of {} is", "Therefore the council met {} and")


def many_facts() -> tuple:
    return tuple(
        type(FACTS[0])(template, person, "violin", "harp") for template in TEMPLATES for person in PEOPLE
    )


# --- streams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_read_is_what_whole_passes_find(
    family: str, share: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of a few facts, batches of a few rows, most streams on disk, and a write between the readings."""
    model = tiny_model(family, "float64")
    monkeypatch.setattr(keys_module, "ELEMENTS", 5 * model.site("ffn", 0).d_in)
    monkeypatch.setattr(keys_module, "ON_CPU", 150)
    monkeypatch.setattr(shelf_module, "BUDGET", 10000)
    facts = (*many_facts()[5:10], *FACTS)
    prompts = KeyPrompts.of(model, facts, CONTEXTS)
    value = model.block_path(3)
    with double_throughout(model), model.ledger.temporary():
        streams = KeyStreams(prompts, 3, share)
        for kind, layer in (("ffn", 1), ("attention", 3), ("ffn", 3)):
            site = model.site(kind, layer)
            keys, current = prompts.keys(site, "half"), prompts.values(value)
            told: list[int] = []
            for part in streams.read(site, value, "half"):
                chosen = list(part.facts)
                torch.testing.assert_close(
                    part.keys, keys[chosen], rtol=0, atol=1e-9 * float(keys.abs().max())
                )
                torch.testing.assert_close(part.current, current[chosen], rtol=1e-9, atol=1e-9)
                told += chosen
            assert sorted(told) == list(range(len(facts)))
            model.ledger.write(site, 1.25 * site.weight)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_float32_what_is_shared_by_default_changes_no_number_that_matters(family: str) -> None:
    model = tiny_model(family)
    prompts = KeyPrompts.of(model, (*many_facts()[5:10], *FACTS), CONTEXTS)
    site, value = model.site("ffn", 2), model.block_path(2)
    (seen,) = KeyStreams(prompts, 2).read(site, value, "half")
    chosen = list(seen.facts)
    for mine, whole in ((seen.keys, prompts.keys(site, "half")), (seen.current, prompts.values(value))):
        assert_agree(mine, whole[chosen], FORWARD, DEPTH, dtype=torch.float32)


def test_layers_are_read_in_ascending_order() -> None:
    model = tiny_model("gpt2")
    streams = KeyStreams(KeyPrompts.of(model, FACTS, CONTEXTS), 2)
    list(streams.read(model.site("ffn", 2), model.block_path(2), "half"))
    with pytest.raises(AssertionError, match="ascending"):
        list(streams.read(model.site("ffn", 1), model.block_path(2), "half"))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_rows_with_the_same_beginning_share_it(family: str) -> None:
    """No token is lost, and of 21 facts behind one context the context and three templates are run once."""
    model = tiny_model(family)
    rows = KeyPrompts.of(model, many_facts(), CONTEXTS[1:2]).rows
    batches = batches_of(model, rows, range(len(rows)), 10**6)
    for batch in batches:
        for place, number in enumerate(batch.rows.tolist()):
            own = batch.ids[place, : int(batch.last[place]) + 1].tolist()
            assert (*batch.prefixes[batch.prefix_of[place]].tolist(), *own) == rows[number].text.ids
    assert sorted(number for batch in batches for number in batch.rows.tolist()) == list(range(len(rows)))
    run = sum(batch.prefixes.numel() + int((batch.last + 1).sum()) for batch in batches)
    assert run < 0.6 * sum(len(row.text.ids) for row in rows)


def test_a_row_that_shares_nothing_runs_whole() -> None:
    model = tiny_model("gpt2")
    (batch,) = batches_of(model, KeyPrompts.of(model, FACTS[:1], CONTEXTS[1:2]).rows, [0], 10**6)
    assert batch.start == 0


# --- sums ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "gptj", "gemma2"])
def test_sums_over_chunks_give_the_update_that_rows_give(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """21 facts are more than half of 32: dense. A plain function as the solver gets the rows."""
    model = tiny_model(family, "float64")
    prompts = KeyPrompts.of(model, many_facts(), CONTEXTS)
    settings = settings_of(covariance_weight=5.0)
    writes = [Write("ffn", model.site("ffn", 2).path, values_of(model, prompts.facts))]
    by_sums = LeastSquares(moment_of, 5.0, 0.1)

    def by_rows(residual: Tensor, keys: Tensor, site: Site) -> Delta:
        assert len(keys) == prompts.facts
        return by_sums(residual, keys, site)

    with double_throughout(model):
        rows = spread(model, settings, writes, prompts, by_rows)
        monkeypatch.setattr(keys_module, "ELEMENTS", 4 * model.site("ffn", 0).d_in)
        sums = spread(model, settings, writes, prompts, by_sums)
    for path, delta in rows.items():
        wanted = delta.matrix
        torch.testing.assert_close(sums[path].matrix, wanted, rtol=0, atol=1e-9 * float(wanted.abs().max()))
