"""Batch after batch of 100 facts on the embedded model: `python benchmarks/sequential.py --output DIR`.

Every batch is written on top of those before it, to the end of Almanac's world: 6,403 facts, 64 batches. After 1, 2, 5,
10, 11, 20, 50 and 64 batches: how the first 100 facts hold, how a sample of 300 of all facts so far does, and what is
left of everything else. "held" adds the keys of earlier batches to K K^T (`Run.hold`; AlphaEdit does so
by itself); each batch's keys are measured once, when it has been written. "for stacks" is the preset `almanac-stack`,
with a larger lambda.

A line ends where less than 5 % of the unrelated facts are left: there is no model any more (`--to-the-end` goes on).
The held-out half of the subjects comes first (`--half development`: the other one, for choosing settings). Up to 3,200
facts no question about bystanders is about an edited subject; after that, those that an edit has made wrong are left
out.

Each batch is stored as it is written: killed and started again with the same `--output`, the program goes on. `--print`
prints and draws what is stored and runs nothing.
"""

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import StrMethodFormatter
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from two_site import TWO, prepared

import errata
from errata.almanac import corpus_texts, load_world, world_facts
from errata.edits import Delta, write_deltas
from errata.errors import ErrataError
from errata.evaluation import text_perplexity
from errata.facts import Fact, Probe
from errata.methods import Run
from errata.models import EditableModel
from errata.planning import EditRequest, prepare
from errata.results import score_records
from errata.runtime import atomic_file
from errata.settings import parse_assignments
from errata.solve import key_sum

BATCH, FIRST, SAMPLE, TEXTS = 100, 100, 300, 200
MARKS = (1, 2, 5, 10, 11, 20, 50, 100)
COLUMNS = {
    "first_success": "first 100, success",
    "first_accuracy": "first 100, accuracy",
    "efficacy_success": "all so far, success",
    "efficacy_accuracy": "all so far, accuracy",
    "specificity_success": "specificity, success",
    "specificity_accuracy": "specificity, accuracy",
    "unrelated_accuracy": "unrelated, accuracy",
    "perplexity": "perplexity",
}
REST = ("first_success", "efficacy_success", "specificity_success", "specificity_accuracy")
PANELS = ("first_accuracy", "efficacy_accuracy", "unrelated_accuracy", "perplexity")


GONE = 5.0
"""Percent of the unrelated facts; below, a line ends."""


@dataclass(frozen=True)
class Line:
    """A method as it is run batch after batch."""

    method: str
    hold: bool = False
    preset: str | None = None
    settings: dict[str, object] = field(default_factory=dict[str, object])
    style: str = "-"
    color: str = "#000000"


LINES = {
    "PMET": Line("pmet", style="-", color="#c0392b"),
    "PMET, held": Line("pmet", hold=True, style="--", color="#c0392b"),
    "MEMIT": Line("memit", style="-", color="#2471a3"),
    "MEMIT, held": Line("memit", hold=True, style="--", color="#2471a3"),
    "MEMIT for stacks": Line("memit", preset="almanac-stack", style="-", color="#17a2b8"),
    "MEMIT for stacks, held": Line("memit", hold=True, preset="almanac-stack", style="--", color="#17a2b8"),
    "PMET for stacks": Line("pmet", preset="almanac-stack", style="-", color="#e67e22"),
    "PMET for stacks, held": Line("pmet", hold=True, preset="almanac-stack", style="--", color="#e67e22"),
    "AlphaEdit": Line("alphaedit", style="-", color="#1e8449"),
    "FT local": Line("finetune", preset="local", style="-", color="#7d6608"),
    "two sites": Line("two_site", style="-", color="#6c3483"),
    "two sites, held": Line("two_site", hold=True, style="--", color="#6c3483"),
    "two sites for stacks": Line("two_site", preset="almanac-stack", style="-", color="#d63384"),
    "two sites for stacks, held": Line(
        "two_site", hold=True, preset="almanac-stack", style="--", color="#d63384"
    ),
}


@dataclass
class State:
    """The model so far, as it is stored after every batch."""

    batches: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    sums: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Of k k^T over all facts so far, by module path."""


def main() -> None:
    """Run what is not stored yet, then print and draw."""
    arguments = parsed()
    halves = ("held-out", "development") if arguments.half == "held-out" else ("development", "held-out")
    facts = [fact for half in halves for fact in world_facts(half, seed=arguments.seed)]
    most = min(arguments.batches, len(facts) // BATCH)
    lines = changed(LINES, arguments)
    for name, line in {} if arguments.print else lines.items():
        go_on(name, line, facts, most, arguments)
    found = {name: stored(arguments.output, name) for name in LINES | lines}
    found = {name: [row for row in rows if row["batches"] <= most] for name, rows in found.items() if rows}
    print(table(found))
    if arguments.figure:
        draw(found, arguments.figure)


def changed(lines: Mapping[str, Line], arguments: argparse.Namespace) -> dict[str, Line]:
    """The lines that are asked for; with `--set`, each under a name that says so."""
    given = parse_assignments(arguments.set)
    return {
        " ".join([name, *arguments.set]): replace(lines[name], settings=lines[name].settings | given)
        for name in arguments.lines
    }


def go_on(name: str, line: Line, facts: Sequence[Fact], most: int, arguments: argparse.Namespace) -> None:
    """Write the batches that are missing, and measure at the marks."""
    marks = [mark for mark in (*MARKS, len(facts) // BATCH) if mark <= most]
    file = arguments.output / f"{short(name)}.safetensors"
    if (arguments.output / f"{short(name)}-ended.json").exists():
        return
    model = errata.load("almanac")
    request = EditRequest(facts, line.method, line.settings, preset=line.preset, seed=arguments.seed)
    run = prepare(model, request).settle().stages
    run = replace(run, hold=line.hold)
    batches = written(facts, line, arguments.seed)
    state = load_state(file)
    with model.ledger.temporary():
        for path, weight in state.weights.items():
            model.ledger.write(model.site_at(path), weight)
        if not (arguments.output / f"{short(name)}-0.json").exists():
            keep_row(name, measured(model, facts, 0, arguments), arguments)
        while True:
            done = state.batches
            measured_at = arguments.output / f"{short(name)}-{done}.json"
            if done in marks and not measured_at.exists():
                keep_row(name, measured(model, facts, done, arguments), arguments)
            if done >= most or (gone(measured_at) and not arguments.to_the_end):
                return
            began = time.monotonic()
            try:
                state = next_batch(run, line, batches[done], state)
            except ErrataError as error:
                store(arguments.output / f"{short(name)}-ended.json", {"batches": done, "why": str(error)})
                print(f"{name}: ended after {done} batches: {error}", file=sys.stderr, flush=True)
                return
            save_state(file, state)
            spent = time.monotonic() - began
            print(f"{name}: batch {state.batches}, {spent:.0f} s", file=sys.stderr, flush=True)


def written(facts: Sequence[Fact], line: Line, seed: int) -> list[list[Fact]]:
    """The batches as they are written: for two sites with what their own templates give (as `errata edit` does)."""
    batches = [list(facts[start : start + BATCH]) for start in range(0, len(facts), BATCH)]
    return [prepared(batch, TWO, seed) for batch in batches] if line.method == "two_site" else batches


def gone(measured_at: Path) -> bool:
    """Whether there was next to nothing left when it was measured last."""
    return measured_at.exists() and json.loads(measured_at.read_text())["unrelated_accuracy"] < GONE


def next_batch(run: Run, line: Line, facts: Sequence[Fact], state: State) -> State:
    """The state with one more batch in the weights.

    Raises:
        ErrataError: the batch cannot be written.
    """
    changes = run.changes(facts, earlier=state.sums)
    write_deltas(run.model, changes.deltas)
    sums = changes.key_sums or (key_sums(run, facts, changes.deltas) if line.hold else {})
    total = {path: state.sums.get(path, 0) + one.double().cpu() for path, one in sums.items()}
    weights = {path: run.model.site_at(path).weight.detach().clone() for path in changes.deltas}
    return State(state.batches + 1, {**state.weights, **weights}, total)


def key_sums(run: Run, facts: Sequence[Fact], written: Mapping[str, Delta]) -> dict[str, Tensor]:
    """The sum of k k^T over the facts at every map that is written, with the weights as they stand."""
    sites = [run.model.site_at(path) for path in written]
    written_by = {layer: one for one in run.method.sites(run.settings) for layer in one.layers}
    return {
        site.path: key_sum(
            run.model,
            site,
            facts,
            run.contexts,
            written_by[site.layer].lookup,
            written_by[site.layer].keys,
        )
        for site in sites
    }


def measured(
    model: EditableModel, facts: Sequence[Fact], done: int, arguments: argparse.Namespace
) -> dict[str, float | int | None]:
    """The model as it stands after so many batches."""
    so_far = facts[: done * BATCH] or facts[:BATCH]
    sample = random.Random(done).sample(so_far, min(SAMPLE, len(so_far)))
    scores = scores_of(model, [still_true(fact, facts[: done * BATCH]) for fact in sample])
    first = scores_of(model, facts[:FIRST])
    row: dict[str, float | int | None] = {"batches": done, "facts": done * BATCH}
    for kind in ("success", "accuracy"):
        row[f"first_{kind}"] = first[f"efficacy_{kind}"]
    row.update({name: scores[name] for name in COLUMNS if name in scores})
    row["perplexity"] = text_perplexity(model, corpus_texts()[:TEXTS])
    return row


def scores_of(model: EditableModel, facts: Sequence[Fact]) -> dict[str, float | None]:
    """Every score of some facts, in percent."""
    records = errata.evaluate(model, facts, generate=False, trustworthy=False).records
    return {
        name: None if score is None else 100 * score.mean
        for name, score in score_records(records, "after").items()
    }


def still_true(fact: Fact, edited: Sequence[Fact]) -> Fact:
    """The fact without the questions about bystanders whose answer an edit has changed."""
    changed = {(one.subject, one.relation_id) for one in edited}
    known = asked()

    def holds(prompt: str) -> bool:
        return known.get(prompt) not in changed

    neighborhood = tuple(
        one for one in fact.neighborhood_prompts if holds(one.prompt if isinstance(one, Probe) else one)
    )
    unrelated = tuple(one for one in fact.unrelated_prompts if holds(one.prompt))
    return replace(fact, neighborhood_prompts=neighborhood, unrelated_prompts=unrelated)


@cache
def asked() -> Mapping[str, tuple[str, str]]:
    """Which subject and relation each question of the world is about."""
    return {
        entry.prompt(template): (entry.subject, entry.relation.name)
        for entry in load_world().entries
        for template in range(len(entry.relation.templates))
    }


# --- what is kept ------------------------------------------------------------------------------------


def short(name: str) -> str:
    """A file's name."""
    return name.lower().replace(", ", "-").replace(" ", "-")


def save_state(file: Path, state: State) -> None:
    """All or nothing."""
    tensors = {f"weight:{path}": weight.contiguous() for path, weight in state.weights.items()}
    tensors.update({f"sum:{path}": total.contiguous() for path, total in state.sums.items()})
    with atomic_file(file) as aside:
        save_file(tensors, aside, metadata={"batches": str(state.batches)})


def load_state(file: Path) -> State:
    """What is stored; the beginning where nothing is."""
    state = State()
    if file.exists():
        with safe_open(file, framework="pt") as opened:
            state.batches = int(opened.metadata()["batches"])
            for name in opened.keys():  # noqa: SIM118 (a safetensors file, not a mapping)
                kind, _, path = name.partition(":")
                (state.weights if kind == "weight" else state.sums)[path] = opened.get_tensor(name)
    return state


def keep_row(name: str, row: Mapping[str, float | int | None], arguments: argparse.Namespace) -> None:
    """Store what was measured."""
    store(arguments.output / f"{short(name)}-{row['batches']}.json", row)
    print(f"{name}: {line_of(row)}", file=sys.stderr, flush=True)


def store(path: Path, value: object) -> None:
    """JSON, all or nothing; what is not a number is null."""
    plain = json.loads(json.dumps(value), parse_constant=lambda _: None)
    with atomic_file(path) as aside:
        aside.write_text(json.dumps(plain, indent=1), encoding="utf-8")


def stored(folder: Path, name: str) -> list[dict[str, float | None]]:
    """The rows of a line, in order."""
    rows = [json.loads(path.read_text()) for path in folder.glob(f"{short(name)}-[0-9]*.json")]
    return sorted(rows, key=lambda row: row["batches"])


# --- what is shown -----------------------------------------------------------------------------------


def line_of(row: Mapping[str, float | int | None]) -> str:
    """One row of the table."""
    return " | ".join([str(row["facts"]), *(cell(name, row.get(name)) for name in COLUMNS)])


def cell(name: str, value: float | None) -> str:
    """A share in percent, or a perplexity."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if name != "perplexity" or value >= 100 else f"{value:.3g}"


def table(found: Mapping[str, Sequence[Mapping[str, float | None]]]) -> str:
    """Markdown: what is right of the first 100, all so far and unrelated facts, and the perplexity; then the rest.

    A line that ends before a mark has a dash there.
    """
    marks = sorted({int(row["batches"] or 0) for rows in found.values() for row in rows})
    head = ["", *(f"{mark * BATCH:,}" for mark in marks)]
    rule = f"|---|{'---|' * len(marks)}"
    parts: list[str] = []
    for names in (("first_accuracy", "efficacy_accuracy", "unrelated_accuracy"), ("perplexity",), REST):
        lines = [" / ".join(COLUMNS[name] for name in names) + ":", "", f"| {' | '.join(head)} |", rule]
        for line, rows in found.items():
            of_mark = {int(row["batches"] or 0): row for row in rows}
            cells = [
                " / ".join(cell(name, of_mark[mark].get(name)) for name in names) if mark in of_mark else "-"
                for mark in marks
            ]
            lines.append(f"| {line} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def draw(found: Mapping[str, Sequence[Mapping[str, float | None]]], target: Path) -> None:
    """Four panels over the number of facts written so far."""
    matplotlib.rcParams["svg.hashsalt"] = "errata"  # the same figure is the same file
    figure, axes = plt.subplots(2, 2, figsize=(9, 8), sharex=True)
    for axis, measure in zip(axes.flat, PANELS, strict=True):
        for name, rows in found.items():
            line = LINES[name]
            points = [(row["facts"], row.get(measure)) for row in rows if row["facts"]]
            axis.plot(
                [facts for facts, _ in points],
                [math.nan if value is None else value for _, value in points],
                line.style,
                marker="o",
                markersize=3,
                color=line.color,
                label=name,
            )
        axis.set(title=COLUMNS[measure] + (", %" if measure != "perplexity" else ""), xscale="log")
        axis.set(yscale="log") if measure == "perplexity" else axis.set(ylim=(-2, 102))
        axis.set_xticks([100, 200, 500, 1000, 2000, 5000])
        axis.set_xticks([], minor=True)
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.grid(alpha=0.25)
    for axis in axes[1]:
        axis.set(xlabel="facts written, 100 at a time")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False, fontsize=9
    )
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    with atomic_file(target) as aside:
        figure.savefig(aside, format="svg", metadata={"Date": None})
    plt.close(figure)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="where everything is stored")
    parser.add_argument("--lines", nargs="+", choices=list(LINES), default=list(LINES), metavar="NAME")
    parser.add_argument(
        "--half", choices=("held-out", "development"), default="held-out", help="which comes first"
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings to try")
    parser.add_argument("--to-the-end", action="store_true", help="also where nothing is left")
    parser.add_argument("--batches", type=int, default=100, help="at most so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, metavar="FILE.svg", help="draw what is stored")
    parser.add_argument("--print", action="store_true", help="run nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
