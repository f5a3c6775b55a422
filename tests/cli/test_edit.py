"""`errata edit`, `show`, `evaluate` and `apply`: one edit of a tiny model, from the facts to a checkpoint."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import errata
from cli_world import World, answer, edit, flat, run, the_world
from errata.edits.edit import Dropped
from families import FACTS, tiny_model


@pytest.fixture
def world() -> World:
    return the_world()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test writes into the user's cache."""
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def logits(model: str | Path) -> torch.Tensor:
    """What a checkpoint says, read the way that its users read it."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model).eval()
    with torch.no_grad():
        return loaded(**tokenizer(FACTS[0].question, return_tensors="pt")).logits


# --- edit --------------------------------------------------------------------------------------------


def test_edit_tells_what_it_did_and_what_comes_next(world: World, tmp_path: Path) -> None:
    output = tmp_path / "edit"
    done = run(*edit(world, output))
    said, notes = flat(done.stdout), flat(done.stderr)
    assert f"4 facts written by pmet into {world.model}" in said
    for layer in (1, 2):
        assert f"transformer.h.{layer}.mlp.c_proj" in said
    assert "Of the weight's" in said
    assert f"errata evaluate {world.model} --facts {world.facts} --edit {output}" in notes
    assert f"errata apply {world.model} {output}" in notes


def test_edit_in_json(world: World, tmp_path: Path) -> None:
    told = answer(*edit(world, tmp_path / "edit", "--seed", "3"))
    assert told["facts"] == 4
    assert told["seed"] == 3
    assert told["dropped"] == []
    assert told["scores"] is None
    settings: Any = told["settings"]
    assert (settings["layers"], settings["steps"]) == ([1, 2], 4)
    changes: Any = told["changes"]
    norm = float(errata.load_edit(tmp_path / "edit").deltas["transformer.h.1.mlp.c_proj"].matrix.norm())
    assert changes["transformer.h.1.mlp.c_proj"]["norm"] == pytest.approx(norm)


def test_quiet_leaves_stderr_empty(world: World, tmp_path: Path) -> None:
    named = ("--preset", "gpt2-xl-iterative")  # without a preset a rule chooses, and says so even then
    done = run(*edit(world, tmp_path / "edit", "--quiet", *named))
    assert done.exit_code == 0
    assert "4 facts written" in done.stdout
    assert not done.stderr


def test_the_edit_is_the_one_of_the_python_api(world: World, tmp_path: Path) -> None:
    run(*edit(world, tmp_path / "edit", "--method", "memit", "--seed", "1"))
    model = errata.load(world.model)
    settings: dict[str, object] = {"layers": "1-2", "values.steps": 4, "solve.covariance_weight": 20}
    made = errata.edit(
        model, errata.read_facts(world.facts), "memit", settings, covariance=world.moments, seed=1
    )
    read = errata.load_edit(tmp_path / "edit")
    assert read.origin.contexts == made.origin.contexts
    for path, delta in made.deltas.items():
        assert torch.equal(read.deltas[path].matrix, delta.matrix)


def test_contexts_from_a_file(world: World, tmp_path: Path) -> None:
    file = tmp_path / "contexts.json"
    file.write_text('["", "I think."]', encoding="utf-8")
    run(*edit(world, tmp_path / "edit", "--contexts", file))
    assert errata.load_edit(tmp_path / "edit").origin.contexts == ("", "I think.")


def test_finished_values_are_kept_for_the_next_run(world: World, tmp_path: Path, cache: Path) -> None:
    run(*edit(world, tmp_path / "edit"))
    assert list((cache / "targets").glob("*.safetensors"))


def test_evaluate_keeps_the_scores_with_the_edit(world: World, tmp_path: Path) -> None:
    output = tmp_path / "edit"
    done = run(*edit(world, output, "--evaluate"))
    assert "Success before" in done.stdout
    assert "Accuracy before" in done.stdout
    measured = errata.load_edit(output).measured
    assert measured["seconds"] > 0
    scores = errata.results.load_results(output).scores("after")
    assert scores["efficacy_success"] is not None
    assert measured["after.efficacy_success"] == scores["efficacy_success"].mean
    assert "before.specificity_accuracy" in measured
    assert "Efficacy, success" in run("show", output).stdout


def test_facts_that_were_left_out_are_listed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = errata.load_edit(world.edit)
    made = replace(
        whole, facts=whole.facts[1:], dropped=(Dropped(whole.facts[0], "its loss was not a number"),)
    )
    monkeypatch.setattr(errata, "edit", lambda *_, **__: made, raising=False)
    said = flat(run(*edit(world, tmp_path / "edit")).stdout)
    assert "3 facts written" in said
    assert "1 left out" in said
    assert "The capital of Valdoria is Valdoria its loss was not a number" in said
    assert "(1 left out)" in flat(run("show", tmp_path / "edit").stdout)


def test_the_librarys_warnings_go_to_stderr(world: World, tmp_path: Path) -> None:
    words = [word for word in edit(world, tmp_path / "edit", "--json") if word != "layers=1-2"]
    words.remove("--set")
    done = run(*words, "--set", "write=ffn")
    assert "a rule chose its settings" in flat(done.stderr)
    assert json.loads(done.stdout)["facts"] == 4
    assert not logging.getLogger("errata").handlers


def test_a_stopped_evaluation_leaves_the_edit(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(errata, "evaluate", stopped, raising=False)
    done = run(*edit(world, tmp_path / "edit", "--evaluate"))
    assert done.exit_code == 130
    assert "it was not evaluated" in flat(done.stderr)
    assert len(errata.load_edit(tmp_path / "edit").facts) == 4


# --- show, evaluate, apply -----------------------------------------------------------------------------


def test_show_tells_facts_settings_and_changes(world: World) -> None:
    said = flat(run("show", world.edit).stdout)
    for words in (
        "4 facts",
        "by pmet",
        "Orin Vasker plays the violin harp",
        "layers=[1,2]",
        "write=[ffn]",
        "mlp.c_proj",
    ):
        assert words in said


def test_show_in_json(world: World) -> None:
    told = answer("show", world.edit)
    facts: Any = told["facts"]
    assert facts[1]["target_new"] == "violin"
    assert told["method"] == "pmet"


def test_show_of_something_else(world: World) -> None:
    done = run("show", world.moments)
    assert done.exit_code == 2
    assert "is not an edit" in flat(done.stderr)


def test_evaluate_with_and_without_the_edit(world: World, tmp_path: Path) -> None:
    told: Any = answer(
        "evaluate",
        world.model,
        "--facts",
        world.facts,
        "--edit",
        world.edit,
        "--output",
        tmp_path / "results",
    )
    assert set(told["scores"]) == {"before", "after"}
    results = errata.results.load_results(tmp_path / "results")
    assert told["scores"]["after"]["score_success"] == results.scores()["score_success"].to_json()  # type: ignore[union-attr]
    plain: Any = answer("evaluate", world.model, "--facts", world.facts, "--no-generate")
    assert plain["scores"]["after"]["efficacy_success"] == told["scores"]["before"]["efficacy_success"]
    assert "generation_accuracy" not in plain["scores"]["after"]


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
