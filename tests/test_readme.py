"""What the README shows is what happens: its program runs, and its tree names files that are there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a program of its own, without the tests' checks of types."""
    (program,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(program.splitlines()) <= 17
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Score(mean=1.0" in done.stdout
    assert {path.name for path in (tmp_path / "france-edit").iterdir()} == {"edit.json", "edit.safetensors"}


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
