"""`errata demo`: the whole story on the model that ships with Errata, in a minute."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import typer
from rich.table import Table
from rich.text import Text

import errata
from errata.cli import options
from errata.cli.demo_facts import FAMOUS, famous_facts
from errata.cli.inputs import check_output, quiet_load
from errata.cli.tables import counted, score_table, scores_json, scores_measured, table
from errata.cli.terminal import Terminal, session
from errata.errors import OutputExists
from errata.results import FILE, Results
from errata.runtime import Form, Progress, atomic_folder, duration, to_json
from errata.settings import DEFAULT_METHOD, load_presets

EPILOG = options.examples("errata demo", "errata demo --facts 1 --seed 7 --method two_site")
MODEL = "almanac"
MARK = "demo.json"
"""What the demo leaves beside the edit: a folder that has it was made by the demo, and may be made again."""
FACTS = "facts.jsonl"
OTHERS = ("two_site", "memit")
"""Methods of which the one that was not used is tried next."""
MOST = sum(map(len, FAMOUS.values()))
SHOWN = (
    "efficacy_success",
    "generalization_success",
    "specificity_success",
    "score_success",
    "generation_accuracy",
    "same_subject_accuracy",
    "unrelated_accuracy",
)


@dataclass(frozen=True)
class Line:
    """One question that is put to the model three times: before, with the edit, and after it was taken back."""

    JSON: ClassVar = Form(computed={"right": lambda line: line.right})

    kind: str
    question: str
    wanted: str
    """What the model should say with the edit."""
    before: str = ""
    edited: str = ""
    reverted: str = ""

    @property
    def right(self) -> bool:
        """Whether the model says with the edit what it should; a neighbor may also say what it said before."""
        stayed = self.kind == "neighbor" and self.edited == self.before
        return stayed or self.edited.casefold().startswith(self.wanted.casefold())


@dataclass(frozen=True)
class Story:
    """All that the demo has seen."""

    lines: list[Line]
    edit: errata.Edit
    results: Results
    identical: bool
    """Whether after taking the edit back every weight was what it had been, bit for bit."""

    @property
    def differing(self) -> int:
        """How many answers are not, after taking the edit back, what they were before."""
        return sum(line.before != line.reverted for line in self.lines)


def demo(
    count: Annotated[int, typer.Option("--facts", min=1, max=MOST, help="How many facts to write.")] = 8,
    method: options.Method = DEFAULT_METHOD,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where the edit goes; an earlier demo is replaced."
        ),
    ] = Path("errata-demo"),
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Write a few false facts into the model that ships with Errata, see what it says, and take them back."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        check_demo_output(output)
        load_presets(method)
        began = time.monotonic()
        facts = famous_facts(count, seed)
        terminal.note(f"Loading {MODEL}, a small model that knows a world of facts ...")
        model = quiet_load(MODEL)
        run_demo(terminal, model, facts, output, method, seed)
        terminal.note(f"All of it took {duration(time.monotonic() - began)}.")


def run_demo(
    terminal: Terminal,
    model: errata.EditableModel,
    facts: Sequence[errata.Fact],
    output: Path,
    method: str = DEFAULT_METHOD,
    seed: int = 0,
    settings: dict[str, object] | None = None,
) -> None:
    """The demo on any model and facts, into a folder that `check_demo_output` has found free."""
    with terminal.progress(f"Editing {model.name}") as on_progress:
        story = play(model, facts, method, seed, settings, on_progress)
    _save(story, output)
    _tell(terminal, model, story, output)


def play(
    model: errata.EditableModel,
    facts: Sequence[errata.Fact],
    method: str,
    seed: int,
    settings: dict[str, object] | None,
    on_progress: Progress,
) -> Story:
    """Ask, edit, evaluate, ask again, take the edit back, and ask once more."""
    from errata.evaluation import continue_texts

    lines = [line for fact in facts for line in lines_of(fact)]
    questions = [line.question for line in lines]
    weights = {name: weight.detach().clone() for name, weight in model.model.named_parameters()}
    before = continue_texts(model, questions)
    began = time.monotonic()
    edit = errata.edit(model, facts, method, settings, seed=seed, on_progress=on_progress)
    seconds = time.monotonic() - began
    results = errata.evaluate(model, facts, edit, on_progress)
    edit = replace(edit, measured={"seconds": round(seconds, 3), **scores_measured(results)})
    with edit.applied(model):
        edited = continue_texts(model, questions)
    reverted = continue_texts(model, questions)
    identical = all(bool((weight == weights[name]).all()) for name, weight in model.model.named_parameters())
    said = [
        replace(line, before=one, edited=two, reverted=three)
        for line, one, two, three in zip(lines, before, edited, reverted, strict=True)
    ]
    return Story(said, edit, results, identical)


def lines_of(fact: errata.Fact) -> list[Line]:
    """The fact's own question, one paraphrase, and one neighbor: one with the same old answer, where there is one."""
    lines = [Line("asked", fact.question, fact.target_new)]
    lines += [Line("reworded", prompt, fact.target_new) for prompt in fact.paraphrase_prompts[:1]]
    neighbors = sorted(fact.neighborhood, key=lambda probe: probe.target != fact.target_true)
    return lines + [Line("neighbor", probe.prompt, probe.target) for probe in neighbors[:1]]


def check_demo_output(output: Path) -> None:
    """Raise unless the folder is free, or holds what an earlier demo left.

    Raises:
        OutputExists: it holds something else.
    """
    if (output / MARK).is_file():
        return
    try:
        check_output(output)
    except OutputExists:
        raise OutputExists(
            f"{output} exists already, and no demo made it. Name another folder: errata demo --output DIR."
        ) from None


def _save(story: Story, output: Path) -> None:
    with atomic_folder(output, overwrite=True) as aside:
        story.edit.save(aside)
        errata.write_facts(aside / FACTS, story.edit.facts)
        story.results.save(aside / FILE)
        rows = {"made_by": "errata demo", "lines": to_json(story.lines)}
        (aside / MARK).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _tell(terminal: Terminal, model: errata.EditableModel, story: Story, output: Path) -> None:
    """Print all of it."""
    written = f" written by {story.edit.origin.method} into {model.name} in {duration(story.edit.measured['seconds'])}."
    facts = counted(len(story.edit.facts), "fact")
    other = next(name for name in OTHERS if name != story.edit.origin.method)
    terminal.show(Text.assemble((f"\n{facts}", "bold"), written, " What it says of them:"))
    terminal.show(_lines_table(story.lines))
    terminal.show(score_table(story.results, SHOWN))
    fingerprint = model.measure_fingerprint()[:12]
    terminal.show(
        Text.assemble(("Taken back", "bold"), f": {_taken_back(story)} (fingerprint {fingerprint}).\n")
    )
    terminal.show(
        Text.assemble(
            "The edit is in ",
            (f"{output}/", "bold"),
            f". Try next:\n  errata show {output}\n"
            f"  errata evaluate {model.name} --facts {output / FACTS} --edit {output}\n"
            f"  errata apply {model.name} {output} --output my-model\n"
            f"  errata edit {model.name} --facts {output / FACTS} --method {other} --output my-edit --evaluate",
        ),
        wrap=False,
    )
    terminal.result(
        {
            "edit": str(output),
            "model": model.name,
            "method": story.edit.origin.method,
            "lines": to_json(story.lines),
            "scores": scores_json(story.results),
            "reverted": {"answers_that_differ": story.differing, "weights_identical": story.identical},
            "seconds": story.edit.measured["seconds"],
        }
    )


def _taken_back(story: Story) -> str:
    asked, differing = len(story.lines), story.differing
    answers = f"{differing} of {asked} answers differ from" if differing else f"all {asked} answers are again"
    weights = (
        "every weight is what it was, bit for bit" if story.identical else "weights are not what they were"
    )
    return f"{answers} the old ones, and {weights}"


def _lines_table(lines: Sequence[Line]) -> Table:
    made = table("", "Question", "It said", "It says now", "")
    for number, line in enumerate(lines):
        last = number + 1 == len(lines) or lines[number + 1].kind == "asked"
        neighbor = line.kind == "neighbor"
        style = "green" if line.right else "red"
        said = Text(_brief(line.edited), style="dim" if neighbor and line.right else f"bold {style}")
        made.add_row(
            Text(line.kind, style="dim"),
            Text(line.question, style="" if line.kind == "asked" else "dim"),
            Text(_brief(line.before), style="dim" if neighbor else ""),
            said,
            Text("✓" if line.right else "✗", style=style),
            end_section=last,
        )
    return made


def _brief(answer: str) -> str:
    """An answer without its full stop, cut where it gets long."""
    text = answer.removesuffix(".")
    return text if len(text) <= 28 else text[:27] + "…"
