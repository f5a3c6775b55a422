"""`errata models`: which model types can be edited, and how much memory an edit of some models takes."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from errata.cli import options
from errata.cli.tables import counted, table
from errata.cli.terminal import Terminal, session
from errata.settings import DEFAULT_METHOD

if TYPE_CHECKING:
    from errata.models import FamilyRow
    from errata.planning import Needs, Shape

MEMORY = "Memory"
EPILOG = options.examples(
    "errata models",
    "errata models --json | jq '.[][] | select(.edited) | .model_type'",
    "errata models --memory --dtype bfloat16 --device cuda --count 1000",
    "errata models --memory --config ./my-model",
)


def models(
    memory: Annotated[
        bool,
        typer.Option(
            "--memory",
            help="Tell how much memory an edit takes, computed from the shapes.",
            rich_help_panel=MEMORY,
        ),
    ] = False,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Of this model: a folder with a config.json, or a hub id. Default: four that are often edited.",
            rich_help_panel=MEMORY,
        ),
    ] = None,
    dtype: Annotated[
        Literal["float64", "float32", "bfloat16", "float16"],
        typer.Option(help="Of the weights.", rich_help_panel=MEMORY),
    ] = "float32",
    device: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="Where the model is.", rich_help_panel=MEMORY)
    ] = "cpu",
    count: Annotated[
        int, typer.Option(min=1, help="How many facts are edited.", rich_help_panel=MEMORY)
    ] = 100,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """List every model type of transformers' causal LMs (model_type in config.json): edited, or refused and why."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        if memory or config is not None:
            _tell_memory(terminal, config, dtype, device, count)
        else:
            _tell_families(terminal)


def _tell_families(terminal: Terminal) -> None:
    from errata.models import family_rows

    rows = family_rows()
    edited = {name: row for name, row in rows.items() if row.get("edited")}
    refused = {name: row for name, row in rows.items() if not row.get("edited")}
    made = table("Edited", "Block runs", "Blocks", "Down projection", "Value at")
    for name, row in edited.items():
        down = ", ".join(row.get("ffn_outputs", []))
        made.add_row(name, row.get("order", ""), row.get("blocks", ""), down, row.get("value_at", ""))
    terminal.show(made)
    terminal.show(
        "Paths are within the model (blocks) and within block N (outputs): transformer.h.N.mlp.c_proj.\n"
        "Sequential: the FFN reads what the attention has written; parallel: both read the block's input.\n"
        "Value at: where memit's value stands: the block's output, or the down projection's where that is normalized\n"
        "or gated before it is added. 'almanac' is the model that ships with Errata."
    )
    others = table("Refused", "Why")
    for name, row in refused.items():
        others.add_row(name, row.get("reason", ""))
    terminal.show(others)
    terminal.show(
        f"{len(edited)} of {len(rows)} types of transformers' causal LMs are edited, each tried on a tiny model\n"
        "(docs/families.md). What a record says is measured whenever a model is loaded."
    )
    terminal.result({"families": [_row(name, row) for name, row in rows.items()]})


def _tell_memory(terminal: Terminal, config: str | None, dtype: str, device: str, count: int) -> None:
    """Print what an edit takes, model by model."""
    from errata.models import DTYPES, read_config
    from errata.planning import known_shapes, needs_of, shape_of

    shapes = known_shapes() if config is None else [shape_of(config, read_config(config))]
    needs = [needs_of(shape, DTYPES[dtype], count, device) for shape in shapes]
    columns = (">Weights", ">Collect", ">Optimise", ">Spread", ">In all", ">On disk")
    made = table(
        "Model", ">Size", "Layers", *columns, title=f"GB (10^9 bytes), {dtype} on {device}; computed"
    )
    for shape, need in zip(shapes, needs, strict=True):
        numbers = (
            need.weights,
            need.collecting,
            need.optimising,
            need.spreading,
            need.whole,
            need.moments_file,
        )
        layers = f"{shape.layers[0]}-{shape.layers[-1]}"
        made.add_row(
            shape.name.split("/")[-1],
            f"{shape.parameters / 1e9:.2f} G",
            layers,
            *(f"{number / 1e9:.1f}" for number in numbers),
        )
    terminal.show(made)
    terminal.show(
        f"For {counted(count, 'fact')} written by {DEFAULT_METHOD}. Size: parameters. In all: the program, the\n"
        "weights, and the largest of the three stages; on a GPU the program's part is in main memory. On disk: second\n"
        "moments. How it is computed, and how near that comes: docs/big-models.md."
    )
    rows = [_needs(shape, need) for shape, need in zip(shapes, needs, strict=True)]
    terminal.result({"dtype": dtype, "device": device, "facts": count, "models": rows})


def _needs(shape: Shape, need: Needs) -> dict[str, object]:
    return {**asdict(shape), "bytes": {**asdict(need), "whole": need.whole}}


def _row(name: str, row: FamilyRow) -> dict[str, object]:
    if not row.get("edited"):
        return {"model_type": name, **row}
    plain = {"parallel": row.get("order") == "parallel", "post_norm": row.get("value_at") != "block"}
    return {"model_type": name, **row, **plain}
