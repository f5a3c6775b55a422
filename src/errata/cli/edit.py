"""`errata edit`: facts and a model in, an edit out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import errata
from errata.cli import drawing, inputs, options, planned, preparing, repeating
from errata.cli import evaluate as evaluating
from errata.cli.edit_report import EditReport
from errata.cli.inputs import check_output, check_tracker, load_model, read_contexts
from errata.cli.preparing import neighbors_json
from errata.cli.tables import scores_measured
from errata.cli.terminal import Terminal, is_main, session
from errata.errors import ProcessLost, SettingsError
from errata.results import FILE, Results
from errata.runtime import atomic_file, cache_root, write_json
from errata.settings import DEFAULT_METHOD, load_presets, parse_assignments

if TYPE_CHECKING:
    from errata.planning import Settled

EPILOG = options.examples(
    "errata edit almanac --facts facts.jsonl --output my-edit --evaluate",
    "errata edit my-org/my-model -f counterfact.json --device cuda --output my-edit",
    "errata edit ./my-model -f facts.jsonl --method pmet --set layers=4-8 --output my-edit",
    "errata edit almanac -f facts.jsonl --neighbors auto --preserve subject --output my-edit",
    "errata edit almanac -f facts.jsonl --iterations 10 --stop delta_p --epsilon 1 --output my-edit",
    "errata edit almanac -f facts.jsonl --method rome --guard --output my-edit",
    "errata edit almanac -f facts.jsonl --method two_site --plan",
)


def edit(
    model: options.Model,
    facts: options.Facts,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="EDIT", help="The folder to write: a new one.")
    ] = None,
    show_plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Show the plan and stop: layers, each setting and its source, memory and time. Nothing is computed.",
        ),
    ] = False,
    method: options.Method = DEFAULT_METHOD,
    preset: options.PresetName = None,
    settings: options.Settings = None,
    contexts: options.Contexts = None,
    covariance: options.Covariance = None,
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
    check: repeating.Check = None,
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
        output = _output(output, show_plan)
        check_tracker(track)
        load_presets(method)
        from errata.planning import BesideWords, SourceWords, kept_values

        given, prefixes = parse_assignments(settings or []), read_contexts(contexts)
        watched = repeating.guard_of(guard, guard_perplexity, guard_accuracy, guard_texts)
        strategy = repeating.strategy_of(
            iterations, stop, epsilon, keep_best, only_underedited, batch_size, watched
        )
        read = drawing.draw(terminal, facts, data_dir, sample, seed, trial)
        sources = SourceWords(preset=preset, contexts=prefixes, covariance=covariance, seed=seed)
        beside = BesideWords(neighbors=neighbors, keep_unqualified=keep_unqualified, preserve=preserve)
        request = errata.EditRequest(
            read, method, given, strategy=strategy, check=check, keep_in=kept_values(), **sources, **beside
        )
        plan = errata.prepare(load_model(terminal, model, dtype, device, device_map), request)
        if show_plan:
            planned.show(terminal, plan)
        else:
            work = _Work(terminal, plan, facts, drawing.is_drawn(facts, sample), output)
            work.do(evaluate, track)


@dataclass(frozen=True)
class _Work:
    """A plan to be run, and where its facts came from and its edit goes."""

    terminal: Terminal
    plan: errata.Plan
    file: Path
    """Of the facts, by path or as the name of a data set."""
    drawn: bool
    """Whether the facts are others than those of the file."""
    output: Path

    def do(self, evaluate: bool, track: str | None) -> None:
        """Make the edit, save it, and if asked evaluate and log it."""
        model, read = self.plan.model, self.plan.request.facts
        began = time.monotonic()
        made, settled = run_plan(self.terminal, self.plan, self.output)
        made = replace(made, measured={"seconds": round(time.monotonic() - began, 3)})
        own_facts = False
        if is_main():
            made.save(self.output)
            own_facts = preparing.keep_facts(settled.facts, read, self.drawn, self.output)
        results = _measure(self.terminal, model, settled.facts, made, self.output) if evaluate else None
        inputs.track(track, self.output.name, made, results)
        file = self.output / preparing.FACTS if own_facts else self.file
        neighbors = None if settled.neighbors is None else neighbors_json(read, settled.neighbors)
        EditReport(model, made, results, file, self.output).show(self.terminal, neighbors)


def _output(output: Path | None, show_plan: bool) -> Path:
    """The folder to write; a plan alone needs none.

    Raises:
        SettingsError: there is none.
    """
    if output is None and not show_plan:
        raise SettingsError("Name the folder to write the edit to: --output EDIT.")
    output = output or Path("EDIT")
    if not show_plan:
        check_output(output)
    return output


def run_plan(terminal: Terminal, plan: errata.Plan, output: Path) -> tuple[errata.Edit, Settled]:
    """Run a plan with progress; when it is stopped, the message says what is kept."""
    for note in plan.notes:
        terminal.note(note)
    title = f"Editing {plan.model.name}"
    try:
        with terminal.progress(title) as on_progress:
            settled = plan.settle(on_progress)
        for note in settled.plan.notes[len(plan.notes) :]:
            terminal.note(note)
        if settled.neighbors is not None:
            preparing.show_neighbors(terminal, plan.request.facts, settled.neighbors)
        with terminal.progress(title) as on_progress:
            return settled.run(on_progress), settled
    except (KeyboardInterrupt, ProcessLost) as stop:
        kept = cache_root()
        raise type(stop)(
            f"{stop} {output} was not written. What is finished (second moments, values of facts) is kept under "
            f"{kept}: the same command goes on from there.".lstrip()
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
