"""The Spread stage: the plain version agrees, and the weights are afterwards what they were before."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from errata.edits.deltas import Delta, write_deltas
from errata.errors import CovarianceError, SettingsError
from errata.models.model import EditableModel, Site
from errata.solve.keys import KeyPrompts
from errata.solve.least_squares import least_squares, solve, solve_few
from errata.solve.spread import SpreadStep, Write, spread
from errata.values.descent import place_path
from families import CONTEXTS, FACTS, FAMILIES, tiny_model
from plain import double_throughout, plain_spread
from sites import SpreadStage, spread_words
from spread_cases import moment_of, settings_of, value_of
from tolerances import DEPTH, FORWARD, ISOTROPIC, KEYS, assert_agree

LAYERS = (0, 1, 2)


# name: settings that differ, and where the value of each written kind stands
CASES: dict[str, tuple[dict[str, object], dict[str, str]]] = {
    "pmet": ({}, {"ffn": "ffn"}),
    "memit": ({"share": "even", "average": "plain"}, {"ffn": "block"}),
    "pmet with attention": ({"write": ("ffn", "attention")}, {"attention": "attention", "ffn": "ffn"}),
}


def run(
    model: EditableModel,
    places: dict[str, str],
    settings: SpreadStage,
    covariance: Callable[[Site], Tensor] = moment_of,
    steps: dict[str, SpreadStep] | None = None,
) -> dict[str, Delta]:
    writes = [
        Write(kind, place_path(model, place, settings.layers[-1]), value_of(model, place))
        for kind, place in places.items()
    ]
    prompts = KeyPrompts.of(model, FACTS, CONTEXTS)
    solver = least_squares(covariance, settings.solve.covariance_weight)
    return spread(model, settings, writes, prompts, solver, steps=steps)


def weights_of(model: EditableModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters()}


def assert_untouched(model: EditableModel, before: dict[str, Tensor]) -> None:
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.named_parameters())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_version_agrees(family: str, case: str) -> None:
    model = tiny_model(family, "float64")
    values, places = CASES[case]
    settings = settings_of(layers=LAYERS, **values)
    before = weights_of(model)
    with double_throughout(model):
        deltas = run(model, places, settings)
        assert_untouched(model, before)
        plain = plain_spread(
            model,
            FACTS,
            CONTEXTS,
            {place: value_of(model, place) for place in places.values()},
            lambda kind, layer: moment_of(model.site(kind, layer)),
            **spread_words(settings),
        )
    assert set(deltas) == {model.site(kind, layer).path for kind, layer in plain}
    for (kind, layer), update in plain.items():
        mine = deltas[model.site(kind, layer).path].matrix
        assert mine.dtype == torch.float64
        torch.testing.assert_close(mine, update, rtol=0, atol=1e-9 * float(update.abs().max()))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_narrower_weights_are_solved_for_in_float64_too(case: str, dtype: str) -> None:
    model = tiny_model("gpt2", dtype)
    values, places = CASES[case]
    steps: dict[str, SpreadStep] = {}
    before = weights_of(model)
    deltas = run(model, places, settings_of(layers=LAYERS, **values), steps=steps)
    assert_untouched(model, before)
    assert {part.dtype for delta in deltas.values() for part in delta.tensors.values()} == {torch.float32}
    for kind in places:
        site = model.site(kind, LAYERS[0])
        step = steps[site.path]
        left = len(LAYERS) if values.get("share") == "even" else len(LAYERS) ** 0.5
        inverse = torch.linalg.inv(5.0 * moment_of(site) + step.keys.T @ step.keys)
        update = (step.residual / left).T @ step.keys @ inverse
        assert_agree(deltas[site.path].matrix.double(), update, 1, DEPTH, dtype=torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_where_the_covariance_weighs_little_the_value_comes_about(family: str) -> None:
    """One layer, the bare prompt alone: W + Delta then takes every fact's key to its value."""
    model = tiny_model(family, "float64")
    prompts = KeyPrompts.of(model, FACTS, ("",))
    site = model.site("ffn", 2)
    writes = [Write("ffn", site.path, value_of(model, "ffn"))]
    settings = settings_of(layers=(2,), covariance_weight=1e-9)
    deltas = spread(model, settings, writes, prompts, least_squares(moment_of, 1e-9))
    with model.ledger.temporary():
        write_deltas(model, deltas)
        reached = prompts.values(site.path)
    assert_agree(reached, value_of(model, "ffn"), FORWARD, KEYS, dtype=torch.float32)


def test_the_order_in_which_kinds_are_written_is_fixed() -> None:
    """Attention before the FFN of the same layer, whatever the setting's order."""
    model = tiny_model("gpt2", "float64")
    places = {"attention": "attention", "ffn": "ffn"}
    one = run(model, places, settings_of(layers=LAYERS, write=("attention", "ffn")))
    other = run(model, dict(reversed(places.items())), settings_of(layers=LAYERS, write=("ffn", "attention")))
    assert list(one) == list(other)
    assert all(torch.equal(one[path].matrix, other[path].matrix) for path in one)
    assert [path.split(".")[-2] for path in one] == ["attn", "mlp"] * len(LAYERS)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_error_in_the_middle_leaves_the_weights_as_they_were(family: str) -> None:
    model = tiny_model(family)
    before = weights_of(model)

    def failing(site: Site) -> Tensor:
        if site.layer == LAYERS[-1]:
            raise KeyboardInterrupt
        return moment_of(site)

    with pytest.raises(KeyboardInterrupt):
        run(
            model,
            {"attention": "attention", "ffn": "ffn"},
            settings_of(layers=LAYERS, write=("attention", "ffn")),
            failing,
        )
    assert_untouched(model, before)


@pytest.mark.parametrize("steps", [True, False])
def test_a_model_that_overflows_is_told_so(steps: bool) -> None:
    model = tiny_model("llama")
    before = weights_of(model)
    broken = KeyPrompts.of(model, FACTS, CONTEXTS)
    value = torch.full((len(FACTS), model.site("ffn", LAYERS[0]).d_out), torch.inf)
    writes = [Write("ffn", place_path(model, "ffn", LAYERS[-1]), value)]
    with pytest.raises(CovarianceError, match=r"infinite or not a number.*--dtype bfloat16"):
        spread(
            model,
            settings_of(layers=LAYERS),
            writes,
            broken,
            least_squares(moment_of, 5.0),
            steps={} if steps else None,
        )
    assert_untouched(model, before)


@pytest.mark.parametrize("flaw", ["negative", "of too few tokens", "not a number"])
def test_second_moments_that_are_not_positive_definite(flaw: str) -> None:
    model = tiny_model("llama")
    before = weights_of(model)

    def moment(site: Site) -> Tensor:
        if site.layer == LAYERS[0]:
            return moment_of(site)
        if flaw == "negative":
            return -moment_of(site)
        keys = torch.randn(3, site.d_in, dtype=torch.float64)
        return keys.T @ keys if flaw == "of too few tokens" else moment_of(site) * torch.nan

    with pytest.raises(CovarianceError) as caught:
        run(model, {"ffn": "ffn"}, settings_of(layers=LAYERS), moment)
    assert "The second moments of model.layers.1.mlp.down_proj are not positive definite" in str(caught.value)
    assert "even with 5.0 as solve.covariance_weight" in str(caught.value)
    assert "collect them again from more text (`errata covariance collect" in str(caught.value)
    assert_untouched(model, before)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"covariance_weight": 0}, "'solve.covariance_weight' must be above 0: 0.0"),
        ({"covariance_weight": -3.0}, "'solve.covariance_weight' must be above 0: -3.0"),
        ({"covariance_weight": float("nan")}, "'solve.covariance_weight' is nan"),
        ({"share": "cubic"}, "'spread.share' is 'cubic'. It must be one of 'sqrt', 'even'"),
        ({"write": ()}, "'spread.write' must name one or both of 'attention' and 'ffn'"),
        ({"write": ("ffn", "ffn")}, "'spread.write' must name one or both"),
        ({"write": ("block",)}, "each entry one of 'ffn', 'attention'"),
        ({"average": "most"}, "one of 'half', 'plain'"),
    ],
)
def test_settings_that_no_run_can_use(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_of(**values)
    assert message in str(caught.value)


# --- deltas ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("facts", "thin"), [(1, True), (16, True), (17, False), (40, False)])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_factors_are_kept_up_to_half_of_the_smaller_side(family: str, facts: int, thin: bool) -> None:
    site = tiny_model(family, "float64").site("ffn", 1)
    assert min(site.d_out, site.d_in) == 32
    keys = torch.randn(facts, site.d_in, dtype=torch.float64)
    residual = torch.randn(facts, site.d_out, dtype=torch.float64)
    delta = solve(residual, keys, moment_of(site), 5.0, site)
    assert set(delta.tensors) == ({"left", "right"} if thin else {"dense"})
    assert delta.rank == (facts if thin else 32)
    assert delta.shape == tuple(delta.matrix.shape) == (site.d_out, site.d_in)
    assert all(part.is_contiguous() for part in delta.tensors.values())
    update = residual.T @ keys @ torch.linalg.inv(5.0 * moment_of(site) + keys.T @ keys)
    assert_agree(delta.matrix, update, FORWARD, ISOTROPIC)


def test_thin_and_dense_are_the_same_change() -> None:
    left, right = torch.randn(8, 4, dtype=torch.float64), torch.randn(4, 9, dtype=torch.float64)
    more_left, more_right = torch.cat([left, left.new_zeros(8, 1)], 1), torch.cat([right, right[:1]])
    thin, dense = (
        Delta.from_factors(*factors, dtype=torch.float64)
        for factors in ((left, right), (more_left, more_right))
    )
    assert (thin.dense, dense.left, dense.right) == (None, None, None)
    assert_agree(thin.matrix, dense.matrix, 32)


def test_the_ridge_is_a_share_of_the_mean_eigenvalue() -> None:
    model = tiny_model("gpt2", "float64")
    site = model.site("ffn", 1)
    torch.manual_seed(0)
    keys, residual = torch.randn(3, site.d_in).double(), torch.randn(3, site.d_out).double()
    root = torch.randn(site.d_in, site.d_in).double()
    moment = root @ root.T
    mean = torch.linalg.eigvalsh(moment).mean()
    wanted = solve(residual, keys, moment + 0.3 * mean * torch.eye(site.d_in), 5.0, site)
    found = least_squares(lambda _: moment, 5.0, 0.3)(residual, keys, site)
    torch.testing.assert_close(found.matrix, wanted.matrix, rtol=1e-3, atol=1e-8)
    assert torch.equal(
        least_squares(lambda _: moment, 5.0)(residual, keys, site).matrix,
        solve(residual, keys, moment, 5.0, site).matrix,
    )
    assert torch.equal(moment, root @ root.T)


@pytest.mark.parametrize("facts", [1, 7, 16])
def test_few_facts_are_solved_from_the_factor_of_the_moments(facts: int) -> None:
    site = tiny_model("gpt2", "float64").site("ffn", 1)
    keys = torch.randn(facts, site.d_in, dtype=torch.float64)
    residual = torch.randn(facts, site.d_out, dtype=torch.float64)
    wanted = solve(residual, keys, moment_of(site), 5.0, site)
    found = solve_few(residual, keys, torch.linalg.cholesky(moment_of(site)), 5.0, site)
    assert set(found.tensors) == set(wanted.tensors)
    assert_agree(found.matrix, wanted.matrix, FORWARD, ISOTROPIC)
