"""`errata edit`: one edit of a tiny model by the command line."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import errata
from cli_world import World, answer, edit, flat, run
from errata.edits.edit import Dropped


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
    assert (settings["layers"], settings["values.steps"]) == ([1, 2], 4)
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
    monkeypatch.setattr("errata.planning.plan.Settled.run", lambda *_, **__: made)
    said = flat(run(*edit(world, tmp_path / "edit")).stdout)
    assert "3 facts written" in said
    assert "1 left out" in said
    assert "The capital of Valdoria is Valdoria its loss was not a number" in said
    assert "(1 left out)" in flat(run("show", tmp_path / "edit").stdout)


def test_the_librarys_warnings_go_to_stderr(world: World, tmp_path: Path) -> None:
    words = [word for word in edit(world, tmp_path / "edit", "--json") if word != "layers=1-2"]
    words.remove("--set")
    done = run(*words, "--set", "spread.write=ffn")
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
