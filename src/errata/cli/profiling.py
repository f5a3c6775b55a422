"""`errata locate --leverage`: how much the subjects' keys stand out, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

import errata
from errata.cli.tables import counted, table
from errata.cli.terminal import Terminal
from errata.runtime import to_json

if TYPE_CHECKING:
    from errata.analysis import LeverageProfile


def show(
    terminal: Terminal,
    model: errata.EditableModel,
    facts: Sequence[errata.Fact],
    covariance: Path | None,
    output: Path | None,
) -> None:
    """Measure the profile and print it; with `output`, write its numbers and a figure there."""
    from errata.analysis import leverage_profile, write_leverage
    from errata.moments import default_recipe, ensure

    with terminal.progress(f"Measuring the leverage of subjects in {model.name}") as on_progress:
        sites = [model.site("ffn", layer) for layer in range(model.layers)]
        folder = covariance or ensure(model, sites, default_recipe(model, sites=sites), on_progress)
        profile = leverage_profile(model, facts, folder, on_progress)
    terminal.show(Text.assemble((profile.model, "bold"), f", {counted(profile.facts, 'fact')}"))
    terminal.show(_table(profile))
    about = {**to_json(profile), "highest": list(profile.highest())}
    if output is not None:
        write_leverage(profile, output)
        terminal.show(Text.assemble("Numbers and figure: ", (str(output), "bold")), wrap=False)
    terminal.result({**about, "output": None if output is None else str(output)})


def _table(profile: LeverageProfile) -> Table:
    made = table(
        ">Block",
        ">Subject's last token",
        ">Other tokens",
        ">Ratio",
        ">Prompt's last token",
        title="Median leverage of the FFN's keys, in units of its width; 1 is the mean over all text",
    )
    highest = profile.highest()
    for one in profile.blocks:
        style = "bold" if one.layer in highest else ""
        cells = [f"{value:.2f}" for value in (one.subject, one.others, one.ratio, one.last)]
        made.add_row(str(one.layer), *cells, style=style)
    return made
