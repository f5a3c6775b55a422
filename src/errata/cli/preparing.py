"""What `errata edit` does to the facts before: neighbors for them, and what it shall leave of their subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

import errata
from errata.cli.tables import counted, table
from errata.cli.terminal import Terminal
from errata.errors import FactError, SettingsError
from errata.facts import with_edit_prompts, with_preserve_prompts
from errata.settings import build, load_presets

if TYPE_CHECKING:
    from errata.planning import Neighbors

PANEL = "Neighbors, and the rest of the subject"
FACTS = "facts.jsonl"
"""The facts as they were prepared, in the folder of the edit."""
SHOWN = 5
PAPERS_WEIGHT = 1.0

NeighborsFrom = Annotated[
    Literal["file", "auto", "none"] | None,
    typer.Option(
        help="Hold neighbors fast: those of the file, or those that the model turns out to know (auto; the others "
        "of the neighborhood are evaluated with). Default: as the settings say.",
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


@dataclass(frozen=True)
class Wanted:
    """The options; where nothing is wanted, facts and settings stay as they are."""

    neighbors: Literal["file", "auto", "none"] | None = None
    keep_unqualified: bool = False
    preserve: Literal["subject", "none"] | None = None

    def check(self, method: str) -> None:
        """Refuse what the method cannot do.

        Raises:
            SettingsError: it optimises no values, or an option lacks the one that it belongs to.
        """
        from errata.methods import method_named

        if self.keep_unqualified and self.neighbors != "auto":
            raise SettingsError("--keep-unqualified belongs to --neighbors auto.")
        names = {one.name for one in fields(method_named(method).settings)}
        needed = {
            "--neighbors": (self.neighbors, "neighbor_weight"),
            "--preserve": (self.preserve, "preserve"),
        }
        for option, (value, setting) in needed.items():
            if value is not None and setting not in names:
                raise SettingsError(
                    f"{option} is for methods that optimise values, and {method} does not. Leave it out, or take "
                    "another method (`errata methods`)."
                )

    def settings(self, given: Mapping[str, object], published: Mapping[str, object]) -> dict[str, object]:
        """The settings that the options stand for; the weight of neighbors is the paper's, unless one is set.

        Raises:
            SettingsError: another value is set.
        """
        values: dict[str, object] = {}
        if self.neighbors == "none":
            values["neighbor_weight"] = 0
        if self.preserve is not None:
            values["preserve"] = self.preserve
        for name, value in values.items():
            if name in given and given[name] != value:
                raise SettingsError(
                    f"--set {name}={given[name]} contradicts the option that sets it to {value}."
                )
        if (
            self.neighbors in ("file", "auto")
            and "neighbor_weight" not in given
            and not published.get("neighbor_weight")
        ):
            values["neighbor_weight"] = PAPERS_WEIGHT
        return values


@dataclass(frozen=True)
class Prepared:
    """What is edited instead of the file's facts, and with which settings over the preset."""

    facts: Sequence[errata.Fact]
    settings: dict[str, object]
    found: Neighbors | None
    changed: bool

    def keep(self, output: Path) -> None:
        """Put the facts beside the edit where they are not those of the file, so that they can be evaluated with."""
        if self.changed:
            errata.write_facts(output / FACTS, self.facts)

    def file(self, facts: Path, output: Path) -> Path:
        """The file to evaluate the edit with."""
        return output / FACTS if self.changed else facts

    def told(self, facts: Sequence[errata.Fact]) -> dict[str, object] | None:
        """How many of the file's facts qualified, for programs; None where nobody asked."""
        return None if self.found is None else neighbors_json(facts, self.found)


def prepare(
    terminal: Terminal,
    model: errata.EditableModel,
    facts: Sequence[errata.Fact],
    wanted: Wanted,
    method: str,
    given: Mapping[str, object],
    preset: str | None,
    seed: int,
) -> Prepared:
    """Find neighbors and other prompts as the options and settings ask, and say what was found.

    Raises:
        FactError: no fact has neighbors, or nothing to preserve; or none qualifies.
        SettingsError: a setting contradicts an option.
    """
    from errata.methods import method_named
    from errata.solve import KeptKeySettings
    from errata.values import TargetSettings

    published = load_presets(method).for_model(model.name, model.layers, preset).values
    over = {**given, **wanted.settings(given, published)}
    values = build(method_named(method).settings, published, over)
    found: Neighbors | None = None
    prepared = list(facts)
    if isinstance(values, TargetSettings):
        if wanted.neighbors == "auto":
            found = find(terminal, model, facts, seed, values.neighbor_count, wanted.keep_unqualified)
            prepared = list(found.facts)
        elif values.neighbor_weight > 0 and "neighbor_weight" in over:
            _count_neighbors(terminal, facts)
        if isinstance(values, KeptKeySettings) and values.wordings:
            prepared = with_edit_prompts(prepared, values.wordings, seed, facts)
        keeps = isinstance(values, KeptKeySettings) and values.keeps_subjects
        if values.preserves or keeps:
            prepared = with_preserve_prompts(prepared, values.preserve_rows, seed, facts)
            asked_for = "preserve" in over or "preserve_keys" in over
            _count_preserved(terminal, prepared, needed=asked_for)
    return Prepared(prepared, over, found, prepared != list(facts))


def find(
    terminal: Terminal,
    model: errata.EditableModel,
    facts: Sequence[errata.Fact],
    seed: int,
    count: int,
    keep_unqualified: bool,
) -> Neighbors:
    """`find_neighbors` with progress and a report.

    Raises:
        FactError: no fact qualifies.
    """
    from errata.planning import find_neighbors

    with terminal.progress("Asking about neighbors") as on_progress:
        found = find_neighbors(model, facts, seed, count, keep_unqualified, on_progress)
    if not found.qualified:
        raise FactError(
            f"No fact qualifies for neighbor-assisted editing: of the first one, {found.reasons[0]}. "
            "Give the facts more neighborhood_prompts with a target_true (docs/facts.md), or leave --neighbors out."
        )
    terminal.show(
        f"{len(found.qualified)} of {counted(len(facts), 'fact')} qualified for neighbor-assisted editing: "
        f"the model answers {found.answered} of {counted(found.asked, 'question')} about neighbors as the data say."
    )
    if found.reasons:
        terminal.show(_reasons(facts, found))
    return found


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


def _count_neighbors(terminal: Terminal, facts: Sequence[errata.Fact]) -> None:
    """Tell how many facts have neighbors.

    Raises:
        FactError: none has.
    """
    count = sum(bool(fact.neighbors) for fact in facts)
    if count == 0:
        raise FactError(
            "No fact of the file has neighbors. Write some (docs/facts.md), or let Errata find them with "
            "--neighbors auto."
        )
    if count < len(facts):
        terminal.note(f"{count} of {counted(len(facts), 'fact')} have neighbors.")


def _count_preserved(terminal: Terminal, facts: Sequence[errata.Fact], needed: bool) -> None:
    """Tell how many facts have other statements to preserve.

    Raises:
        FactError: none has, and they are `needed`: somebody asked for them, not only a preset.
    """
    count = sum(bool(fact.preserve_prompts) for fact in facts)
    if count == 0 and needed:
        raise FactError(
            "There is nothing to preserve: no fact has preserve_prompts, and the file has no templates of other "
            "relations. Write some (docs/facts.md), or leave --preserve out."
        )
    if count < len(facts):
        terminal.note(f"{count} of {counted(len(facts), 'fact')} have other statements that are preserved.")


def _reasons(facts: Sequence[errata.Fact], found: Neighbors) -> Table:
    """Why facts did not qualify: the first few."""
    made = table("Did not qualify", "Why")
    for index, reason in list(found.reasons.items())[:SHOWN]:
        made.add_row(facts[index].question, reason)
    if len(found.reasons) > SHOWN:
        made.add_row(f"... and {len(found.reasons) - SHOWN} more", "")
    return made
