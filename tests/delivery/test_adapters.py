"""Adapters cut to a rank, dense changes, and folders that are no adapter."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from edit_cases import fresh, random_edit
from errata.delivery import adapters
from errata.delivery.exchange import from_peft, to_peft, to_weights
from errata.edits.deltas import Delta
from errata.errors import EditError, SettingsError
from exchange_cases import TOLERANCE, furthest, loaded, logits, thin_edit

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)  # PEFT asks for it


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
