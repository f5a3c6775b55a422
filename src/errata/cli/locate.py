"""`errata locate`: in which layers a model keeps its facts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

import errata
from errata.cli import options, profiling
from errata.cli.inputs import check_output, load_model
from errata.cli.tables import counted, percent, table
from errata.cli.terminal import Terminal, session
from errata.runtime import cache_root

if TYPE_CHECKING:
    from errata.analysis import Located, TraceWords

EPILOG = options.examples(
    "errata locate almanac --facts facts.jsonl --output located",
    "errata locate almanac --facts facts.jsonl --leverage",
    "errata edit almanac --facts facts.jsonl --preset located/critical-layers.toml --output my-edit",
)
KEPT = "traces"
"""The folder in the cache where finished facts are kept."""


def locate(
    model: options.Model,
    facts: options.Facts,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Numbers, figures, a page and a preset: a new folder."
        ),
    ] = None,
    noise_samples: Annotated[int, typer.Option(min=1, help="Draws of noise for each fact.")] = 10,
    window: Annotated[
        int | None,
        typer.Option(
            min=1, help="FFN or attention outputs put back at once. Default: 10, less in a shallow model."
        ),
    ] = None,
    noise: Annotated[
        float, typer.Option(help="Of the noise, in standard deviations of the embeddings.")
    ] = 3.0,
    leverage: Annotated[
        bool,
        typer.Option(
            "--leverage",
            help="Instead of tracing: how much the subjects' keys stand out in each block, from second moments alone.",
        ),
    ] = False,
    covariance: options.Covariance = None,
    figures: Annotated[int, typer.Option(min=0, help="Draw so many facts at most.")] = 20,
    dtype: options.Dtype = None,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Find the layers in which MODEL keeps the FACTS that it knows, by causal tracing (Meng et al. 2022).

    Only facts whose target_true the model says are traced. Stopped and started again, the same command goes on.
    """
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        from errata.analysis import check_extra, summary, write_located

        if output is not None:
            check_output(output)
            check_extra()
        asked = errata.read_facts(facts)
        loaded = load_model(terminal, model, dtype, device, device_map)
        if leverage:
            profiling.show(terminal, loaded, asked, covariance, output)
            return
        words: TraceWords = {"window": window, "noise": noise, "seed": seed}
        found = _trace(terminal, loaded, asked, noise_samples, words)
        if output is not None:
            terminal.note("Drawing ...")
            write_located(found, output, figures)
        _report(terminal, found, output)
        terminal.result({**summary(found), "output": None if output is None else str(output)})


def _trace(
    terminal: Terminal,
    model: errata.EditableModel,
    facts: Sequence[errata.Fact],
    samples: int,
    words: TraceWords,
) -> Located:
    """`errata.analysis.locate` with progress; when it is stopped, the message says what is kept."""
    from errata.analysis import locate

    kept = cache_root() / KEPT
    try:
        with terminal.progress(f"Locating the facts of {model.name}") as on_progress:
            return locate(model, facts, samples, keep_in=kept, on_progress=on_progress, **words)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Finished facts are kept under {kept}: the same command goes on from there."
        ) from None


def _report(terminal: Terminal, found: Located, output: Path | None) -> None:
    from errata.analysis import PAGE, PRESET, critical_layers, span
    from errata.results import mean_score

    several, one = critical_layers(found.effects)
    left_out = f", {len(found.left_out)} left out: the model does not know them" if found.left_out else ""
    terminal.show(
        Text.assemble((found.model, "bold"), f", {counted(len(found.effects), 'fact')} traced{left_out}")
    )
    clean, noised = (
        mean_score(getattr(effects, name) for effects in found.effects) for name in ("clean", "noised")
    )
    if clean is not None and noised is not None:
        terminal.show(
            Text(f"P(answer) is {clean.mean:.3f}, and {noised.mean:.3f} with noise on the subject.")
        )
    terminal.show(_table(found))
    terminal.show(
        Text.assemble(
            "Critical layers: ",
            (span(several), "bold"),
            "; for a method that writes one: ",
            (str(one), "bold"),
        )
    )
    if output is not None:
        terminal.show(Text.assemble("Figures and numbers: ", (str(output / PAGE), "bold")), wrap=False)
        terminal.note(
            f"To edit there: errata edit {found.model} --facts FACTS --preset {output / PRESET} --output DIR"
        )


def _table(found: Located) -> Table:
    """AIE at the subject's last token and at the prompt's last one, layer by layer."""
    from errata.analysis import DECISIVE, KINDS, average

    columns = [(group, kind) for group in (DECISIVE, "last token") for kind in KINDS]
    short = {DECISIVE: "Subject", "last token": "Prompt"}
    names = {"state": "states", "ffn": "FFN", "attention": "attention"}
    made = table(
        ">Layer",
        *(f">{short[group]}:\n{names[kind]}" for group, kind in columns),
        title="Average indirect effect in %, at the last token of subject and prompt, 95 % intervals",
    )
    scores = [average(found.effects, kind, group) for group, kind in columns]
    for layer in range(found.layers):
        made.add_row(str(layer), *(percent(column[layer]) for column in scores))
    return made
