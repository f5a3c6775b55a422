"""Stored runs on the page."""

import json
from pathlib import Path

import pytest

from cli_world import run, the_world
from errata.errors import ResultsError
from errata.web.measuring import shown_groups
from errata.web.stored import open_run


def test_a_stored_evaluation_is_shown(tmp_path: Path) -> None:
    world = the_world()
    done = run("evaluate", world.model, "--facts", world.facts, "--edit", world.edit, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.output
    stored = open_run(tmp_path / "run")
    assert stored.results is not None
    assert {line.kind for line in stored.lines} == {group.page.kind for group in shown_groups() if group.page}
    assert stored.lines[0].before.probability != stored.lines[0].after.probability
    assert "edited by pmet" in stored.about


def test_a_stored_recipe_is_shown(tmp_path: Path) -> None:
    row = {
        "recipe": "pmet-table-1",
        "model": "almanac",
        "row": "PMET",
        "edits": 8,
        "values": {"efficacy_success": {"mean": 97.5, "margin": 1.25}, "fluency": None},
    }
    (tmp_path / "results.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "scores.svg").write_text("<svg/>", encoding="utf-8")
    stored = open_run(tmp_path)
    assert stored.rows == (("PMET", "8", "97.5 ± 1.2", "-"),)
    assert stored.figures == (("Scores", "<svg/>"),)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"holds no results\.jsonl"):
        open_run(tmp_path)
    (tmp_path / "results.jsonl").write_text("{\n", encoding="utf-8")
    with pytest.raises(ResultsError, match="cannot be read"):
        open_run(tmp_path)
