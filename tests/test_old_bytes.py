"""What earlier versions wrote (tests/fixtures/old-formats), read and written again: the bytes are the same."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import errata
from errata.analysis.effects import effects_from_json
from errata.analysis.locating_folder import _write_json  # pyright: ignore[reportPrivateUsage]
from errata.edits import open_stack
from errata.facts import write_facts
from errata.methods.checkpoints import Checkpoint
from errata.methods.mend.store import load_editor
from errata.results import load_results
from errata.runtime import to_json

HERE = Path(__file__).parent / "fixtures" / "old-formats"


def same_files(one: Path, other: Path) -> bool:
    names = [{path.relative_to(folder) for path in folder.rglob("*")} for folder in (one, other)]
    return names[0] == names[1] and all(
        (one / name).read_bytes() == (other / name).read_bytes()
        for name in names[0]
        if (one / name).is_file()
    )


@pytest.mark.parametrize("name", ["pmet", "two_site", "finetune", "mend", "iterated", "odd/edit"])
def test_an_edit(name: str, tmp_path: Path) -> None:
    errata.load_edit(HERE / name).save(tmp_path / name)
    assert same_files(tmp_path / name, HERE / name)


def test_a_stack(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    shutil.copytree(HERE / "stack", folder)
    stack = open_stack(folder)
    second, on_top_of = stack.edit("second"), stack.entries[1].on_top_of
    stack.remove("second").add("second", second, on_top_of)
    assert same_files(folder, HERE / "stack")


@pytest.mark.parametrize("name", ["results", "odd/results"])
def test_results(name: str, tmp_path: Path) -> None:
    load_results(HERE / name).save(tmp_path / "results")
    assert same_files(tmp_path / "results", HERE / name)


def test_an_editor(tmp_path: Path) -> None:
    load_editor(HERE / "editor").save(tmp_path / "editor")
    assert same_files(tmp_path / "editor", HERE / "editor")


@pytest.mark.parametrize("name", ["facts.jsonl", "known.jsonl", "odd/facts.jsonl"])
def test_facts(name: str, tmp_path: Path) -> None:
    write_facts(tmp_path / "facts.jsonl", errata.read_facts(HERE / name))
    assert (tmp_path / "facts.jsonl").read_bytes() == (HERE / name).read_bytes()


@pytest.mark.parametrize("number", ["001", "002"])
def test_a_traced_fact_of_a_folder(number: str, tmp_path: Path) -> None:
    file = HERE / "located" / "facts" / f"{number}.json"
    _write_json(tmp_path / file.name, to_json(effects_from_json(json.loads(file.read_text("utf-8")))))
    assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_a_trace_that_is_kept() -> None:
    for file in (HERE / "traces").iterdir():
        effects = effects_from_json(json.loads(file.read_text("utf-8")))
        assert json.dumps(to_json(effects), ensure_ascii=False) == file.read_text("utf-8")


def test_unfinished_training(tmp_path: Path) -> None:
    recipe = [3, ["x", "é"], {"b": 1, "a": [0.1, None]}, ["c"], 0]
    weights = {"m.a.weight": torch.zeros(3, 4), "m.b.weight": torch.zeros(5)}
    adam = torch.optim.Adam(weights.values())
    assert Checkpoint.of(HERE / "odd", "finetune", recipe).restore(weights, adam) == [0.5, 0.25]
    assert all(bool(weight.any()) and adam.state[weight]["step"] == 1 for weight in weights.values())
    Checkpoint.of(tmp_path, "finetune", recipe).save(weights, adam, [0.5, 0.25])
    (file,) = tmp_path.iterdir()
    assert file.read_bytes() == (HERE / "odd" / file.name).read_bytes()
