"""What `errata edit` prints of a finished edit."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

import errata
from errata.cli import repeating
from errata.cli.bars import duration
from errata.cli.tables import (
    Change,
    change_table,
    checks_table,
    checks_words,
    counted,
    dropped_json,
    dropped_table,
    realized_words,
    score_blocks,
    scores_json,
)
from errata.cli.terminal import Terminal
from errata.results import Results
from errata.runtime import to_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EditReport:
    """A finished edit, and where it and its facts lie."""

    model: errata.EditableModel
    edit: errata.Edit
    results: Results | None
    facts: Path
    """To evaluate the edit with."""
    output: Path

    def show(self, terminal: Terminal, neighbors: dict[str, object] | None) -> None:
        """Print what was done, and what can be done next."""
        from errata.cli.changes import changes_of

        changes = changes_of(self.edit, self.model)
        self._show_summary(terminal)
        if changes:
            terminal.show(change_table(changes))
        else:
            logger.warning(
                "No weight is changed: the method found nothing to do. Does the model say the facts already?"
            )
        self._show_details(terminal)
        terminal.result({**self._about(changes), "neighbors": neighbors})
        self._show_next(terminal)

    def _show_summary(self, terminal: Terminal) -> None:
        left_out = f", {len(self.edit.dropped)} left out" if self.edit.dropped else ""
        took = duration(self.edit.measured["seconds"])
        terminal.show(
            Text.assemble(
                (counted(len(self.edit.facts), "fact"), "bold"),
                f" written by {self.edit.origin.method} into {self.model.name}{left_out}, in {took}. The edit is in ",
                (f"{self.output}.", "bold"),
            )
        )

    def _show_details(self, terminal: Terminal) -> None:
        if self.edit.realized:
            terminal.show(Text(f"One write realized {realized_words(self.edit.realized)}."))
        if self.edit.checks:
            terminal.show(Text(checks_words(self.edit), style="bold"))
        if any(not one.holds for one in self.edit.checks):
            terminal.show(checks_table(self.edit))
        if self.edit.history:
            terminal.show(repeating.history_table(self.edit.history))
        if self.edit.dropped:
            terminal.show(dropped_table(self.edit))
        if self.results is not None:
            for block in score_blocks(self.results):
                terminal.show(block)

    def _about(self, changes: list[Change]) -> dict[str, object]:
        """The same for programs."""
        edit, origin = self.edit, self.edit.origin
        return {
            "edit": str(self.output),
            "model": self.model.name,
            "method": origin.method,
            "preset": origin.preset,
            "settings": dict(origin.settings),
            "seed": origin.seed,
            "facts": len(edit.facts),
            "dropped": dropped_json(edit),
            "changes": {change.path: change.to_json() for change in changes},
            "realized": to_json(edit.realized),
            "checks": to_json(edit.checks),
            "seconds": edit.measured["seconds"],
            "strategy": dict(origin.strategy),
            "history": [dict(write) for write in edit.history],
            "scores": None if self.results is None else scores_json(self.results),
        }

    def _show_next(self, terminal: Terminal) -> None:
        terminal.note(f"What it is:       errata show {self.output}")
        if self.results is None:
            terminal.note(
                f"How well it does: errata evaluate {self.model.name} --facts {self.facts} --edit {self.output}"
            )
        terminal.note(f"A full model:     errata apply {self.model.name} {self.output} --output DIR")
