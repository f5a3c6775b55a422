"""The HTML page: one file with its style, its program and its figures inside; it loads nothing from anywhere.

Every text goes through jinja2's autoescape, or reaches the page as JSON that the program puts in as text, never as
HTML: a fact may say what it likes.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from errata.experiments import LOWER_IS_BETTER, Line, Printed, Table, label
from errata.report.facts import MOST_FACTS, Row, fact_rows
from errata.report.figures import TITLES, summary
from errata.report.texts import (
    NOT_MEASURED,
    NOT_PRINTED,
    footnote,
    heading,
    label_of,
    ours,
    printed,
    printed_name,
)
from errata.results import GROUPS, Results, Score

TEMPLATE = "page.html.jinja"


@cache
def _template() -> Template:
    folder = FileSystemLoader(Path(__file__).parent)
    made = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return made.get_template(TEMPLATE)


def recipe_page(table: Table, drawn: Mapping[str, str]) -> str:
    """The page of a recipe; `drawn` are its figures as SVG."""
    recipe = table.request.recipe
    return _template().render(
        title=recipe.title,
        source=recipe.source,
        heading=heading(table),
        note=recipe.note,
        footnote=footnote(table),
        columns=[{"label": text, "lower": name in LOWER_IS_BETTER} for name, text in table.columns],
        lines=[_line(table, line) for line in table.lines],
        figures=[
            {"title": TITLES[name], "svg": Markup(svg), "words": summary(table)}
            for name, svg in drawn.items()
        ],
        papers=_papers(recipe.printed),
        facts=_facts(table),
        about=_about(table),
        cells=_cells(table),
        group_headings=_group_headings(),
        version=version("errata"),
    )


def results_page(results: Results, title: str, texts: Mapping[str, str]) -> str:
    """The page of one evaluation: its scores, and each fact; `texts` has the text of a token by its number."""
    columns = [{"label": "Before", "lower": False}] if results.has_before else []
    columns.append({"label": "After" if results.has_before else "Score", "lower": False})
    lines = [
        {
            "name": row.label,
            "cells": [_score(score) for score in ([row.before] if results.has_before else []) + [row.after]],
            "facts": f"{(row.after or row.before or Score(0, 0, 0, 0)).count:,}",
            "paper": None,
            "failed": "",
        }
        for row in results.table()
    ]
    rows = fact_rows(results, texts)
    return _template().render(
        title=title,
        source="",
        heading=f"{len(results.records):,} facts. Scores in % with 95 % intervals over facts.",
        note="",
        footnote="",
        columns=columns,
        lines=lines,
        figures=[],
        papers=[],
        facts=[{"name": title, "rows": rows, "left": len(results.records) - len(rows)}],
        about={name: str(value) for name, value in results.settings.items()},
        cells=[],
        group_headings=_group_headings(),
        version=version("errata"),
    )


def _group_headings() -> dict[str, str]:
    return {group.name: group.heading or group.label for group in GROUPS.values()}


def _score(score: Score | None) -> Row:
    if score is None:
        return _split(NOT_MEASURED)
    margin = score.margin
    return _split(f"{100 * score.mean:.1f}" + ("" if margin is None else f" ± {100 * margin:.1f}"))


def _line(table: Table, line: Line) -> Row:
    return {
        "name": _kept_together(label_of(table, line)),
        "cells": [_split(cell) for cell in ours(table, line)],
        "facts": f"{line.facts:,}",
        "failed": line.failed,
        "paper": None
        if line.printed is None
        else {
            "name": _kept_together(printed_name(table, line)),
            "cells": [_split(cell) for cell in printed(table, line)],
        },
    }


def _kept_together(text: str) -> str:
    """`k = 3` and what follows a name in brackets do not break over lines."""
    return text.replace(" = ", "\u00a0=\u00a0").replace(" [", "\u00a0[")


def _split(cell: str) -> Row:
    """The number, and what stands behind it; a number to sort by."""
    mean, _, half = cell.partition(" ± ")
    missing = mean in (NOT_MEASURED, NOT_PRINTED)
    return {"mean": mean, "half": half, "missing": missing, "sort": "" if missing else mean}


def _papers(lines: Sequence[Printed]) -> list[Row]:
    """The paper's own tables, one a model, whole."""
    tables: list[Row] = []
    for key in dict.fromkeys((line.model, line.data) for line in lines):
        members = [line for line in lines if (line.model, line.data) == key]
        names = list(dict.fromkeys(name for line in members for name in line.values))
        tables.append(
            {
                "title": f"{key[0]}, {key[1]}",
                "columns": [label(name) for name in names],
                "rows": [_paper_row(line, names) for line in members],
            }
        )
    return tables


def _paper_row(line: Printed, names: Sequence[str]) -> Row:
    cells: list[str] = []
    for name in names:
        value = line.values.get(name)
        half = "" if value is None or value[1] is None else f" ± {value[1]:g}"
        cells.append(NOT_PRINTED if value is None else f"{value[0]:g}{half}")
    step = f", k = {line.step}" if line.step else ""
    return {"name": f"{line.row}{step}", "edits": f"{line.edits:,}", "cells": cells}


def _facts(table: Table) -> list[Row]:
    """The facts of each line, failures first; a page has room for so many."""
    lines = [line for line in table.lines if not line.failed]
    each = max(20, MOST_FACTS // max(1, len(lines)))
    found: list[Row] = []
    for line in lines:
        group = next(
            one
            for one in table.groups
            if (one.row.name, one.data, one.edits) == (line.row, line.data, line.edits)
        )
        step = line.step if line.step is not None else group.steps[-1]
        results = group.results(step)
        texts: dict[str, str] = {}
        for cell in group.cells:
            texts |= cell.about.get("token_texts", {})
        rows = fact_rows(results, texts, each)
        found.append({"name": label_of(table, line), "rows": rows, "left": len(results.records) - len(rows)})
    return found


def _about(table: Table) -> dict[str, str]:
    """What it takes to repeat the report."""
    cells = [cell for group in table.groups for cell in group.cells]
    request = table.request
    facts = "" if request.facts is None else f" --facts {request.facts}"
    edits = f" --edits {max(request.sizes.edits)}"
    about = {
        "Repeat": f"errata reproduce {request.recipe.name} --model {request.model}{edits}{facts} --seed {request.seed}",
        "Model": request.model,
        "Seed": str(request.seed),
    }
    if cells:
        versions = cells[0].about["versions"]
        about |= {
            "Fingerprint of the unedited weights": str(cells[0].about["fingerprint"]),
            "Weights": f"{cells[0].about['dtype']} on {cells[0].about['device']}",
            "Versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
            "Time of all cells": f"{sum(cell.seconds for cell in cells):,.0f} s",
        }
    return about


def _cells(table: Table) -> list[Row]:
    """Each cell with its settings and its time."""
    return [
        {
            "name": cell.path.stem,
            "seconds": f"{cell.seconds:,.1f}",
            "preset": cell.about.get("preset_used") or "",
            "settings": ", ".join(
                f"{name}={value}" for name, value in cell.about.get("settings_used", {}).items()
            ),
            "strategy": ", ".join(
                f"{name}={value}" for name, value in cell.about.get("strategy", {}).items()
            ),
            "dropped": len(cell.about.get("dropped", ())),
        }
        for group in table.groups
        for cell in group.cells
    ]
