"""`errata export` and `errata import`: an adapter and plain differences out, an edit in."""

from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_file

import errata
from cli_world import World, answer, failed, run


def test_an_edit_goes_out_as_an_adapter_and_comes_back(world: World, tmp_path: Path) -> None:
    told = answer("export", world.edit, "--output", tmp_path / "adapter")
    assert told["norm_lost"] == 0
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    back = answer("import", tmp_path / "adapter", "--model", world.model, "--output", tmp_path / "edit")
    edit = errata.load_edit(world.edit)
    assert back["weights"] == sorted(edit.deltas)
    assert errata.load_edit(tmp_path / "edit").facts == edit.facts


def test_a_rank_says_what_it_costs(world: World, tmp_path: Path) -> None:
    words = ("export", world.edit, "--rank", "1", "--facts", world.facts, "--output")
    told = cast(Any, answer(*words, tmp_path / "one"))
    assert 0 < told["norm_lost"] < 1
    assert {one["rank"] for one in told["weights"].values()} == {1}
    assert set(told["scores"]) == {"edit", "adapter"}
    text = run(*words, tmp_path / "two").stdout
    for word in ("of its norm", "Efficacy, success", "Specificity, accuracy", "Adapter"):
        assert word in text
    assert "Efficacy, success" in (tmp_path / "two" / "README.md").read_text()


def test_a_rank_without_facts_has_no_scores_in_its_card(world: World, tmp_path: Path) -> None:
    run("export", world.edit, "--rank", "1", "--output", tmp_path / "adapter")
    assert "Nothing was measured" in (tmp_path / "adapter" / "README.md").read_text()


def test_differences_have_the_parameters_names(world: World, tmp_path: Path) -> None:
    answer("export", world.edit, "--format", "safetensors", "--output", tmp_path / "diff")
    edit = errata.load_edit(world.edit)
    assert set(load_file(tmp_path / "diff" / "weight_diff.safetensors")) == {
        f"{path}.weight" for path in edit.deltas
    }


def test_options_that_do_not_belong_together_are_refused(world: World, tmp_path: Path) -> None:
    out = ("--output", tmp_path / "out")
    assert "belongs to --format peft" in failed(
        "export", world.edit, "--format", "safetensors", "--rank", "1", *out
    )
    assert "--facts belongs to --rank" in failed("export", world.edit, "--facts", world.facts, *out)
    assert not (tmp_path / "out").exists()


def test_an_edit_of_a_model_that_moved_wants_to_be_told_where_it_is(world: World, tmp_path: Path) -> None:
    out = ("--output", tmp_path / "out")
    assert "nowhere" in failed("export", world.edit, "--model", tmp_path / "nowhere", *out)
