"""`errata apply`: a model and an edit in, a full checkpoint out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import errata
from errata.cli import options
from errata.cli.inputs import check_output, load_model, read_edit
from errata.cli.tables import counted
from errata.cli.terminal import Terminal, session
from errata.runtime import atomic_folder, write_json

WORTH_TELLING = 0.001
EPILOG = options.examples("errata apply almanac my-edit --output my-model")


def apply(
    model: options.Model,
    edit: options.EditFolder,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write: a new one.")
    ],
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Write MODEL with EDIT in its weights as a full checkpoint, which transformers loads like any other.

    The weights keep the dtype of MODEL's checkpoint.
    """
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        check_output(output)
        found = read_edit(edit)
        loaded = load_model(terminal, model, None, None, None)
        rounding = _write(loaded, found, output)
        _report(terminal, loaded, found, rounding, output)


def _write(model: errata.EditableModel, edit: errata.Edit, output: Path) -> float:
    """Write the checkpoint; returns how far rounding to its dtype moves the change, relative to its norm.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    from safetensors import SafetensorError

    from errata.cli.changes import apply_and_compare, to_own_dtype
    from errata.edits import ABOUT

    to_own_dtype(model)
    rounding = apply_and_compare(model, edit)
    try:
        with atomic_folder(output) as aside:
            model.model.save_pretrained(aside)
            model.tokenizer.save_pretrained(aside)
            write_json(aside / ABOUT, edit.about())
    except (SafetensorError, OSError) as error:
        raise OSError(
            f"The model cannot be written to {output}: {error}. Is the disk full, or write-protected?"
        ) from error
    return rounding


def _report(
    terminal: Terminal, model: errata.EditableModel, edit: errata.Edit, rounding: float, output: Path
) -> None:
    dtype = str(model.dtype).removeprefix("torch.")
    coarse = (
        f" Rounding to it moves the change by {rounding:.1%} of its norm." if rounding > WORTH_TELLING else ""
    )
    terminal.show(
        Text.assemble(
            (str(output), "bold"),
            f" is {model.name} with {counted(len(edit.facts), 'fact')} written: a full checkpoint "
            f"in {dtype}, the dtype of the original.{coarse}",
        )
    )
    terminal.result(
        {
            "output": str(output),
            "model": model.name,
            "dtype": dtype,
            "facts": len(edit.facts),
            "rounding": rounding,
        }
    )
    terminal.note(f'In Python: AutoModelForCausalLM.from_pretrained("{output}")')
