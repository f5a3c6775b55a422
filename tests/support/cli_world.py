"""What the tests of the command line share: a runner, a tiny checkpoint with facts and second moments on disk."""

import atexit
import json
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from typer.testing import CliRunner, Result

from errata.cli.app import app
from errata.facts.fact import Fact
from errata.facts.probes import Probe
from errata.facts.reading import write_facts
from families import FACTS, SENTENCES, tiny_model

LAYERS = "1-2"
QUICK = (
    *("--method", "pmet"),
    *("--set", f"layers={LAYERS}", "--set", "values.steps=4", "--set", "solve.covariance_weight=20"),
)
"""The method and settings under which the tiny model is edited in a moment."""


@dataclass(frozen=True)
class World:
    """Paths of everything that a command needs."""

    root: Path
    model: str
    facts: Path
    moments: Path
    edit: Path


def run(*words: str | Path) -> Result:
    """`errata WORDS`, as if from a terminal of 100 columns."""
    runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"})
    return runner.invoke(app, [str(word) for word in words], prog_name="errata")


def flat(text: str) -> str:
    """The text as one line, without the frames of messages."""
    return " ".join(text.replace("│", " ").split())


def failed(*words: str | Path, code: int = 2) -> str:
    """The message of a command that must fail with this code, say nothing on stdout, and show no traceback."""
    done = run(*words)
    assert done.exit_code == code, done.output
    assert not done.stdout
    assert "Traceback" not in done.stderr
    return flat(done.stderr)


def answer(*words: str | Path) -> dict[str, object]:
    """What a command that must succeed says with --json: all of stdout."""
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    value: dict[str, object] = json.loads(done.stdout)
    return value


def edit(world: World, output: Path, *more: str | Path) -> tuple[str | Path, ...]:
    """The words of an edit of the tiny model."""
    known = ("--facts", world.facts, "--covariance", world.moments, "--output", output)
    return ("edit", world.model, *known, *QUICK, *more)


@cache
def the_world() -> World:
    """Write a tiny checkpoint and its facts; collect second moments and make an edit by the commands themselves.

    It is made once, and no test changes it.
    """
    root = Path(tempfile.mkdtemp(prefix="errata-cli-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    model, facts, corpus = root / "tiny", root / "facts.jsonl", root / "corpus.txt"
    world = World(root, str(model), facts, root / "moments", root / "edit")
    tiny = tiny_model("gpt2")
    tiny.model.save_pretrained(model)
    tiny.tokenizer.save_pretrained(model)
    write_facts(facts, [with_probes(fact) for fact in FACTS])
    corpus.write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    collect = (
        "covariance",
        "collect",
        model,
        "--layers",
        LAYERS,
        "--corpus",
        corpus,
        "--output",
        world.moments,
    )
    for words in (collect, edit(world, world.edit)):
        done = run(*words)
        assert done.exit_code == 0, done.output
    return world


def with_probes(fact: Fact) -> Fact:
    """The fact with a paraphrase and a neighbor, which every command can then ask."""
    return Fact(
        prompt=fact.prompt,
        subject=fact.subject,
        target_new=fact.target_new,
        target_true=fact.target_true,
        paraphrase_prompts=(f"I think. {fact.question}",),
        neighborhood_prompts=(
            Probe(fact.prompt.replace("{}", "Hale Corvin"), fact.target_true or "a lawyer"),
        ),
    )
