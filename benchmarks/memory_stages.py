"""Computed memory against measured: `python benchmarks/memory_stages.py --tokenizer FOLDER`.

A model in GPT-2 small's form with random weights. Every stage runs in a process of its own; "measured" is the most that
the process ever took (peak RSS) less what it took when the model was there, "computed" is `errata.sizes`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from memory import CONTEXTS, SHAPES, invented, moment_of
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from errata.methods import settings_for
from errata.models import EditableModel, from_parts
from errata.moments import collect, write_moment
from errata.planning import PROGRAM, EditRequest, needs_of, prepare, shape_of
from errata.values import Outcome, Trace, optimize_targets

STAGES = ("program and weights", "collecting", "optimising", "spreading")
TEXTS = 4


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", default="gpt2", help="a folder or name of GPT-2's tokenizer")
    parser.add_argument("--facts", type=int, default=10)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="gpt2")
    parser.add_argument("--child", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments)))
        return
    shape = shape_of("gpt2-shape", GPT2Config(**SHAPES[arguments.shape]))
    needs = needs_of(shape, torch.float32, arguments.facts)
    computed = dict(
        zip(STAGES, (PROGRAM + needs.weights, *map(needs.__getattribute__, STAGES[1:])), strict=True)
    )
    print("| stage | computed, MB | measured, MB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for stage in STAGES:
            command = [sys.executable, *sys.argv, "--child", stage, "--folder", folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            print(
                f"| {stage} | {computed[stage] / 1e6:.0f} | {json.loads(done.stdout) / 1e6:.0f} |", flush=True
            )


def child(arguments: argparse.Namespace) -> float:
    """Run one stage in this process: the bytes that it took on top of program and weights."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    os.environ["ERRATA_CACHE"] = str(arguments.folder / "cache")
    model = from_parts(
        GPT2LMHeadModel(GPT2Config(**SHAPES[arguments.shape])).eval(),
        AutoTokenizer.from_pretrained(arguments.tokenizer),
        "gpt2-shape",
    )
    before = _resident()
    if arguments.child == "program and weights":
        return before
    run(arguments.child, model, arguments.facts, arguments.folder)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def run(stage: str, model: EditableModel, count: int, folder: Path) -> None:
    """One stage of PMET, as `errata edit` runs it."""
    facts = invented(count)
    layers = settings_for(model, "pmet", {})[0].layers
    moments = folder / "moments"
    if stage == "collecting":
        sites = [model.site("ffn", layer) for layer in layers]
        said = [fact.question + "." for fact in invented(60 * TEXTS)]
        texts = [" ".join(said[start : start + 60]) for start in range(0, len(said), 60)]
        collect(model, sites, texts, folder=moments, corpus="invented", samples=TEXTS)
        return
    settings = {"values.steps": 2, "solve.covariance_ridge": 0.1}
    if stage == "optimising":
        optimize_targets(model, facts, CONTEXTS, settings_for(model, "pmet", settings)[0])
        return
    for layer in layers:
        site = model.site("ffn", layer)
        write_moment(moments, model, site, moment_of(site), 10 * site.d_in, {})
    request = EditRequest(facts, "pmet", settings, contexts=CONTEXTS, covariance=moments)
    run = prepare(model, request).settle().stages
    value = torch.randn(count, model.site("ffn", 0).d_out)
    known = {
        index: Outcome(
            {"attention": one, "ffn": one}, {"attention": one * 0, "ffn": one * 0}, Trace(stop="loss")
        )
        for index, one in enumerate(value)
    }
    run.as_edit(facts, run.changes(facts, known))


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
