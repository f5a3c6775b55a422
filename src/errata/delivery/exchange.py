"""Edits for programs that know nothing of Errata, and adapters of PEFT taken in as edits."""

import datetime
import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from errata.delivery.adapters import Cut, check_peft, cut, cut_notes, read_adapter, write_adapter, write_diff
from errata.delivery.cards import ABOUT, Card, exported
from errata.edits import Edit, EditOrigin, check_finite, edit_described, sites_of
from errata.errors import WrongModel
from errata.models import EditableModel, load_without_weights


def to_peft(
    edit: Edit,
    folder: str | os.PathLike[str],
    model: EditableModel | None = None,
    rank: int | None = None,
    measured: Mapping[str, float] | None = None,
) -> dict[str, Cut]:
    """Write an edit as a LoRA adapter that `peft.PeftModel.from_pretrained` loads; returns the factors of each weight.

    It is exact, or of at most `rank` directions a weight; a dense change is stored as it is. `model` tells which maps
    there are; by default the configuration of `edit.origin.model` does. `measured` are the scores of the adapter, for
    its card; by default those of the edit, where nothing of it is lost.

    Raises:
        EditError: a change is of something other than a linear map, or not finite.
        WrongModel: the model lacks a weight that is changed.
        MissingExtra: PEFT is not installed.
        OutputExists: the folder is there already and not empty.
    """
    check_peft()
    sites = sites_of(model or load_without_weights(edit.origin.model), edit.deltas)
    check_finite(edit.deltas)
    cuts = {path: cut(delta, rank) for path, delta in edit.deltas.items()}
    lossy = any(one.lost for one in cuts.values())
    shown = replace(edit, measured=measured if measured is not None else {} if lossy else edit.measured)
    with exported(folder, card_of(shown), shown.about(), "peft", cut_notes(cuts)) as aside:
        write_adapter(aside, cuts, sites, edit.origin.model, _hub_revision(edit.origin.revision))
    return cuts


def _hub_revision(revision: str | None) -> str | None:
    """What PEFT may ask the hub for: the digest of a file is nothing to the hub."""
    return None if revision is None or revision.startswith("sha256:") else revision


def card_of(edit: Edit) -> Card:
    """What the README of an exported edit says."""
    origin = edit.origin
    source = (origin.model, origin.revision, origin.fingerprint, origin.method, origin.created)
    return Card(*source, edit.facts, edit.measured)


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
    with exported(folder, card_of(edit), edit.about(), "safetensors") as aside:
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
