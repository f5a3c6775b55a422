"""`errata covariance`: second moments of keys - measured, looked at, imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from errata.cli import options
from errata.cli.inputs import load_model
from errata.cli.tables import table
from errata.cli.terminal import Terminal, session
from errata.errors import CovarianceMissing, ProcessLost
from errata.settings import DEFAULT_METHOD, build

COLLECT_EPILOG = options.examples(
    "errata covariance collect my-org/my-model --device cuda",
    "errata covariance collect ./my-model --layers 4-8 --corpus texts.jsonl --column body --output my-moments",
)
SHOW_EPILOG = options.examples("errata covariance show", "errata covariance show my-moments")
IMPORT_EPILOG = options.examples(
    "errata covariance import layer3_mom2.npz --model my-org/my-model --layer 3",
)
ABOUT = {"model": "of the model", "dtype": "in", "corpus": "over"}
"""What a file of second moments says of itself, in words."""
Kind = Literal["ffn", "attention"]
KindOption = Annotated[Kind, typer.Option(help="The output map of the FFN or of the attention.")]


@dataclass(frozen=True)
class Layers:
    """The layers of an option, as settings are written: "3-8", "3,5"."""

    layers: tuple[int, ...]


def collect(
    model: options.Model,
    layers: Annotated[
        str | None,
        typer.Option(metavar="LAYERS", help=f"For example 3-8. Default: those that {DEFAULT_METHOD} writes."),
    ] = None,
    kind: KindOption = "ffn",
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="CORPUS",
            help="A .txt or .jsonl file, a data set of the hub as id:config:split, or one of 'texts', 'statements', "
            "'written' (by the model) and 'embedded'; append '+statements' to mix in short statements. Default: "
            "Wikipedia with statements, with a published preset Wikipedia alone, offline texts with statements; for "
            "almanac 'embedded'.",
        ),
    ] = None,
    column: Annotated[str, typer.Option(help="The field that holds the text.")] = "text",
    samples: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Read N texts; the published programs read 100,000. Default: see --tokens.",
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Stop after N tokens. Default: 25 for each input of the FFN's output map; with --samples no limit.",
        ),
    ] = None,
    max_length: Annotated[int, typer.Option(help="How many tokens of each text, at most.")] = 1024,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Default: the cache, where `errata edit` finds them."
        ),
    ] = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Measure the second moments of MODEL's keys, all layers in one pass; stopped, it goes on when called again."""
    with session(seed=seed, quiet=quiet, as_json=as_json, together=True) as terminal:
        chosen = None if layers is None else build(Layers, {"layers": layers}).layers
        loaded = load_model(terminal, model, dtype, device, device_map)
        from errata.cli import measuring

        amount = measuring.Amount(samples, tokens)
        recipe = measuring.recipe_for(loaded, corpus, column, max_length, amount)
        sites = measuring.sites_of(loaded, kind, chosen)
        try:
            with terminal.progress("Reading the corpus") as on_progress:
                folder = measuring.collect(loaded, sites, recipe, output, on_progress)
        except (KeyboardInterrupt, ProcessLost) as stop:
            told = f"{stop} What is done is kept: the same command goes on from there.".lstrip()
            raise type(stop)(told) from None
        _report(terminal, folder)


def show(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Default: list the folders in the cache.")
    ] = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Tell what second moments a folder holds, and what they were measured on."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        if folder is None:
            _list_cache(terminal)
        else:
            _report(terminal, folder)


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.npz", help="A statistics file of the published ROME and MEMIT programs."
        ),
    ],
    model: Annotated[str, typer.Option(metavar="MODEL", help="The model that the file belongs to.")],
    layer: Annotated[int, typer.Option(help="The layer that the file belongs to.")],
    kind: KindOption = "ffn",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Default: a folder of the cache for this model."),
    ] = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Turn a published file of second moments into Errata's form: the moment is mom2.mom2 over mom2.count."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        if not file.is_file():
            raise CovarianceMissing(f"There is no file {file} to import.")
        loaded = load_model(terminal, model, None, None, None)
        from errata.cli import measuring

        folder = measuring.import_npz(file, loaded, kind, layer, output)
        _report(terminal, folder)
        terminal.note(f"To use them: errata edit {model} --covariance {folder} ...")


def _report(terminal: Terminal, folder: Path) -> None:
    """Print what a folder holds: once what all files say of themselves, and in a table what differs."""
    from errata.moments import moments_of

    stored = moments_of(folder)
    told = {name: {one.metadata.get(name, "not told") for one in stored} for name in ABOUT}
    common = [f"{words} {_brief(*told[name])}" for name, words in ABOUT.items() if len(told[name]) == 1]
    differing = [name for name in ABOUT if len(told[name]) > 1]
    made = table("Site", ">Inputs", ">Tokens", *(ABOUT[name].capitalize() for name in differing))
    for one in stored:
        about = (_brief(one.metadata.get(name, "not told")) for name in differing)
        made.add_row(one.site, str(one.d_in), f"{one.count:.0f}", *about)
    terminal.show(Text.assemble("Second moments in ", (str(folder), "bold"), f": {', '.join(common)}"))
    terminal.show(made)
    rows = [
        {"site": one.site, "d_in": one.d_in, "count": one.count, "about": dict(one.metadata)}
        for one in stored
    ]
    terminal.result({"folder": str(folder), "sites": rows})


def _brief(value: str) -> str:
    """Only the beginning of a digest."""
    return " ".join(word[:15] if word.startswith("sha256:") else word for word in value.split())


def _list_cache(terminal: Terminal) -> None:
    """Print which folders the cache has."""
    from errata.moments import STAGE
    from errata.runtime import cache_root

    root = cache_root() / STAGE
    folders = sorted(path for path in root.glob("*") if path.is_dir())
    made = table("Folder", ">Sites", ">Size")
    rows: list[dict[str, object]] = []
    for folder in folders:
        files = list(folder.glob("*.safetensors"))
        size = sum(file.stat().st_size for file in files)
        made.add_row(folder.name, str(len(files)), f"{size / 1e6:.1f} MB")
        rows.append({"folder": str(folder), "sites": len(files), "bytes": size})
    terminal.show(
        Text.assemble("Second moments kept in ", (str(root), "bold"), ":" if folders else ": none yet.")
    )
    if folders:
        terminal.show(made)
    terminal.result({"root": str(root), "folders": rows})
