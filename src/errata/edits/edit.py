"""The Edit: what an edit changes, kept apart from the model it changes. Apply it, take it back, save it, load it.

On disk an edit is a folder: `edit.safetensors` with the changes, `edit.json` with everything about them. `edits.py`,
not `edit.py`: the public function is called `errata.edit` (docs/decisions).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, ClassVar, cast

import torch
from torch import Tensor

from errata.edits.checks import FactCheck
from errata.edits.deltas import Delta, Realized, check_finite, sites_of, write_deltas
from errata.edits.folder import ABOUT, WEIGHTS, own_file, read_deltas, read_json
from errata.errors import AlreadyApplied, EditError, ErrataError, NotApplied, WrongModel
from errata.facts import Fact
from errata.models import EditableModel
from errata.runtime import (
    Form,
    JsonMismatch,
    atomic_folder,
    disk_errors,
    from_json,
    to_json,
    write_json,
    write_tensors,
)

FORMAT = 1
"""The version of the folder's layout."""

LONGEST_REASON = 500


def _read_setting(value: object, name: str) -> object:
    """JSON has lists only; a setting of several values is a tuple."""
    members = cast("list[object]", value if isinstance(value, list) else [value])
    if value is not None and not all(isinstance(member, bool | int | float | str) for member in members):
        raise JsonMismatch(f"{name} must be a number, a text, true, false, null, or a list of those.")
    return tuple(members) if isinstance(value, list) else value


SettingValue = Annotated[
    bool | int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | None,
    Form(read=_read_setting),
]


@dataclass(frozen=True)
class Dropped:
    """A fact that was asked for and left out of the edit, and why."""

    JSON: ClassVar = Form(write=lambda dropped: {"reason": dropped.reason, "fact": to_json(dropped.fact)})

    fact: Fact
    reason: str


@dataclass(frozen=True)
class EditOrigin:
    """Where an edit comes from: everything that it takes to make it again, and to know where it belongs."""

    JSON: ClassVar = Form(exact=True)

    method: str
    settings: Mapping[str, SettingValue]
    contexts: tuple[str, ...]
    seed: int
    model: str
    revision: str | None
    fingerprint: str
    """Of the weights that the edit was made for."""
    model_dtype: str
    covariance: str
    """Which second moments were used."""
    preset: str
    versions: Mapping[str, str]
    created: str
    strategy: Mapping[str, SettingValue] = field(default_factory=dict[str, SettingValue])
    """How the method was repeated (`errata.strategies`); empty where it was run once on all facts."""


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of a few weight matrices that makes a model say new facts."""

    deltas: Mapping[str, Delta]
    """By module path."""
    facts: tuple[Fact, ...]
    origin: EditOrigin
    dropped: tuple[Dropped, ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict[str, float])
    """What was measured of it when it was made."""
    history: tuple[Mapping[str, SettingValue], ...] = ()
    """What was measured after each write of a strategy, oldest first."""
    realized: Mapping[str, Realized] = field(default_factory=dict[str, Realized])
    """By module path, where the method solves with a weight: what it amounts to; of several writes, the first."""
    checks: tuple[FactCheck, ...] = ()
    """What the edited model said to each fact, where the edit was checked when it was made."""

    def apply(self, model: EditableModel) -> None:
        """Write the edit into the model's weights; nothing is written if anything does not fit.

        Raises:
            AlreadyApplied: this edit is in the weights.
            WrongModel: it was made for other weights.
        """
        self._check(model)
        with model.ledger.entry(self):
            for path, delta in self.deltas.items():
                write_deltas(model, {path: delta})
                if not bool(model.site_at(path).weight.isfinite().all()):
                    raise EditError(
                        f"The edit makes {path} infinite or not a number in {model.dtype}; nothing written."
                    )

    def revert(self, model: EditableModel) -> None:
        """Put the weights back, bit for bit; an edit that was saved and loaded is still the same one.

        Raises:
            NotApplied: the edit is not in the model, or a later one lies on top of it.
        """
        applied = edits_in(model)
        if not any(_same_edit(edit, self) for edit in applied):
            raise NotApplied(
                f"This edit of {self.origin.model} is not applied to {model.name}; nothing to revert."
            )
        if not _same_edit(applied[-1], self):
            raise NotApplied("Another edit was applied after this one. Revert that one first.")
        model.ledger.take_back(applied[-1])

    @contextmanager
    def applied(self, model: EditableModel) -> Generator[EditableModel]:
        """`with edit.applied(model):` the edit is in the weights inside, and taken back whatever happens."""
        self.apply(model)
        try:
            yield model
        finally:
            self.revert(model)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the edit as a folder, all or nothing.

        Raises:
            EditError: a number of it is infinite or not a number.
            OutputExists: the folder is there already and not empty.
            OSError: it cannot be written, for example because the disk is full; nothing is left behind.
        """
        check_finite(self.deltas)
        tensors = {
            f"{path}.{name}": part
            for path, delta in self.deltas.items()
            for name, part in delta.tensors.items()
        }
        with disk_errors(f"The edit cannot be written to {folder}"), atomic_folder(folder) as aside:
            write_tensors(aside / WEIGHTS, tensors, {"errata_edit": str(FORMAT)})
            write_json(aside / ABOUT, self.about())

    def about(self) -> dict[str, object]:
        """Everything of the edit but its tensors, as `edit.json` holds it."""
        changes = {path: _Change(delta.shape, delta.rank) for path, delta in self.deltas.items()}
        contents = _Contents(
            changes, self.measured, self.history, self.facts, self.dropped, self.realized, self.checks
        )
        newer = {
            name for name in ("realized", "checks") if not getattr(self, name)
        }  # files without them stay as they were
        told = {name: value for name, value in to_json(contents).items() if name not in newer}
        return {"format": FORMAT, **to_json(self.origin), **told}

    def _check(self, model: EditableModel) -> None:
        if any(_same_edit(edit, self) for edit in edits_in(model)):
            raise AlreadyApplied(
                f"This edit is in the weights of {model.name} already. Revert it before applying again."
            )
        if self.origin.fingerprint not in (model.measure_fingerprint(), model.fingerprint):
            raise WrongModel(
                f"This edit was made for {self.origin.model} (fingerprint {self.origin.fingerprint[:12]}); "
                f"{model.name} has other weights. Load the model it was made for, or make the edit again."
            )
        sites_of(model, self.deltas)


@dataclass(frozen=True)
class _Change:
    """The size of one weight's change."""

    shape: tuple[int, ...]
    rank: int


@dataclass(frozen=True)
class _Contents:
    """What `edit.json` holds next to the edit's origin."""

    JSON: ClassVar = Form(exact=True, optional=("realized", "checks"))

    changes: Mapping[str, _Change]
    measured: Mapping[str, float]
    history: tuple[Mapping[str, SettingValue], ...]
    facts: tuple[Fact, ...]
    dropped: tuple[Dropped, ...]
    realized: Mapping[str, Realized] = field(default_factory=dict[str, Realized])
    checks: tuple[FactCheck, ...] = ()

    def as_edit(self, deltas: Mapping[str, Delta], origin: EditOrigin) -> Edit:
        """With the changes themselves, and where they come from."""
        return Edit(
            deltas, self.facts, origin, self.dropped, self.measured, self.history, self.realized, self.checks
        )


def edits_in(model: EditableModel) -> list[Edit]:
    """The edits that are in the model's weights now, oldest first."""
    return [owner for owner in model.ledger.owners if isinstance(owner, Edit)]


def _same_edit(one: Edit, other: Edit) -> bool:
    """Whether two edits change the same weights by the same amounts (one may have been saved and loaded)."""
    if one is other:
        return True
    if one.deltas.keys() != other.deltas.keys():
        return False
    for path, delta in one.deltas.items():
        mine, theirs = delta.tensors, other.deltas[path].tensors
        if mine.keys() != theirs.keys() or not all(_equal(mine[name], theirs[name]) for name in mine):
            return False
    return True


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers; one may be on another device, which `torch.equal` refuses."""
    return one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())


def load_edit(folder: str | os.PathLike[str]) -> Edit:
    """Read an edit that `Edit.save` wrote.

    Raises:
        EditError: the folder is not an edit, or a file of it is damaged or does not fit the other.
    """
    about_file, weights_file = (own_file(Path(folder), name) for name in (ABOUT, WEIGHTS))
    origin, contents = _read_about(about_file)
    shapes = {path: change.shape for path, change in contents.changes.items()}
    return contents.as_edit(read_deltas(weights_file, shapes), origin)


def edit_described(deltas: Mapping[str, Delta], file: Path) -> Edit:
    """An edit of these changes with everything else from an `edit.json`.

    Raises:
        EditError: the file is damaged.
    """
    origin, contents = _read_about(file)
    return contents.as_edit(deltas, origin)


def _read_about(file: Path) -> tuple[EditOrigin, _Contents]:
    about = read_json(file)
    if about.pop("format", None) != FORMAT:
        raise EditError(f"{file} is not an edit of format {FORMAT}, which this version of Errata reads.")
    origin = {field.name: about.pop(field.name) for field in fields(EditOrigin) if field.name in about}
    try:
        return from_json(EditOrigin, origin, "it"), from_json(_Contents, about, "it")
    except (ErrataError, ValueError) as error:
        why = str(error)[:LONGEST_REASON].rstrip(".")
        raise EditError(
            f"{file} is not as `errata edit` writes it: {why}. Copy or make the edit again."
        ) from error
