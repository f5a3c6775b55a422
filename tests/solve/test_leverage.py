"""Lambda as a share: what one solve for the median fact alone realizes, however the facts are solved for."""

from dataclasses import replace
from statistics import median

import pytest
import torch
from torch import Tensor

from errata.edits import Realized
from errata.errors import CovarianceError, SettingsError
from errata.models.model import EditableModel, Site
from errata.solve import keys as keys_module
from errata.solve.keys import KeyPrompts
from errata.solve.least_squares import LeastSquares, LowerFactor, no_factor, solve
from errata.solve.settings import LeastSquaresSettings
from errata.solve.spread import Write, spread
from families import CONTEXTS, FACTS, tiny_model
from spread_cases import moment_of, settings_of, value_of

RIDGE = 0.1


def ridged_moment(site: Site) -> Tensor:
    moment = moment_of(site)
    return moment + RIDGE * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)


def kept_factor(site: Site, ridge: float) -> Tensor:
    assert ridge == RIDGE
    return torch.linalg.cholesky(ridged_moment(site))


def realize(
    model: EditableModel, share: float, lower: LowerFactor = no_factor, facts: int = len(FACTS)
) -> tuple[dict[str, Tensor], dict[str, Realized]]:
    """The updates of two layers and what their lambdas amount to."""
    chosen = (FACTS * -(-facts // len(FACTS)))[:facts]
    prompts = KeyPrompts.of(model, chosen, CONTEXTS)
    site = model.site("ffn", 2)
    found: dict[str, Realized] = {}
    solver = LeastSquares(moment_of, None, RIDGE, lower, share)
    writes = [Write("ffn", site.path, value_of(model, "ffn", facts))]
    deltas = spread(model, settings_of(layers=(1, 2)), writes, prompts, solver, realized=found)
    return {path: delta.matrix for path, delta in deltas.items()}, found


@pytest.mark.parametrize("share", [0.2, 0.8])
@pytest.mark.parametrize("lower", [no_factor, kept_factor])
@pytest.mark.parametrize("facts", [len(FACTS), 24])
def test_the_median_fact_alone_realizes_the_share(share: float, lower: LowerFactor, facts: int) -> None:
    """Of few facts from rows, of many from sums; restated with an inverse."""
    model = tiny_model("llama", "float64")
    site = model.site("ffn", 1)
    _, found = realize(model, share, lower, facts)
    prompts = KeyPrompts.of(model, (FACTS * facts)[:facts], CONTEXTS)
    keys = prompts.keys(site, settings_of().keys.average)
    moment = ridged_moment(site)
    each = torch.einsum("fi,ij,fj->f", keys, torch.linalg.inv(moment), keys)
    middle = median(each.tolist())
    one = found[site.path]
    assert one.leverage == pytest.approx(middle, rel=1e-9)
    assert one.weight == pytest.approx(middle * (1 - share) / share, rel=1e-9)
    assert one.share == pytest.approx(share, rel=1e-12)
    nearest = int((each - middle).abs().argmin())
    key = keys[nearest : nearest + 1]
    residual = torch.ones(1, site.d_out, dtype=torch.float64)
    alone = solve(residual, key, moment, one.weight, site).matrix @ key[0]
    reached = float(each[nearest] / (one.weight + each[nearest]))
    torch.testing.assert_close(alone, reached * residual[0], rtol=1e-9, atol=0)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2", "float64")
    whole, found = realize(model, 0.6, facts=24)
    monkeypatch.setattr(keys_module, "ELEMENTS", 5 * model.site("ffn", 0).d_in)
    parts, other = realize(model, 0.6, facts=24)
    for path, delta in whole.items():
        torch.testing.assert_close(parts[path], delta, rtol=0, atol=1e-9 * float(delta.abs().max()))
        assert other[path].weight == pytest.approx(found[path].weight, rel=1e-9)


@pytest.mark.parametrize("facts", [len(FACTS), 24])
def test_a_share_and_the_weight_that_it_comes_to_solve_alike(facts: int) -> None:
    """And a weight that is set is measured without a digit of the update changing."""
    model = tiny_model("gpt2", "float64")
    site = model.site("ffn", 2)
    prompts = KeyPrompts.of(model, (FACTS * facts)[:facts], CONTEXTS)
    writes = [Write("ffn", site.path, value_of(model, "ffn", facts))]
    settings = settings_of(layers=(2,))
    by_share, by_weight = dict[str, Realized](), dict[str, Realized]()
    shared = LeastSquares(moment_of, None, RIDGE, share=0.3)
    one = spread(model, settings, writes, prompts, shared, realized=by_share)
    weighted = LeastSquares(moment_of, by_share[site.path].weight, RIDGE)
    other = spread(model, settings, writes, prompts, weighted, realized=by_weight)
    assert torch.equal(one[site.path].matrix, other[site.path].matrix)
    assert by_weight[site.path].share == pytest.approx(0.3)
    unmeasured = spread(model, settings, writes, prompts, lambda *given: weighted(*given))
    if facts == len(FACTS):
        assert torch.equal(unmeasured[site.path].matrix, other[site.path].matrix)


def test_preserved_keys_and_those_of_earlier_edits_leave_the_weight_as_it_is() -> None:
    model = tiny_model("gpt2", "float64")
    site = model.site("ffn", 2)
    prompts = KeyPrompts.of(model, FACTS[:3], CONTEXTS)
    writes = [Write("ffn", site.path, value_of(model, "ffn", 3))]
    plain, kept, held = dict[str, Realized](), dict[str, Realized](), dict[str, Realized]()
    solver = LeastSquares(moment_of, None, RIDGE, kept_factor, 0.5)
    settings = settings_of(layers=(2,), preserve_weight=3.0)
    first = spread(model, settings, writes, prompts, solver, realized=plain)
    others = KeyPrompts.of(model, FACTS[3:], ("",))
    spread(model, settings, writes, prompts, solver, realized=kept, preserved=others)
    earlier = others.keys(site, "plain")
    holding = replace(solver, earlier=lambda _: 100 * earlier.T @ earlier)
    third = spread(model, settings, writes, prompts, holding, realized=held)
    assert plain == kept == held
    weight = plain[site.path].weight
    keys = prompts.keys(site, settings.keys.average)
    matrix = weight * ridged_moment(site) + 100 * earlier.T @ earlier + keys.T @ keys
    residual = writes[0].value - prompts.values(site.path)
    wanted = residual.T @ keys @ torch.linalg.inv(matrix)
    found = third[site.path].matrix
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9 * float(wanted.abs().max()))
    assert not torch.allclose(found, first[site.path].matrix)


def test_second_moments_without_an_inverse_allow_no_share() -> None:
    model = tiny_model("gpt2", "float64")
    prompts = KeyPrompts.of(model, FACTS, CONTEXTS)
    writes = [Write("ffn", model.site("ffn", 2).path, value_of(model, "ffn"))]

    def singular(site: Site) -> Tensor:
        return torch.zeros(site.d_in, site.d_in, dtype=torch.float64)

    shared = LeastSquares(singular, None, 0.0, share=0.5)
    with pytest.raises(CovarianceError, match=r"realised_share cannot be brought about.*too few tokens"):
        spread(model, settings_of(layers=(2,)), writes, prompts, shared)
    found: dict[str, Realized] = {}
    keyed = LeastSquares(lambda site: 1e-9 * moment_of(site), 5.0, 0.0)
    spread(model, settings_of(layers=(2,)), writes, prompts, keyed, realized=found)
    assert found


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "both have no value"),
        ({"covariance_weight": 3.0, "realised_share": 0.5}, "are both set"),
        ({"realised_share": 1.0}, "above 0 and below 1"),
        ({"realised_share": 0.0}, "above 0 and below 1"),
        ({"covariance_weight": -1.0}, "must be above 0"),
    ],
)
def test_exactly_one_of_the_two_is_set(values: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        LeastSquaresSettings(**values)
