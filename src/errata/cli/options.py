"""The arguments and options that several commands share, each with one wording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EVERYWHERE = "On every command"
LOADING = "Loading the model"

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A hub id, a local folder, a .gguf file (extra: gguf), or 'almanac', the model that ships with Errata.",
    ),
]
EditFolder = Annotated[
    Path, typer.Argument(metavar="EDIT", help="The folder that `errata edit` wrote, or a stack.")
]
Facts = Annotated[
    Path,
    typer.Option(
        "--facts",
        "-f",
        metavar="FILE",
        help="Facts: a file (Errata's own JSONL, CounterFact or zsRE records; .gz too), or a data set by name: "
        "counterfact, zsre, counterfact-neighbors-MODEL, OWNER/NAME@REVISION.",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="DTYPE",
        help="float64, float32, bfloat16 or float16. Default: the checkpoint's own; on a CPU at least float32.",
        rich_help_panel=LOADING,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1, mps ... Default: cpu.", rich_help_panel=LOADING),
]
DeviceMap = Annotated[
    str | None,
    typer.Option(
        metavar="MAP",
        help="Spread the model over devices, as transformers does: auto.",
        rich_help_panel=LOADING,
    ),
]
Method = Annotated[str, typer.Option(help="memit, pmet, rome ...; `errata methods` lists them.")]
PresetName = Annotated[
    str | None,
    typer.Option(
        "--preset", help="Settings to begin with, by name or as a FILE.toml. Default: those of the model."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="One setting over the preset's; repeatable."),
]
Contexts = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.json",
        help='Prefix texts as a JSON list, the empty one ("") first. Default: sampled from the model.',
    ),
]
Covariance = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Second moments of the keys. Default: measured once, and kept in the user's cache.",
    ),
]
Track = Annotated[
    str | None,
    typer.Option(
        metavar="WHERE",
        help="Log settings, writes and scores to trackio, wandb (or trackio:PROJECT, wandb:PROJECT) or "
        "tensorboard:DIR. Extra: track.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of all that is drawn at random.", rich_help_panel=EVERYWHERE)]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="No progress and no notes: the result, warnings and errors.",
        rich_help_panel=EVERYWHERE,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="The result as one JSON object on stdout, all else on stderr.",
        rich_help_panel=EVERYWHERE,
    ),
]


def examples(*commands: str) -> str:
    """The epilog of a command's help: what can be typed as it stands."""
    return "\n".join(["[bold]Examples[/bold]", *commands])
