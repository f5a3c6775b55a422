"""`errata reproduce`, and the page of `errata evaluate`."""

from pathlib import Path

import pytest

import errata.cli.inputs as inputs
import errata.experiments.recipes as recipes
from cli_world import answer, failed, run, the_world
from errata.experiments.recipes import Recipe
from experiment_world import recipe, request
from tiny import fresh_model


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The words that run the small recipe on the tiny model."""
    import errata.experiments as experiments

    def load_recipe(name: str) -> Recipe:
        assert name == "small"
        return recipe()

    monkeypatch.setattr(experiments, "load_recipe", load_recipe)
    monkeypatch.setattr(inputs, "quiet_load", lambda *words: fresh_model())
    facts = request(tmp_path).facts
    assert facts is not None
    return ["reproduce", "small", "--model", "tiny", "--facts", facts, "--output", str(tmp_path / "out")]


def test_the_list_names_every_recipe_with_its_paper_and_cells() -> None:
    rows = answer("reproduce", "--list")["recipes"]
    assert isinstance(rows, list)
    assert [row["name"] for row in rows] == list(recipes.recipe_names())
    assert all(row["cells"] >= 1 and row["source"] for row in rows)
    shown = run("reproduce", "--list")
    assert "pmet-table-1" in shown.stdout


def test_a_dry_run_tells_time_memory_and_disk_and_runs_nothing(tmp_path: Path) -> None:
    told = answer("reproduce", "pmet-table-1", "--dry-run", "--output", tmp_path / "out")
    assert isinstance(told["seconds"], float)
    assert "measured" in str(told["basis"])
    assert told["memory"]
    assert told["disk"]
    assert not (tmp_path / "out").exists()


def test_without_a_name_the_list_is_proposed() -> None:
    assert "--list" in failed("reproduce")


def test_a_recipe_ends_with_the_table_and_the_report(small: list[str], tmp_path: Path) -> None:
    done = run(*small)
    assert done.exit_code == 0, done.output
    assert "Hard" in done.stdout
    assert "99.4 ± 0.1" in done.stdout
    assert (tmp_path / "out" / "report.html").is_file()
    again = run(*small)
    assert again.exit_code == 0
    assert "Loading" not in again.stderr


def test_the_result_is_one_object_for_programs(small: list[str]) -> None:
    lines = answer(*small)["lines"]
    assert isinstance(lines, list)
    assert [line["row"] for line in lines] == ["Unedited", "Gentle", "Hard"]


def test_evaluate_writes_a_page_too(tmp_path: Path) -> None:
    world, page = the_world(), tmp_path / "page.html"
    words = (
        "evaluate",
        world.model,
        "--facts",
        world.facts,
        "--edit",
        world.edit,
        "--no-generate",
        "--report",
        page,
    )
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert "Efficacy, success" in page.read_text(encoding="utf-8")
    assert "exists already" in failed(*words)
