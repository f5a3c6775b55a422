"""`errata evaluate`."""

from pathlib import Path
from typing import Any

import errata
from cli_world import World, answer
from errata.runtime import to_json


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
