"""`errata methods`: the methods, and the presets and settings of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table
from rich.text import Text

from errata.cli import options
from errata.cli.tables import table
from errata.cli.terminal import session
from errata.settings import DEFAULT_METHOD, Preset, Presets, load_presets, settings_of

if TYPE_CHECKING:
    from errata.methods import Method

BY_RULE = "by rule"
ORDERS = {"batch": "all at once", "sequence": "one by one"}
"""How a method writes several facts."""
EPILOG = options.examples("errata methods", "errata methods pmet", "errata methods --json")


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[METHOD]", help="Show its presets and settings too.")
    ] = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """List the methods: where each comes from, what it writes and costs; of one also its presets and settings."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        from errata.methods import METHODS, method_named

        chosen = list(METHODS.values()) if name is None else [method_named(name)]
        terminal.show(_method_table(chosen))
        if name is not None:
            presets = load_presets(name)
            terminal.show(_preset_table(presets))
            terminal.show(_setting_table(chosen[0].settings, presets))
        else:
            terminal.note(
                f"{DEFAULT_METHOD} is the default. Presets and settings of one: errata methods METHOD"
            )
        terminal.result({"methods": [_about(method) for method in chosen]})


def _about(method: Method[Any]) -> dict[str, object]:
    """A method for programs."""
    return {
        "name": method.name,
        "summary": method.summary,
        "source": method.source,
        "writes": method.writes,
        "order": method.order,
        "cost": method.cost,
        "settings": [one.name for one in settings_of(method.settings)],
        "presets": [_preset(one) for one in load_presets(method.name).presets],
    }


def _method_table(methods: Sequence[Method[Any]]) -> Table:
    """What the registry says of each method."""
    made = table("Method", "", "")
    for number, method in enumerate(methods):
        if number:
            made.add_row()
        made.add_row(Text(method.name, "bold"), "does", method.summary)
        made.add_row("", "from", method.source)
        made.add_row("", "writes", method.writes)
        made.add_row("", "facts", ORDERS[method.order])
        made.add_row("", "each costs", method.cost)
    return made


def _preset_table(presets: Presets) -> Table:
    made = table("Preset", "For", "Layers", "Source")
    for preset in presets.presets:
        models = "\n".join(preset.models) or "any other model"
        layers = " and ".join(str(preset.values.get(name, BY_RULE)) for name in presets.layer_rules)
        made.add_row(preset.name, models, layers, preset.source)
    return made


def _setting_table(settings: type[Any], presets: Presets) -> Table:
    made = table("Setting", "Default", "Presets that differ", "What it does")
    for one in settings_of(settings):
        default = presets.defaults.get(one.name, one.default)
        others = () if default is MISSING else presets.presets
        values = [(preset.name, preset.values.get(one.name, one.default)) for preset in others]
        differing = dict.fromkeys(f"{name} {_value(value)}" for name, value in values if value != default)
        said = "by preset or rule" if default is MISSING else _value(default)
        made.add_row(one.name, said, ", ".join(differing), one.help)
    return made


def _value(value: object) -> str:
    several = isinstance(value, list | tuple)
    return ",".join(map(str, cast("Sequence[object]", value))) if several else str(value)


def _preset(preset: Preset) -> dict[str, object]:
    return {
        "name": preset.name,
        "models": list(preset.models),
        "source": preset.source,
        "values": dict(preset.values),
    }
