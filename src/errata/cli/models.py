"""`errata models`: the families of models that can be edited, and how much memory an edit of some takes."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from errata.cli import options
from errata.cli.tables import counted, table
from errata.cli.terminal import Terminal, session

if TYPE_CHECKING:
    from errata.models import Architecture
    from errata.planning import Needs, Shape

MEMORY = "Memory"
EPILOG = options.examples(
    "errata models",
    "errata models --json | jq '.[][].model_type'",
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
    """List the model families that Errata knows, by the model_type in their config.json."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        if memory or config is not None:
            _tell_memory(terminal, config, dtype, device, count)
        else:
            _tell_families(terminal)


def _tell_families(terminal: Terminal) -> None:
    from errata.models import ARCHITECTURES

    made = table("Family", "Block runs", "Blocks", "FFN output", "Attention output", "Post-norm")
    for row in ARCHITECTURES.values():
        made.add_row(
            row.model_type,
            _order(row),
            row.blocks,
            row.ffn_output,
            row.attention_output,
            "yes" if row.post_norm else "",
        )
    terminal.show(made)
    terminal.show(
        "Paths are within the model (blocks) and within block N (outputs): transformer.h.N.mlp.c_proj.\n"
        "Sequential: the FFN reads what the attention has written; parallel: both read the block's input.\n"
        "Post-norm: the FFN's output is normalised before it is added; memit refuses such a model, pmet edits it.\n"
        "'almanac' is the model that ships with Errata. Another family is one row: docs/add-a-model.md."
    )
    terminal.result({"families": [_row(row) for row in ARCHITECTURES.values()]})


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
        f"For {counted(count, 'fact')} written by pmet. Size: parameters. In all: the program, the weights, and the\n"
        "largest of the three stages; on a GPU the program's part is in main memory. On disk: second moments.\n"
        "How it is computed, and how near that comes: docs/big-models.md."
    )
    rows = [_needs(shape, need) for shape, need in zip(shapes, needs, strict=True)]
    terminal.result({"dtype": dtype, "device": device, "facts": count, "models": rows})


def _needs(shape: Shape, need: Needs) -> dict[str, object]:
    return {**asdict(shape), "bytes": {**asdict(need), "whole": need.whole}}


def _order(row: Architecture) -> str:
    if row.parallel_flag is not None:
        return "by config"
    return "parallel" if row.parallel else "sequential"


def _row(row: Architecture) -> dict[str, object]:
    return {
        "model_type": row.model_type,
        "parallel": row.parallel if row.parallel_flag is None else None,
        "parallel_flag": row.parallel_flag,
        "post_norm": row.post_norm,
        "blocks": row.blocks,
        "ffn_output": row.ffn_output,
        "attention_output": row.attention_output,
    }
