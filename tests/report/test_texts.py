"""The table in Markdown and in LaTeX."""

import re

from errata.report.texts import latex, markdown
from report_cases import reported


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
