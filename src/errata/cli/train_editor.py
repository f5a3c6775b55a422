"""`errata train-editor`: MEND's editor for a model, trained once; `errata edit --method mend` then uses it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

import errata
from errata.cli import options
from errata.cli.inputs import check_output, load_model
from errata.cli.tables import counted, table
from errata.cli.terminal import Terminal, session
from errata.errors import FactError
from errata.runtime import duration
from errata.settings import parse_assignments

if TYPE_CHECKING:
    from errata.methods.mend import TrainedEditor

EPILOG = options.examples(
    "errata train-editor almanac --output my-editor",
    "errata train-editor my-org/my-model -f facts.jsonl -f more.jsonl --device cuda --output my-editor",
    "errata train-editor almanac --steps 500 --set kept=neighborhood,unrelated,same_subject --output my-editor",
    "errata edit my-org/my-model -f new.jsonl --method mend --set editor=my-editor --output my-edit",
)
OWN_FACTS = "development"
"""The half of the embedded model's world that its editor is trained on."""


def train_editor(
    model: options.Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="EDITOR",
            help="The folder to write: a new one. Until it is whole, EDITOR.partial beside it is what is done.",
        ),
    ],
    facts: Annotated[
        list[Path] | None,
        typer.Option(
            "--facts",
            "-f",
            metavar="FILE",
            help="Facts with paraphrases, and with neighborhood or unrelated prompts; may be given again. Default for "
            "almanac: the development half of its world.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the optimiser, at most. Default: as the settings say.")
    ] = None,
    settings: options.Settings = None,
    keep_every: Annotated[
        int, typer.Option(min=1, metavar="STEPS", help="How often what is done is kept.")
    ] = 50,
    dtype: options.Dtype = None,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Train the editor that `--method mend` needs for MODEL; killed at any moment, the same command goes on."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        check_output(output)
        given = parse_assignments(settings or [])
        if steps is not None:
            given["steps"] = steps
        training = _Training(*_facts(model, facts or []), output, given, seed, keep_every)
        loaded = load_model(terminal, model, dtype, device, device_map)
        trained = training.run(terminal, loaded)
        _report(terminal, trained, loaded, output)


def _facts(model: str, files: list[Path]) -> tuple[list[errata.Fact], str]:
    """The facts of all files, or the embedded model's own, and which they are in words."""
    if files:
        return [fact for file in files for fact in errata.read_facts(file)], ", ".join(
            file.name for file in files
        )
    from errata.models import ALMANAC

    if model != ALMANAC:
        raise FactError(
            f"There are no facts to train an editor for {model} on. Give files of facts with paraphrases and with "
            "neighborhood or unrelated prompts: --facts FILE."
        )
    from errata.almanac import training_facts

    return training_facts(OWN_FACTS), f"the {OWN_FACTS} half of {model}'s world"


@dataclass(frozen=True)
class _Training:
    """A training as the options ask for it."""

    facts: list[errata.Fact]
    source: str
    """Which facts these are, in words."""
    output: Path
    settings: dict[str, object]
    seed: int
    keep_every: int

    def run(self, terminal: Terminal, model: errata.EditableModel) -> TrainedEditor:
        """`train_editor` with progress; when it is stopped, the message says what is kept."""
        from errata.methods.mend import train_editor

        try:
            with terminal.progress(f"Training an editor for {model.name}") as on_progress:
                return train_editor(
                    model,
                    self.facts,
                    self.output,
                    self.settings,
                    self.seed,
                    source=self.source,
                    keep_every=self.keep_every,
                    on_progress=on_progress,
                )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"{self.output} was not written. What is done is kept in {self.output}.partial every {self.keep_every} "
                "steps: the same command goes on from there."
            ) from None


def _report(terminal: Terminal, trained: TrainedEditor, model: errata.EditableModel, output: Path) -> None:
    """Print how the training went, and what can be done next."""
    record = trained.origin.training
    first, best = record["first"], record["best"]
    early = ", where its loss on facts held back had ceased to fall" if record["stopped_early"] else ""
    terminal.show(
        Text.assemble(
            f"An editor for {model.name} was trained on {counted(record['trained_on'], 'fact')}: "
            f"{counted(record['steps'], 'step')}{early}, in {duration(record['seconds'])}. The editor is in ",
            (f"{output}.", "bold"),
        )
    )
    made = table("On facts held back", ">Before the training", f">After {counted(best['step'], 'step')}")
    for name, words in (
        ("nll", "Surprisal of the target behind paraphrases, nats a token"),
        ("kl", "Change of other answers (KL), nats"),
        ("loss", "Loss"),
    ):
        made.add_row(words, f"{first[name]:.4f}", f"{best[name]:.4f}")
    terminal.show(made)
    terminal.result(
        {
            "editor": str(output),
            "model": model.name,
            "settings": trained.origin.settings,
            "seed": trained.origin.seed,
            "source": trained.origin.facts,
            "training": record,
        }
    )
    terminal.note(
        f"To use it: errata edit {model.name} --facts FILE --method mend --set editor={output} --output EDIT"
    )
