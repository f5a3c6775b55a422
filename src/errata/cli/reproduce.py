"""`errata reproduce`: the papers' tables and figures, each one command away."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table as Grid
from rich.text import Text

from errata.cli import options
from errata.cli.inputs import check_extra, load_model
from errata.cli.tables import counted, table
from errata.cli.terminal import PROBLEMS, Terminal, session
from errata.errors import SettingsError
from errata.runtime import duration

if TYPE_CHECKING:
    import errata
    from errata.experiments import Plan, Recipe, Request, Table

EPILOG = options.examples(
    "errata reproduce --list",
    "errata reproduce pmet-table-1",
    "errata reproduce under-over-edit-table-6 --edits 20 --output iterations",
    "errata reproduce pmet-table-1 --model my-org/my-model --facts counterfact.json --device cuda --dry-run",
)
OUTPUT = "reproduced"
ALMANAC = "almanac"


def reproduce(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A recipe; `errata reproduce --list` names them all.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(metavar="MODEL", help="A hub id or a folder: then the sizes are the paper's."),
    ] = ALMANAC,
    edits: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many facts are edited; of several numbers of edits, those below it and it."
        ),
    ] = None,
    facts: Annotated[
        str | None,
        typer.Option(
            "--facts",
            "-f",
            metavar="FILE",
            help="Facts to draw from. Default: held-out facts of Almanac's world.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help=f"Where cells, tables, figures and the report go; a run that was stopped goes on there. "
            f"Default: {OUTPUT}/NAME.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be run, how long, how much memory and disk.")
    ] = False,
    list_all: Annotated[bool, typer.Option("--list", help="Name every recipe.")] = False,
    dtype: options.Dtype = None,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Run a table or figure of a paper, and put our numbers beside the paper's: terminal, Markdown, LaTeX, one page.

    Each cell is stored as it is done: stopped at any time and started again, the run goes on and ends with the same
    table.
    """
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        from errata.experiments import Request, load_recipe, plan, recipe_names

        if list_all:
            _list(terminal, [load_recipe(one) for one in recipe_names()])
            return
        if name is None:
            raise SettingsError("Name a recipe: `errata reproduce --list` shows them all.")
        request = Request(load_recipe(name).resized(edits), model, facts, seed)
        folder = output or Path(OUTPUT) / name
        if dry_run:
            _tell(terminal, request, folder, plan(request, folder))
            return
        check_extra()
        _run(terminal, request, folder, partial(load_model, terminal, model, dtype, device, device_map))


def _run(
    terminal: Terminal, request: Request, folder: Path, load: Callable[[], errata.EditableModel]
) -> None:
    from errata.experiments import make_table, run_cells
    from errata.report import write_report

    try:
        with terminal.progress(request.recipe.name) as on_progress:
            failed = run_cells(load, request, folder, on_progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"What is done is kept in {folder}: the same command goes on from there."
        ) from None
    made = make_table(request, folder, failed)
    page = write_report(made, folder)
    _show(terminal, made, page)
    terminal.result(_result(made, folder, failed))
    if failed:
        raise typer.Exit(PROBLEMS)


def _show(terminal: Terminal, made: Table, page: Path) -> None:
    """The table in the terminal: under each line of ours the paper's."""
    from errata.report import heading

    recipe = made.request.recipe
    terminal.show(Text.assemble((recipe.title, "bold"), f" ({recipe.source})"))
    terminal.show(heading(made))
    if made.lines:
        terminal.show(_grid(made))
    for line in made.lines:
        if line.failed:
            terminal.show(Text(f"{line.row}, {line.edits} edits, failed: {line.failed}", style="red"))
    terminal.show(
        Text.assemble("The report is ", (str(page), "bold"), f"; tables and cells are in {page.parent}.")
    )


WIDE = 6
"""With more columns than this a table has no room for intervals and long heads."""
SHORT = {
    "Efficacy": "Eff.",
    "Generalization": "Gen.",
    "Specificity": "Spec.",
    "accuracy": "acc.",
    "success": "succ.",
    "value": "",
    "weights": "",
    "optimised": "opt.",
}


def _grid(made: Table) -> Grid:
    """The lines that were measured; columns that nobody measured are left out, and named below."""
    from errata.report import footnote, label_of, ours, printed, printed_name

    shown = [place for place, (name, _) in enumerate(made.columns) if _measured(made, name)]
    wide = len(shown) > WIDE
    heads = [made.columns[place][1] for place in shown]
    if wide:
        heads = [
            " ".join(SHORT.get(word.rstrip(","), word.rstrip(",")) for word in head.split()) for head in heads
        ]
    grid = table("", *(f">{head.strip()}" for head in heads))
    grid.columns[0].no_wrap = wide
    grid.padding = (0, 1, 0, 0) if wide else grid.padding

    def chosen(cells: list[str]) -> list[str]:
        if not wide:
            return [cells[place] for place in shown]
        return [cells[place].partition(" ± ")[0].replace("not measured", "-") for place in shown]

    for line in made.lines:
        name = label_of(made, line)
        if line.failed:
            grid.add_row(name, Text("failed", style="red"))
            continue
        grid.add_row(name, *chosen(ours(made, line)))
        if line.printed is not None:
            grid.add_row(f"  {printed_name(made, line)}", *chosen(printed(made, line)), style="dim")
    left_out = [label for place, (_, label) in enumerate(made.columns) if place not in shown]
    notes = [f"Not measured: {', '.join(left_out)}."] if left_out else []
    notes += [footnote(made)] if footnote(made) else []
    grid.caption, grid.caption_justify = " ".join(notes), "left"
    return grid


def _measured(made: Table, column: str) -> bool:
    return any(column in line.values for line in made.lines)


def _result(made: Table, folder: Path, failed: dict[str, str]) -> dict[str, object]:
    from errata.report import line_rows

    recipe = made.request.recipe
    return {
        "recipe": recipe.name,
        "source": recipe.source,
        "model": made.request.model,
        "output": str(folder),
        "lines": line_rows(made),
        "failed": failed,
    }


def _list(terminal: Terminal, recipes: list[Recipe]) -> None:
    from errata.experiments import Request, plan

    made = table("Recipe", "Place", "What", ">Cells", ">Edits", ">Time")
    made.columns[0].no_wrap = made.columns[1].no_wrap = made.columns[-1].no_wrap = True
    rows: list[dict[str, object]] = []
    for recipe in recipes:
        request = Request(recipe)
        planned = plan(request)
        most = max(recipe.sizes.edits)
        took = "" if planned.seconds is None else duration(planned.seconds)
        made.add_row(
            recipe.name, recipe.paper, recipe.place, recipe.title, str(len(planned.cells)), str(most), took
        )
        rows.append(
            {
                "name": recipe.name,
                "title": recipe.title,
                "paper": recipe.paper,
                "source": recipe.source,
                "place": recipe.place,
                "columns": list(recipe.columns),
                "rows": [row.name for row in recipe.rows],
                "cells": len(planned.cells),
                "edits": list(recipe.sizes.edits),
                "paper_edits": list(recipe.published.edits),
                "paper_models": list(recipe.published.models),
                "seconds": None if planned.seconds is None else round(planned.seconds),
            }
        )
    terminal.show(made)
    terminal.show(
        f"Cells, edits and times are those of Almanac. Times are upper bounds where a rule may stop the iterations; "
        f"they are {_basis()}."
    )
    terminal.result({"recipes": rows})


def _basis() -> str:
    """Where the times of the list are from."""
    from errata.experiments import FROM_TIMINGS, timings

    return FROM_TIMINGS.format(measured=timings()["almanac"]["measured"])


def _tell(terminal: Terminal, request: Request, folder: Path, planned: Plan) -> None:
    """The dry run."""
    from errata.experiments import stored

    made = table("Cell", ">Edits", ">Iterations", "Facts", "")
    for cell in planned.cells:
        done = "done" if stored(folder, cell) else ""
        most = f"{cell.iterations}" if cell.row.strategy else ""
        made.add_row(cell.row.name, f"{cell.edits:,}", most, f"{cell.data}, trial {cell.trial}", done)
    terminal.show(Text.assemble((request.recipe.title, "bold"), f" ({request.recipe.source})"))
    terminal.show(made)
    left = counted(planned.left, "cell")
    time = "unknown" if planned.seconds is None else f"about {duration(planned.seconds)}"
    terminal.show(f"{left} to run, {planned.done} stored in {folder}. Time: {time}; {planned.basis}.")
    terminal.show(f"Memory: {_bytes(planned.memory)}. Disk: {_bytes(planned.disk)}. Both are estimates.")
    terminal.result(
        {
            "recipe": request.recipe.name,
            "model": request.model,
            "output": str(folder),
            "cells": [
                {
                    **cell.described(),
                    "name": cell.name,
                    "row": cell.row.name,
                    "stored": bool(stored(folder, cell)),
                }
                for cell in planned.cells
            ],
            "seconds": planned.seconds,
            "basis": planned.basis,
            "memory": planned.memory,
            "disk": planned.disk,
        }
    )


def _bytes(number: float | None) -> str:
    if number is None:
        return "unknown"
    return f"about {number / 1e9:.1f} GB" if number >= 1e9 else f"about {number / 1e6:.0f} MB"
