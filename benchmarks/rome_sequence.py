"""What many edits in a row do to the embedded model with ROME's key taken one way or another.

    python benchmarks/rome_sequence.py --output DIR

Facts are written one after the other with each reading of the setting `key` (src/errata/methods/rome.py): "mean", the
published program's two different keys; "bare" and "consistent", the same key in both places. After 1, 2, 5, 10, ...
facts: how far the weight has moved, the perplexity of texts like those the model was trained on, and how well the
facts so far, other facts of their subjects, and unrelated facts hold. Killed and started again with the same
`--output`, the program goes on. It writes `rome_sequence.json`, `rome_sequence.svg`, and prints the table.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import torch

import errata
from errata.almanac import corpus_texts, world_facts
from errata.evaluation import text_perplexity
from errata.facts import Fact
from errata.models import EditableModel
from errata.planning import EditRequest, prepare
from errata.results import score_records
from errata.runtime import atomic_file
from errata.settings import parse_assignments

KEYS = ("mean", "bare", "consistent")
TEXTS = 200
COLUMNS = {
    "update_norm": "norm of the update",
    "largest_step": "largest of one fact",
    "perplexity": "perplexity",
    "efficacy_success": "efficacy, success %",
    "efficacy_accuracy": "efficacy, accuracy %",
    "specificity_success": "specificity, success %",
    "same_subject_accuracy": "same subject, accuracy %",
    "unrelated_accuracy": "unrelated, accuracy %",
}
PANELS = ("update_norm", "perplexity", "efficacy_accuracy", "unrelated_accuracy")
COLORS = {"mean": "#c0392b", "bare": "#2471a3", "consistent": "#1e8449"}
STYLES = {"mean": "o-", "bare": "s--", "consistent": "^:"}


@dataclass(frozen=True)
class Checkpoint:
    """What was measured after so many facts."""

    edits: int
    update_norm: float
    """Of everything written so far, Frobenius."""
    largest_step: float
    """The largest update of a single fact since the checkpoint before."""
    perplexity: float
    efficacy_success: float
    efficacy_accuracy: float
    specificity_success: float
    same_subject_accuracy: float
    unrelated_accuracy: float


def main() -> None:
    """Run what is not stored yet, then draw and print."""
    arguments = parsed()
    model = errata.load("almanac")
    facts = world_facts(arguments.half, arguments.edits, arguments.seed)
    found: dict[str, list[Checkpoint]] = {}
    for key in arguments.keys:
        cell = arguments.output / f"{key}-{arguments.edits}-seed{arguments.seed}.json"
        if not cell.is_file():
            store(cell, [asdict(one) for one in sequence(model, facts, key, arguments)])
        found[key] = [Checkpoint(**row) for row in json.loads(cell.read_text(encoding="utf-8"))]
    rows = {key: [asdict(one) for one in checkpoints] for key, checkpoints in found.items()}
    described = {"half": arguments.half, "seed": arguments.seed, "set": arguments.set, "keys": rows}
    store(arguments.output / "rome_sequence.json", described)
    draw(found, arguments.output / "rome_sequence.svg")
    print(table(found))


def sequence(
    model: EditableModel, facts: Sequence[Fact], key: str, arguments: argparse.Namespace
) -> list[Checkpoint]:
    """Write the facts one after the other; the last weights are measured before they are taken back."""
    texts = corpus_texts()[:TEXTS]
    settings = {**parse_assignments(arguments.set), "key": key}
    checkpoints = [measured(model, facts, 0, 0.0, 0.0, texts)]
    steps: list[float] = []

    def watch(stage: str, done: int, total: int) -> None:
        if stage != "writing":
            return
        now = site.matrix.detach().double()
        steps.append(norm(now - states[-1]))
        states[-1] = now.clone()
        if done in marks(total):
            moved = norm(now - before)
            checkpoints.append(measured(model, facts, done, moved, max(steps), texts))
            steps.clear()
            print(key, line(checkpoints[-1]), file=sys.stderr, flush=True)

    request = EditRequest(facts, "rome", settings, seed=arguments.seed, keep_in=arguments.output / "targets")
    run = prepare(model, request).settle(watch).stages
    site = model.site("ffn", run.settings.layers[0])
    before = site.matrix.detach().double().clone()
    states = [before.clone()]
    run.changes(facts)
    return checkpoints


def norm(matrix: torch.Tensor) -> float:
    """Frobenius."""
    return float(torch.linalg.norm(matrix))


def measured(
    model: EditableModel, facts: Sequence[Fact], done: int, moved: float, step: float, texts: Sequence[str]
) -> Checkpoint:
    """The model as it stands; with nothing written, of all facts."""
    results = errata.evaluate(model, facts[:done] if done else facts, generate=False)
    scores = score_records(results.records, "after")
    shares = {
        name: score.mean if (score := scores[name]) else math.nan
        for name in Checkpoint.__dataclass_fields__
        if name in scores
    }
    return Checkpoint(
        edits=done, update_norm=moved, largest_step=step, perplexity=text_perplexity(model, texts), **shares
    )


def marks(total: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... and the last."""
    return sorted({first * 10**power for power in range(5) for first in (1, 2, 5)} | {total})


# --- what is shown ---------------------------------------------------------------------------------


def line(one: Checkpoint) -> str:
    """One row of the table."""
    cells = [
        f"{100 * value:.1f}" if name.endswith(("success", "accuracy")) else f"{value:.4g}"
        for name, value in asdict(one).items()
        if name in COLUMNS
    ]
    return " | ".join([str(one.edits), *cells])


def table(found: Mapping[str, Sequence[Checkpoint]]) -> str:
    """Markdown."""
    head = ["key", "edits", *COLUMNS.values()]
    rows = [f"| {key} | {line(one)} |" for key, checkpoints in found.items() for one in checkpoints]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows])


def draw(found: Mapping[str, Sequence[Checkpoint]], target: Path) -> None:
    """Four panels over the number of facts written so far."""
    matplotlib.rcParams["svg.hashsalt"] = "errata"  # the same figure is the same file
    figure, axes = plt.subplots(2, 2, figsize=(8, 6), sharex=True)
    for axis, name in zip(axes.flat, PANELS, strict=True):
        share = name.endswith("accuracy")
        for key, checkpoints in found.items():
            rows = [one for one in checkpoints if one.edits]
            values = [(100 if share else 1) * getattr(one, name) for one in rows]
            axis.plot(
                [one.edits for one in rows], values, STYLES[key], color=COLORS[key], label=f"key = {key}"
            )
        axis.set(title=COLUMNS[name], xscale="log", yscale="linear" if share else "log")
        if share:
            axis.set(ylim=(0, 102), xlabel="facts written, one after the other")
    axes[0][0].legend(frameon=False)
    figure.tight_layout()
    with atomic_file(target) as aside:
        figure.savefig(aside, format="svg", metadata={"Date": None})
    plt.close(figure)


def store(path: Path, value: object) -> None:
    """JSON, all or nothing; what is not a number is null."""
    plain = json.loads(json.dumps(value), parse_constant=lambda _: None)
    with atomic_file(path) as aside:
        aside.write_text(json.dumps(plain, indent=1), encoding="utf-8")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--half", choices=("development", "held-out"), default="held-out")
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keys", nargs="+", choices=KEYS, default=KEYS)
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
