"""Peak memory against the number of facts: `python benchmarks/memory.py [--shape small|gpt2]`.

Every row is a process of its own: a random model in GPT-2's form and as many facts about invented people, whose values
are random too. "before" is what the process takes when model, facts and values are there, "peak" the most it ever
took. `spread` runs the stage alone; `edit` a whole run of a method that is given all values.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from errata.facts import Fact
from errata.methods import SiteSettings, settings_for
from errata.models import EditableModel, Site, from_parts
from errata.moments import write_moment
from errata.planning import EditRequest, prepare
from errata.solve import (
    KeyPrompts,
    KeySettings,
    LeastSquaresSettings,
    SpreadSettings,
    Write,
    least_squares,
    spread,
)
from errata.values import Outcome, Trace

SHAPES = {
    "tiny": {"n_embd": 64, "n_layer": 4, "n_head": 4},
    "small": {"n_embd": 256, "n_layer": 6, "n_head": 8},
    "gpt2": {"n_embd": 768, "n_layer": 12, "n_head": 12},
}
LAYERS = {"tiny": (1, 2), "small": (1, 2, 3), "gpt2": (3, 4, 5, 6, 7)}
TEMPLATES = (
    "{} was born in",
    "The mother tongue of {} is",
    "{} plays the",
    "The profession of {} is",
    "In the city of {}, people",
)
NAMES = ("Orin", "Mira", "Jonas", "Edda", "Hale", "Ansel", "Tova", "Ludo", "Petra", "Silas")
SURNAMES = ("Vasker", "Tolland", "Whitlock", "Rowe", "Corvin", "Marsh", "Quill", "Sedley", "Thorne", "Wren")
CONTEXTS = (
    "",
    "The river is wide and old.",
    "Therefore, we went home at noon.",
    "Because it rained, they all left.",
    "I think that you should wait.",
    "You can see it from here.",
)


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", nargs="+", type=int, default=[100, 1000, 10000])
    parser.add_argument("--stages", nargs="+", choices=["spread", "edit"], default=["spread", "edit"])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="small")
    parser.add_argument("--tokenizer", default="gpt2", help="a folder or name of GPT-2's tokenizer")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(
            json.dumps(
                child(arguments.child[0], int(arguments.child[1]), arguments.shape, arguments.tokenizer)
            )
        )
        return
    print("| stage | facts | before, MB | peak, MB | more, MB | CPU time, s |\n|---|---|---|---|---|---|")
    for stage in arguments.stages:
        for count in arguments.facts:
            command = [
                sys.executable,
                __file__,
                "--shape",
                arguments.shape,
                "--tokenizer",
                arguments.tokenizer,
            ]
            done = subprocess.run(
                [*command, "--child", stage, str(count)], stdout=subprocess.PIPE, check=True, text=True
            )
            row = json.loads(done.stdout)
            more = row["peak"] - row["before"]
            print(
                f"| {stage} | {count} | {row['before']:.0f} | {row['peak']:.0f} | {more:.0f} | {row['seconds']:.0f} |",
                flush=True,
            )


def child(stage: str, count: int, shape: str, tokenizer: str) -> dict[str, float]:
    """One run in this process: its memory in MB before and at the most, and its CPU time in seconds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = from_parts(
        GPT2LMHeadModel(GPT2Config(**SHAPES[shape])).eval(), AutoTokenizer.from_pretrained(tokenizer), shape
    )
    facts = invented(count)
    values = torch.randn(count, model.site("ffn", 0).d_out)
    with tempfile.TemporaryDirectory() as folder:
        for layer in LAYERS[shape]:
            site = model.site("ffn", layer)
            write_moment(folder, model, site, moment_of(site), 10 * site.d_in, {})
        run = run_spread if stage == "spread" else run_edit
        before, start = resident(), time.process_time()
        run(model, facts, values, LAYERS[shape], Path(folder))
        seconds = time.process_time() - start
    return {
        "before": before,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "seconds": seconds,
    }


def run_spread(
    model: EditableModel, facts: list[Fact], values: torch.Tensor, layers: tuple[int, ...], folder: Path
) -> None:
    """The Spread stage alone."""
    settings = SiteSettings(
        layers=layers,
        values=settings_for(model, "pmet", {})[0].values,
        keys=KeySettings(average="half"),
        spread=SpreadSettings(share="sqrt", write=("ffn",)),
        solve=LeastSquaresSettings(covariance_weight=1000.0),
    )
    writes = [Write("ffn", model.site("ffn", layers[-1]).path, values)]
    prompts = KeyPrompts.of(model, facts, CONTEXTS)
    spread(model, settings, writes, prompts, least_squares(moment_of, 1000.0))


def run_edit(
    model: EditableModel, facts: list[Fact], values: torch.Tensor, layers: tuple[int, ...], folder: Path
) -> None:
    """A whole run of PMET that has all values."""
    settings = {"layers": list(layers), "solve.covariance_weight": 1000.0}
    request = EditRequest(
        facts, "pmet", settings, contexts=CONTEXTS, covariance=folder, preset="llama-2-iterative"
    )
    run = prepare(model, request).settle().stages
    nothing = torch.zeros_like(values[0])
    known = {
        index: Outcome(
            {"attention": nothing, "ffn": value}, {"attention": nothing, "ffn": nothing}, Trace(stop="loss")
        )
        for index, value in enumerate(values)
    }
    run.as_edit(facts, run.changes(facts, known))


def moment_of(site: Site) -> torch.Tensor:
    """A well-conditioned E[k k^T] that takes no memory of its own to make."""
    generator = torch.Generator().manual_seed(site.layer)
    keys = torch.randn(site.d_in // 4, site.d_in, generator=generator, dtype=torch.float64)
    moment = keys.T @ keys / len(keys)
    moment.diagonal().add_(1)
    return moment


def invented(count: int) -> list[Fact]:
    """Facts about different people."""
    draw = random.Random(0)
    people = [f"{draw.choice(NAMES)} {draw.choice(SURNAMES)} {number}" for number in range(count)]
    return [
        Fact(TEMPLATES[number % len(TEMPLATES)], person, "violin", "harp")
        for number, person in enumerate(people)
    ]


def resident() -> float:
    """What the process takes now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
