"""A stack: edits of one base model, in order and named, each of which can be taken out again.

On disk a folder: `stack.json` says which edits there are and in which order, `edits/NAME/` holds each. The index is
written aside and renamed, after the edit is there and before it goes: a folder that the index lacks is left over from
a run that was killed, and does not count.

"""

import json
import os
import re
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from errata.edits.deltas import sum_deltas
from errata.edits.edit import Edit, SettingValue, load_edit
from errata.errors import EditError, FactError, SettingsError, WrongModel
from errata.facts import Contradiction, Fact, contradictions
from errata.models import EditableModel
from errata.runtime import atomic_file, from_json, object_of, to_json, write_json

INDEX, EDITS, FORMAT = "stack.json", "edits", 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Entry:
    """An edit of a stack."""

    name: str
    facts: int
    method: str
    created: str
    on_top_of: tuple[str, ...] = ()
    """The edits that were in the weights while this one was made."""


@dataclass(frozen=True)
class _Index:
    """What `stack.json` holds."""

    format: int
    model: str
    revision: str | None
    fingerprint: str
    edits: tuple[Entry, ...]


@dataclass(frozen=True)
class Stack:
    """A stack as its folder holds it now; adding and removing give the next one."""

    folder: Path
    model: str
    revision: str | None
    fingerprint: str
    """Of the base model."""
    entries: tuple[Entry, ...] = ()

    def edit(self, name: str) -> Edit:
        """The edit of that name.

        Raises:
            SettingsError: there is none.
            EditError: its folder is damaged.
        """
        if name not in self.names:
            known = ", ".join(self.names) or "none"
            raise SettingsError(f"{self.folder} has no edit {name!r}. It has: {known}.")
        return load_edit(self.folder / EDITS / name)

    @property
    def names(self) -> tuple[str, ...]:
        """Of its edits, oldest first."""
        return tuple(entry.name for entry in self.entries)

    def edits(self) -> dict[str, Edit]:
        """All edits by name, oldest first."""
        return {name: self.edit(name) for name in self.names}

    def check_name(self, name: str) -> None:
        """Raise unless an edit of that name can be added.

        Raises:
            SettingsError: the name is taken, or is no plain word.
        """
        if not NAME.fullmatch(name):
            raise SettingsError(
                f"An edit cannot be called {name!r}. Take letters, digits, '-', '_' and '.', up to 64."
            )
        if name in self.names:
            raise SettingsError(f"{self.folder} has an edit {name!r} already. Take another name.")

    def conflicts(self, facts: Sequence[Fact]) -> list[Contradiction]:
        """The facts that contradict one of the stack's; `earlier_source` is the name of the edit that has it."""
        known = [(name, fact) for name, edit in self.edits().items() for fact in edit.facts]
        return [conflict for conflict in contradictions(facts, known) if conflict.known]

    def check_facts(self, facts: Sequence[Fact]) -> None:
        """Raise where facts contradict those of the stack.

        Raises:
            FactError: naming the first few.
        """
        conflicts = self.conflicts(facts)
        if conflicts:
            listed = "; ".join(
                str(replace(one, earlier_source=f"edit {one.earlier_source!r}")) for one in conflicts[:3]
            )
            more = f"; and {len(conflicts) - 3} more" if len(conflicts) > 3 else ""
            raise FactError(
                f"{len(conflicts)} of the facts contradict edits of {self.folder}: {listed}{more}. Leave them out, or "
                f"take the earlier edit out first: errata stack remove {self.folder} {conflicts[0].earlier_source}"
            )

    def add(self, name: str, edit: Edit, on_top_of: Sequence[str] = ()) -> "Stack":
        """Put an edit of the base model on top; nothing is written if anything does not fit.

        Raises:
            SettingsError: the name cannot be used.
            FactError: its facts contradict an earlier edit's.
            WrongModel: it was made for other weights.
        """
        self.check_name(name)
        if edit.origin.fingerprint != self.fingerprint:
            raise WrongModel(
                f"{name} was made for {edit.origin.model} (fingerprint {edit.origin.fingerprint[:12]}), and "
                f"{self.folder} is a stack on {self.model} ({self.fingerprint[:12]}). Make it for the stack's model."
            )
        self.check_facts(edit.facts)
        place = self.folder / EDITS / name
        if place.exists():
            shutil.rmtree(place)  # the index lacks it: of a run that was killed
        edit.save(place)
        entry = Entry(name, len(edit.facts), edit.origin.method, edit.origin.created, tuple(on_top_of))
        return self._write((*self.entries, entry))

    def remove(self, name: str) -> "Stack":
        """Take an edit out, wherever it stands.

        Raises:
            SettingsError: there is none of that name.
        """
        self.edit(name)
        left = self._write(tuple(entry for entry in self.entries if entry.name != name))
        shutil.rmtree(self.folder / EDITS / name)
        return left

    def leaning_on(self, name: str) -> tuple[str, ...]:
        """The edits that were made with this one in the weights."""
        return tuple(entry.name for entry in self.entries if name in entry.on_top_of)

    @contextmanager
    def applied(self, model: EditableModel) -> Generator[EditableModel]:
        """All edits are in the weights inside, oldest first; afterwards the weights are what they were.

        Raises:
            WrongModel: the model is not the stack's.
        """
        self.check_model(model)
        with ExitStack() as inside:
            for edit in self.edits().values():
                inside.enter_context(edit.applied(model))
            yield model

    def check_model(self, model: EditableModel) -> None:
        """Raise unless the model, without the edits in it, is the base of the stack.

        Raises:
            WrongModel: it is another.
        """
        if model.fingerprint != self.fingerprint:
            raise WrongModel(
                f"{self.folder} is a stack on {self.model} (fingerprint {self.fingerprint[:12]}); {model.name} has "
                "other weights. Load the model that the stack is on."
            )

    def merged(self) -> Edit:
        """All edits as one, of the base model.

        Raises:
            EditError: the stack is empty.
        """
        edits = list(self.edits().values())
        if not edits:
            raise EditError(f"{self.folder} holds no edit.")
        paths = dict.fromkeys(path for edit in edits for path in edit.deltas)
        deltas = {path: sum_deltas([e.deltas[path] for e in edits if path in e.deltas]) for path in paths}
        settings: Mapping[str, SettingValue] = {"edits": self.names}
        last = edits[-1].origin
        origin = replace(
            last, method="stack", settings=settings, strategy={}, preset=f"stack {self.folder.name}"
        )
        return Edit(
            deltas,
            tuple(fact for edit in edits for fact in edit.facts),
            origin,
            tuple(dropped for edit in edits for dropped in edit.dropped),
        )

    def _write(self, entries: tuple[Entry, ...]) -> "Stack":
        """Replace the index."""
        changed = replace(self, entries=entries)
        index = _Index(FORMAT, self.model, self.revision, self.fingerprint, entries)
        with atomic_file(self.folder / INDEX) as aside:
            write_json(aside, to_json(index))
        return changed


def new_stack(folder: str | os.PathLike[str], base: EditableModel | Edit) -> Stack:
    """An empty stack on a model, or on the model that an edit is for; it lies on disk from its first edit on."""
    if isinstance(base, Edit):
        return Stack(Path(folder), base.origin.model, base.origin.revision, base.origin.fingerprint)
    return Stack(Path(folder), base.name, base.revision, base.fingerprint)


def is_stack(folder: str | os.PathLike[str]) -> bool:
    """Whether there is a stack."""
    return (Path(folder) / INDEX).is_file()


def open_edit(folder: str | os.PathLike[str]) -> Edit:
    """An edit from its folder, or all of a stack as one edit (`Stack.merged`).

    Raises:
        EditError: the folder is neither, or is damaged; or the stack is empty.
    """
    return open_stack(folder).merged() if is_stack(folder) else load_edit(folder)


def open_stack(folder: str | os.PathLike[str]) -> Stack:
    """Read a stack's index.

    Raises:
        EditError: there is none, or it is damaged.
    """
    file = Path(folder) / INDEX
    if not file.is_file():
        raise EditError(f"{folder} is not a stack of edits: it has no {INDEX}. `errata stack add` makes one.")
    try:
        about = object_of(json.loads(file.read_text(encoding="utf-8")), "it")
        if about["format"] != FORMAT:
            raise EditError(f"{file} has format {about['format']}; this version of Errata reads {FORMAT}.")
        index = from_json(_Index, about, "it")
    except EditError:
        raise
    except (ValueError, KeyError, OSError) as error:
        raise EditError(f"{file} is damaged: {error!r}. Restore it from a copy.") from error
    stack = Stack(Path(folder), index.model, index.revision, index.fingerprint, index.edits)
    well = all(NAME.fullmatch(name) and (file.parent / EDITS / name).is_dir() for name in stack.names)
    if not well or len(set(stack.names)) < len(stack.names):
        raise EditError(
            f"{file} names an edit twice, or one whose folder is not there. Restore it from a copy."
        )
    return stack
