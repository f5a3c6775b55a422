"""AlphaEdit: the formula as the paper has it; which keys count as earlier ones; what is refused."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from errata.edits.deltas import write_deltas
from errata.edits.edit import Edit, EditOrigin
from errata.errors import SettingsError
from errata.methods.alphaedit import (
    AlphaEditSettings,
    alphaedit,
    null_space,
    null_space_solve,
)
from errata.methods.base import Task
from errata.methods.registry import settings_for
from errata.models.model import EditableModel, Site
from errata.runtime.progress import silent
from errata.settings.alternatives import overlaid
from errata.solve.earlier import earlier_key_sum
from errata.solve.keys import KeyPrompts
from errata.solve.settings import KeySettings
from errata.values.targets import optimize_targets
from families import CONTEXTS, FACTS, tiny_model
from plain import double_throughout, modules_of, plain_key, plain_value
from tolerances import DEPTH, FORWARD, SOLVE, assert_agree

LAYERS = (1, 2)
KEYS = KeySettings(average="half")


def settings_of(**given: object) -> AlphaEditSettings:
    usual = {
        "layers": LAYERS,
        "values.steps": 3,
        "values.learning_rate": 0.5,
        "values.clamp": 3.0,
        "solve.threshold": 0.5,
        "solve.ridge": 0.3,
    }
    return settings_for(tiny_model("gpt2"), "alphaedit", overlaid(usual, given))[0]


def moment_of(site: Site) -> Tensor:
    """E[k k^T] whose eigenvalues run from 0.04 to 4; about a third are below 0.5."""
    generator = torch.Generator().manual_seed(site.layer)
    turn = torch.linalg.qr(torch.randn(site.d_in, site.d_in, dtype=torch.float64, generator=generator))[0]
    return turn @ torch.diag(torch.linspace(0.2, 2.0, site.d_in, dtype=torch.float64) ** 2) @ turn.T


def task_of(model: EditableModel, earlier: Mapping[str, Tensor] | None = None, facts: int = 3) -> Task:
    return Task(model, FACTS[:facts], CONTEXTS, moment_of, silent, earlier=earlier or {})


def some_keys(site: Site, count: int = 5) -> Tensor:
    return torch.randn(count, site.d_in, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


def literally(residual: Tensor, keys: Tensor, earlier: Tensor, projection: Tensor, ridge: float) -> Tensor:
    """R K^T P (K_p K_p^T P + K K^T P + c I)^-1, facts as rows."""
    identity = torch.eye(len(projection), dtype=torch.float64)
    inverted = torch.linalg.inv(earlier @ projection + keys.T @ keys @ projection + ridge * identity)
    return residual.T @ keys @ projection @ inverted


# --- what is computed ------------------------------------------------------------------------------


@pytest.mark.parametrize("facts", [1, 4, 60])
@pytest.mark.parametrize("threshold", [0.06, 0.5, 100.0])
def test_the_solve_is_the_papers_formula(facts: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(facts)
    site = tiny_model("llama", "float64").site("ffn", 1)
    keys, earlier, residual = (
        torch.randn(count, size, dtype=torch.float64, generator=generator)
        for count, size in ((facts, site.d_in), (7, site.d_in), (facts, site.d_out))
    )
    basis = null_space(moment_of(site), threshold)
    assert 0 < basis.shape[1] <= site.d_in
    mine = residual.T @ null_space_solve(keys, earlier.T @ earlier, basis, 0.3)
    plain = literally(residual, keys, earlier.T @ earlier, basis @ basis.T, 0.3)
    assert_agree(mine, plain, FORWARD, SOLVE)


@pytest.mark.parametrize("family", ["gpt2", "gptj", "llama", "gpt_neox sequential"])
def test_the_plain_version_of_the_spread_agrees(family: str) -> None:
    """From MEMIT's values: even shares, the layers ascending, each with those below already changed."""
    model = tiny_model(family, "float64")
    settings = settings_of()
    earlier = {model.site("ffn", 2).path: some_keys(model.site("ffn", 2)).T @ some_keys(model.site("ffn", 2))}
    with double_throughout(model):
        found = alphaedit(task_of(model, earlier), settings)
        values = optimize_targets(model, FACTS[:3], CONTEXTS, settings).value("block")
    block = modules_of(model, LAYERS[-1]).block
    first, second = (model.site("ffn", layer) for layer in LAYERS)
    with double_throughout(model), model.ledger.temporary():
        for site, left in ((first, 2), (second, 1)):
            ffn = modules_of(model, site.layer).ffn
            keys = torch.stack([plain_key(model, fact, CONTEXTS, ffn, "half") for fact in FACTS[:3]])
            current = torch.stack([plain_value(model, fact, block) for fact in FACTS[:3]])
            basis = null_space(moment_of(site), 0.5)
            before = earlier.get(site.path, torch.zeros(site.d_in, site.d_in, dtype=torch.float64))
            plain = literally((values - current) / left, keys, before, basis @ basis.T, 0.3)
            mine = found.deltas[site.path]
            torch.testing.assert_close(mine.matrix, plain, rtol=0, atol=1e-9 * float(plain.abs().max()))
            torch.testing.assert_close(found.key_sums[site.path], keys.T @ keys, rtol=1e-9, atol=1e-9)
            write_deltas(model, {site.path: mine})


def test_what_the_model_often_feeds_in_is_left_as_it_is() -> None:
    model = tiny_model("gpt2", "float64")
    changes = alphaedit(task_of(model), settings_of())
    for layer in LAYERS:
        site = model.site("ffn", layer)
        values, vectors = torch.linalg.eigh(moment_of(site))
        moved = changes.deltas[site.path].matrix @ vectors
        assert float(moved[:, values >= 0.5].abs().max()) < 1e-12
        assert float(moved[:, values < 0.5].abs().max()) > 1e-6


def test_the_weights_are_as_before() -> None:
    model = tiny_model("llama")
    before = {name: weight.detach().clone() for name, weight in model.model.named_parameters()}
    alphaedit(task_of(model), settings_of())
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.named_parameters())


# --- earlier edits ---------------------------------------------------------------------------------


def edit_of(model: EditableModel, contexts: tuple[str, ...], count: int = 2) -> Edit:
    """A small change of both layers that is said to have written the first facts."""
    changes = alphaedit(Task(model, FACTS[:count], contexts, moment_of, silent), settings_of())
    origin = EditOrigin("alphaedit", {}, contexts, 0, model.name, None, model.fingerprint, "", "", "", {}, "")
    return Edit(changes.deltas, FACTS[:count], origin)


def test_keys_of_edits_in_the_model_are_counted_with_the_weights_as_they_stand() -> None:
    model = tiny_model("gpt2", "float64")
    site = model.site("ffn", 2)
    given = some_keys(site).T @ some_keys(site)
    nothing = earlier_key_sum(model, site, "subject_last", KEYS, {})
    assert float(nothing.abs().max()) == 0
    assert torch.equal(earlier_key_sum(model, site, "subject_last", KEYS, {site.path: given}), given)
    one, other = edit_of(model, CONTEXTS), edit_of(model, CONTEXTS[:2], count=1)
    unedited = KeyPrompts.of(model, FACTS[:2], CONTEXTS).keys(site, "half")
    with one.applied(model), other.applied(model):
        first = KeyPrompts.of(model, FACTS[:2], CONTEXTS).keys(site, "half")
        second = KeyPrompts.of(model, FACTS[:1], CONTEXTS[:2]).keys(site, "half")
        assert not torch.allclose(first, unedited)
        found = earlier_key_sum(model, site, "subject_last", KEYS, {site.path: given})
    assert_agree(found, given + first.T @ first + second.T @ second, 128, DEPTH)


def test_earlier_keys_are_the_mean_over_other_wordings_too() -> None:
    model = tiny_model("gpt2", "float64")
    site = model.site("ffn", 2)
    worded = replace(FACTS[0], edit_prompts=(FACTS[1].prompt,))
    edit = replace(edit_of(model, CONTEXTS, count=1), facts=(worded,))
    with edit.applied(model):
        keys = KeyPrompts.of(model, (worded,), CONTEXTS, templates=1).keys(site, "half")
        found = earlier_key_sum(model, site, "subject_last", KeySettings(average="half", templates=1), {})
        plain = earlier_key_sum(model, site, "subject_last", KEYS, {})
    assert_agree(found, keys.T @ keys, 128, DEPTH)
    assert not torch.allclose(found, plain)


def test_earlier_keys_are_held_still() -> None:
    """Counted, they move by less; neither their facts nor their values are needed for that."""
    model = tiny_model("gpt2", "float64")
    site = model.site("ffn", 1)
    keys = KeyPrompts.of(model, FACTS[3:], CONTEXTS).keys(site, "half")
    moved = [
        float((alphaedit(task_of(model, earlier), settings_of()).deltas[site.path].matrix @ keys.T).norm())
        for earlier in ({}, {site.path: 100 * keys.T @ keys})
    ]
    assert 0 < moved[1] < 0.2 * moved[0]


# --- what is refused -------------------------------------------------------------------------------


def test_a_threshold_below_every_eigenvalue_is_told_with_the_spectrum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object, **__: object) -> object:
        raise AssertionError("the Optimization stage was begun")

    monkeypatch.setattr(Task, "optimize", never)
    model = tiny_model("gpt2")
    with pytest.raises(SettingsError) as caught:
        alphaedit(task_of(model), settings_of(**{"solve.threshold": 0.039}))
    assert str(caught.value).startswith(
        "Setting 'solve.threshold' is 0.039, but no eigenvalue of the second moments of transformer.h.1.mlp.c_proj is "
        "that small: they run from 0.04 over 1.2 in the middle to 4."
    )
    with pytest.raises(AssertionError, match="was begun"):
        alphaedit(task_of(model), settings_of(**{"solve.threshold": 0.041}))


def test_shares_choose_the_null_space_and_the_ridge() -> None:
    """The smallest eigenvalues up to a share of the trace; the median fact alone realizes a share of its residual."""
    model = tiny_model("gpt2", "float64")
    settings = settings_of(**{"solve.null_share": 0.4, "solve.realised_share": 0.7})
    changes = alphaedit(task_of(model), settings)
    site = model.site("ffn", LAYERS[0])
    values, vectors = torch.linalg.eigh(moment_of(site))
    free = values.cumsum(0) < 0.4 * values.sum()
    assert 0 < int(free.sum()) < len(values)
    moved = changes.deltas[site.path].matrix @ vectors
    assert float(moved[:, ~free].abs().max()) < 1e-12 < float(moved[:, free].abs().max())
    keys = KeyPrompts.of(model, FACTS[:3], CONTEXTS).keys(site, settings.keys.average)
    leverage = float((keys @ vectors[:, free]).square().sum(dim=1).median())
    one = changes.realized[site.path]
    assert one.leverage == pytest.approx(leverage, rel=1e-9)
    assert one.weight == pytest.approx(leverage * 0.3 / 0.7, rel=1e-9)
    fixed = alphaedit(
        task_of(model),
        settings_of(**{"solve.threshold": float(values[~free][0]), "solve.ridge": one.weight}),
    )
    torch.testing.assert_close(fixed.deltas[site.path].matrix, changes.deltas[site.path].matrix)


def test_a_share_too_small_for_any_direction_is_refused() -> None:
    model = tiny_model("gpt2", "float64")
    with pytest.raises(SettingsError, match=r"'solve.null_share' is 1e-09, but no eigenvalue.*half of them"):
        alphaedit(task_of(model), settings_of(**{"solve.null_share": 1e-9}))
