"""The published files of facts, where they are at hand."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from errata.facts.reading import check_facts, read_facts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "facts.jsonl"


SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


PUBLISHED = {
    "counterfact.jsonl.gz": (17_000, 2),
    "counterfact_neighbors_gpt-j-6b.jsonl.gz": (960, 0),
    "counterfact_neighbors_gpt2-xl.jsonl.gz": (739, 0),
    "counterfact_neighbors_llama-2-7b.jsonl.gz": (1_340, 0),
    "zsre.jsonl.gz": (17_000, 1),
}


@pytest.mark.slow
def test_the_published_files_read():
    """In a process of its own: the type checks that the tests switch on would make it take minutes."""
    if not SHARED.is_dir():
        pytest.skip("the published data sets are not beside this checkout")
    program = """
import json, sys
from pathlib import Path
from errata.facts import check_facts, read_facts
counts = {}
for path in map(Path, sys.argv[1:]):
    facts = read_facts(path)
    assert all(fact.neighbors and fact.neighborhood for fact in facts)
    counts[path.name] = [len(facts), len(check_facts(path))]
print(json.dumps(counts))
"""
    command = [sys.executable, "-c", program, *(str(SHARED / name) for name in PUBLISHED)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {name: tuple(counts) for name, counts in json.loads(done.stdout).items()} == PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_files_start_well(name: str, path: Path):
    if not (SHARED / name).exists():
        pytest.skip("the published data sets are not beside this checkout")
    with gzip.open(SHARED / name, "rt", encoding="utf-8") as file:
        path.write_text("".join(next(file) for _ in range(20)), encoding="utf-8")
    assert check_facts(path) == []
    assert len(read_facts(path)) == 20
