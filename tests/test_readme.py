"""What the README shows is what happens: its program runs, and its tree names files that are there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from errata.settings import DEFAULT_METHOD

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For both programs, so that second moments are measured once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
def test_the_program_runs(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a program of its own, without the tests' checks of types."""
    (program,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(program.splitlines()) <= 17
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    monkeypatch.setenv("ERRATA_CACHE", str(cache))
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Score(mean=1.0" in done.stdout
    assert {path.name for path in (tmp_path / "france-edit").iterdir()} == {"edit.json", "edit.safetensors"}


@pytest.mark.slow
def test_the_demo_says_every_fact(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make demo`, with the default method, in a process of its own."""
    monkeypatch.setenv("ERRATA_CACHE", str(cache))
    command = [sys.executable, "-m", "errata", "demo", "--json", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["method"] == DEFAULT_METHOD
    lines = [line for line in told["lines"] if line["kind"] == "asked"]
    assert [line["question"] for line in lines if not line["right"]] == []
    assert len(lines) == 8
    assert told["reverted"] == {"answers_that_differ": 0, "weights_identical": True}
    assert f"8 facts written by {DEFAULT_METHOD} into almanac" in README


def test_the_tree_names_what_is_there() -> None:
    drawn = README[README.index("    src/errata/") :]
    tree = re.findall(r"^ {4}( *)([\w./]+)  ", drawn, flags=re.MULTILINE)
    assert len(tree) > 8
    for indent, name in tree:
        assert ((ROOT / "src/errata" if indent else ROOT) / name).exists(), name


def test_the_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
