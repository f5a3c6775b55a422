"""What the published programs compute on four tiny models: every array agrees (tests/goldens/README.md).

float64 to 1e-9 of each array's maximum, float32 to 1e-3 (Adam amplifies rounding over the steps). GPT-J attends in
float32 whatever the dtype of its weights: without vector instructions, which the recording used, its float64 arrays
are up to 7e-8 apart, and 1e-6 is allowed there.
"""

import json
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import errata
from errata.edits.deltas import write_deltas
from errata.facts.fact import Fact
from errata.methods.registry import method_named
from errata.methods.rome import KeyReading, rome_step
from errata.models.loading import load
from errata.models.model import EditableModel
from errata.passes.prompts import encode_rows, kl_rows, rewrite_rows
from errata.settings.schema import build, flatten, settings_of
from errata.solve.keys import KeyPrompts
from errata.solve.least_squares import least_squares
from errata.solve.spread import SpreadStep, Write, spread
from errata.values.descent import place_path
from errata.values.targets import optimize_targets
from sites import SpreadStage, ValueStage

S = TypeVar("S")
HERE = Path(__file__).parent / "goldens"
INPUTS = json.loads((HERE / "inputs.json").read_text())
CONTEXTS = tuple(
    template.removesuffix("{}").strip() for group in INPUTS["context_templates"] for template in group
)
ALL_RUNS = sorted(path.parent.relative_to(HERE).as_posix() for path in HERE.glob("*/*/about.json"))
ROME_RUNS = sorted(path.parent.relative_to(HERE).as_posix() for path in HERE.glob("*/rome*/*/about.json"))
"""Each request alone, on the unedited model."""
PLACES = {"ffn": "_mlp", "attention": "_attn", "block": ""}
"""How the recordings mark the place of a value."""
STOPS = {"argmax and kl<=0.01": "argmax and KL", "loss<0.05": "loss"}


class Golden:
    """One recorded run, with the model it was recorded on."""

    def __init__(self, run: str):
        self.family, self.method, *case = run.split("/")
        self.double = self.method.endswith("_f64")
        self.arrays = load_file(HERE / run / "trace.safetensors")
        self.weights = load_file(HERE / run / "weights.safetensors")
        self.moments = load_file(HERE / self.family / "moments.safetensors")
        about = json.loads((HERE / run / "about.json").read_text())
        self.hparams, self.stops = about["hparams"], about["stops"]
        self.pmet = self.method.startswith("pmet")
        self.rome = self.method.startswith("rome")
        requests = INPUTS["early_requests" if "early" in self.method else "requests"]
        requests = [requests[int(number.removeprefix("case"))] for number in case] or requests
        names = ("prompt", "subject", "target_new", "target_true")
        self.neighbors = "neighbor" in self.method
        self.facts = [
            Fact(
                **{name: request[name] for name in names},
                neighbors=[{**request["neighbor"], "target": request["target_true"]}]
                if self.neighbors
                else (),
            )
            for request in requests
        ]

    @property
    def model(self) -> EditableModel:
        return golden_model(self.family, "float64" if self.double else "float32")

    @property
    def allowed(self) -> float:
        """How far an array may be off, as a part of its maximum."""
        if not self.double:
            return 1e-3
        scalar = torch.backends.cpu.get_cpu_capability() == "DEFAULT"
        return 1e-6 if scalar and self.family == "gpt-j" else 1e-9

    @property
    def write(self) -> tuple[str, ...]:
        return ("ffn", "attention") if "both" in self.method else ("ffn",)

    @property
    def settings(self) -> dict[str, object]:
        published = self.hparams
        return {
            "layers": tuple(published["layers"]),
            "values.steps": published["v_num_grad_steps"],
            "values.learning_rate": published["v_lr"],
            "values.clamp": published["clamp_norm_factor"],
            "values.decay": published["v_weight_decay"],
            "values.kl_weight": published["kl_factor"],
            "values.nll_weight": 1.0,
            "values.kl_position": "subject",
            "values.optimize": ("attention", "ffn") if self.pmet else ("ffn",) if self.rome else ("block",),
            "solve.covariance_weight": published.get("mom2_update_weight"),
            "spread.share": "sqrt" if self.pmet and "even" not in self.method else "even",
            "spread.write": self.write,
            "keys.average": "half",
            "solve.key": "mean",
            "values.neighbor_weight": float(self.neighbors),
            "values.neighbor_loss": "published",
            "values.neighbor_prefix": True,
        }

    def part(self, kind: type[S]) -> S:
        """The settings that `kind` has; ROME's programs weigh every context the same."""
        known = {one.name for one in settings_of(kind)}
        own = {name: value for name, value in self.settings.items() if name in known}
        return build(kind, own, {"keys.average": "plain"} if self.rome and "keys.average" in known else {})

    def close(
        self, mine: Tensor | list[float] | list[list[float]], name: str, recorded: Tensor | None = None
    ) -> None:
        theirs = (self.arrays[name] if recorded is None else recorded).double()
        mine = torch.as_tensor(mine, dtype=torch.float64)
        assert mine.shape == theirs.shape, f"{name}: {mine.shape} instead of {theirs.shape}"
        off = float((mine - theirs).abs().max() / theirs.abs().max().clamp(min=1e-300))
        assert off <= self.allowed, f"{name} is off by {off:.1e} of its maximum"


@cache
def golden(run: str) -> Golden:
    return Golden(run)


@cache
def golden_model(family: str, dtype: str) -> EditableModel:
    return load(HERE / family / "model", dtype=dtype)


def targets_of(run: Golden, record: bool = False):
    settings = run.part(ValueStage)
    return optimize_targets(run.model, run.facts, CONTEXTS, settings, relax=run.pmet, record_deltas=record)


@pytest.mark.parametrize("run", [*ALL_RUNS, *ROME_RUNS])
def test_lookup_positions_are_the_published_ones(run: str) -> None:
    recorded, model = golden(run), golden(run).model
    for index, fact in enumerate(recorded.facts):
        rows = encode_rows(model, [*rewrite_rows([fact], CONTEXTS), *kl_rows([fact])])
        ids, mask = recorded.arrays[f"req{index}.input_ids"], recorded.arrays[f"req{index}.attention_mask"]
        lookups = recorded.arrays[f"req{index}.lookup_idxs"].tolist()
        if "neighbor" in run:
            ids, mask = torch.cat([ids[:-2], ids[-1:]]), torch.cat([mask[:-2], mask[-1:]])
            lookups = [*lookups[:-2], lookups[-1]]
        assert [row.lookup for row in rows] == lookups
        if "neighbor" not in run:
            assert [list(row.text.ids) for row in rows[:-1]] == [
                tokens[keep.bool()].tolist() for tokens, keep in zip(ids[:-1], mask[:-1], strict=True)
            ]


@pytest.mark.parametrize("run", [*ALL_RUNS, *ROME_RUNS])
def test_the_optimization_stage_is_the_published_one(run: str) -> None:
    recorded = golden(run)
    targets = targets_of(recorded, record=True)
    assert [trace.stop for trace in targets.traces] == [STOPS.get(stop, stop) for stop in recorded.stops]
    for index, trace in enumerate(targets.traces):
        one = f"req{index}."
        recorded.close(trace.loss, one + "step.loss")
        recorded.close(trace.nll, one + "step.nll_loss")
        recorded.close(trace.kl, one + "step.kl_loss")
        recorded.close(trace.decay, one + "step.weight_decay")
        rows = recorded.arrays[one + "step.nll_each"][:, : len(CONTEXTS)]  # a neighbor's row stands behind
        recorded.close(trace.nll_each, one + "step.nll_each", rows)
        if recorded.pmet:
            recorded.close(trace.nll_factor, one + "step.nll_factor")
        for place in targets.initial:
            mark = "" if recorded.rome else PLACES[place]
            recorded.close(torch.stack([deltas[place] for deltas in trace.deltas]), f"{one}step.delta{mark}")
            recorded.close(targets.initial[place][index], f"{one}target_init{mark}")
            recorded.close(targets.value(place)[index], f"{one}target{mark}")


@pytest.mark.parametrize("run", ALL_RUNS)
def test_the_spread_stage_is_the_published_one(run: str) -> None:
    """From the recorded values v*, so that this stage is judged alone."""
    recorded, model = golden(run), golden(run).model
    settings = recorded.part(SpreadStage)
    last = recorded.hparams["layers"][-1]
    writes = []
    for kind in recorded.write:
        place = kind if recorded.pmet else "block"
        names = [f"req{index}.target{PLACES[place]}" for index in range(len(recorded.facts))]
        values = torch.stack([recorded.arrays[name] for name in names])
        writes.append(Write(kind, place_path(model, place, last), values))
    steps: dict[str, SpreadStep] = {}
    deltas = spread(
        model,
        settings,
        writes,
        KeyPrompts.of(model, recorded.facts, CONTEXTS),
        least_squares(lambda site: recorded.moments[site.path].double(), settings.solve.covariance_weight),
        steps=steps,
    )
    assert set(deltas) == {name.removesuffix(".weight") for name in recorded.weights}
    for path, delta in deltas.items():
        recorded.close(steps[path].keys, f"spread.{path}.K")
        recorded.close(steps[path].current, f"spread.{path}.cur_zs")
        recorded.close(steps[path].residual, f"spread.{path}.residual")
        recorded.close(delta.matrix, f"spread.{path}.upd_matrix")
    for kind in recorded.write:
        for layer in recorded.hparams["layers"]:
            site = model.site(kind, layer)
            theirs = recorded.weights[f"{site.path}.weight"]
            with model.ledger.temporary():
                write_deltas(model, {site.path: deltas[site.path]})
                off = float((site.weight - theirs).abs().max() / theirs.abs().max())
                assert off <= recorded.allowed


@pytest.mark.parametrize("run", ROME_RUNS)
def test_the_rank_one_update_is_the_published_one(run: str) -> None:
    recorded, model = golden(run), golden(run).model
    site = model.site("ffn", recorded.hparams["layers"][0])
    factor = torch.linalg.cholesky(recorded.moments[site.path].double())
    (fact,) = recorded.facts
    step = rome_step(model, fact, CONTEXTS, site, factor, KeyReading())
    recorded.close(KeyPrompts.of(model, [fact], CONTEXTS).keys(site, "plain")[0], "rome_u.k_mean")
    recorded.close(step.direction, "rome_u.u")
    recorded.close(step.divisor, "rome_v.cur_input")
    recorded.close(step.output, "rome_v.cur_output")
    denominator = step.divisor @ step.direction
    recorded.close(denominator[None], "rome_v.denom")
    recorded.close((recorded.arrays["req0.target"] - step.output) / denominator, "rome_v.right_vector")


@pytest.mark.parametrize("run", [*ALL_RUNS, *ROME_RUNS])
def test_the_public_edit_writes_the_published_weights(run: str, tmp_path: Path) -> None:
    """`errata.edit` with a covariance folder and given contexts, saved, loaded, applied and taken back."""
    recorded, model = golden(run), golden(run).model
    for path, moment in recorded.moments.items():
        save_file({"second_moment": moment, "count": torch.tensor(2999)}, tmp_path / f"{path}.safetensors")
    method = "pmet" if recorded.pmet else "rome" if recorded.rome else "memit"
    settings = flatten(recorded.part(method_named(method).settings))
    edit = errata.edit(model, recorded.facts, method, settings, contexts=list(CONTEXTS), covariance=tmp_path)
    edit.save(tmp_path / "edit")
    before = {name: weight.clone() for name, weight in model.model.named_parameters()}
    with errata.load_edit(tmp_path / "edit").applied(model):
        after = dict(model.model.named_parameters())
        for name, theirs in recorded.weights.items():
            off = float((after[name] - theirs).abs().max() / theirs.abs().max())
            assert off <= recorded.allowed, name
        changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
        assert changed == set(recorded.weights)
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.named_parameters())
