"""The page shows what facts say without believing it."""

import re

from errata.evaluation.evaluate import evaluate
from errata.report.page import results_page
from experiment_world import HOSTILE, hostile
from report_cases import data_of, reported
from tiny import fresh_model


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
