"""What the tests of experiments and reports share: a small recipe, facts on disk, and a tiny model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli_world import with_probes
from errata.experiments.cells import Request
from errata.experiments.recipes import Recipe, recipe_of
from errata.facts.fact import Fact
from errata.facts.reading import write_facts
from families import FACTS

TOML: Mapping[str, Any] = {
    "name": "small",
    "title": "A small table",
    "paper": "pmet",
    "place": "Table 1",
    "data": ["counterfact"],
    "columns": ["efficacy_success", "specificity_unchanged", "fluency"],
    "figures": ["scores", "norms"],
    "almanac": {"edits": [2]},
    "paper_setting": {"edits": [2], "models": ["other/model"]},
    "row": [
        {"name": "Unedited"},
        {"name": "Gentle", "method": "finetune", "settings": {"epochs": 1, "layers": [1]}},
        {"name": "Hard", "method": "finetune", "settings": {"epochs": 3, "layers": [1]}},
    ],
    "printed": [
        {
            "model": "Other (1B)",
            "id": "other/model",
            "data": "counterfact",
            "edits": 1000,
            "columns": ["row", "efficacy_success", "fluency"],
            "rows": [["Unedited", 15.2, [622.4, 0.3]], ["Hard", [99.4, 0.1], ""]],
        }
    ],
}
HOSTILE = "<script>alert(1)</script>"


def recipe(**changes: object) -> Recipe:
    return recipe_of({**TOML, **changes})


def request(folder: Path, seed: int = 0, **changes: object) -> Request:
    """A request for the small recipe on facts that are written into the folder."""
    file = folder / "facts.jsonl"
    if not file.exists():
        write_facts(file, [*(with_probes(fact) for fact in FACTS), hostile()])
    return Request(recipe(**changes), "tiny", str(file), seed)


def hostile() -> Fact:
    """A fact whose texts would be a program if they were taken for HTML."""
    return Fact(f"{{}} {HOSTILE} lives in", "Anna", " </script><b>Kestrel", "a town")
