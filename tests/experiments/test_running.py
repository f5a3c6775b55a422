"""Experiments: cells that are run once, stored and gone on with."""

import json
from pathlib import Path

import pytest

import errata.experiments.running as running
from errata.experiments.cells import Cell
from errata.experiments.running import cell_file, run_cells, stored
from errata.experiments.tables import make_table
from errata.models.model import EditableModel
from errata.report.texts import markdown
from experiment_world import request
from tiny import fresh_model


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
