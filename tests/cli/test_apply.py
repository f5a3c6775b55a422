"""`errata apply`: a checkpoint that transformers loads."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import errata
from cli_world import World, answer, edit, flat, run
from families import FACTS, tiny_model


def logits(model: str | Path) -> torch.Tensor:
    """What a checkpoint says, read the way that its users read it."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model).eval()
    with torch.no_grad():
        return loaded(**tokenizer(FACTS[0].question, return_tensors="pt")).logits


def test_apply_writes_a_checkpoint_that_transformers_loads(world: World, tmp_path: Path) -> None:
    output = tmp_path / "model"
    said = flat(run("apply", world.model, world.edit, "--output", output).stdout)
    assert "4 facts written: a full checkpoint in float32" in said
    model = errata.load(world.model)
    tokens = model.tokenizer(FACTS[0].question, return_tensors="pt")
    with errata.load_edit(world.edit).applied(model), torch.no_grad():
        expected = model.model(**tokens).logits
    assert torch.equal(logits(output), expected)
    assert not torch.equal(logits(output), logits(world.model))


def test_apply_keeps_the_checkpoints_dtype(world: World, tmp_path: Path) -> None:
    tiny, half = tiny_model("gpt2"), tmp_path / "half"
    copy = AutoModelForCausalLM.from_pretrained(world.model, dtype=torch.bfloat16)
    copy.save_pretrained(half)
    tiny.tokenizer.save_pretrained(half)
    words = [str(half) if word == world.model else word for word in edit(world, tmp_path / "edit")]
    words[words.index(world.moments)] = moments = tmp_path / "moments"
    corpus = world.root / "corpus.txt"
    run("covariance", "collect", half, "--layers", "1-2", "--corpus", corpus, "--output", moments)
    assert run(*words).exit_code == 0
    told: Any = answer("apply", half, tmp_path / "edit", "--output", tmp_path / "model")
    assert told["dtype"] == "bfloat16"
    assert 0 < told["rounding"] < 1
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").dtype == torch.bfloat16


def test_apply_of_an_edit_for_another_model(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other"
    model = tiny_model("llama")
    model.model.save_pretrained(other)
    model.tokenizer.save_pretrained(other)
    done = run("apply", other, world.edit, "--output", tmp_path / "model")
    assert done.exit_code == 2
    assert "was made for" in flat(done.stderr)
    assert not (tmp_path / "model").exists()
