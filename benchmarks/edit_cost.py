"""Time and peak memory of `errata edit almanac`, start of Python included: `python benchmarks/edit_cost.py`.

Each run is a process of its own with an empty cache, so that the second moments are measured anew each time.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from errata.almanac import world_facts
from errata.facts import write_facts


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", nargs="+", type=int, default=[1, 10, 100, 1000])
    parser.add_argument("--methods", nargs="+", default=["pmet", "memit"])
    arguments = parser.parse_args()
    print("| method | facts | wall time, s | CPU time, s | peak memory, MB |\n|---|---|---|---|---|")
    for method in arguments.methods:
        for edits in arguments.edits:
            print(run(method, edits), flush=True)


def run(method: str, edits: int) -> str:
    """One row: wall clock, and what the system counted for the process."""
    with tempfile.TemporaryDirectory() as folder:
        facts = Path(folder) / "facts.jsonl"
        write_facts(facts, world_facts("held-out", edits))
        command = [
            str(Path(sys.executable).parent / "errata"),
            "edit",
            "almanac",
            "--facts",
            str(facts),
            "--method",
        ]
        command += [method, "--output", str(Path(folder) / "edit"), "--quiet"]
        environment = {**os.environ, "ERRATA_CACHE": str(Path(folder) / "cache")}
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
    if status != 0:
        raise SystemExit(f"errata edit ended with status {status}")
    cpu = usage.ru_utime + usage.ru_stime
    return f"| {method} | {edits} | {wall:.1f} | {cpu:.1f} | {usage.ru_maxrss / 1024:.0f} |"


if __name__ == "__main__":
    main()
