"""Which facts a command works on: a file or a data set by name, all of it or a seeded draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import errata
from errata.cli.tables import counted
from errata.cli.terminal import Terminal
from errata.facts import find_facts, sample_facts

PANEL = "Which facts"

DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="A folder with counterfact.jsonl.gz, zsre.jsonl.gz ...: data sets are taken from there, not from the hub.",
        rich_help_panel=PANEL,
    ),
]
Sample = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Draw so many of the facts, by the seed.", rich_help_panel=PANEL),
]
Trial = Annotated[
    int,
    typer.Option(min=1, help="Which draw of N; draws of one seed share no fact.", rich_help_panel=PANEL),
]


def draw(
    terminal: Terminal, name: Path, data_dir: Path | None, sample: int | None, seed: int, trial: int
) -> Sequence[errata.Fact]:
    """The facts that the options name.

    Raises:
        FactError: there is no such file or data set, it cannot be used, or it has not so many facts.
    """
    file = find_facts(name, data_dir)
    facts = errata.read_facts(file)
    drawn = sample_facts(facts, sample, seed, trial)
    if sample is not None:
        terminal.note(
            f"{counted(len(drawn), 'fact')} of the {len(facts)} of {file}: trial {trial}, seed {seed}."
        )
    return drawn


def is_drawn(name: Path, sample: int | None) -> bool:
    """Whether the facts are others than those of the file of that path."""
    return sample is not None or not name.exists()
