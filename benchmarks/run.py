"""Errata's stages against the published way of working, and against their floor.

    python benchmarks/run.py STAGE [--json]

STAGE is optimization, spread, covariance, evaluation or edit. Both programs do the same work on the same model (random
weights, GPT-2's real tokenizer, facts of CounterFact), in turn (A B A B), and their results are compared.
`--model FOLDER` takes a checkpoint instead; its floor counts FFNs of two matrices, too few where they are gated.
`--shipped-only` measures Errata alone, for several numbers of facts: for large models on a GPU. docs/speed.md says what
the numbers mean and what they were.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from floor import Rates, Size
from levers import levers
from shapes import SHAPES, Bench, checkpoint_bench, describe, make_bench, make_texts
from stages import STAGES, TOLERANCE, Stage, make_stage, with_facts
from timing import Measured, Spent, alternate, peak_memory, repeat, rounded, start_memory

PROJECTED = 10_000
"""Facts for which the time is projected."""
ROOT = Path(__file__).resolve().parents[1]


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where the two programs disagree."""
    arguments = _arguments(given)
    torch.set_num_threads(arguments.threads)
    facts = 2 if arguments.tiny else {"covariance": 1, "spread": 100}.get(arguments.stage, 8)
    counts = arguments.facts or [facts]
    bench = _bench(arguments, max(counts))
    row: dict[str, Any] = {"stage": arguments.stage, **describe(bench)}
    with tempfile.TemporaryDirectory() as folder:
        arguments.folder = Path(folder)
        row |= (
            shipped_alone(arguments, bench, counts) if arguments.shipped_only else compared(arguments, bench)
        )
    print(json.dumps(row) if arguments.json else "\n".join(lines_of(row)))
    return 0 if row.get("agreement", {}).get("agree", True) else 1


def compared(arguments: argparse.Namespace, bench: Bench) -> dict[str, Any]:
    """Both programs in turn: times per unit, ratio, floor, agreement; with `--levers` more programs after them."""
    device = bench.model.device
    stage = _stage(arguments, bench)
    ours, theirs = alternate(stage.shipped, stage.published, arguments.rounds, device)
    shipped, published = ours.least / stage.units, theirs.least / stage.published_units
    difference, tolerance = stage.difference(ours.result, theirs.result), TOLERANCE[arguments.dtype]
    row: dict[str, Any] = {
        "unit": stage.unit,
        "units": rounded(stage.units),
        "rounds": arguments.rounds,
        "shipped": shipped.to_json(),
        "published": published.to_json(),
        "ratio": {
            "cpu": rounded(published.cpu / shipped.cpu),
            "wall": rounded(published.wall / shipped.wall),
        },
        "ratio_by_round": _by_round(ours, theirs, stage),
        "agreement": {
            "difference": rounded(difference),
            "tolerance": tolerance,
            "agree": difference <= tolerance,
        },
        "floor": floor_of(bench, stage, ours.result, shipped),
        "peak_memory": peak_memory(device),
    }
    if arguments.levers:
        row["levers"] = levers_of(arguments, bench, stage, shipped)
    return row


def shipped_alone(arguments: argparse.Namespace, bench: Bench, counts: Sequence[int]) -> dict[str, Any]:
    """Errata alone for each number of facts, and a straight line through the last two for 10,000."""
    device, found = bench.model.device, []
    for count in sorted(counts):
        start_memory(device)
        stage = _stage(arguments, with_facts(bench, count))
        ran = repeat(stage.shipped, arguments.rounds, device)
        spent = ran.least / stage.units
        found.append(
            {
                "facts": count,
                "unit": stage.unit,
                "seconds": ran.least.to_json(),
                "shipped": spent.to_json(),
                "floor": floor_of(bench, stage, ran.result, spent),
                "peak_memory": peak_memory(device),
            }
        )
    return {"runs": found, "projection": projection(found)}


def projection(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds for 10,000 facts, if time goes on as it did between the last two numbers of facts."""
    last = runs[-1]
    before = runs[-2] if len(runs) > 1 else {"facts": 0, "seconds": {"wall": 0.0}}
    slope = (last["seconds"]["wall"] - before["seconds"]["wall"]) / (last["facts"] - before["facts"])
    seconds = last["seconds"]["wall"] + slope * (PROJECTED - last["facts"])
    return {"facts": PROJECTED, "seconds": rounded(seconds)}


def floor_of(bench: Bench, stage: Stage, result: object, spent: Spent) -> dict[str, Any]:
    """What the algorithm needs for one unit, and the fraction of that speed that was reached."""
    model, work = bench.model, stage.work(result)
    rates = Rates(Size.of(model), model.device, model.dtype)
    seconds = rates.seconds_for(work) / stage.units
    taken = spent.cpu if model.device.type == "cpu" else spent.wall
    return {
        "gflop": rounded(work.total / stage.units / 1e9),
        "seconds": rounded(seconds),
        "fraction": rounded(seconds / taken),
        "gflop_per_second": {kind: rounded(rate / 1e9) for kind, rate in rates.seconds.items()},
        "gflop_by_kind": {kind: rounded(getattr(work, kind) / stage.units / 1e9) for kind in rates.seconds},
    }


def levers_of(
    arguments: argparse.Namespace, bench: Bench, stage: Stage, shipped: Spent
) -> dict[str, dict[str, float]]:
    """Seconds for one unit with one lever changed, and how many times the shipped path's that is."""
    texts = _texts(arguments, bench)
    rows: dict[str, dict[str, float]] = {}
    for name, program in levers(arguments.stage, bench, texts).items():
        spent = repeat(program, arguments.rounds, bench.model.device).least / stage.units
        rows[name] = {**spent.to_json(), "times_shipped": rounded(spent.cpu / shipped.cpu)}
    return rows


def lines_of(row: dict[str, Any]) -> list[str]:
    """The row for people to read."""
    head = (
        f"{row['stage']}: {row['shape']}{' (tiny)' if row['tiny'] else ''}, {row['dtype']} on {row['device']}, "
        f"{row['threads']} thread(s), {row['facts']} fact(s), {row['steps']} steps"
    )
    if "runs" in row:
        lines = [
            f"{run['facts']:>6} facts: {run['shipped']['wall']} s a {run['unit']}, "
            f"{run['floor']['fraction']:.0%} of the floor's speed, peak {run['peak_memory'] / 2**20:.0f} MB"
            for run in row["runs"]
        ]
        return [head, *lines, f"projected for {PROJECTED} facts: {row['projection']['seconds']} s"]
    floor, agreement = row["floor"], row["agreement"]
    lines = [
        head,
        f"  shipped    {row['shipped']['cpu']} s CPU, {row['shipped']['wall']} s wall, a {row['unit']}",
        f"  published  {row['published']['cpu']} s CPU, {row['published']['wall']} s wall, a {row['unit']}",
        f"  ratio      {row['ratio']['cpu']} of CPU time, {row['ratio']['wall']} of wall time",
        f"  floor      {floor['seconds']} s ({floor['gflop']} GFLOP); {floor['fraction']:.0%} of its speed reached",
        f"  difference {agreement['difference']:.1e}, {'within' if agreement['agree'] else 'ABOVE'} "
        f"{agreement['tolerance']:.0e}",
    ]
    for name, lever in row.get("levers", {}).items():
        lines.append(f"  {name}: {lever['cpu']} s CPU, {lever['times_shipped']} times the shipped path's")
    return lines


def _by_round(ours: Measured[Any], theirs: Measured[Any], stage: Stage) -> list[float]:
    scale = stage.units / stage.published_units
    return [rounded(b.cpu / a.cpu * scale) for a, b in zip(ours.rounds, theirs.rounds, strict=True)]


def _bench(arguments: argparse.Namespace, facts: int) -> Bench:
    if arguments.model:
        return checkpoint_bench(arguments.model, arguments.method, facts, arguments.steps, arguments.data_dir)
    return make_bench(
        arguments.shape,
        arguments.tiny,
        facts,
        arguments.steps,
        arguments.device,
        arguments.dtype,
        arguments.data_dir,
    )


def _stage(arguments: argparse.Namespace, bench: Bench) -> Stage:
    texts = _texts(arguments, bench)
    return make_stage(arguments.stage, bench, texts, arguments.folder, arguments.published_facts)


def _texts(arguments: argparse.Namespace, bench: Bench) -> list[str]:
    if arguments.stage != "covariance":
        return []
    return make_texts(bench, arguments.data_dir, arguments.texts or (8 if bench.tiny else 100))


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("--facts", type=int, nargs="+", help="with --shipped-only, several numbers")
    parser.add_argument("--published-facts", type=int, default=0, help="the published way on fewer facts")
    parser.add_argument("--texts", type=int, default=0, help="texts for the covariance")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="a tiny model, as a trial")
    parser.add_argument("--shape", choices=SHAPES, default="gpt2-small")
    parser.add_argument("--model", type=Path, help="a checkpoint's folder instead of a shape (float32, CPU)")
    parser.add_argument("--method", choices=["pmet", "memit"], default="pmet", help="with --model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--shipped-only", action="store_true", help="Errata alone")
    parser.add_argument("--levers", action="store_true", help="each lever alone, too")
    parser.add_argument("--data-dir", type=Path, default=ROOT.parent / "shared")
    arguments = parser.parse_args(given)
    if not arguments.shipped_only:
        if arguments.facts and len(arguments.facts) > 1:
            parser.error("several numbers of facts go with --shipped-only")
        if arguments.dtype not in TOLERANCE:
            parser.error(f"without --shipped-only, --dtype is one of {', '.join(TOLERANCE)}")
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FileNotFoundError as error:
        sys.exit(str(error))
