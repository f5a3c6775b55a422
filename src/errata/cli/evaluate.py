"""`errata evaluate`: how well a model, or a model with an edit, answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

import errata
from errata.cli import downstream, drawing, inputs, options
from errata.cli.inputs import check_extra, check_output, check_tracker, load_model, read_edit
from errata.cli.tables import counted, score_blocks, scores_json
from errata.cli.terminal import is_main, session
from errata.runtime import atomic_file, cache_root

if TYPE_CHECKING:
    from errata.evaluation import References

KEPT = "evaluations"
"""The folder in the cache where finished batches are kept until the evaluation is done."""
EPILOG = options.examples(
    "errata evaluate almanac --facts facts.jsonl --edit my-edit",
    "errata evaluate my-model --facts facts.jsonl --output my-results --report my-results.html",
    "errata evaluate my-model --facts counterfact --data-dir data --sample 1000 --trial 2 --fluency",
    "errata evaluate my-model --facts facts.jsonl --edit my-edit --tasks lambada_openai,mmlu",
)


def evaluate(
    model: options.Model,
    facts: options.Facts,
    edit: Annotated[
        Path | None, typer.Option(metavar="EDIT", help="Measure without this edit (or stack) and with it.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Keep every answer and the scores: a new folder."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Also one page with the scores and every fact: a new file."),
    ] = None,
    generate: Annotated[
        bool,
        typer.Option("--generate/--no-generate", help="Let the model also write freely after each prompt."),
    ] = True,
    trustworthy: Annotated[
        bool,
        typer.Option(
            "--trustworthy/--no-trustworthy",
            help="Ask behind an unrelated prefix too, and reversed and two-hop questions.",
        ),
    ] = True,
    fluency: Annotated[
        bool,
        typer.Option(
            "--fluency",
            help="Let the model write 100 tokens after each generation prompt: fluency and consistency.",
        ),
    ] = False,
    references: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Reference texts and TF-IDF statistics for consistency, in the published layout. "
            "Default: the facts' reference_texts; for almanac, texts of its world.",
        ),
    ] = None,
    perplexity: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Plain texts whose perplexity is measured: me_ppl_50.json, or one a line; 'embedded': of Almanac's "
            "world.",
        ),
    ] = None,
    track: options.Track = None,
    data_dir: drawing.DataDir = None,
    sample: drawing.Sample = None,
    trial: drawing.Trial = 1,
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
    with session(seed=seed, quiet=quiet, as_json=as_json, together=True) as terminal:
        for place in (output, report):
            if place is not None:
                check_output(place)
        if report is not None:
            check_extra()
        check_tracker(track)
        asked = drawing.draw(terminal, facts, data_dir, sample, seed, trial)
        found = None if edit is None else read_edit(edit)
        known = _references(model, references) if fluency or references is not None else None
        texts = [] if perplexity is None else _texts(perplexity)
        wanted = downstream.Wanted.of(tasks, tasks_path, tasks_limit, facts)
        loaded = load_model(terminal, model, dtype, device, device_map)
        with terminal.progress("Evaluating") as on_progress:
            results = errata.evaluate(
                loaded,
                asked,
                found,
                on_progress=on_progress,
                generate=generate,
                trustworthy=trustworthy,
                fluency=fluency or references is not None,
                references=known,
                texts=texts,
                seed=seed,
                keep_in=cache_root() / KEPT,
            )
        if not is_main():
            return
        with_edit = "" if edit is None else f" with {edit}"
        terminal.show(Text.assemble((loaded.name, "bold"), f"{with_edit}, {counted(len(asked), 'fact')}"))
        for block in score_blocks(results):
            terminal.show(block)
        ran = wanted.run(terminal, loaded, found, seed)
        if ran is not None:
            terminal.show(downstream.task_table(ran))
        if results.broken:
            broken = counted(len(results.broken), "fact")
            terminal.show(Text(f"The model's output was not a number for {broken}.", style="red"))
        if found is not None and results.settings["edit_facts_asked"] != len(found.facts):
            terminal.note(
                f"The edit has {counted(len(found.facts), 'fact')}, and {results.settings['edit_facts_asked']} of them "
                "were asked: the scores say nothing about the others."
            )
        inputs.track(track, edit.name if edit is not None else Path(loaded.name).name, found, results)
        if output is not None:
            saved = results.save(output)
            if ran is not None:
                downstream.keep(ran, saved)
            terminal.show(Text.assemble("Every answer is in ", (f"{saved}.", "bold")))
        if report is not None:
            _write_report(report, loaded, results, f"{loaded.name}{with_edit}")
            terminal.show(Text.assemble("The report is ", (f"{report}.", "bold")))
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
                "report": None if report is None else str(report),
            }
        )


def _write_report(file: Path, model: errata.EditableModel, results: errata.Results, title: str) -> None:
    from errata.experiments import token_texts, tokens_of
    from errata.report import results_page

    with atomic_file(file) as aside:
        aside.write_text(
            results_page(results, title, token_texts(model, tokens_of(results))), encoding="utf-8"
        )


def _references(model: str, folder: Path | None) -> References | None:
    """What consistency compares with: the folder, or texts of Almanac's world, or None for the facts' own."""
    from errata.almanac import world_references
    from errata.evaluation import load_references

    if folder is not None:
        return load_references(folder)
    return world_references() if model == "almanac" else None


def _texts(name: str) -> list[str]:
    """The texts of a file, or 50 that Almanac has never read."""
    if name == "embedded":
        from errata.almanac import corpus_texts

        return corpus_texts(0, 50, held_out=True)
    from errata.evaluation import read_texts

    return read_texts(name)
