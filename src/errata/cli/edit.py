"""`errata edit`: facts and a model in, an edit out."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import errata
from errata.cli import drawing, inputs, options, preparing, repeating
from errata.cli import evaluate as evaluating
from errata.cli.inputs import check_output, check_tracker, load_model, read_contexts
from errata.cli.tables import (
    change_table,
    counted,
    dropped_json,
    dropped_table,
    score_blocks,
    scores_json,
    scores_measured,
)
from errata.cli.terminal import Terminal, is_main, session
from errata.errors import ProcessLost
from errata.results import FILE, Results
from errata.runtime import atomic_file, cache_root, duration, write_json
from errata.settings import load_presets, parse_assignments

logger = logging.getLogger(__name__)

EPILOG = options.examples(
    "errata edit almanac --facts facts.jsonl --output my-edit --evaluate",
    "errata edit my-org/my-model -f counterfact.json --device cuda --output my-edit",
    "errata edit ./my-model -f facts.jsonl --method memit --set layers=4-8 --output my-edit",
    "errata edit almanac -f facts.jsonl --neighbors auto --preserve subject --output my-edit",
    "errata edit almanac -f facts.jsonl --iterations 10 --stop delta_p --epsilon 1 --output my-edit",
    "errata edit almanac -f facts.jsonl --method rome --guard --output my-edit",
)
KEPT = "targets"
"""The folder in the cache where finished values are kept."""


def edit(
    model: options.Model,
    facts: options.Facts,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="EDIT", help="The folder to write: a new one.")
    ],
    method: Annotated[
        str, typer.Option(help="pmet, memit, rome ...; `errata methods` tells about them.")
    ] = "pmet",
    preset: Annotated[
        str | None,
        typer.Option(help="Settings to begin with, by name or as a FILE.toml. Default: those of the model."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="One setting over the preset's; may be given again."
        ),
    ] = None,
    contexts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help='Prefix texts as a JSON list, the empty one ("") first. Default: the model writes its own.',
        ),
    ] = None,
    covariance: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Second moments of the keys. Default: measured once, and kept in the user's cache.",
        ),
    ] = None,
    neighbors: preparing.NeighborsFrom = None,
    keep_unqualified: preparing.KeepUnqualified = False,
    preserve: preparing.Preserve = None,
    iterations: repeating.Iterations = 1,
    stop: repeating.Stop = "delta_p",
    epsilon: repeating.Epsilon = repeating.EPSILON,
    keep_best: repeating.KeepBest = False,
    only_underedited: repeating.OnlyUnderedited = False,
    batch_size: repeating.BatchSize = None,
    guard: repeating.GuardFlag = False,
    guard_perplexity: repeating.GuardPerplexity = repeating.GUARD[0],
    guard_accuracy: repeating.GuardAccuracy = repeating.GUARD[1],
    guard_texts: repeating.GuardTexts = None,
    evaluate: Annotated[
        bool,
        typer.Option("--evaluate", help="Measure the scores before and after, and keep them with the edit."),
    ] = False,
    track: options.Track = None,
    data_dir: drawing.DataDir = None,
    sample: drawing.Sample = None,
    trial: drawing.Trial = 1,
    dtype: options.Dtype = None,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Find the change of weights that makes MODEL say the facts, and write it to a folder. MODEL stays as it is."""
    with session(seed=seed, quiet=quiet, as_json=as_json, together=True) as terminal:
        check_output(output)
        check_tracker(track)
        load_presets(method)
        given = parse_assignments(settings or [])
        prefixes = read_contexts(contexts)
        watched = repeating.guard_of(guard, guard_perplexity, guard_accuracy, guard_texts)
        strategy = repeating.strategy_of(
            iterations, stop, epsilon, keep_best, only_underedited, batch_size, watched
        )
        wanted = preparing.Wanted(neighbors, keep_unqualified, preserve)
        wanted.check(method)
        read = drawing.draw(terminal, facts, data_dir, sample, seed, trial)
        loaded = load_model(terminal, model, dtype, device, device_map)
        began = time.monotonic()
        prepared = preparing.prepare(terminal, loaded, read, wanted, method, given, preset, seed)
        prepared = replace(prepared, changed=prepared.changed or drawing.is_drawn(facts, sample))
        asked = prepared.facts
        found = _find(
            terminal,
            loaded,
            asked,
            method,
            prepared.settings,
            prefixes,
            covariance,
            seed=seed,
            preset=preset,
            output=output,
            strategy=strategy,
        )
        seconds = time.monotonic() - began
        found = replace(found, measured={"seconds": round(seconds, 3)})
        if is_main():
            found.save(output)
            prepared.keep(output)
        results = _measure(terminal, loaded, asked, found, output) if evaluate else None
        inputs.track(track, output.name, found, results)
        _report(terminal, loaded, found, results, prepared.file(facts, output), output, prepared.told(read))


def _find(
    terminal: Terminal,
    model: errata.EditableModel,
    facts: Sequence[errata.Fact],
    method: str,
    settings: dict[str, object],
    contexts: Sequence[str] | None,
    covariance: Path | None,
    *,
    seed: int,
    preset: str | None,
    output: Path,
    strategy: errata.Strategy | None,
) -> errata.Edit:
    """`errata.edit` with progress; when it is stopped, the message tells what is kept."""
    kept = cache_root() / KEPT
    try:
        with terminal.progress(f"Editing {model.name}") as on_progress:
            make = errata.edit if strategy is None else partial(errata.edit_in_steps, strategy=strategy)
            return make(
                model,
                facts,
                method,
                settings,
                contexts,
                covariance,
                seed,
                preset=preset,
                keep_in=kept,
                on_progress=on_progress,
            )
    except (KeyboardInterrupt, ProcessLost) as stop:
        raise type(stop)(
            f"{stop} {output} was not written. What is finished (second moments, values of facts) is kept under "
            f"{kept.parent}: the same command goes on from there.".lstrip()
        ) from None


def _measure(
    terminal: Terminal,
    model: errata.EditableModel,
    facts: Sequence[errata.Fact],
    found: errata.Edit,
    output: Path,
) -> Results:
    """Evaluate an edit that is saved already, and add what was measured to its folder. Facts left out count too."""
    try:
        with terminal.progress("Evaluating") as on_progress:
            results = errata.evaluate(
                model, facts, found, on_progress=on_progress, keep_in=cache_root() / evaluating.KEPT
            )
    except (KeyboardInterrupt, ProcessLost) as stop:
        raise type(stop)(f"{stop} The edit is in {output}; it was not evaluated.".lstrip()) from None
    if is_main():
        results.save(output / FILE)
        keep_measured(found, results, output)
    return results


def keep_measured(found: errata.Edit, results: Results, output: Path) -> None:
    """Write the scores into the `edit.json` of an edit that lies in `output`."""
    from errata.edits import ABOUT

    about = replace(found, measured={**found.measured, **scores_measured(results)}).about()
    with atomic_file(output / ABOUT) as aside:
        write_json(aside, about)


def _report(
    terminal: Terminal,
    model: errata.EditableModel,
    found: errata.Edit,
    results: Results | None,
    facts: Path,
    output: Path,
    neighbors: dict[str, object] | None,
) -> None:
    """Print what was done, and what can be done next."""
    from errata.cli.changes import changes_of

    origin = found.origin
    changes = changes_of(found, model)
    left_out = f", {len(found.dropped)} left out" if found.dropped else ""
    took = duration(found.measured["seconds"])
    terminal.show(
        Text.assemble(
            (counted(len(found.facts), "fact"), "bold"),
            f" written by {origin.method} into {model.name}{left_out}, in {took}. The edit is in ",
            (f"{output}.", "bold"),
        )
    )
    if changes:
        terminal.show(change_table(changes))
    else:
        logger.warning(
            "No weight is changed: the method found nothing to do. Does the model say the facts already?"
        )
    if found.history:
        terminal.show(repeating.history_table(found.history))
    if found.dropped:
        terminal.show(dropped_table(found))
    if results is not None:
        for block in score_blocks(results):
            terminal.show(block)
    terminal.result(
        {
            "edit": str(output),
            "model": model.name,
            "method": origin.method,
            "preset": origin.preset,
            "settings": dict(origin.settings),
            "seed": origin.seed,
            "facts": len(found.facts),
            "neighbors": neighbors,
            "dropped": dropped_json(found),
            "changes": {change.path: change.to_json() for change in changes},
            "seconds": found.measured["seconds"],
            "strategy": dict(origin.strategy),
            "history": [dict(write) for write in found.history],
            "scores": None if results is None else scores_json(results),
        }
    )
    terminal.note(f"What it is:       errata show {output}")
    if results is None:
        terminal.note(f"How well it does: errata evaluate {model.name} --facts {facts} --edit {output}")
    terminal.note(f"A full model:     errata apply {model.name} {output} --output DIR")
