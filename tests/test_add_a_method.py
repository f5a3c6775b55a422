"""The method of docs/add-a-method.md, taken from the page: it is short, it works, and the command line knows it."""

import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import errata
from cli_world import answer, flat, run
from errata.facts.fact import Fact
from errata.methods.base import Method
from errata.methods.registry import METHODS
from errata.settings import method_presets as settings
from errata.solve.keys import KeyPrompts
from families import CONTEXTS, tiny_model
from tolerances import ISOTROPIC, assert_agree

PAGE = (Path(__file__).parent.parent / "docs" / "add-a-method.md").read_text(encoding="utf-8")
LONGEST = 40
EASY = (
    Fact("Today I see {}", "Valdoria", "was"),
    Fact("The harp of {}", "Orin Vasker", "the"),
    Fact("{}", "Jonas Whitlock", "is"),
)
STRONG: dict[str, object] = {
    "layers": [2],
    "values.steps": 6,
    "values.learning_rate": 0.5,
    "values.clamp": 3.0,
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Method[Any]:
    """The page's file and presets, written to disk and registered as the page says."""
    code, line = blocks("python")
    (presets,) = blocks("toml")
    assert line == "METHODS: dict[str, Method[Any]] = {row.name: row for row in (..., smallest.METHOD)}\n"
    file = tmp_path / "smallest.py"
    file.write_text(code, encoding="utf-8")
    shutil.copytree(settings.PRESETS, tmp_path / "presets")
    (tmp_path / "presets" / "smallest.toml").write_text(presets, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("smallest", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(settings, "PRESETS", tmp_path / "presets")
    monkeypatch.setitem(METHODS, module.METHOD.name, module.METHOD)
    return module.METHOD


def test_it_is_short() -> None:
    text = "".join([*blocks("python"), *blocks("toml")])
    assert len([line for line in text.splitlines() if line.strip()]) < LONGEST


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_it_writes_the_facts_and_gives_the_model_back(family: str, added: Method[Any]) -> None:
    model = tiny_model(family)
    before = {name: weight.detach().clone() for name, weight in model.model.named_parameters()}
    edit = errata.edit(model, EASY, added.name, STRONG, contexts=CONTEXTS)
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.named_parameters())
    assert list(edit.deltas) == [model.site("ffn", 2).path]
    results = errata.evaluate(model, EASY, edit, generate=False)
    for record in results.records:
        assert record.before is not None
        then, now = (phase.efficacy[0].wanted.log_probability for phase in (record.before, record.after))
        assert now > then + 1


def test_it_is_the_smallest_change_that_does_so(added: Method[Any]) -> None:
    model = tiny_model("gpt2", "float64")
    edit = errata.edit(model, EASY, added.name, STRONG, contexts=CONTEXTS)
    site = model.site("ffn", 2)
    delta = edit.deltas[site.path].matrix
    keys = KeyPrompts.of(model, EASY, CONTEXTS).keys(site, "half").to(delta)
    assert torch.linalg.matrix_rank(delta) == len(EASY)
    inside = torch.linalg.pinv(keys) @ keys
    assert_agree(delta @ inside, delta, 128, ISOTROPIC)


def test_the_command_line_lists_it(added: Method[Any]) -> None:
    assert added.summary in flat(run("methods").stdout)
    (row,) = [row for row in answer("methods")["methods"] if row["name"] == "smallest"]  # type: ignore[attr-defined]
    assert row["cost"] == added.cost
    told = run("methods", "smallest").stdout
    assert "almanac" in told
    assert "learning_rate" in told
