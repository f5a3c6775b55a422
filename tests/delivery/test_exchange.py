"""Exports: an adapter that plain PEFT loads makes the model that the edit makes; what cannot be exported is refused."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn

from edit_cases import fresh, random_edit
from errata.delivery import adapters
from errata.delivery.exchange import from_peft, to_peft, to_weights
from errata.edits.deltas import Delta
from errata.edits.edit import Edit, load_edit
from errata.errors import EditError, MissingExtra, OutputExists, SettingsError, WrongModel
from errata.facts.fact import Fact
from errata.models.model import EditableModel
from errata.planning.plan import edit
from families import CONTEXTS, FACTS, FAMILIES, SENTENCES, SETTINGS, tiny_model
from moments_cases import Moments
from tiny import fresh_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)  # PEFT asks for it
TOLERANCE = 1e-5


def thin_edit(model: EditableModel) -> Edit:
    """A change of rank 2 of two FFNs and of rank 1 of an attention."""
    whole = random_edit(model)
    site = model.site("attention", 2)
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.randn(shape, generator=generator) for shape in ((site.d_out, 1), (1, site.d_in)))
    return replace(whole, deltas={**whole.deltas, site.path: Delta(0.1 * left, 0.1 * right)})


def logits(network: nn.Module, model: EditableModel) -> list[Tensor]:
    encoded = [model.tokenizer(text, return_tensors="pt") for text in SENTENCES]
    with torch.no_grad():
        return [network(input_ids=one["input_ids"]).logits for one in encoded]


def furthest(ones: list[Tensor], others: list[Tensor]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(ones, others, strict=True))


def loaded(model: EditableModel, folder: Path) -> nn.Module:
    """The base model with the adapter, as anyone who has PEFT and not Errata loads it."""
    return PeftModel.from_pretrained(copy.deepcopy(model.model), str(folder))


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
        torch.testing.assert_close(back.deltas[path].matrix, delta.matrix, rtol=0, atol=1e-7)
    back.save(tmp_path / "edit")
    with load_edit(tmp_path / "edit").applied(model):
        pass
    with pytest.raises(WrongModel, match="has other weights"):
        from_peft(tmp_path / "adapter", fresh_model(other_weights=True))


@pytest.mark.parametrize("stabilised", [False, True])
def test_an_adapter_of_someone_else_is_taken_in(stabilised: bool, tmp_path: Path) -> None:
    model = fresh("llama")
    base = copy.deepcopy(model.model)
    config = LoraConfig(
        r=3,
        lora_alpha=2,
        use_rslora=stabilised,
        rank_pattern={"layers.1.mlp.down_proj": 2},
        alpha_pattern={"layers.2.mlp.down_proj": 1},
        target_modules=["down_proj", "q_proj"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(0)
    trained = get_peft_model(base, config)
    trained.save_pretrained(str(tmp_path / "lora"))
    wanted = logits(trained.eval(), model)
    found = from_peft(tmp_path / "lora", model)
    assert found.origin.method == "peft"
    found.apply(model)
    assert furthest(logits(model.model, model), wanted) <= TOLERANCE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "sets use_dora"),
        ({"bias": "all"}, "sets bias"),
        ({"init_lora_weights": "pissa"}, "sets init_lora_weights"),
        ({"modules_to_save": ["lm_head"]}, "sets modules_to_save"),
        ({"peft_type": "IA3"}, "type IA3"),
        ({"lora_alpha": "three"}, "cannot be read"),
    ],
)
def test_an_adapter_that_is_more_than_thin_matrices_is_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    model = fresh()
    to_peft(thin_edit(model), tmp_path / "adapter", model)
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(EditError, match=message):
        from_peft(tmp_path / "adapter", model)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_that_is_no_adapter_is_refused(missing: str, tmp_path: Path) -> None:
    model = fresh()
    to_peft(thin_edit(model), tmp_path / "adapter", model)
    (tmp_path / "adapter" / missing).unlink()
    with pytest.raises(EditError, match=missing):
        from_peft(tmp_path / "adapter", model)
    (tmp_path / "adapter" / missing).write_bytes(b"{")
    with pytest.raises(EditError, match=r"cannot be read|damaged"):
        from_peft(tmp_path / "adapter", model)


def test_an_adapter_cut_to_a_rank_is_the_nearest_of_that_rank_and_says_what_is_lost(tmp_path: Path) -> None:
    model = fresh()
    found = random_edit(model)
    cuts = to_peft(found, tmp_path / "adapter", model, rank=1)
    for path, one in cuts.items():
        sizes = torch.linalg.svdvals(found.deltas[path].matrix.double())
        assert one.delta.rank == 1
        assert one.lost == pytest.approx(float(sizes[1:].square().sum().sqrt()), rel=1e-5)
        missing = (found.deltas[path].matrix - one.delta.matrix).double().norm()
        assert float(missing) == pytest.approx(one.lost, rel=1e-5)
    text = (tmp_path / "adapter" / "README.md").read_text()
    assert f"{adapters.share_lost(cuts.values()):.2%} of its norm is lost" in text
    with pytest.raises(SettingsError, match="must be at least 1"):
        to_peft(found, tmp_path / "other", model, rank=0)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_dense_change_stands_in_the_adapter_as_it_is(family: str, tmp_path: Path) -> None:
    model = fresh(family)
    found = random_edit(model)
    dense = model.site("attention", 2).path
    cuts = to_peft(found, tmp_path / "adapter", model)
    assert [path for path, one in cuts.items() if one.dense] == [dense]
    assert "is dense" in (tmp_path / "adapter" / "README.md").read_text()
    got = logits(loaded(model, tmp_path / "adapter"), model)
    back = from_peft(tmp_path / "adapter", model)
    assert torch.equal(back.deltas[dense].matrix, found.deltas[dense].matrix)
    found.apply(model)
    assert furthest(got, logits(model.model, model)) <= TOLERANCE


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_not_a_number_reaches_no_file(number: float, tmp_path: Path) -> None:
    model = fresh()
    found = thin_edit(model)
    path = next(iter(found.deltas))
    broken = replace(found, deltas={path: Delta(None, None, torch.full(found.deltas[path].shape, number))})
    for write in (
        lambda: broken.save(tmp_path / "edit"),
        lambda: to_peft(broken, tmp_path / "adapter", model),
        lambda: to_weights(broken, tmp_path / "diff", model),
    ):
        with pytest.raises(EditError, match="infinite or not a number"):
            write()
    assert not list(tmp_path.iterdir())


def test_a_dense_matrix_of_low_rank_is_no_dense_change(tmp_path: Path) -> None:
    model = fresh()
    thin = thin_edit(model)
    filled = {path: Delta(None, None, delta.matrix) for path, delta in thin.deltas.items()}
    cuts = to_peft(replace(thin, deltas=filled), tmp_path / "adapter", model)
    assert {one.full_rank for one in cuts.values()} == {1, 2}


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


def test_the_card_tells_facts_scores_and_how_to_load_and_remove(tmp_path: Path) -> None:
    model = fresh()
    odd = Fact("The | capital of {} is", "Valdoria", "<b>Kestrel</b>", "Mirenth")
    measured = {"before.efficacy_success": 0.0, "after.efficacy_success": 1.0}
    found = replace(thin_edit(model), facts=(odd,), measured=measured)
    to_peft(found, tmp_path / "adapter", model)
    text = (tmp_path / "adapter" / "README.md").read_text()
    assert "| The \\| capital of Valdoria is | &lt;b>Kestrel&lt;/b> | Mirenth |" in text
    assert "| Efficacy, success | 0.0 | 100.0 |" in text
    for words in ("library_name: peft", "PeftModel.from_pretrained", "model.unload()", "written by pmet"):
        assert words in text


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
