"""`errata stack`, `errata log` and `errata diff`: from a first edit to one that is taken out again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import errata
from cli_world import QUICK, World, answer, failed, flat, run
from errata.edits.stacks import open_edit
from families import FACTS


def facts_in(file: Path, *facts: errata.Fact) -> Path:
    errata.write_facts(file, facts)
    return file


def stacked(world: World, stack: Path, name: str, facts: Path, *more: str) -> tuple[str | Path, ...]:
    known = ("--facts", facts, "--covariance", world.moments, "--name", name)
    return ("stack", "edit", stack, world.model, *known, *QUICK, *more)


def test_edits_are_stacked_told_taken_out_and_merged(world: World, tmp_path: Path) -> None:
    stack = tmp_path / "stack"
    first = facts_in(tmp_path / "one.jsonl", *FACTS[:2])
    answer(*stacked(world, stack, "one", first))
    told = cast(Any, answer(*stacked(world, stack, "two", facts_in(tmp_path / "two.jsonl", *FACTS[2:]))))
    assert [(edit["name"], edit["on_top_of"]) for edit in told["edits"]] == [("one", []), ("two", ["one"])]
    text = run("log", stack).stdout
    assert text.index("two") < text.index("one  ")

    wrong = facts_in(tmp_path / "wrong.jsonl", replace(FACTS[0], target_new="Lindale"))
    assert "contradict edits" in failed(*stacked(world, stack, "three", wrong))

    answer("stack", "merge", stack, "--output", tmp_path / "both")
    assert errata.load_edit(tmp_path / "both").facts == FACTS
    same = cast(Any, answer("diff", stack, tmp_path / "both"))
    assert (same["facts_in_both"], same["facts"]) == (4, [])
    assert all(row["apart"] < 1e-6 for row in same["weights"])

    taken = run("stack", "remove", stack, "one")
    assert "two was made with one in the weights" in flat(taken.stderr)
    assert [edit["name"] for edit in cast(Any, answer("log", stack))["edits"]] == ["two"]


def test_a_finished_edit_is_put_on_a_stack_once(world: World, tmp_path: Path) -> None:
    answer("stack", "add", tmp_path / "stack", world.edit, "--name", "one")
    message = failed("stack", "add", tmp_path / "stack", world.edit, "--name", "one")
    assert "has an edit 'one' already" in message


def test_a_stack_stands_wherever_an_edit_does(world: World, tmp_path: Path) -> None:
    stack = tmp_path / "stack"
    answer("stack", "add", stack, world.edit, "--name", "one")
    known = cast(Any, answer("evaluate", world.model, "--facts", world.facts, "--edit", world.edit))
    assert (
        cast(Any, answer("evaluate", world.model, "--facts", world.facts, "--edit", stack))["scores"]
        == known["scores"]
    )
    assert cast(Any, answer("show", stack))["method"] == "stack"
    answer("export", stack, "--output", tmp_path / "diff", "--format", "safetensors")
    answer("apply", world.model, stack, "--output", tmp_path / "model")
    assert json.loads((tmp_path / "model" / "edit.json").read_text())["method"] == "stack"


def test_an_edit_of_a_stack_is_prepared_as_any_other(world: World, tmp_path: Path) -> None:
    """Other wordings come from the file's own templates of the relation."""
    facts = facts_in(
        tmp_path / "facts.jsonl",
        replace(FACTS[0], relation_id="r"),
        replace(FACTS[1], relation_id="r"),
    )
    assert FACTS[0].prompt != FACTS[1].prompt
    answer(
        *stacked(world, tmp_path / "stack", "one", facts, "--set", "keys.templates=1", "--method", "memit")
    )
    edit = open_edit(tmp_path / "stack")
    assert [fact.edit_prompts for fact in edit.facts] == [(FACTS[1].prompt,), (FACTS[0].prompt,)]
    wrong = stacked(
        world, tmp_path / "stack", "two", world.facts, "--method", "finetune", "--preserve", "subject"
    )
    assert "methods that optimize values" in failed(*wrong)


def test_what_is_no_stack_is_refused(world: World, tmp_path: Path) -> None:
    assert "is not a stack" in failed("log", world.edit)
    assert "exists already" in failed("stack", "add", world.edit, world.edit, "--name", "one")
    assert "is not an edit" in failed("diff", world.edit, tmp_path)


def test_a_difference_names_facts_and_weights(world: World, tmp_path: Path) -> None:
    edit = errata.load_edit(world.edit)
    other = replace(edit.facts[0], target_new="Lindale")
    path = next(iter(edit.deltas))
    replace(edit, facts=(other, *edit.facts[2:]), deltas={path: edit.deltas[path]}).save(tmp_path / "other")
    told = cast(Any, answer("diff", world.edit, tmp_path / "other"))
    assert told["facts_in_both"] == len(edit.facts) - 2
    assert [(row["one"], row["other"]) for row in told["facts"]] == [
        (edit.facts[0].target_new, "Lindale"),
        (edit.facts[1].target_new, None),
    ]
    first, second = told["weights"]
    assert (first["apart"], round(first["cosine"], 6)) == (0, 1)
    assert (second["other"], second["cosine"]) == (None, None)
    assert "Lindale" in run("diff", world.edit, tmp_path / "other").stdout
