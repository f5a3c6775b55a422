"""Deltas: sums of them, and how they are written into weights."""

import pytest
import torch

from errata.edits.deltas import Delta, sum_deltas, write_deltas
from families import FAMILIES, tiny_model
from tolerances import assert_agree


def test_a_sum_of_deltas_writes_what_they_write() -> None:
    torch.manual_seed(0)
    site = tiny_model("gpt2", "float64").site("ffn", 1)
    small = [Delta(torch.randn(site.d_out, 2), torch.randn(2, site.d_in)) for _ in range(3)]
    wide = Delta(None, None, torch.randn(site.d_out, site.d_in))
    assert sum_deltas(small).rank == 6
    for parts in (small, [*small, wide], small * 5):
        added = torch.stack([part.matrix for part in parts]).sum(dim=0)
        assert_agree(sum_deltas(parts).matrix, added, 32)


@pytest.mark.parametrize("kind", ["ffn", "attention"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_change_goes_where_the_map_is(family: str, kind: str) -> None:
    """x -> W x becomes x -> W x + Delta x, in every family's storage order (a square weight shows no order)."""
    model = tiny_model(family, "float64")
    site = model.site(kind, 1)
    delta = Delta(
        torch.randn(site.d_out, 2, dtype=torch.float64), torch.randn(2, site.d_in, dtype=torch.float64)
    )
    x = torch.randn(site.d_in, dtype=torch.float64)
    before = site.module(x).detach()
    with model.ledger.temporary():
        write_deltas(model, {site.path: delta})
        assert_agree(site.module(x).detach(), before + delta.matrix @ x, 128)
    assert torch.equal(site.module(x).detach(), before)


@pytest.mark.parametrize("change", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight", ["bfloat16", "float32", "float64"])
def test_a_change_is_added_in_the_wider_precision_and_rounded_once(weight: str, change: torch.dtype) -> None:
    model = tiny_model("llama", weight)
    site = model.site("ffn", 1)
    change_of = (1e-3 * torch.randn(site.matrix.shape, dtype=torch.float64)).to(change)
    with model.ledger.temporary():
        model.ledger.write(site, torch.randn(site.matrix.shape, dtype=torch.float64))
        expected = site.matrix.double() + change_of.double()
        write_deltas(model, {site.path: Delta(None, None, change_of)})
        result = site.matrix.double().clone()
    half_a_step = {"bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}[weight]
    torch.testing.assert_close(result, expected, rtol=1.01 * half_a_step, atol=1e-16)


def test_the_weight_comes_back_after_an_error() -> None:
    model = tiny_model("gpt2")
    site = model.site("attention", 1)
    before = site.weight.detach().clone()

    def change_and_fail() -> None:
        with model.ledger.temporary():
            write_deltas(model, {site.path: Delta(None, None, torch.full(site.matrix.shape, torch.nan))})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        change_and_fail()
    assert torch.equal(site.weight, before)
