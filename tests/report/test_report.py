"""Reports: the table in every form, and a page that shows what facts say without believing it."""

import json
import re
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from errata.evaluation.evaluate import evaluate
from errata.experiments.running import run_cells, token_texts, tokens_of
from errata.experiments.tables import Table, make_table
from errata.facts.fact import Fact
from errata.report.facts import badness, fact_rows
from errata.report.folder import write_report
from errata.report.page import results_page
from errata.report.texts import latex, markdown
from experiment_world import HOSTILE, hostile, request
from families import FACTS
from tiny import fresh_model


@cache
def reported() -> tuple[Table, Path]:
    """The small recipe's table and its output folder, made once; with the hostile fact among the facts."""
    folder = Path(mkdtemp(prefix="errata-report-"))
    asked = request(folder, paper_setting={"edits": [len(FACTS) + 1], "models": ["other/model"]})
    run_cells(fresh_model(), asked, folder)
    table = make_table(asked, folder)
    write_report(table, folder)
    return table, folder


def data_of(page: str) -> list[dict[str, object]]:
    """The facts in a page, as its program reads them."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    facts: list[dict[str, object]] = json.loads(found[1])
    return facts


def test_a_report_is_a_page_tables_figures_and_lines() -> None:
    _, folder = reported()
    for name in (
        "report.html",
        "table.md",
        "table.tex",
        "results.jsonl",
        "figures/scores.svg",
        "figures/norms.svg",
    ):
        assert (folder / name).stat().st_size > 0, name
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["row"] for row in rows] == ["Unedited", "Gentle", "Hard"]
    assert rows[2]["paper"]["values"]["efficacy_success"] == {"mean": 99.4, "margin": 0.1}


def test_the_page_loads_nothing() -> None:
    page = (reported()[1] / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<(?:link|iframe|img|script[^>]* src|object|embed)\b", page)
    assert not re.search(r"(?:src|href)=[\"']?https?:|url\(\s*[\"']?https?:|@import", page)
    assert "default-src 'none'" in page


def test_what_a_fact_says_is_never_html() -> None:
    page = (reported()[1] / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in page
    assert "</script><b>" not in page
    texts = [str(row["prompt"]) for line in data_of(page) for row in line["rows"]]  # type: ignore[attr-defined]
    assert any(HOSTILE in text for text in texts)


def test_the_title_of_an_evaluation_is_never_html() -> None:
    results = evaluate(fresh_model(), [hostile()], generate=False)
    page = results_page(results, HOSTILE, {})
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page


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


def test_markdown_has_the_paper_below_each_line_and_says_what_was_not_measured() -> None:
    lines = markdown(reported()[0]).splitlines()
    hard = next(number for number, line in enumerate(lines) if line.startswith("| **Hard**"))
    assert "not measured" in lines[hard]
    assert "99.4 ± 0.1" in lines[hard + 1]
    assert "another model" in lines[2]


def test_latex_escapes_what_it_must() -> None:
    text = latex(reported()[0])
    body = text.split("\\begin{tabular}")[1]
    assert body.count("\\\\") == 1 + 3 + 2
    assert not re.search(r"(?<!\\)[%_#]", text.split("\n", 1)[1])
    assert "$\\pm$" in text


def test_figures_are_the_same_text_each_time() -> None:
    table, folder = reported()
    before = (folder / "figures" / "scores.svg").read_bytes()
    write_report(table, folder)
    assert (folder / "figures" / "scores.svg").read_bytes() == before


def test_the_texts_of_tokens_are_told_by_number() -> None:
    model = fresh_model()
    results = evaluate(model, [Fact("{} lives in", "Anna", "Kestrel")], generate=False)
    texts = token_texts(model, tokens_of(results))
    assert (
        "".join(texts[str(token)] for token in results.records[0].after.efficacy[0].wanted.tokens).strip()
        == "Kestrel"
    )
