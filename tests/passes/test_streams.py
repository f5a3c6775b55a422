"""Kept streams and sums over chunks: whatever is shared, put away or taken in parts, the numbers are the same."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch import Tensor

from errata.edits.deltas import Delta, written_back
from errata.errors import CovarianceError
from errata.models.model import EditableModel, Site
from errata.moments.factors import Factors
from errata.moments.folder import check_positive_definite, moment_path, read_moment, write_moment
from errata.passes import shelf as shelf_module
from errata.passes.row_batches import batches_of
from errata.passes.shelf import Shelf
from errata.runtime.files import cache_root
from errata.solve import keys as keys_module
from errata.solve.keys import KeyPrompts, KeyStreams, average_over_contexts, context_weights
from errata.solve.spread import LeastSquares, Write, solve, solve_few, spread
from families import CONTEXTS, FACTS, FAMILIES, tiny_model
from plain import double_throughout
from spread_cases import moment_of, settings_of

PEOPLE = ("Orin Vasker", "Mira Tolland", "Jonas Whitlock", "Edda Rowe", "Hale Corvin", "Zentro", "Bellwether")
TEMPLATES = ("{} plays the", "The mother tongue of {} is", "Therefore the council met {} and")


def many_facts() -> tuple:
    return tuple(
        type(FACTS[0])(template, person, "violin", "harp") for template in TEMPLATES for person in PEOPLE
    )


def values_of(model: EditableModel, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, model.site("ffn", 0).d_out, dtype=torch.float64, generator=generator)


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
    with double_throughout(model), ExitStack() as changed:
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
            changed.enter_context(written_back(site))
            with torch.no_grad():
                site.weight.mul_(1.25)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_float32_what_is_shared_by_default_changes_no_number_that_matters(family: str) -> None:
    model = tiny_model(family)
    prompts = KeyPrompts.of(model, (*many_facts()[5:10], *FACTS), CONTEXTS)
    site, value = model.site("ffn", 2), model.block_path(2)
    (seen,) = KeyStreams(prompts, 2).read(site, value, "half")
    chosen = list(seen.facts)
    for mine, whole in ((seen.keys, prompts.keys(site, "half")), (seen.current, prompts.values(value))):
        torch.testing.assert_close(mine, whole[chosen], rtol=0, atol=1e-4 * float(whole.abs().max()))


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


@pytest.mark.parametrize("average", ["half", "plain"])
@pytest.mark.parametrize("contexts", [1, 2, 6])
def test_the_weights_of_contexts_are_those_of_the_mean(contexts: int, average: str) -> None:
    each = torch.randn(5, contexts, 3, dtype=torch.float64)
    weighted = (context_weights(contexts, average)[None, :, None] * each).sum(dim=1)
    torch.testing.assert_close(weighted, average_over_contexts(each, average))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_what_is_put_away_comes_back_as_it_was(dtype: torch.dtype) -> None:
    first, second, third = (torch.randn(3, 5).to(dtype) for _ in range(3))
    shelf = Shelf(first.nbytes + 1)
    assert shelf.get(0) is None
    shelf.put(0, first)
    shelf.put(1, second)
    shelf.put(2, third)
    shelf.put(1, third)
    shelf.put(2, second.T.contiguous().T)
    for place, tensor in ((0, first), (1, third), (2, second)):
        assert torch.equal(shelf.get(place), tensor)  # pyright: ignore[reportArgumentType]


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


# --- factors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("facts", [1, 7, 16])
def test_few_facts_are_solved_from_the_factor_of_the_moments(facts: int) -> None:
    site = tiny_model("gpt2", "float64").site("ffn", 1)
    keys = torch.randn(facts, site.d_in, dtype=torch.float64)
    residual = torch.randn(facts, site.d_out, dtype=torch.float64)
    wanted = solve(residual, keys, moment_of(site), 5.0, site)
    found = solve_few(residual, keys, torch.linalg.cholesky(moment_of(site)), 5.0, site)
    assert set(found.tensors) == set(wanted.tensors)
    torch.testing.assert_close(found.matrix, wanted.matrix, rtol=0, atol=1e-12)


def stored(
    tmp_path: Path, change: Callable[[Tensor], Tensor] = lambda moment: moment
) -> tuple[Factors, Site]:
    model = tiny_model("gpt2", "float64")
    site = model.site("ffn", 1)
    write_moment(tmp_path, model, site, change(moment_of(site)), 1000, {})
    return Factors(tmp_path, model), site


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_a_factor_is_kept_and_found_again(
    ridge: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors, site = stored(tmp_path)
    moment = read_moment(tmp_path, factors.model, site)
    moment = moment + ridge * moment.trace() / len(moment) * torch.eye(len(moment), dtype=torch.float64)
    made = factors.lower(site, ridge)
    assert made is not None
    torch.testing.assert_close(made @ made.T, moment, rtol=1e-12, atol=1e-12)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", None)
    found = factors.lower(site, ridge)
    assert found is not None
    assert torch.equal(found, made)
    factors.check(site)


@pytest.mark.parametrize("changed", ["the moments", "the ridge", "the file"])
def test_a_factor_of_something_else_is_made_anew(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))
    factors, site = stored(tmp_path)
    first = factors.lower(site, 0.0)
    ridge = 0.5 if changed == "the ridge" else 0.0
    if changed == "the moments":
        stored(tmp_path, lambda moment: 4 * moment)
    if changed == "the file":
        (path,) = (cache_root() / "factors").iterdir()
        path.write_bytes(path.read_bytes()[:-100])
    second = factors.lower(site, ridge)
    assert first is not None
    assert second is not None
    assert torch.equal(first, second) == (changed == "the file")


def test_moments_without_a_factor_are_told_by_the_check_alone(tmp_path: Path) -> None:
    factors, site = stored(tmp_path, lambda moment: -moment)
    assert factors.lower(site, 0.0) is None
    with pytest.raises(CovarianceError, match="not positive definite"):
        factors.check(site)
    with pytest.raises(CovarianceError):
        check_positive_definite(read_moment(tmp_path, factors.model, site), moment_path(tmp_path, site.path))


def test_a_factor_that_cannot_be_kept_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))
    factors, site = stored(tmp_path)
    (tmp_path / "cache").write_text("in the way")
    assert factors.lower(site, 0.0) is not None


def test_nothing_is_written_where_the_moments_lie(tmp_path: Path) -> None:
    factors, site = stored(tmp_path / "given")
    factors.check(site)
    factors.lower(site, 0.0)
    assert [path.name for path in (tmp_path / "given").iterdir()] == [f"{site.path}.safetensors"]


def test_the_factor_gives_the_update_of_a_whole_spread(tmp_path: Path) -> None:
    model = tiny_model("llama", "float64")
    for layer in (1, 2):
        write_moment(tmp_path, model, model.site("ffn", layer), moment_of(model.site("ffn", layer)), 1000, {})
    prompts = KeyPrompts.of(model, FACTS, CONTEXTS)
    writes = [Write("ffn", model.site("ffn", 2).path, values_of(model, len(FACTS)))]

    def moment(site: Site) -> Tensor:
        return read_moment(tmp_path, model, site)

    settings = settings_of()
    one = spread(model, settings, writes, prompts, LeastSquares(moment, 5.0, 0.1))
    lower = Factors(tmp_path, model).lower
    other = spread(model, settings, writes, prompts, LeastSquares(moment, 5.0, 0.1, lower))
    for path, delta in one.items():
        torch.testing.assert_close(
            other[path].matrix, delta.matrix, rtol=0, atol=1e-9 * float(delta.matrix.abs().max())
        )
