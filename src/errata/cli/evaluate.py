"""`errata evaluate`: how well a model, or a model with an edit, answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

import errata
from errata.cli import downstream, drawing, inputs, options
from errata.cli.inputs import check_extra, check_output, check_tracker, load_model, read_edit
from errata.cli.tables import counted, score_blocks, scores_json
from errata.cli.terminal import Terminal, is_main, session
from errata.runtime import atomic_file, cache_root

if TYPE_CHECKING:
    from errata.evaluation import Downstream, EvaluationWords, References

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
        outputs = _Outputs(output, report, track)
        outputs.check()
        fluency = fluency or references is not None
        measurement = _Measurement(
            facts=drawing.draw(terminal, facts, data_dir, sample, seed, trial),
            folder=edit,
            edit=None if edit is None else read_edit(edit),
            options={
                "generate": generate,
                "trustworthy": trustworthy,
                "fluency": fluency,
                "references": _references(model, references) if fluency else None,
                "texts": [] if perplexity is None else _texts(perplexity),
                "seed": seed,
                "keep_in": cache_root() / KEPT,
            },
            tasks=downstream.Wanted.of(tasks, tasks_path, tasks_limit, facts),
        )
        loaded = load_model(terminal, model, dtype, device, device_map)
        results = measurement.evaluate(terminal, loaded)
        if is_main():
            _EvaluationReport(loaded, measurement, results, outputs).show(terminal)


@dataclass(frozen=True)
class _Outputs:
    """Where the scores go besides the terminal."""

    folder: Path | None
    page: Path | None
    tracker: str | None

    def check(self) -> None:
        """Raise before hours of work where something could not be written.

        Raises:
            OutputExists, OSError: as `check_output`.
            SettingsError, MissingExtra: the report's or the tracker's package is not installed.
        """
        for place in (self.folder, self.page):
            if place is not None:
                check_output(place)
        if self.page is not None:
            check_extra()
        check_tracker(self.tracker)


@dataclass(frozen=True)
class _Measurement:
    """What a command wants measured: facts, with an edit or without, and what is asked besides their questions."""

    facts: Sequence[errata.Fact]
    folder: Path | None
    """Of the edit."""
    edit: errata.Edit | None
    options: EvaluationWords
    tasks: downstream.Wanted

    def evaluate(self, terminal: Terminal, model: errata.EditableModel) -> errata.Results:
        """Ask the model, with progress."""
        with terminal.progress("Evaluating") as on_progress:
            return errata.evaluate(model, self.facts, self.edit, on_progress, **self.options)

    def run_tasks(self, terminal: Terminal, model: errata.EditableModel) -> Downstream | None:
        """Run the tasks of the harness, if there are any."""
        return self.tasks.run(terminal, model, self.edit, self.options.get("seed", 0))

    @property
    def with_edit(self) -> str:
        """What is said of the edit behind the model's name."""
        return "" if self.folder is None else f" with {self.folder}"


@dataclass(frozen=True)
class _EvaluationReport:
    """A finished measurement, and where its scores go."""

    model: errata.EditableModel
    measurement: _Measurement
    results: errata.Results
    outputs: _Outputs

    def show(self, terminal: Terminal) -> None:
        """Print the scores, run the tasks of the harness, and write what is to be written."""
        facts = counted(len(self.measurement.facts), "fact")
        terminal.show(Text.assemble((self.model.name, "bold"), f"{self.measurement.with_edit}, {facts}"))
        for block in score_blocks(self.results):
            terminal.show(block)
        tasks = self.measurement.run_tasks(terminal, self.model)
        if tasks is not None:
            terminal.show(downstream.task_table(tasks))
        self._show_limits(terminal)
        self._write(terminal, tasks)
        terminal.result(self._about(tasks))

    def _show_limits(self, terminal: Terminal) -> None:
        """Say what the scores do not tell."""
        edit, asked = self.measurement.edit, self.results.settings["edit_facts_asked"]
        if self.results.broken:
            broken = counted(len(self.results.broken), "fact")
            terminal.show(Text(f"The model's output was not a number for {broken}.", style="red"))
        if edit is not None and asked != len(edit.facts):
            terminal.note(
                f"The edit has {counted(len(edit.facts), 'fact')}, and {asked} of them were asked: the scores say "
                "nothing about the others."
            )

    def _write(self, terminal: Terminal, tasks: Downstream | None) -> None:
        """Write the answers, the page and what is tracked, where they are wanted."""
        measurement, outputs = self.measurement, self.outputs
        name = Path(self.model.name).name if measurement.folder is None else measurement.folder.name
        inputs.track(outputs.tracker, name, measurement.edit, self.results)
        if outputs.folder is not None:
            saved = self.results.save(outputs.folder)
            if tasks is not None:
                downstream.keep(tasks, saved)
            terminal.show(Text.assemble("Every answer is in ", (f"{saved}.", "bold")))
        if outputs.page is not None:
            title = f"{self.model.name}{measurement.with_edit}"
            _write_report(outputs.page, self.model, self.results, title)
            terminal.show(Text.assemble("The report is ", (f"{outputs.page}.", "bold")))

    def _about(self, tasks: Downstream | None) -> dict[str, object]:
        """The same for programs."""
        folder, outputs = self.measurement.folder, self.outputs
        return {
            "model": self.model.name,
            "revision": self.model.revision,
            "edit": None if folder is None else str(folder),
            "facts": len(self.measurement.facts),
            "not_a_number": len(self.results.broken),
            "scores": scores_json(self.results),
            "tasks": None if tasks is None else tasks.to_json(),
            "output": None if outputs.folder is None else str(outputs.folder),
            "report": None if outputs.page is None else str(outputs.page),
        }


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
