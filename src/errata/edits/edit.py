"""The Edit: what an edit changes, kept apart from the model it changes. Apply it, take it back, save it, load it.

On disk an edit is a folder: `edit.safetensors` with the changes, `edit.json` with everything about them. `edits.py`,
not `edit.py`: the public function is called `errata.edit` (docs/decisions).
"""

import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from errata.edits.deltas import Delta, check_finite, sites_of, write_deltas
from errata.edits.folder import ABOUT, WEIGHTS, own_file, read_deltas, read_json
from errata.errors import AlreadyApplied, EditError, ErrataError, NotApplied, OutputExists, WrongModel
from errata.facts import Fact, fact_from_json, kind, short
from errata.models import EditableModel
from errata.runtime import atomic_folder, write_json

FORMAT = 1
"""The version of the folder's layout."""

SettingValue = bool | int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | None


@dataclass(frozen=True)
class Dropped:
    """A fact that was asked for and left out of the edit, and why."""

    fact: Fact
    reason: str


@dataclass(frozen=True)
class EditOrigin:
    """Where an edit comes from: everything that it takes to make it again, and to know where it belongs."""

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
            f"{path}.{name}": part.cpu().contiguous()
            for path, delta in self.deltas.items()
            for name, part in delta.tensors.items()
        }
        try:
            with atomic_folder(folder) as aside:
                # One entry alone: several are written in any order, and equal edits would be unequal files.
                save_file(tensors, aside / WEIGHTS, metadata={"errata_edit": str(FORMAT)})
                (aside / WEIGHTS).chmod(0o644)  # safetensors writes for its owner alone
                write_json(aside / ABOUT, self.about())
        except OutputExists:
            raise
        except (SafetensorError, OSError) as error:
            raise OSError(
                f"The edit cannot be written to {folder}: {error}. Is the disk full, or write-protected?"
            ) from error

    def about(self) -> dict[str, object]:
        """Everything of the edit but its tensors, as `edit.json` holds it."""
        return {
            "format": FORMAT,
            **asdict(self.origin),
            "changes": {
                path: {"shape": delta.shape, "rank": delta.rank} for path, delta in self.deltas.items()
            },
            "measured": dict(self.measured),
            "history": [dict(write) for write in self.history],
            "facts": [fact.to_json() for fact in self.facts],
            "dropped": [
                {"reason": dropped.reason, "fact": dropped.fact.to_json()} for dropped in self.dropped
            ],
        }

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
    about = _read_about(about_file)
    try:
        shapes = {path: tuple(change["shape"]) for path, change in about.pop("changes").items()}
        deltas = read_deltas(weights_file, shapes)
    except EditError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise EditError(_unlike(about_file, str(error)[:LONGEST_REASON])) from error
    return _edit_of(deltas, about, about_file)


def edit_described(deltas: Mapping[str, Delta], file: Path) -> Edit:
    """An edit of these changes with everything else from an `edit.json`.

    Raises:
        EditError: the file is damaged.
    """
    about = _read_about(file)
    del about["changes"]
    return _edit_of(deltas, about, file)


def _read_about(file: Path) -> dict[str, Any]:
    """All of `edit.json` but its format, each field of the right kind."""
    about = read_json(file)
    if about.pop("format", None) != FORMAT:
        raise EditError(f"{file} is not an edit of format {FORMAT}, which this version of Errata reads.")
    _check_about(about, file)
    return about


def _edit_of(deltas: Mapping[str, Delta], about: dict[str, Any], about_file: Path) -> Edit:
    """The edit from what is left of `edit.json` once its changes are read."""
    try:
        facts = tuple(fact_from_json(row) for row in about.pop("facts"))
        dropped = tuple(
            Dropped(fact_from_json(row["fact"]), str(row["reason"])) for row in about.pop("dropped")
        )
        measured = about.pop("measured")
        history = tuple(
            {name: _setting(value) for name, value in write.items()} for write in about.pop("history")
        )
        contexts = tuple(about.pop("contexts"))
        settings, strategy = (
            {name: _setting(value) for name, value in about.pop(group).items()}
            for group in ("settings", "strategy")
        )
        origin = EditOrigin(contexts=contexts, settings=settings, strategy=strategy, **about)
    except (ErrataError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise EditError(_unlike(about_file, str(error)[:LONGEST_REASON])) from error
    return Edit(deltas, facts, origin, dropped, measured, history)


FIELDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("changes", "settings", "strategy", "measured", "versions"), (dict,)),
    **dict.fromkeys(("facts", "dropped", "contexts", "history"), (list,)),
    **dict.fromkeys(
        ("method", "model", "fingerprint", "model_dtype", "covariance", "preset", "created"), (str,)
    ),
    "revision": (str, type(None)),
    "seed": (int,),
}
"""What `edit.json` holds besides its format."""
LONGEST_REASON = 500
SETTING = (bool, int, float, str, list, type(None))
MEMBERS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("settings", "strategy"), SETTING),
    **dict.fromkeys(("changes", "facts", "dropped", "history"), (dict,)),
    **dict.fromkeys(("versions", "contexts"), (str,)),
    "measured": (int, float),
}
"""What the members of those fields are."""


def _check_about(about: Mapping[str, object], file: Path) -> None:
    for name, kinds in FIELDS.items():
        if name not in about:
            raise EditError(_unlike(file, f"it has no {name!r}"))
        _check_kind(about[name], kinds, name, file)
    for name in about:
        if name not in FIELDS:
            raise EditError(
                _unlike(file, f"it has {short(name)}, which this version of Errata does not know")
            )
    for name, kinds in MEMBERS.items():
        for member in _members(about[name]):
            _check_kind(member, kinds, f"a member of {name}", file)
    for write in cast("list[object]", about["history"]):
        for value in _members(write):
            _check_kind(value, SETTING, "a member of history's members", file)


def _members(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value)


def _check_kind(value: object, kinds: tuple[type, ...], name: str, file: Path) -> None:
    if not isinstance(value, kinds):
        raise EditError(_unlike(file, f"{name} is {kind(value)}"))
    if isinstance(value, list) and kinds is SETTING and not all(map(_is_scalar, cast("list[object]", value))):
        raise EditError(_unlike(file, f"{name} has lists or objects inside a list"))


def _is_scalar(value: object) -> bool:
    return isinstance(value, bool | int | float | str)


def _unlike(file: Path, why: str) -> str:
    return f"{file} is not as `errata edit` writes it: {why}. Copy or make the edit again."


def _setting(value: SettingValue | list[int] | list[float] | list[str]) -> SettingValue:
    """JSON has lists only; a setting of several values is a tuple."""
    return cast(SettingValue, tuple(value)) if isinstance(value, list) else value
