"""Experiments: cells that are run once, stored, gone on with, and put into a table beside the paper's numbers."""

import json
from pathlib import Path

import pytest

import errata.experiments.running as running
from errata.errors import FactError
from errata.experiments.cells import Cell
from errata.experiments.running import cell_file, run_cells, stored
from errata.experiments.sources import facts_for
from errata.experiments.tables import make_table, stop_of
from errata.models.model import EditableModel
from errata.report.texts import markdown
from experiment_world import request
from tiny import fresh_model

ITERATING = [
    {"p_optimised": 1.0, "p_spread": 50.0, "delta_p": 49.0},
    {"p_optimised": 1.0, "p_spread": 1.9, "delta_p": 0.9},
    {"p_optimised": 1.0, "p_spread": 1.5, "delta_p": 0.5},
    {"p_optimised": 1.0, "p_spread": 1.6, "delta_p": 0.6},
]


def count_runs(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[str]:
    """The rows that are run from now on; after some of them somebody presses Ctrl-C."""
    rows: list[str] = []
    real = running.run_cell

    def counted(model: EditableModel, cell: Cell, *rest: object) -> None:
        if stop_after is not None and len(rows) == stop_after:
            raise KeyboardInterrupt
        rows.append(cell.row.name)
        real(model, cell, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(running, "run_cell", counted)
    return rows


def test_a_recipe_is_run_cell_by_cell_and_becomes_a_table(tmp_path: Path) -> None:
    asked = request(tmp_path)
    assert run_cells(fresh_model(), asked, tmp_path) == {}
    table = make_table(asked, tmp_path)
    assert [line.row for line in table.lines] == ["Unedited", "Gentle", "Hard"]
    hard = table.lines[2]
    assert hard.facts == 2
    assert 0 <= hard.values["efficacy_success"][0] <= 100
    assert hard.printed is not None
    assert hard.printed.values == {"efficacy_success": (99.4, 0.1)}
    assert not table.same_model


def test_the_unedited_model_is_the_before_of_every_row(tmp_path: Path) -> None:
    asked = request(tmp_path)
    run_cells(fresh_model(), asked, tmp_path)
    unedited, _, hard = make_table(asked, tmp_path).lines
    assert "specificity_unchanged" in hard.values
    assert "specificity_unchanged" not in unedited.values


def test_what_was_not_measured_has_no_value(tmp_path: Path) -> None:
    asked = request(tmp_path)
    run_cells(fresh_model(), asked, tmp_path)
    table = make_table(asked, tmp_path)
    assert all("fluency" not in line.values for line in table.lines)
    assert "not measured" in markdown(table)


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, model = request(tmp_path), fresh_model()
    run_cells(model, asked, tmp_path / "whole")
    with monkeypatch.context() as patch:
        first = count_runs(patch, stop_after=2)
        with pytest.raises(KeyboardInterrupt):
            run_cells(model, asked, tmp_path / "stopped")
    second = count_runs(monkeypatch)
    run_cells(model, asked, tmp_path / "stopped")
    assert (first, second) == (["Unedited", "Gentle"], ["Hard"])
    whole, stopped = (markdown(make_table(asked, tmp_path / name)) for name in ("whole", "stopped"))
    assert whole == stopped


@pytest.mark.parametrize("damage", ["cut", "outcomes"])
def test_a_damaged_cell_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    asked, model = request(tmp_path), fresh_model()
    run_cells(model, asked, tmp_path)
    path = cell_file(tmp_path, asked.cells[1])
    if damage == "cut":
        path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    else:
        path.with_name(f"{path.stem}.0.jsonl").unlink()
    rows = count_runs(monkeypatch)
    run_cells(model, asked, tmp_path)
    assert rows == ["Gentle"]


def test_nothing_is_loaded_where_nothing_is_left_to_run(tmp_path: Path) -> None:
    asked = request(tmp_path)
    run_cells(fresh_model(), asked, tmp_path)

    def load() -> EditableModel:
        raise AssertionError("loaded")

    assert run_cells(load, asked, tmp_path) == {}


def test_a_cell_names_its_seed_settings_versions_and_model(tmp_path: Path) -> None:
    asked, model = request(tmp_path, seed=3), fresh_model()
    run_cells(model, asked, tmp_path)
    about = json.loads(cell_file(tmp_path, asked.cells[2]).read_text(encoding="utf-8"))
    assert (about["seed"], about["row"], about["edits"]) == (3, "Hard", 2)
    assert about["settings_used"]["epochs"] == 3
    assert {"errata", "torch", "transformers"} <= about["versions"].keys()
    assert about["fingerprint"] == model.fingerprint
    assert about["norms"][0]["layer"] == 1
    assert about["seconds"].keys() == {"edit", "evaluation"}


def test_a_row_that_fails_leaves_the_others(tmp_path: Path) -> None:
    rows = [
        {"name": "Learned", "method": "mend"},
        {"name": "Tuned", "method": "finetune", "settings": {"layers": [1]}},
    ]
    asked = request(tmp_path, row=rows)
    failed = run_cells(fresh_model(), asked, tmp_path)
    learned, tuned = make_table(asked, tmp_path, failed).lines
    assert len(failed) == 1
    assert learned.failed
    assert not learned.values
    assert tuned.values
    assert stored(tmp_path, asked.cells[1]) is None


def test_trials_share_no_fact_and_rows_share_them_all(tmp_path: Path) -> None:
    asked = request(tmp_path, paper_setting={"edits": [2], "trials": 2, "models": ["other/model"]})
    drawn = [(cell.row.name, cell.trial, facts_for(cell)) for cell in asked.cells]
    first = [facts for _, trial, facts in drawn if trial == 0]
    second = [facts for _, trial, facts in drawn if trial == 1]
    assert all(facts == first[0] for facts in first)
    assert not {fact.key for fact in first[0]} & {fact.key for fact in second[0]}


def test_too_few_facts_are_told(tmp_path: Path) -> None:
    asked = request(tmp_path, paper_setting={"edits": [50], "models": ["other/model"]})
    with pytest.raises(FactError, match="50 are needed"):
        run_cells(fresh_model(), asked, tmp_path)


def test_each_stop_rule_keeps_its_own_iteration() -> None:
    assert stop_of("delta_p", [ITERATING]) == 2
    assert stop_of("monotonic", [ITERATING]) == 3
    assert stop_of("small_change", [ITERATING]) == 3
    assert stop_of("delta_p", [ITERATING[:1]]) is None
