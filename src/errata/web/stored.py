"""A run that lies on disk, for the page: of `errata evaluate`, `errata edit --evaluate` or `errata reproduce`."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from errata.errors import ResultsError
from errata.experiments import label
from errata.results import FILE, KIND, Outcomes, Question, Record, Results, load_results
from errata.web.measuring import MOST_LINES, Line, Side, shown_groups

FIGURES = "figures"


@dataclass(frozen=True)
class Stored:
    """What there is to show: the outcomes of one evaluation, or the table of a recipe."""

    title: str
    about: str
    results: Results | None = None
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    figures: tuple[tuple[str, str], ...] = ()
    """Title and SVG."""

    @property
    def lines(self) -> list[Line]:
        """Before and after: as the model wrote them, else the likeliest token at each place of the wanted answer."""
        records = () if self.results is None else self.results.records
        return [line for record in records for line in _lines(record)]


def open_run(path: str | os.PathLike[str]) -> Stored:
    """Read a stored run.

    Raises:
        ResultsError: there is none, or it cannot be read.
    """
    folder = Path(path)
    file = folder / FILE if folder.is_dir() else folder
    if not file.is_file():
        raise ResultsError(
            f"{path} holds no {FILE}. Give a folder that errata evaluate --output, errata edit --evaluate or "
            "errata reproduce wrote."
        )
    rows = _recipe_rows(file)
    if rows is None:
        results = load_results(file)
        edit = "" if results.edit is None else f", edited by {results.edit.get('method')}"
        return Stored(folder.name, f"{len(results.records):,} facts on {results.model}{edit}.", results)
    return _recipe(folder, rows)


def _recipe_rows(file: Path) -> list[dict[str, Any]] | None:
    """The lines of a recipe's table; None where the file is one of outcomes."""
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ResultsError(f"{file} cannot be read: {error}. Make it again.") from error
    if not all(isinstance(row, dict) for row in rows) or not rows:
        raise ResultsError(f"{file} is no file of results. Make it again.")
    first = cast("dict[str, Any]", rows[0])
    return None if first.get("kind") == KIND or "recipe" not in first else cast("list[dict[str, Any]]", rows)


def _recipe(folder: Path, rows: list[dict[str, Any]]) -> Stored:
    lines = [row for row in rows if isinstance(row.get("values"), dict)]
    names = list(dict.fromkeys(name for row in lines for name in row["values"]))
    table = tuple(_recipe_row(row, names) for row in lines)
    figures = tuple(
        (path.stem.replace("-", " ").capitalize(), path.read_text(encoding="utf-8"))
        for path in sorted((folder / FIGURES).glob("*.svg"))
    )
    recipe, model = rows[0].get("recipe"), rows[0].get("model")
    about = f"{recipe} on {model}. Shares in %, with half of their 95 % intervals."
    return Stored(str(recipe), about, None, ("", "Edits", *(label(name) for name in names)), table, figures)


def _recipe_row(row: dict[str, Any], names: list[str]) -> tuple[str, ...]:
    step = f", k = {row['iteration']}" if row.get("iteration") else ""
    cells = (_cell(row["values"].get(name)) for name in names)
    return (f"{row.get('row')}{step}", str(row.get("edits", "")), *cells)


def _cell(value: dict[str, float | None] | None) -> str:
    if value is None or value.get("mean") is None:
        return "-"
    margin = value.get("margin")
    return f"{value['mean']:.4g}" + ("" if margin is None else f" ± {margin:.2g}")


def _lines(record: Record) -> list[Line]:
    found: list[Line] = []
    for group in shown_groups():
        kind = group.page.kind if group.page is not None else ""
        for place, question in enumerate(record.after.group(group.name)):
            earlier = None if record.before is None else record.before.group(group.name)[place]
            said = _continued(record.before, group.name), _continued(record.after, group.name)
            before = Side("(not measured)", None) if earlier is None else _side(earlier, said[0])
            found.append(Line(kind, question.prompt, question.wanted.text, before, _side(question, said[1])))
    return found[:MOST_LINES]


def _continued(outcomes: Outcomes | None, group: str) -> str | None:
    """What the model wrote by itself, which is only kept of the fact's own question."""
    if outcomes is None or outcomes.continuation is None or group != "efficacy":
        return None
    return outcomes.continuation.text


def _side(question: Question, said: str | None) -> Side:
    mean = question.wanted.log_probability
    probability = None if math.isnan(mean) else math.exp(min(0.0, mean))
    return Side(question.wanted.predicted_text if said is None else said, probability)
