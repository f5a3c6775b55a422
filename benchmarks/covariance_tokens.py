"""How few tokens second moments need: `python benchmarks/covariance_tokens.py --output DIR`.

The second moments of the embedded model, measured on the first texts of its corpus, from a few to all; with each, the
same facts are edited with the same values, and scored. Killed and started again with the same `--output`, the program
goes on. It writes `covariance_tokens.json` and `covariance_tokens.svg`, and prints the table.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

import errata
from errata.almanac import corpus_texts, world_facts
from errata.errors import CovarianceError
from errata.methods import method_named, settings_for
from errata.models import EditableModel
from errata.moments import collect
from errata.results import load_results, score_records
from errata.runtime import atomic_file

TEXTS = (5, 10, 20, 50, 100, 200, 500, 1000, 2000)
METHODS = ("memit", "pmet")
SCORES = (
    "score_success",
    "efficacy_success",
    "generalization_success",
    "specificity_success",
    "score_accuracy",
    "same_subject_accuracy",
    "unrelated_accuracy",
)
Row = dict[str, float | int | str | None]


def main() -> None:
    """Run what is not stored yet, then draw and print."""
    arguments = parsed()
    model = errata.load("almanac")
    rows = [
        row_of(model, method, count, texts, arguments)
        for method in arguments.methods
        for count in arguments.edits
        for texts in TEXTS
    ]
    with atomic_file(arguments.output / "covariance_tokens.json") as aside:
        aside.write_text(json.dumps({"half": arguments.half, "rows": rows}, indent=1), encoding="utf-8")
    draw(rows, arguments.output / "covariance_tokens.svg")
    print(table(rows))


def row_of(model: EditableModel, method: str, count: int, texts: int, arguments: argparse.Namespace) -> Row:
    """So many edits with the moments of so many texts: the scores over all facts of all seeds."""
    folder, tokens = moments(model, method, texts, arguments.output)
    seeds = arguments.seeds if count <= 100 else arguments.seeds[:1]
    records = []
    for seed in seeds:
        cell = arguments.output / f"{method}-{count}-{texts}-seed{seed}.jsonl"
        if not cell.exists():
            facts = world_facts(arguments.half, 1000, seed)[:count]
            try:
                edit = errata.edit(model, facts, method, covariance=folder, seed=seed, keep_in=arguments.kept)
            except CovarianceError as error:
                return {
                    "method": method,
                    "edits": count,
                    "texts": texts,
                    "tokens": tokens,
                    "error": str(error),
                }
            with edit.applied(model):
                errata.evaluate(model, facts, generate=False).save(cell)
        records += load_results(cell).records
    scores = score_records(records, "after")
    row: Row = {"method": method, "edits": count, "seeds": len(seeds), "texts": texts, "tokens": tokens}
    return row | {name: 100 * score.mean if (score := scores[name]) else None for name in SCORES}


def moments(model: EditableModel, method: str, texts: int, output: Path) -> tuple[Path, int]:
    """The folder of the second moments of the first texts, and the number of their tokens."""
    folder = output / f"moments-{method}-{texts}"
    settings, _ = settings_for(model, method, {})
    sites = list(method_named(method).moments(model, settings))
    if not folder.exists():
        collect(
            model,
            sites,
            corpus_texts()[:texts],
            folder=folder,
            corpus="embedded",
            samples=texts,
            replace=True,
        )
    ids = cast("list[list[int]]", model.tokenizer(corpus_texts()[:texts])["input_ids"])
    return folder, sum(len(row) for row in ids)


def draw(rows: Sequence[Row], target: Path) -> None:
    """Left the score, right what is unrelated; both over tokens."""
    matplotlib.rcParams["svg.hashsalt"] = "errata"  # the same figure is the same file
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharex=True)
    colors = {"memit": "#2471a3", "pmet": "#c0392b"}
    edits = sorted({int(cast(int, row["edits"])) for row in rows})
    for axis, name in zip(axes, ("score_success", "unrelated_accuracy"), strict=True):
        for method in dict.fromkeys(str(row["method"]) for row in rows):
            for count, style in zip(edits, ("o-", "s--", "^:"), strict=False):
                chosen = [
                    row for row in rows if (row["method"], row["edits"]) == (method, count) and name in row
                ]
                axis.plot(
                    [row["tokens"] for row in chosen],
                    [row[name] for row in chosen],
                    style,
                    color=colors[method],
                    label=f"{method.upper()}, {count} edits",
                )
        axis.set(xscale="log", ylim=(0, 101), title=f"{name.replace('_', ', ')}, %")
        axis.set(xlabel="tokens that the second moments are measured on")
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    with atomic_file(target) as aside:
        figure.savefig(aside, format="svg", metadata={"Date": None})
    plt.close(figure)


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    head = ["method", "edits", "texts", "tokens", *(name.replace("_", ", ") for name in SCORES)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        begun = [str(row[name]) for name in ("method", "edits", "texts", "tokens")]
        cells = ["cannot be solved"] if "error" in row else [f"{row[name]:.1f}" for name in SCORES]
        lines.append(f"| {' | '.join([*begun, *cells])} |")
    return "\n".join(lines)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--kept", type=Path, help="where values are kept; default: in --output")
    parser.add_argument("--half", choices=("development", "held-out"), default="held-out")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--edits", nargs="+", type=int, default=[100, 1000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    arguments.kept = arguments.kept or arguments.output / "kept"
    return arguments


if __name__ == "__main__":
    main()
