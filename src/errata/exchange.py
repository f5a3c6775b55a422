"""Edits for programs that know nothing of Errata, and adapters of PEFT taken in as edits."""

import datetime
import os
from importlib.metadata import version
from pathlib import Path

from errata.adapters import read_adapter, sites_of, write_diff
from errata.cards import ABOUT, exported
from errata.deltas import check_finite
from errata.edits import Edit, EditOrigin, edit_described
from errata.errors import WrongModel
from errata.loading import load_without_weights
from errata.model import EditableModel


def to_weights(edit: Edit, folder: str | os.PathLike[str], model: EditableModel | None = None) -> None:
    """Write an edit as plain differences: one tensor a parameter, in the parameter's own name and shape.

    `model` tells how parameters are stored; by default the configuration of `edit.origin.model` does.

    Raises:
        EditError: a number of it is infinite or not a number.
        WrongModel: the model lacks a weight that is changed.
        OutputExists: the folder is there already and not empty.
    """
    check_finite(edit.deltas)
    sites = sites_of(model or load_without_weights(edit.origin.model), edit.deltas)
    with exported(folder, edit.card, edit.about(), "safetensors") as aside:
        write_diff(aside, edit.deltas, sites)


def from_peft(folder: str | os.PathLike[str], model: EditableModel) -> Edit:
    """The edit that a LoRA adapter is; one that Errata exported brings its facts and settings along.

    An adapter does not say which weights it was made for: for one that Errata did not export, `model` is taken to be
    the right one.

    Raises:
        EditError: no adapter, a damaged one, or one that is more than a plain LoRA of linear maps.
        WrongModel: it changes weights that the model does not have, or was exported from an edit of other weights.
        MissingExtra: PEFT is not installed.
    """
    deltas = read_adapter(Path(folder))
    sites_of(model, deltas)
    about = Path(folder) / ABOUT
    if about.is_file():
        found = edit_described(deltas, about)
        if found.origin.fingerprint != model.fingerprint:
            raise WrongModel(
                f"The adapter in {folder} was made for {found.origin.model} (fingerprint "
                f"{found.origin.fingerprint[:12]}); {model.name} has other weights. Load the model it was made for."
            )
        return found
    origin = EditOrigin(
        method="peft",
        settings={},
        contexts=(),
        seed=0,
        model=model.name,
        revision=model.revision,
        fingerprint=model.fingerprint,
        model_dtype=str(model.dtype).removeprefix("torch."),
        covariance="",
        preset=f"an adapter ({Path(folder).name})",
        versions={name: version(name) for name in ("errata", "peft", "torch")},
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
    return Edit(deltas, (), origin)
