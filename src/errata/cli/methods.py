"""`errata methods`: the methods, their presets and settings."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, cast

import typer
from rich.table import Table
from rich.text import Text

from errata.cli import options
from errata.cli.tables import table
from errata.cli.terminal import session
from errata.settings import Preset, Presets, load_presets

BY_RULE = "by rule"
EPILOG = options.examples("errata methods", "errata methods pmet", "errata methods --json")


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[METHOD]", help="Tell its settings too, with the default values.")
    ] = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """List the methods, where they come from, and their presets."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        from errata.methods import METHODS, method_named

        chosen = list(METHODS.values()) if name is None else [method_named(name)]
        rows: list[dict[str, object]] = []
        for method in chosen:
            presets = load_presets(method.name)
            settings = [field.name for field in fields(method.settings)]
            about = f"  {method.summary}\n{' ' * len(method.name)}  {method.source}"
            terminal.show(Text.assemble((method.name, "bold"), about))
            terminal.show(_preset_table(presets))
            if name is not None:
                terminal.show(_setting_table(settings, presets))
            rows.append(
                {
                    "name": method.name,
                    "summary": method.summary,
                    "source": method.source,
                    "settings": settings,
                    "presets": [_preset(one) for one in presets.presets],
                }
            )
        terminal.result({"methods": rows})


def _preset_table(presets: Presets) -> Table:
    made = table("Preset", "For", "Layers", "Source")
    for preset in presets.presets:
        models = "\n".join(preset.models) or "any other model"
        layers = str(preset.values.get("layers", BY_RULE))
        made.add_row(preset.name, models, layers, preset.source)
    return made


def _setting_table(names: list[str], presets: Presets) -> Table:
    made = table("Setting", "Default", "Presets that differ")
    for name in names:
        default = presets.defaults.get(name)
        others = [one for one in presets.presets if one.values.get(name) != default and default is not None]
        differing = ", ".join(dict.fromkeys(f"{one.name} {_value(one.values.get(name))}" for one in others))
        made.add_row(name, "by preset or rule" if default is None else _value(default), differing)
    return made


def _value(value: object) -> str:
    return ",".join(map(str, cast("list[object]", value))) if isinstance(value, list) else str(value)


def _preset(preset: Preset) -> dict[str, object]:
    return {
        "name": preset.name,
        "models": list(preset.models),
        "source": preset.source,
        "values": dict(preset.values),
    }
