"""Facts before and after, failures first."""

import pytest

from errata.report.facts import badness, fact_rows
from report_cases import data_of, reported


def test_facts_come_before_and_after_with_the_probability_of_each_token() -> None:
    page = (reported()[1] / "report.html").read_text(encoding="utf-8")
    hard = data_of(page)[2]
    row = hard["rows"][0]  # type: ignore[index]
    name, questions = row["groups"][0]
    assert name == "efficacy"
    question = questions[0]
    for phase in ("before", "after"):
        assert len(question[phase]["each"]) == len(question["tokens"]) > 0
        assert all(0 <= value <= 1 for value in question[phase]["each"])
    assert "".join(question["tokens"]).strip() == question["wanted"].strip()


def test_failures_come_first_and_those_left_out_failed_least() -> None:
    table, _ = reported()
    results = table.groups[2].results(0)
    rows = fact_rows(results, {}, most=2)
    worst = sorted((badness(record) for record in results.records), reverse=True)
    assert [row["bad"] for row in rows] == [pytest.approx(value, abs=1e-3) for value in worst[:2]]
