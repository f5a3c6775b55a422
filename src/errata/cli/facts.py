"""`errata facts`: looks at files of facts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

import errata
from errata.cli import drawing, options, preparing
from errata.cli.inputs import check_output, load_model
from errata.cli.tables import counted, table
from errata.cli.terminal import PROBLEMS, Terminal, no_warnings, session
from errata.errors import FactError
from errata.facts import Problem, find_facts, sample_facts

if TYPE_CHECKING:
    from errata.evaluation import Known

EPILOG = options.examples(
    "errata facts check facts.jsonl",
    "errata facts check counterfact.json.gz --json",
    "errata facts check zsre --data-dir data --sample 1000 --trial 3",
)
NEIGHBORS_EPILOG = options.examples(
    "errata facts neighbors almanac facts.jsonl --output with-neighbors.jsonl",
    "errata facts neighbors my-model counterfact.json --count 3 --output with-neighbors.jsonl.gz",
)

KNOWN_EPILOG = options.examples(
    "errata facts known my-model --facts counterfact --output known.jsonl",
    "errata facts known ./my-model --facts counterfact --data-dir data --sample 5000 --limit 200 --output known.jsonl",
)


def check(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A file of facts (JSONL or a JSON list, .gz too), or a data set by name."
        ),
    ],
    data_dir: drawing.DataDir = None,
    sample: drawing.Sample = None,
    trial: drawing.Trial = 1,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """List everything that is wrong in FILE, with line and field; exit with 1 if there are errors.

    Warnings (what may be meant, and probably is not) alone exit with 0.
    """
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        file = find_facts(file, data_dir)
        if not file.is_file():
            raise FactError(f"There is no file {file}.")
        checked = _Check.of(file)
        drawn = sample_facts(checked.usable, sample, seed, trial)
        checked.show(terminal)
        if sample is not None:
            terminal.show(
                f"Trial {trial} of seed {seed}: {counted(len(drawn), 'fact')}, the first {_first(drawn)}."
            )
        terminal.result(checked.about(None if sample is None else drawn))
    if checked.errors:
        raise typer.Exit(PROBLEMS)


def neighbors(
    model: options.Model,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of facts with neighborhood prompts.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write: a new one.")
    ],
    count: Annotated[int, typer.Option(min=1, help="So many neighbors to edit with, at most.")] = 1,
    keep_unqualified: Annotated[
        bool, typer.Option("--keep-unqualified", help="Write the other facts too, without neighbors.")
    ] = False,
    dtype: options.Dtype = None,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Find in FILE the neighbors that MODEL knows: some of a fact's to edit with, the rest to evaluate with.

    A fact qualifies with at least two, as in `errata edit --neighbors auto`; the facts that qualify are written.
    """
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        check_output(output)
        facts = errata.read_facts(file)
        loaded = load_model(terminal, model, dtype, device, device_map)
        from errata.planning import find_neighbors

        with terminal.progress("Asking about neighbors") as on_progress:
            found = find_neighbors(loaded, facts, seed, count, keep_unqualified, on_progress)
        found.check()
        preparing.show_neighbors(terminal, facts, found)
        errata.write_facts(output, found.facts)
        terminal.show(f"{counted(len(found.facts), 'fact')} written to {output}.")
        terminal.result({"output": str(output), **preparing.neighbors_json(facts, found)})


def known(
    model: options.Model,
    facts: options.Facts,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write: a new one.")
    ],
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N known facts.")] = None,
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
    """Write the facts that MODEL knows: every token of target_true is the likeliest. Resumes if interrupted.

    The facts stay in the order of the file, or with --sample in the order of the draw.
    """
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        check_output(output)
        drawn = drawing.draw(terminal, facts, data_dir, sample, seed, trial)
        loaded = load_model(terminal, model, dtype, device, device_map)
        from errata.evaluation import known_facts

        journal = output.with_name(f".{output.name}.unfinished")
        try:
            with terminal.progress("Asking the model") as on_progress:
                found = known_facts(loaded, drawn, limit, journal, on_progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("The same command resumes from the finished batches.") from None
        if found.facts:
            errata.write_facts(output, found.facts)
        with suppress(OSError):
            journal.rmdir()
        if not found.facts:
            raise FactError(f"{model} knows none of the {counted(found.asked, 'fact')} that it was asked.")
        terminal.show(_known_words(found, output))
        terminal.result({"output": str(output), "known": len(found.facts), "asked": found.asked})


def _known_words(found: Known, output: Path) -> str:
    """How many facts are known, in a sentence."""
    skipped = f" ({found.unanswerable} without target_true were left out)" if found.unanswerable else ""
    return (
        f"{len(found.facts)} of {counted(found.asked, 'fact')} are known, {found.share:.1%}{skipped}. "
        f"They are in {output}."
    )


Joins = dict[str, tuple[int, int]]
"""What joins prompts and targets: the number of facts, and of those that have the field."""


@dataclass(frozen=True)
class _Check:
    """What is wrong in a file of facts, and the facts that can be used."""

    file: Path
    problems: Sequence[Problem]
    usable: Sequence[errata.Fact]

    @classmethod
    def of(cls, file: Path) -> _Check:
        """Check a file and read what can be used of it."""
        problems = errata.check_facts(file)
        unusable = any(problem.severity == "error" and problem.line is None for problem in problems)
        return cls(file, problems, [] if unusable else _usable(file))

    @property
    def errors(self) -> int:
        """The number of errors; the other problems are warnings."""
        return sum(problem.severity == "error" for problem in self.problems)

    @property
    def warnings(self) -> int:
        """The number of warnings."""
        return len(self.problems) - self.errors

    @property
    def joins(self) -> Joins:
        """What stands between prompts and their targets, with how many facts, and how many of these say so."""
        found: Joins = {}
        for fact in self.usable:
            join = fact.join_before(fact.target_new)
            count, own = found.get(join, (0, 0))
            found[join] = (count + 1, own + (fact.join is not None))
        return found

    def show(self, terminal: Terminal) -> None:
        """Print the problems and the verdict."""
        if self.problems:
            terminal.show(_table(self.problems))
        terminal.show(f"{self.file}: {_verdict(len(self.usable), self.errors, self.warnings)}")
        if self.usable:
            terminal.show(_joins_in_words(self.joins))

    def about(self, drawn: Sequence[errata.Fact] | None) -> dict[str, object]:
        """The same for programs, with the facts that were drawn."""
        return {
            "file": str(self.file),
            "facts": len(self.usable),
            "sample": None if drawn is None else [fact.case_id for fact in drawn],
            "errors": self.errors,
            "warnings": self.warnings,
            "joins": [
                {"join": join, "facts": count, "explicit": own} for join, (count, own) in self.joins.items()
            ],
            "problems": [_row(problem) for problem in self.problems],
        }


def _usable(file: Path) -> list[errata.Fact]:
    """The facts of the records that can be used."""
    with no_warnings():
        try:
            return errata.read_facts(file, skip_invalid=True)
        except FactError:
            return []


def _first(facts: Sequence[errata.Fact]) -> str:
    """The first of a draw, in words."""
    case = "" if facts[0].case_id is None else f" (case_id {facts[0].case_id})"
    return f"about {facts[0].subject!r}{case}"


def _table(problems: Sequence[Problem]) -> Table:
    made = table(">Line", "", "Field", "Case", "What is wrong")
    for problem in problems:
        style = "red" if problem.severity == "error" else "yellow"
        line, case = problem.line, problem.case_id
        made.add_row(
            "" if line is None else str(line),
            Text(problem.severity, style=style),
            problem.field,
            "" if case is None else str(case),
            problem.message,
        )
    return made


def _verdict(count: int, errors: int, warnings: int) -> str:
    usable = f"{counted(count, 'fact')} can be used"
    if not errors and not warnings:
        return f"{usable}, and nothing is wrong."
    found = [counted(number, word) for number, word in ((errors, "error"), (warnings, "warning")) if number]
    return f"{' and '.join(found)}; {usable}."


def _joins_in_words(joins: Joins) -> str:
    """Between prompt and target: one space (9 facts), nothing (3 facts, 1 by the field join)."""
    parts: list[str] = []
    for join, (count, own) in sorted(joins.items(), reverse=True):
        what = {" ": "one space", "": "nothing"}.get(join, repr(join))
        parts.append(f"{what} ({counted(count, 'fact')}{f', {own} by the field join' if own else ''})")
    return f"Between prompt and target: {', '.join(parts)}."


def _row(problem: Problem) -> dict[str, object]:
    return {
        "line": problem.line,
        "field": problem.field,
        "severity": problem.severity,
        "case_id": problem.case_id,
        "message": problem.message,
    }
