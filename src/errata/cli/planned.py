"""`errata edit --plan`: what an edit will do, and where each of its settings comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

import errata
from errata.cli.bars import duration
from errata.cli.tables import counted, realized_words, table
from errata.cli.terminal import Terminal
from errata.runtime import to_json

if TYPE_CHECKING:
    from errata.edits import Realized
    from errata.planning import Costs


def show(terminal: Terminal, plan: errata.Plan) -> None:
    """Print the plan."""
    costs, realized = plan.costs(), plan.realized()
    for note in plan.notes:
        terminal.note(note)
    terminal.show(_summary(plan, costs, realized))
    terminal.show(_settings(plan))
    terminal.result({**plan.described(costs), "realized": to_json(realized)})
    terminal.note("Nothing was computed. The same command without --plan makes the edit.")


def _summary(plan: errata.Plan, costs: Costs, realized: Mapping[str, Realized]) -> Table:
    made = table("Plan", "")
    facts = counted(len(plan.facts), "fact")
    asked = ", those that qualify" if plan.request.neighbors == "auto" else ""
    made.add_row("Write", f"{facts}{asked}, by {plan.method.name} ({plan.method.summary})")
    made.add_row("Into", f"{plan.model.name}, layers {_span(plan.layers)} of {plan.model.layers} blocks")
    made.add_row("Preset", f"{plan.preset.name}: {plan.preset.source}")
    made.add_row("Strategy", plan.strategy_words)
    if costs.rows:
        texts = ", ".join(f"{count:g} {name}" for name, count in costs.rows.items())
        made.add_row("Texts per fact and step", texts)
    made.add_row("Contexts", plan.contexts_words)
    made.add_row("Second moments", plan.moments_words)
    if realized:
        made.add_row("One write realizes", realized_words(realized))
    elif plan.method.solver is not None:
        made.add_row("One write realizes", "known once the second moments are measured")
    made.add_row("Memory", f"about {costs.memory.whole / 1e9:.1f} GB")
    made.add_row("Time", _time(costs))
    return made


def _settings(plan: errata.Plan) -> Table:
    made = table("Setting", "Value", "From")
    for row in plan.setting_rows():
        several = isinstance(row.value, list | tuple)
        value = ",".join(map(str, row.value)) if several else str(row.value)
        made.add_row(row.name, value, row.source)
    return made


def _time(costs: Costs) -> str:
    if costs.seconds is None:
        return "not estimated for this method"
    return (
        f"about {duration(costs.seconds)} on an idle machine, plus second moments that must be measured first"
    )


def _span(layers: tuple[int, ...]) -> str:
    return ",".join(map(str, layers))
