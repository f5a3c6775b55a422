"""`errata evaluate`: how well a model, or a model with an edit, answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import errata
from errata.cli import downstream, options
from errata.cli.inputs import check_output, load_model
from errata.cli.tables import counted, score_table, scores_json
from errata.cli.terminal import session

EPILOG = options.examples(
    "errata evaluate almanac --facts facts.jsonl --edit my-edit",
    "errata evaluate my-model --facts facts.jsonl --output my-results",
    "errata evaluate my-model --facts facts.jsonl --edit my-edit --tasks lambada_openai,mmlu",
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
    tasks: downstream.Names = None,
    tasks_path: downstream.Folder = None,
    tasks_limit: downstream.Limit = None,
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
        wanted = downstream.Wanted.of(tasks, tasks_path, tasks_limit, facts)
        loaded = load_model(terminal, model, dtype, device, device_map)
        with terminal.progress("Evaluating") as on_progress:
            results = errata.evaluate(loaded, asked, found, on_progress=on_progress, generate=generate)
        with_edit = "" if edit is None else f" with {edit}"
        terminal.show(Text.assemble((loaded.name, "bold"), f"{with_edit}, {counted(len(asked), 'fact')}"))
        terminal.show(score_table(results))
        ran = wanted.run(terminal, loaded, found, seed)
        if ran is not None:
            terminal.show(downstream.task_table(ran))
        if results.broken:
            broken = counted(len(results.broken), "fact")
            terminal.show(Text(f"The model's output was not a number for {broken}.", style="red"))
        if output is not None:
            saved = results.save(output)
            if ran is not None:
                downstream.keep(ran, saved)
            terminal.show(Text.assemble("Every answer is in ", (f"{saved}.", "bold")))
        terminal.result(
            {
                "model": loaded.name,
                "revision": loaded.revision,
                "edit": None if edit is None else str(edit),
                "facts": len(asked),
                "not_a_number": len(results.broken),
                "scores": scores_json(results),
                "tasks": None if ran is None else ran.to_json(),
                "output": None if output is None else str(output),
            }
        )
