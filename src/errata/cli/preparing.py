"""The options of `errata edit` for rows beside the facts: neighbors, and other statements about their subjects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

import errata
from errata.cli.tables import counted, table
from errata.cli.terminal import Terminal

if TYPE_CHECKING:
    from errata.planning import Neighbors

PANEL = "Neighbors, and the rest of the subject"
FACTS = "facts.jsonl"
"""The facts as they were prepared, in the folder of the edit."""
SHOWN = 5

NeighborsFrom = Annotated[
    Literal["file", "auto", "none"] | None,
    typer.Option(
        help="Keep neighboring facts unchanged: those in the file, or those the model turns out to know (auto; the "
        "rest of the neighborhood is used for evaluation). Default: as the settings say.",
        rich_help_panel=PANEL,
    ),
]
KeepUnqualified = Annotated[
    bool,
    typer.Option(
        "--keep-unqualified",
        help="With auto: edit facts without neighbors too, instead of leaving them out.",
        rich_help_panel=PANEL,
    ),
]
Preserve = Annotated[
    Literal["subject", "none"] | None,
    typer.Option(
        help="Leave what the model says about a fact's subject in other statements as it is: those of the file's "
        "preserve_prompts, or templates of its other relations. Default: as the settings say.",
        rich_help_panel=PANEL,
    ),
]


def keep_facts(
    prepared: Sequence[errata.Fact], read: Sequence[errata.Fact], drawn: bool, output: Path
) -> bool:
    """Put the facts next to the edit if they are not those of the file, for evaluation; returns whether they are."""
    changed = drawn or list(prepared) != list(read)
    if changed:
        errata.write_facts(output / FACTS, prepared)
    return changed


def show_neighbors(terminal: Terminal, facts: Sequence[errata.Fact], found: Neighbors) -> None:
    """Say how many facts qualified for neighbor-assisted editing, and why others did not."""
    terminal.show(
        f"{len(found.qualified)} of {counted(len(facts), 'fact')} qualified for neighbor-assisted editing: "
        f"the model answers {found.answered} of {counted(found.asked, 'question')} about neighbors as the data say."
    )
    if found.reasons:
        terminal.show(_reasons(facts, found))


def neighbors_json(facts: Sequence[errata.Fact], found: Neighbors) -> dict[str, object]:
    """What was found, for programs."""
    return {
        "facts": len(facts),
        "qualified": len(found.qualified),
        "asked": found.asked,
        "answered": found.answered,
        "without_subject": found.without_subject,
        "corrected": found.corrected,
        "not_qualified": [
            {"subject": facts[index].subject, "case_id": facts[index].case_id, "reason": reason}
            for index, reason in found.reasons.items()
        ],
    }


def _reasons(facts: Sequence[errata.Fact], found: Neighbors) -> Table:
    """Why facts did not qualify: the first few."""
    made = table("Did not qualify", "Why")
    for index, reason in list(found.reasons.items())[:SHOWN]:
        made.add_row(facts[index].question, reason)
    if len(found.reasons) > SHOWN:
        made.add_row(f"... and {len(found.reasons) - SHOWN} more", "")
    return made
