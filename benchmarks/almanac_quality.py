"""How good edits of the embedded model are: `python benchmarks/almanac_quality.py --output DIR`.

For each method and number of edits: efficacy, generalization, specificity (success and accuracy), the accuracy on
other facts of the edited subjects and on unrelated facts, the score. Facts come from one half of the world: settings
are tuned on `--half development` and reported on `--half held-out`. Several draws of few facts, one of many, for each
seed; means and 95 % intervals over all facts of all draws and seeds. Each draw is stored as it is done, as raw
outcomes: killed and started again with the same `--output`, the program goes on; finished values lie beside it, in
`targets/`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import errata
from errata.almanac import world_facts
from errata.facts import Fact
from errata.models import EditableModel
from errata.results import Record, Score, load_results, score_records
from errata.settings import parse_assignments

DRAWN = 1000
"""Facts drawn for a seed: every number of edits takes its own from the beginning of the same draw."""
DRAWS = {1: 5, 10: 3}
"""How many draws a seed gives for so many edits; one for every other number."""
COLUMNS = ("efficacy", "generalization", "specificity")


def main() -> None:
    """Run what is not stored yet, then print the table."""
    arguments = parsed()
    model = errata.load("almanac")
    for method in arguments.methods:
        for edits in arguments.edits:
            for seed in arguments.seeds:
                facts = world_facts(arguments.half, DRAWN, seed)
                for draw in range(DRAWS.get(edits, 1)):
                    cell = arguments.output / f"{method}-{edits}-seed{seed}-draw{draw}.jsonl"
                    if not cell.exists():
                        run_cell(model, facts[draw * edits :][:edits], method, seed, arguments, cell)
    print(table(arguments.output, arguments.methods, arguments.edits, arguments.seeds))


def run_cell(
    model: EditableModel,
    facts: Sequence[Fact],
    method: str,
    seed: int,
    arguments: argparse.Namespace,
    cell: Path,
) -> None:
    """Edit, evaluate, store."""
    settings = parse_assignments(arguments.set)
    edit = errata.edit(model, facts, method, settings, seed=seed, keep_in=arguments.output.parent / "targets")
    results = errata.evaluate(model, facts, edit, generate=False)
    results.save(cell)
    print(cell.stem, line(results.records), file=sys.stderr, flush=True)


def line(records: Sequence[Record]) -> str:
    """One row of the table."""
    scores = score_records(records, "after")
    success = " / ".join(number(scores[f"{name}_success"]) for name in COLUMNS)
    accuracy = " / ".join(number(scores[f"{name}_accuracy"]) for name in COLUMNS)
    rest = ("same_subject_accuracy", "unrelated_accuracy", "score_success", "score_accuracy")
    return " | ".join([success, accuracy, *(number(scores[name], margin=True) for name in rest)])


def number(score: Score | None, margin: bool = False) -> str:
    """A share in percent, with half of its interval where asked for."""
    if score is None:
        return "-"
    return f"{100 * score.mean:.1f}" + (
        f" ±{100 * score.margin:.1f}" if margin and score.margin is not None else ""
    )


def table(folder: Path, methods: Sequence[str], edits: Sequence[int], seeds: Sequence[int]) -> str:
    """The Markdown table of everything stored."""
    rows = [
        "| edits | method | efficacy / generalization / specificity, success % | the same, accuracy % | same subject, "
        "accuracy % | unrelated, accuracy % | score, success | score, accuracy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for count in edits:
        for method in methods:
            cells = [
                path
                for seed in seeds
                for path in sorted(folder.glob(f"{method}-{count}-seed{seed}-draw*.jsonl"))
            ]
            records = [record for cell in cells for record in load_results(cell).records]
            rows.append(f"| {count} (x{len(cells)}) | {method} | {line(records)} |")
    return "\n".join(rows)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--half", choices=("development", "held-out"), default="held-out")
    parser.add_argument("--methods", nargs="+", default=["pmet", "memit"])
    parser.add_argument("--edits", nargs="+", type=int, default=[1, 10, 100, 1000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
