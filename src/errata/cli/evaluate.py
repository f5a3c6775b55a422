"""`errata evaluate`: how well a model, or a model with an edit, answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import errata
from errata.cli import options
from errata.cli.inputs import check_output, load_model
from errata.cli.tables import score_table, scores_json
from errata.cli.terminal import session

EPILOG = options.examples(
    "errata evaluate almanac --facts facts.jsonl --edit my-edit",
    "errata evaluate my-model --facts facts.jsonl --output my-results",
)


def evaluate(
    model: options.Model,
    facts: options.Facts,
    edit: Annotated[
        Path | None, typer.Option(metavar="EDIT", help="Measure without this edit and with it.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Keep every answer and the scores: a new folder."),
    ] = None,
    generate: Annotated[
        bool,
        typer.Option("--generate/--no-generate", help="Let the model also write freely after each prompt."),
    ] = True,
    dtype: options.Dtype = None,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Ask MODEL the facts, their paraphrases and neighbors, and tell the scores: before and after EDIT, if given."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        if output is not None:
            check_output(output)
        asked = errata.read_facts(facts)
        found = None if edit is None else errata.load_edit(edit)
        loaded = load_model(terminal, model, dtype, device, device_map)
        with terminal.progress("Evaluating") as on_progress:
            results = errata.evaluate(loaded, asked, found, on_progress=on_progress, generate=generate)
        terminal.show(
            f"[bold]{loaded.name}[/bold]{'' if edit is None else f' with {edit}'}, {len(asked)} facts"
        )
        terminal.show(score_table(results))
        if results.broken:
            terminal.show(f"[red]For {len(results.broken)} facts the model's output was not a number.[/red]")
        if output is not None:
            terminal.show(f"Every answer is in [bold]{results.save(output)}[/bold].")
        terminal.result(
            {
                "model": loaded.name,
                "revision": loaded.revision,
                "edit": None if edit is None else str(edit),
                "facts": len(asked),
                "not_a_number": len(results.broken),
                "scores": scores_json(results),
                "output": None if output is None else str(output),
            }
        )
