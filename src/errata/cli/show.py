"""`errata show`: what an edit is."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

import errata
from errata.cli import options
from errata.cli.inputs import read_edit
from errata.cli.repeating import history_table
from errata.cli.tables import change_table, counted, dropped_table, in_unit, table
from errata.cli.terminal import Terminal, session
from errata.results import LABELS, Score
from errata.runtime import duration

EPILOG = options.examples("errata show my-edit", "errata show my-edit --json | jq .measured")
FEW = 10


def show(
    edit: options.EditFolder,
    everything: Annotated[bool, typer.Option("--all", help=f"Every fact, not only the first {FEW}.")] = False,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Tell what EDIT is: its facts, what it changes, the model and the settings that it was made with."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        from errata.cli.changes import changes_of

        found = read_edit(edit)
        terminal.show(Text.assemble((str(edit), "bold"), f": {_sentence(found)}"))
        terminal.show(_origin_table(found))
        terminal.show(_facts_table(found, len(found.facts) if everything else FEW))
        if found.dropped:
            terminal.show(dropped_table(found))
        changes = changes_of(found)
        terminal.show(change_table(changes))
        if found.history:
            terminal.show(history_table(found.history))
        _show_measured(terminal, found)
        norms = {change.path: change.to_json() for change in changes}
        terminal.result({"edit": str(edit), **found.about(), "changes": norms})


def _sentence(edit: errata.Edit) -> str:
    left_out = f" ({len(edit.dropped)} left out)" if edit.dropped else ""
    return f"{counted(len(edit.facts), 'fact')}{left_out} for {edit.origin.model}, by {edit.origin.method}."


def _origin_table(edit: errata.Edit) -> Table:
    origin = edit.origin
    made = table("Made", "")
    made.add_row("for the model", origin.model + (f", revision {origin.revision}" if origin.revision else ""))
    made.add_row("with weights", f"{origin.fingerprint[:12]}... in {origin.model_dtype}")
    made.add_row("on", origin.created)
    if "seconds" in edit.measured:
        made.add_row("in", duration(edit.measured["seconds"]))
    made.add_row("from preset", origin.preset)
    made.add_row(
        "with settings", ", ".join(f"{name}={_short(value)}" for name, value in origin.settings.items())
    )
    if origin.strategy:
        made.add_row(
            "in steps", ", ".join(f"{name}={_short(value)}" for name, value in origin.strategy.items())
        )
    made.add_row("behind contexts", " | ".join(repr(text) for text in origin.contexts))
    made.add_row("seed", str(origin.seed))
    made.add_row("second moments", origin.covariance)
    made.add_row("versions", ", ".join(f"{name} {version}" for name, version in origin.versions.items()))
    return made


def _short(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(str, value)) + "]"  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return str(value)


def _facts_table(edit: errata.Edit, count: int) -> Table:
    made = table("Question", "Answer", "Instead of")
    for fact in edit.facts[:count]:
        made.add_row(fact.question, fact.target_new, fact.target_true or "")
    more = len(edit.facts) - count
    if more > 0:
        made.add_row(f"... and {more} more (--all shows them)", "", "", style="dim")
    return made


def _value(cell: float | None, name: str) -> str:
    return "-" if cell is None else in_unit(Score(cell, None, None, 1), name)


def _show_measured(terminal: Terminal, edit: errata.Edit) -> None:
    """The scores that `errata edit --evaluate` kept, if it did."""
    names = [name for name in LABELS if f"after.{name}" in edit.measured]
    if not names:
        terminal.note(
            "Its scores were not measured: `errata evaluate` with --edit, or `errata edit --evaluate`."
        )
        return
    made = table("", ">Before", ">After", title="Scores in %, over its own facts")
    for name in names:
        cells = [edit.measured.get(f"{phase}.{name}") for phase in ("before", "after")]
        made.add_row(LABELS[name], *(_value(cell, name) for cell in cells))
    terminal.show(made)
