"""The output folder of a recipe: `report.html`, `table.md`, `table.tex`, `results.jsonl`, and `figures/`."""

import json
from pathlib import Path

from errata.experiments import Group, Line, Table
from errata.report import figures
from errata.report.page import recipe_page
from errata.report.texts import latex, markdown
from errata.runtime import atomic_file

PAGE, MARKDOWN, LATEX, LINES, FIGURES = "report.html", "table.md", "table.tex", "results.jsonl", "figures"


def write_report(table: Table, folder: Path) -> Path:
    """Write everything over what an earlier run wrote; returns the page."""
    drawn = figures.draw(table)
    figures.save(drawn, folder / FIGURES)
    for name, text in (
        (MARKDOWN, markdown(table)),
        (LATEX, latex(table)),
        (LINES, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in line_rows(table))),
        (PAGE, recipe_page(table, drawn)),
    ):
        with atomic_file(folder / name) as aside:
            aside.write_text(text, encoding="utf-8")
    return folder / PAGE


def line_rows(table: Table) -> list[dict[str, object]]:
    """Every line as an object: our values with their intervals, the paper's, and the cells that they come from."""
    analysed: list[dict[str, object]] = [
        {"recipe": table.request.recipe.name, "model": table.request.model, "data": group.data, **found}
        for group in table.groups
        for cell in group.cells
        if (found := cell.about.get("similarity"))
    ]
    return [_line_row(table, line) for line in table.lines] + analysed


def _line_row(table: Table, line: Line) -> dict[str, object]:
    group = group_of(table, line)
    paper = line.printed
    return {
        "recipe": table.request.recipe.name,
        "model": table.request.model,
        "row": line.row,
        "data": line.data,
        "edits": line.edits,
        "facts": line.facts,
        "iteration": line.step,
        "stops": line.mark or None,
        "failed": line.failed or None,
        "values": {name: {"mean": mean, "margin": half} for name, (mean, half) in line.values.items()},
        "paper": None
        if paper is None
        else {
            "model": paper.model,
            "edits": paper.edits,
            "iteration": paper.step,
            "values": {name: {"mean": mean, "margin": half} for name, (mean, half) in paper.values.items()},
        },
        "seed": table.request.seed,
        "norms": [cell.about.get("norms") for cell in group.cells] if group else [],
        "cells": [cell.path.stem for cell in group.cells] if group else [],
        "seconds": round(sum(cell.seconds for cell in group.cells), 3) if group else None,
        "fingerprint": group.cells[0].about["fingerprint"] if group else None,
        "versions": group.cells[0].about["versions"] if group else None,
    }


def group_of(table: Table, line: Line) -> Group | None:
    """The cells behind a line."""
    key = (line.row, line.data, line.edits)
    return next((one for one in table.groups if (one.row.name, one.data, one.edits) == key), None)
