"""The options of `errata evaluate` that run tasks of the lm-evaluation-harness, and their table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import errata
from errata.cli.tables import table
from errata.cli.terminal import Terminal
from errata.errors import SettingsError
from errata.runtime import atomic_file

if TYPE_CHECKING:
    from rich.table import Table

    from errata.evaluation import Downstream, Measure, Tasks

PANEL = "Downstream tasks (the lm-evaluation-harness)"
FILE = "tasks.json"

Names = Annotated[
    str | None,
    typer.Option(
        "--tasks",
        metavar="NAME,NAME",
        help="Run these too, before and after the edit: lambada_openai,mmlu,errata_counterfact ...",
        rich_help_panel=PANEL,
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="A folder with task YAMLs of your own.", rich_help_panel=PANEL),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="Ask so many documents of each task at most.", rich_help_panel=PANEL),
]


@dataclass(frozen=True)
class Wanted:
    """The tasks of a command; none where `--tasks` was not given."""

    tasks: Tasks | None

    @classmethod
    def of(cls, names: str | None, folder: Path | None, limit: int | None, facts: Path) -> Wanted:
        """What the options ask for, looked up before the model is loaded.

        Raises:
            SettingsError: an option lacks the one that it belongs to; see also `find_tasks`.
        """
        if names is None:
            for option, given in (("--tasks-path", folder), ("--tasks-limit", limit)):
                if given is not None:
                    raise SettingsError(f"{option} belongs to --tasks NAME,NAME.")
            return cls(None)
        from errata.evaluation import find_tasks

        listed = [name.strip() for name in names.split(",") if name.strip()]
        return cls(find_tasks(listed, folder, limit, facts))

    def run(
        self, terminal: Terminal, model: errata.EditableModel, edit: errata.Edit | None, seed: int
    ) -> Downstream | None:
        """Run them, with progress."""
        if self.tasks is None:
            return None
        with terminal.progress("Downstream tasks") as on_progress:
            return self.tasks.run(model, edit, seed, on_progress)


def keep(found: Downstream, results: Path) -> Path:
    """Write the numbers beside a file of results; returns where to."""
    target = results.with_name(FILE if results.name == "results.jsonl" else f"{results.stem}.{FILE}")
    with atomic_file(target) as aside:
        aside.write_text(json.dumps(found.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return target


def task_table(found: Downstream) -> Table:
    """Each metric of each task, before and after, with the harness's standard errors."""
    edited = any(row.before is not None for row in found.rows)
    limited = "" if found.limit is None else f", at most {found.limit} documents a task"
    made = table(
        "Task",
        "Metric",
        *([">Before", ">After", ">Change"] if edited else [">Value"]),
        ">Documents",
        title=f"Downstream tasks, ± standard error{limited}",
    )
    for row in found.rows:
        change = "" if row.change is None else f"{row.change:+.4f}"
        cells = [_shown(row.before), _shown(row.after), change] if edited else [_shown(row.after)]
        arrow = {True: " ↑", False: " ↓", None: ""}[row.higher_is_better]
        made.add_row(row.task, row.metric + arrow, *cells, "" if row.samples is None else str(row.samples))
    return made


def _shown(measure: Measure | None) -> str:
    if measure is None:
        return "-"
    return f"{measure.value:.4f}" + ("" if measure.stderr is None else f" ± {measure.stderr:.4f}")
