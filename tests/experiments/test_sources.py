"""Facts for the trials of an experiment."""

from pathlib import Path

import pytest

from errata.errors import FactError
from errata.experiments.running import run_cells
from errata.experiments.sources import facts_for
from experiment_world import request
from tiny import fresh_model


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
