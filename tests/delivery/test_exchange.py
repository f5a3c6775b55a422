"""Exports: an adapter that plain PEFT loads makes the model that the edit makes; what cannot be exported is refused."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from edit_cases import fresh, random_edit
from errata.delivery import adapters
from errata.delivery.exchange import from_peft, to_peft, to_weights
from errata.edits.deltas import Delta
from errata.edits.edit import Edit, load_edit
from errata.errors import EditError, MissingExtra, OutputExists, WrongModel
from errata.models.model import EditableModel
from errata.planning.plan import edit
from exchange_cases import TOLERANCE, furthest, loaded, logits, thin_edit
from families import CONTEXTS, FACTS, FAMILIES, SETTINGS, tiny_model
from moments_cases import Moments
from tiny import fresh_model
from tolerances import assert_agree

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)  # PEFT asks for it


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_makes_the_model_that_the_edit_makes(
    family: str,
    moments: Moments,
    tmp_path: Path,
) -> None:
    model = tiny_model(family)
    found = edit(
        model,
        FACTS,
        "pmet",
        {**SETTINGS, "spread.write": ["attention", "ffn"]},
        contexts=CONTEXTS,
        covariance=moments(model),
    )
    cuts = to_peft(found, tmp_path / "adapter", model)
    assert all(one.lost == 0 and one.full_rank <= len(FACTS) for one in cuts.values())
    plain = logits(model.model, model)
    with found.applied(model):
        wanted = logits(model.model, model)
    with_adapter = loaded(model, tmp_path / "adapter")
    assert furthest(plain, wanted) > 100 * TOLERANCE, "an edit that changes nothing shows nothing"
    assert furthest(logits(with_adapter, model), wanted) <= TOLERANCE
    merged = cast(Any, with_adapter).merge_and_unload()
    assert furthest(logits(merged, model), wanted) <= TOLERANCE


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_ranks_may_differ_between_weights(family: str, tmp_path: Path) -> None:
    model = fresh(family)
    found = thin_edit(model)
    to_peft(found, tmp_path / "adapter", model)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    small = model.site("attention", 2)
    assert (config["r"], config["rank_pattern"]) == (2, {small.path: 1})
    assert config["alpha_pattern"] == {small.path: 1}
    assert config["fan_in_fan_out"] is small.transposed
    got = logits(loaded(model, tmp_path / "adapter"), model)
    found.apply(model)
    assert furthest(got, logits(model.model, model)) <= TOLERANCE


def test_the_same_edit_is_the_same_files(tmp_path: Path) -> None:
    model = fresh()
    for name in ("a", "b"):
        to_peft(thin_edit(model), tmp_path / name / "adapter", model)
    for file in (tmp_path / "a" / "adapter").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / "adapter" / file.name).read_bytes()


def test_an_exported_adapter_comes_back_as_the_edit(tmp_path: Path) -> None:
    model = fresh()
    found = thin_edit(model)
    to_peft(found, tmp_path / "adapter", model)
    back = from_peft(tmp_path / "adapter", model)
    assert (back.facts, back.origin) == (found.facts, found.origin)
    for path, delta in found.deltas.items():
        assert_agree(back.deltas[path].matrix, delta.matrix, 32)
    back.save(tmp_path / "edit")
    with load_edit(tmp_path / "edit").applied(model):
        pass
    with pytest.raises(WrongModel, match="has other weights"):
        from_peft(tmp_path / "adapter", fresh_model(other_weights=True))


def every_parameter(model: EditableModel) -> Edit:
    """An edit of all parameters of a block, biases and norms among them."""
    generator = torch.Generator().manual_seed(2)
    deltas = {
        site.path: Delta(None, None, 0.01 * torch.randn(site.matrix.shape, generator=generator))
        for site in model.block_sites(1)
    }
    return replace(random_edit(model), deltas=deltas)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_differences_are_added_by_parameter_name(family: str, tmp_path: Path) -> None:
    model = fresh(family)
    found = every_parameter(model)
    base = copy.deepcopy(model.model)
    to_weights(found, tmp_path / "diff", model)
    with torch.no_grad():
        for name, change in load_file(tmp_path / "diff" / "weight_diff.safetensors").items():
            base.get_parameter(name).add_(change)
    found.apply(model)
    for name, weight in model.model.named_parameters():
        assert torch.equal(base.get_parameter(name), weight)


def test_an_edit_of_more_than_linear_maps_is_no_adapter(tmp_path: Path) -> None:
    model = fresh()
    with pytest.raises(EditError, match="no linear maps"):
        to_peft(every_parameter(model), tmp_path / "adapter", model, rank=1)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    model = fresh()
    to_peft(thin_edit(model), tmp_path / "adapter", model)
    with pytest.raises(OutputExists):
        to_peft(thin_edit(model), tmp_path / "adapter", model)
    with pytest.raises(OutputExists):
        to_weights(thin_edit(model), tmp_path / "adapter", model)


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongModel, match="does not have"):
        to_peft(thin_edit(fresh()), tmp_path / "adapter", fresh("llama"))


def test_without_peft_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'errata\[export\]'"):
        to_peft(thin_edit(fresh()), tmp_path / "adapter")
