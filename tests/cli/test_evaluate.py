"""`errata evaluate`."""

from pathlib import Path
from typing import Any

import pytest

import errata
from cli_world import World, answer, the_world
from errata.runtime import to_json


@pytest.fixture
def world() -> World:
    return the_world()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test writes into the user's cache."""
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_evaluate_with_and_without_the_edit(world: World, tmp_path: Path) -> None:
    told: Any = answer(
        "evaluate",
        world.model,
        "--facts",
        world.facts,
        "--edit",
        world.edit,
        "--output",
        tmp_path / "results",
    )
    assert set(told["scores"]) == {"before", "after"}
    results = errata.results.load_results(tmp_path / "results")
    assert told["scores"]["after"]["score_success"] == to_json(results.scores()["score_success"])
    plain: Any = answer("evaluate", world.model, "--facts", world.facts, "--no-generate")
    assert plain["scores"]["after"]["efficacy_success"] == told["scores"]["before"]["efficacy_success"]
    assert "generation_accuracy" not in plain["scores"]["after"]
