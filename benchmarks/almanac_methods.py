"""Every method on Almanac, table by table: `python benchmarks/almanac_methods.py TABLE --output DIR`.

Tables: `methods` (all methods, 1 to 1,000 edits), `rule` (MEMIT as a model without a preset gets it), `many` (1,000
edits more gently), `ablations` (PMET's), `neighbors`
(NA and NAP against plain), `neighbor-weight`, `preserve` (keeping the rest of the subject: weight, rows, own or
foreign relations), `underedited` (iterating all facts or only those still UnderEdited), `iterations` (1 to 10).

Settings are tuned on `--half development` and reported on `--half held-out`. Each cell (row, number of edits, seed,
draw) is stored as it is done, as raw outcomes with what the run recorded: killed and started again with the same
`--output`, the program goes on. `--print` prints what is stored and runs nothing.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import errata
from errata.almanac import world_facts
from errata.facts import Fact
from errata.models import EditableModel
from errata.results import Record, Results, Score, load_results, score_records
from errata.runtime import atomic_file
from errata.settings import load_presets
from errata.strategies import Strategy

DRAWN = 1000
"""Facts drawn for a seed: every number of edits takes its own from the beginning of the same draw."""
DRAWS = {1: 5, 10: 3}
"""How many draws a seed gives for so many edits; one for every other number."""
COLUMNS = ("efficacy", "generalization", "specificity")
REST = ("same_subject_accuracy", "unrelated_accuracy", "score_success", "score_accuracy")


@dataclass(frozen=True)
class Row:
    """A row of a table: a method with its settings and its strategy."""

    name: str
    method: str
    settings: Mapping[str, object] = field(default_factory=dict)
    preset: str | None = None
    strategy: Strategy | None = None
    foreign: bool = False
    """Whether the preserve_prompts are of relations that the subject lacks."""


@dataclass(frozen=True)
class Table:
    """What is compared, and at how many edits."""

    rows: tuple[Row, ...]
    edits: tuple[int, ...]
    each_write: bool = False
    """Whether a cell is measured after every write of its strategy, not only at the end."""
    timed: bool = False
    """Whether values are found anew, so that the time of an edit says something."""


NEIGHBOR = {"neighbor_weight": 1.0}
ITERATE = Strategy(iterations=10, stop="never")


def preserving(weight: float, rows: int, **more: object) -> dict[str, object]:
    """Settings that keep the rest of the subject."""
    return {"preserve": "subject", "preserve_weight": weight, "preserve_rows": rows, **more}


RULE = {**load_presets("memit").rule, "values.nll_weight": 1.0, "solve.realised_share": 0.8}
"""What a model without a preset gets, in the layers of Almanac's preset."""

TABLES: dict[str, Table] = {
    "methods": Table(
        (
            Row("ROME", "rome"),
            Row("FT-W", "finetune", preset="ft-w"),
            Row("FT-L", "finetune", preset="ft-l"),
            Row("FT local", "finetune", preset="local"),
            Row("MEND", "mend"),
            Row("MEMIT", "memit"),
            Row("PMET", "pmet"),
            Row("AlphaEdit", "alphaedit"),
        ),
        (1, 10, 100, 1000),
    ),
    "rule": Table((Row("MEMIT, preset", "memit"), Row("MEMIT, rule", "memit", RULE)), (10, 100)),
    "many": Table(
        (
            Row("MEMIT, lambda 300", "memit", {"solve.covariance_weight": 300.0}),
            Row("PMET, lambda 100", "pmet", {"solve.covariance_weight": 100.0}),
            Row("AlphaEdit, 10 batches", "alphaedit", strategy=Strategy(batch_size=100)),
        ),
        (1000,),
    ),
    "ablations": Table(
        (
            Row("PMET", "pmet"),
            Row("without delta_a", "pmet", {"values.optimize": "ffn"}),
            Row("with W_O", "pmet", {"write": "attention,ffn"}),
            Row("Even spread", "pmet", {"spread": "even"}),
            Row("MEMIT, sqrt spread", "memit", {"spread": "sqrt"}),
        ),
        (10, 100, 300),
    ),
    "iterations": Table(
        tuple(Row(name, name.lower(), strategy=ITERATE) for name in ("ROME", "MEMIT", "PMET")),
        (100,),
        each_write=True,
    ),
    "neighbors": Table(
        tuple(
            Row(f"{prefix}{name}", name.lower(), settings, strategy=Strategy(iterations=2, stop="never"))
            for name in ("ROME", "MEMIT", "PMET")
            for prefix, settings in (
                ("", {}),
                ("NA_", NEIGHBOR),
                ("NAP_", {**NEIGHBOR, "neighbor_prefix": True}),
                ("NA_0.2_", {"neighbor_weight": 0.2}),
            )
        ),
        (100,),
        each_write=True,
    ),
    "neighbor-weight": Table(
        (
            Row("weight 0", "memit"),
            *(Row(f"weight {w:g}", "memit", {"neighbor_weight": w}) for w in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)),
            *(Row(f"weight 1, {n} neighbors", "memit", {**NEIGHBOR, "neighbor_count": n}) for n in (2, 3)),
            Row("published", "memit", {**NEIGHBOR, "neighbor_loss": "published"}),
        ),
        (100,),
    ),
    "preserve": Table(
        (
            Row("plain", "memit"),
            *(Row(f"own, weight {w:g}, 4 rows", "memit", preserving(w, 4)) for w in (0.3, 1.0, 3.0, 10.0)),
            *(Row(f"own, weight 3, {n} rows", "memit", preserving(3.0, n)) for n in (1, 2, 8)),
            *(
                Row(f"foreign, weight {w:g}, 4 rows", "memit", preserving(w, 4), foreign=True)
                for w in (1.0, 3.0, 10.0)
            ),
            Row("own, weight 3, 4 rows, neighbor 0.2", "memit", preserving(3.0, 4, neighbor_weight=0.2)),
            Row(
                "own, weight 3, 4 rows, 2 iterations",
                "memit",
                preserving(3.0, 4),
                strategy=Strategy(iterations=2, stop="never"),
            ),
            Row(
                "own, weight 3, 4 rows, neighbor 0.2, 2 iterations",
                "memit",
                preserving(3.0, 4, neighbor_weight=0.2),
                strategy=Strategy(iterations=2, stop="never"),
            ),
            Row("PMET plain", "pmet"),
            Row("PMET own, weight 3, 4 rows", "pmet", preserving(3.0, 4)),
        ),
        (100,),
    ),
    "underedited": Table(
        tuple(
            Row(
                f"{name}, {which}",
                name.lower(),
                strategy=replace(ITERATE, iterations=4, only_underedited=only),
            )
            for name in ("MEMIT", "PMET")
            for which, only in (("all facts again", False), ("only the UnderEdited", True))
        ),
        (100,),
        each_write=True,
        timed=True,
    ),
}


def main() -> None:
    """Run what is not stored yet, then print the table."""
    arguments = parsed()
    table = TABLES[arguments.table]
    rows = [row for row in table.rows if not arguments.rows or row.name in arguments.rows]
    edits = arguments.edits or table.edits
    folder = arguments.output / arguments.table
    if not arguments.print:
        model = errata.load("almanac")
        for count in edits:
            for row in [None, *rows]:
                for seed in arguments.seeds:
                    for draw in range(DRAWS.get(count, 1)):
                        cell = folder / f"{row.name if row else 'unedited'}-{count}-seed{seed}-draw{draw}"
                        facts = drawn(arguments.half, count, seed, draw, row is not None and row.foreign)
                        run_cell(model, facts, row, seed, cell, table.each_write, arguments)
    print(markdown(folder, rows, edits, arguments.seeds, table))


def drawn(half: str, count: int, seed: int, draw: int, foreign: bool) -> list[Fact]:
    """The facts of a cell: all rows of a table get the same ones."""
    facts = world_facts(half, DRAWN, seed, preserve="foreign" if foreign else "own")
    return facts[draw * count :][:count]


def run_cell(
    model: EditableModel,
    facts: Sequence[Fact],
    row: Row | None,
    seed: int,
    cell: Path,
    each_write: bool,
    arguments: argparse.Namespace,
    texts: Sequence[str] = (),
) -> None:
    """Edit, evaluate, store; a cell that is stored is left alone."""
    if named(cell, ".json").exists():
        return
    about: dict[str, object] = {}
    if row is None:
        store(cell, "", errata.evaluate(model, facts, generate=arguments.generate, texts=texts))
    else:
        began = time.process_time()

        def measure(number: int) -> None:
            if each_write:
                store(cell, f"-k{number}", errata.evaluate(model, facts, generate=arguments.generate))

        edit = make(model, facts, row, seed, measure, arguments)
        about = {"cpu_seconds": time.process_time() - began, "history": [dict(one) for one in edit.history]}
        with edit.applied(model):
            store(cell, "", errata.evaluate(model, facts, generate=arguments.generate, texts=texts))
    with atomic_file(named(cell, ".json")) as aside:
        aside.write_text(json.dumps(about, indent=1))
    records = load_results(named(cell, ".jsonl")).records
    print(f"{cell.name}: {line(records)} {about.get('cpu_seconds', 0):.0f} s", file=sys.stderr, flush=True)


def make(
    model: EditableModel,
    facts: Sequence[Fact],
    row: Row,
    seed: int,
    measure: Callable[[int], None],
    arguments: argparse.Namespace,
) -> errata.Edit:
    """The edit of a row."""
    timed = arguments.table in TABLES and TABLES[arguments.table].timed
    kept = arguments.output / (f"kept-{row.name}" if timed else "kept")
    moments = getattr(arguments, "covariance", None)
    request = errata.EditRequest(
        facts,
        row.method,
        row.settings,
        covariance=moments,
        seed=seed,
        preset=row.preset,
        keep_in=kept,
        strategy=row.strategy,
    )
    return errata.prepare(model, request).run(on_write=measure)


def named(cell: Path, ending: str) -> Path:
    """A file of the cell; its name may hold a dot."""
    return cell.with_name(f"{cell.name}{ending}")


def store(cell: Path, suffix: str, results: Results) -> None:
    """Keep raw outcomes, over those of a run that was killed."""
    path = named(cell, f"{suffix}.jsonl")
    path.unlink(missing_ok=True)
    results.save(path)


def line(records: Sequence[Record]) -> str:
    """The figures of a row, in percent."""
    scores = score_records(records, "after")
    groups = [
        " / ".join(number(scores[f"{name}_{kind}"]) for name in COLUMNS) for kind in ("success", "accuracy")
    ]
    return " | ".join([*groups, *(number(scores[name]) for name in REST)])


def number(score: Score | None) -> str:
    """A share in percent, with half of its interval."""
    if score is None:
        return "-"
    half = f" ±{100 * score.margin:.1f}" if score.margin is not None else ""
    return f"{100 * score.mean:.1f}{half}"


HEAD = (
    "efficacy / generalization / specificity, success | the same, accuracy | same subject, accuracy | "
    "unrelated, accuracy | score, success | score, accuracy"
)


def markdown(
    folder: Path, rows: Sequence[Row], edits: Sequence[int], seeds: Sequence[int], table: Table
) -> str:
    """The Markdown table of everything stored: means and 95 % intervals over all facts of all draws and seeds."""
    head = HEAD + (" | CPU, s" if table.timed else "")
    lines = [f"| edits | method | {head} |", "|---|---|" + "---|" * (head.count("|") + 1)]
    for count in edits:
        for name in ["unedited", *(row.name for row in rows)]:
            cells = [
                path
                for seed in seeds
                for path in sorted(folder.glob(f"{name}-{count}-seed{seed}-draw*.json"))
            ]
            steps = sorted(
                {number_of(path) for cell in cells for path in folder.glob(f"{cell.stem}-k*.jsonl")}
            )
            for step in steps if table.each_write and steps else [None]:
                suffix = "" if step is None else f"-k{step}"
                found = [cell.with_name(f"{cell.stem}{suffix}.jsonl") for cell in cells]
                found = [path for path in found if path.exists()]
                records = [record for path in found for record in load_results(path).records]
                if records:
                    label = name if step is None else f"{name}, k = {step}"
                    spent = f" | {seconds(cells)}" if table.timed else ""
                    lines.append(f"| {count} (x{len(found)}) | {label} | {line(records)}{spent} |")
    return "\n".join(lines)


def number_of(path: Path) -> int:
    """The number of the write that a file was stored after."""
    return int(path.stem.rpartition("-k")[2])


def seconds(cells: Sequence[Path]) -> str:
    """CPU seconds of an edit, the mean over the cells."""
    spent = [json.loads(cell.read_text()).get("cpu_seconds", 0.0) for cell in cells]
    return f"{sum(spent) / max(1, len(spent)):.1f}"


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--half", choices=("development", "held-out"), default="held-out")
    parser.add_argument("--rows", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--edits", nargs="+", type=int, default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--generate", action="store_true", help="also let the model write freely")
    parser.add_argument("--print", action="store_true", help="print what is stored, run nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
