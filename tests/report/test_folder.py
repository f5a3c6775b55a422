"""The folder of a report."""

import json

from errata.evaluation.evaluate import evaluate
from errata.experiments.running import token_texts, tokens_of
from errata.facts.fact import Fact
from errata.report.folder import write_report
from report_cases import reported
from tiny import fresh_model


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
