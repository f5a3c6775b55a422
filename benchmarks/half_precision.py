"""Edits of the embedded model in half precision: `python benchmarks/half_precision.py --output DIR`.

Each edit is made in bfloat16 and in float16, and once more in float32 with the same weights. What is measured: how far
the merged weights are from W + Delta, as a share of the norm of Delta; and the scores

    whole        of W + Delta in float32, nothing rounded
    merged       of round(W + Delta) in half precision: what `errata apply` writes
    stochastic   of the same, rounded up or down at random, up with the probability of what is above
    from float32 of an edit made in float32 and merged in half precision
    in parts     of the merged weights where Delta is added in 100 equal parts, each rounded on its own

With `--sizes`: what rounding does to the change of an edit that is scaled down, as a share of the weight's norm.

Each cell is stored as it is done: killed and started again with the same `--output`, the program goes on.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

import errata
from errata.almanac import world_facts
from errata.edits import Delta
from errata.facts import Fact
from errata.models import EditableModel
from errata.results import score_records
from errata.runtime import atomic_file

Rounding = Callable[[Tensor, torch.dtype, int], Tensor]
PARTS = 100
SIZES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
SHOWN = ("efficacy", "generalization", "specificity")


def main() -> None:
    """Run what is not stored yet, then print."""
    arguments = parsed()
    if arguments.sizes:
        model = errata.load("almanac", dtype="float32")
        made = errata.edit(model, world_facts("held-out", 10, arguments.seed), "pmet").deltas
        path, delta = max(made.items(), key=lambda one: float(one[1].matrix.norm()))
        for dtype in arguments.dtypes:
            print(sizes(getattr(torch, dtype), model.site_at(path).matrix, delta.matrix), end="\n\n")
        return
    for count in arguments.facts:
        for dtype in arguments.dtypes:
            for method in arguments.methods:
                cell = arguments.output / f"{dtype}-{method}-{count}.json"
                if not cell.exists():
                    store(cell, run(dtype, method, world_facts("held-out", count, arguments.seed)))
    print(table(arguments))


def run(dtype: str, method: str, facts: Sequence[Fact]) -> dict[str, object]:
    """Every variant of one edit."""
    half, wide = errata.load("almanac", dtype=dtype), errata.load("almanac", dtype=dtype)
    cast(nn.Module, wide.model).float()
    began = time.process_time()
    made = errata.edit(half, facts, method).deltas
    seconds = time.process_time() - began
    wide_made = errata.edit(wide, facts, method).deltas
    rows: dict[str, object] = {
        "unedited": scored(half, facts, {}, nearest),
        "whole": scored(wide, facts, made, nearest),
        "merged": scored(half, facts, made, nearest),
        "stochastic": scored(half, facts, made, stochastic),
        "in parts": scored(half, facts, made, nearest, parts=PARTS),
        "in parts, stochastic": scored(half, facts, made, stochastic, parts=PARTS),
        "from float32": scored(half, facts, wide_made, nearest),
        "float32 throughout": scored(wide, facts, wide_made, nearest),
    }
    about = {"dtype": dtype, "method": method, "facts": len(facts), "seconds": seconds, "rows": rows}
    print(json.dumps(about), file=sys.stderr, flush=True)
    return about


def scored(
    model: EditableModel,
    facts: Sequence[Fact],
    deltas: Mapping[str, Delta],
    rounding: Rounding,
    parts: int = 1,
) -> dict[str, float | None]:
    """The scores in percent with the deltas in the weights, which are put back; and what rounding moves, in percent."""
    sites = {path: model.site_at(path) for path in deltas}
    wrong = whole = 0.0
    with torch.no_grad(), model.ledger.temporary():
        for path, site in sites.items():
            wanted = site.matrix.double() + deltas[path].matrix.double()
            for number in range(parts):
                part = site.matrix.double() + deltas[path].matrix.double() / parts
                model.ledger.write(site, site.as_stored(rounding(part, site.weight.dtype, number)))
            wrong += float((site.matrix.double() - wanted).square().sum())
            whole += float(deltas[path].matrix.double().square().sum())
        records = errata.evaluate(model, facts, generate=False, trustworthy=False).records
    found = score_records(records, "after")
    scores = {name: None if score is None else 100 * score.mean for name, score in found.items()}
    return {**scores, "moved": 100 * (wrong / whole) ** 0.5 if whole else 0.0}


def nearest(wanted: Tensor, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """To the nearest number."""
    del seed
    return wanted.to(dtype)


def stochastic(wanted: Tensor, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Up or down at random, so that the mean is what was wanted."""
    down = wanted.to(dtype)
    down = torch.where(down.double() > wanted, below(down), down)
    up = torch.nextafter(down, torch.full_like(down, torch.inf))
    share = (wanted - down.double()) / (up.double() - down.double())
    draw = torch.rand(share.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.where(draw < share, up, down)


def sizes(dtype: torch.dtype, weight: Tensor, delta: Tensor) -> str:
    """What is left of a change that is scaled down, as Markdown: in its own direction, and what is moved in all."""
    weight, delta = weight.to(dtype).double(), delta.double()
    name = str(dtype).removeprefix("torch.")
    lines = [
        f"| {name}: norm of the change, of the weight's | nearest: kept, moved | stochastic: kept, moved |"
    ]
    lines.append("|---:|---|---|")
    size = float(weight.norm() / delta.norm())
    for share in SIZES:
        change = delta * size * share
        cells = [f"{share:.1%}"]
        for rounding in (nearest, stochastic):
            found = rounding(weight + change, dtype, 0).double() - weight
            kept = float((found * change).sum() / change.square().sum())
            moved = float((found - change).norm() / change.norm())
            cells.append(f"{kept:.1%}, {moved:.1%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def below(numbers: Tensor) -> Tensor:
    """The next smaller number of each."""
    return torch.nextafter(numbers, torch.full_like(numbers, -torch.inf))


def store(path: Path, value: object) -> None:
    """JSON, all or nothing."""
    with atomic_file(path) as aside:
        aside.write_text(json.dumps(value, indent=1), encoding="utf-8")


def table(arguments: argparse.Namespace) -> str:
    """Markdown."""
    lines = [
        "| dtype | method | facts | weights | moved by rounding | efficacy / generalization / specificity, success | "
        "the same, accuracy | unrelated, accuracy |",
        "|---|---|---:|---|---:|---|---|---:|",
    ]
    for dtype in arguments.dtypes:
        for count in arguments.facts:
            for method in arguments.methods:
                cell = json.loads((arguments.output / f"{dtype}-{method}-{count}.json").read_text())
                for name, row in cell["rows"].items():
                    groups = [
                        " / ".join(f"{row[f'{score}_{kind}']:.1f}" for score in SHOWN)
                        for kind in ("success", "accuracy")
                    ]
                    cells = [dtype, method, str(count), name, f"{row['moved']:.2f} %", *groups]
                    lines.append(f"| {' | '.join(cells)} | {row['unrelated_accuracy']:.1f} |")
    return "\n".join(lines)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float16"])
    parser.add_argument("--methods", nargs="+", default=["pmet", "memit", "finetune"])
    parser.add_argument("--facts", nargs="+", type=int, default=[10, 100])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", action="store_true", help="print only what rounding does to small changes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
