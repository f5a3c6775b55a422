"""Tables of experiments, beside the paper's numbers."""

from pathlib import Path

from errata.experiments.running import run_cells
from errata.experiments.tables import make_table, stop_of
from errata.report.texts import markdown
from experiment_world import request
from tiny import fresh_model

ITERATING = [
    {"p_optimised": 1.0, "p_spread": 50.0, "delta_p": 49.0},
    {"p_optimised": 1.0, "p_spread": 1.9, "delta_p": 0.9},
    {"p_optimised": 1.0, "p_spread": 1.5, "delta_p": 0.5},
    {"p_optimised": 1.0, "p_spread": 1.6, "delta_p": 0.6},
]


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


def test_each_stop_rule_keeps_its_own_iteration() -> None:
    assert stop_of("delta_p", [ITERATING]) == 2
    assert stop_of("monotonic", [ITERATING]) == 3
    assert stop_of("small_change", [ITERATING]) == 3
    assert stop_of("delta_p", [ITERATING[:1]]) is None
