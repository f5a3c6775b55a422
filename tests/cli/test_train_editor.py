"""`errata train-editor`: an editor trained, killed and gone on with, and used by `errata edit`."""

from pathlib import Path
from typing import Any

import pytest

import errata
from cli_world import World, answer, failed, flat, run
from errata.almanac.world import draw_entries
from errata.cli import train_editor as command
from errata.methods.mend.store import load_editor
from errata.methods.mend.training import Course, State

SETTINGS = {
    "layers": "1-2",
    "rank": 4,
    "alpha": 0.05,
    "alpha_rate": 0.01,
    "at_once": "1-2",
    "accumulate": 1,
    "statistics": 2,
    "validation": 1,
    "validation_edits": 2,
    "validate_every": 3,
}
QUICK = (*(word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")), "--steps", "6")
EVERY = ("--keep-every", "2")


def train(world: World, output: Path, *more: str | Path) -> tuple[str | Path, ...]:
    return ("train-editor", world.model, "--facts", world.facts, "--output", output, *QUICK, *EVERY, *more)


def test_an_editor_is_trained_told_of_and_used(world: World, tmp_path: Path) -> None:
    editor, edit = tmp_path / "editor", tmp_path / "edit"
    done = run(*train(world, editor, "--seed", "2"))
    assert done.exit_code == 0, done.output
    said, notes = flat(done.stdout), flat(done.stderr)
    assert f"An editor for {world.model} was trained on 3 facts: 6 steps" in said
    assert "Surprisal of the target behind paraphrases" in said
    assert f"--method mend --set editor={editor}" in notes
    assert not (tmp_path / "editor.partial").exists()
    origin = load_editor(editor).origin
    assert (origin.seed, origin.facts, origin.settings["steps"]) == (2, "facts.jsonl", 6)

    use = ("--method", "mend", "--set", "layers=1-2", "--set", f"editor={editor}")
    told = answer("edit", world.model, "--facts", world.facts, "--output", edit, *use)
    assert (told["facts"], told["method"]) == (4, "mend")
    assert len(errata.load_edit(edit).deltas) == 4


def test_the_result_in_json(world: World, tmp_path: Path) -> None:
    told: Any = answer(*train(world, tmp_path / "editor"), "--quiet")
    assert told["editor"] == str(tmp_path / "editor")
    assert told["settings"]["layers"] == [1, 2]
    record = told["training"]
    assert (record["steps"], record["trained_on"], record["held_back"]) == (6, 3, 1)
    assert [each["step"] for each in record["history"]] == [0, 3, 6]


def test_facts_of_several_files_are_one_set(world: World, tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl"
    errata.write_facts(more, [errata.Fact("{} sleeps", "Edda Rowe", "well")])
    told: Any = answer(*train(world, tmp_path / "editor", "-f", more))
    assert told["training"]["facts"] == 5
    assert told["source"] == "facts.jsonl, more.jsonl"


def test_stopped_and_gone_on_with(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(*train(world, whole))
    step = Course._step

    def stopped(self: Course, state: State) -> None:
        if state.step == 5:
            raise KeyboardInterrupt
        step(self, state)

    monkeypatch.setattr(Course, "_step", stopped)
    message = failed(*train(world, parts), code=130)
    assert f"What is done is kept in {parts}.partial every 2 steps" in message
    assert not parts.exists()
    taken: list[int] = []
    monkeypatch.setattr(Course, "_step", lambda self, state: (taken.append(state.step), step(self, state)))
    assert run(*train(world, parts)).exit_code == 0
    assert taken == [4, 5]
    assert (parts / "editor.safetensors").read_bytes() == (whole / "editor.safetensors").read_bytes()


def test_the_embedded_model_has_facts_of_its_own() -> None:
    facts, source = command._facts("almanac", [])
    assert source == "the development half of almanac's world"
    held_out = {entry.subject for entry in draw_entries("held-out", None, 0)}
    assert len(facts) > 3000
    assert not {fact.subject for fact in facts} & held_out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--set", "rnk=3"), "no setting 'rnk'. Did you mean 'rank'?"),
        (("--set", "layers=9"), "has blocks 0 to 3"),
        (("--set", "validation=9"), "are too few to train on some of them"),
        (("--set", "steps"), "Write name=value"),
    ],
)
def test_wrong_settings(world: World, tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    assert expected in failed(*train(world, tmp_path / "editor", "--quiet", *words))
    assert list(tmp_path.iterdir()) == []


def test_other_models_need_facts(world: World, tmp_path: Path) -> None:
    message = failed("train-editor", world.model, "--output", tmp_path / "editor")
    assert f"There are no facts to train an editor for {world.model} on" in message


def test_an_output_that_is_there(world: World) -> None:
    assert "exists already" in failed(*train(world, world.edit))
