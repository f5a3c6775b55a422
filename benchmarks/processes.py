"""One edit by 1, 2 and 4 processes: `python benchmarks/processes.py [--facts 20] [--processes 1 2 4]`.

Each run is `torchrun --nproc-per-node N -m errata edit almanac --method pmet ... --evaluate` from the start, with a
cache of its own but the same second moments. Told are the seconds on the clock and of all processors, and what differs
from the first run: of the edit the largest element of a change, relative to the largest that the first run has, and of
the evaluation the largest log probability. Times include starting Python and loading the model, once in every process.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import errata
from errata.almanac import world_facts
from errata.results import FILE


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=20)
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument(
        "--covariance", help="second moments of Almanac; default: the cache's, or measured now"
    )
    arguments = parser.parse_args()
    print("| processes | clock, s | edit alone, s | processors, s | edit differs by | log P differs by |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        errata.write_facts(folder / "facts.jsonl", world_facts("held-out", arguments.facts))
        moments = arguments.covariance or str(_moments())
        for count in arguments.processes:
            clock, processors = run(folder, count, arguments.dtype, moments)
            found = errata.load_edit(folder / str(count))
            alone = found.measured["seconds"]
            told = differences(folder / str(arguments.processes[0]), folder / str(count))
            row = (
                f"| {count} | {clock:.1f} | {alone:.1f} | {processors:.1f} | {told[0]:.1e} | {told[1]:.1e} |"
            )
            print(row, flush=True)


def run(folder: Path, count: int, dtype: str, moments: str) -> tuple[float, float]:
    """One run: its seconds on the clock, and of all processors."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ERRATA_CACHE": str(folder / f"cache-{count}")}
    edit = ["edit", "almanac", "--method", "pmet", "--facts", str(folder / "facts.jsonl")]
    edit += ["--output", str(folder / str(count))]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(count),
        "-m",
        "errata",
        *edit,
    ]
    begun, before = time.monotonic(), _processor_seconds()
    subprocess.run(
        [*command, "--covariance", moments, "--dtype", dtype, "--evaluate", "--quiet"],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.monotonic() - begun, _processor_seconds() - before


def differences(one: Path, other: Path) -> tuple[float, float]:
    """The largest relative difference of a change, and the largest of a log probability."""
    first, second = errata.load_edit(one).deltas, errata.load_edit(other).deltas
    changes = [
        float((first[path].matrix - second[path].matrix).abs().max() / first[path].matrix.abs().max())
        for path in first
    ]
    values, others = _said(one), _said(other)
    return max(changes), max(abs(a - b) for a, b in zip(values, others, strict=True))


def _said(edit: Path) -> list[float]:
    """Every log probability of the results that lie in the folder of an edit."""
    lines = (edit / FILE).read_text(encoding="utf-8").splitlines()
    return [value for line in lines for value in _log_probabilities(json.loads(line))]


def _log_probabilities(part: object) -> list[float]:
    """Every log probability of a file of results, in its order."""
    if isinstance(part, list):
        return [value for each in part for value in _log_probabilities(each)]
    if not isinstance(part, dict):
        return []
    own = [value for value in part.get("log_probabilities", []) if value is not None]
    return own + [value for each in part.values() for value in _log_probabilities(each)]


def _moments() -> Path:
    from errata.methods import settings_for
    from errata.moments import default_recipe, ensure

    model = errata.load("almanac")
    layers = settings_for(model, "pmet", {})[0].layers
    return ensure(model, [model.site("ffn", layer) for layer in layers], default_recipe(model))


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
