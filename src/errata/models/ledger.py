"""The weight ledger: the only code that writes into a model's weights, and what it takes to put them back.

A ledger is a stack of levels. Each keeps a copy of every weight that was first written at that level, as the weight was
before; so a weight is copied once per level, however often it is written there. Closing a level puts its copies back,
bit for bit, together with those of the levels above it. There are two kinds:

    with ledger.temporary():        the weights are put back at the end of the block
        ledger.write(site, values)
    with ledger.entry(edit):        the weights stay as written until `ledger.take_back(edit)`;
        ledger.write(site, values)  an exception inside the block puts them back at once

`with ledger.unedited():` shows the weights as they were before all levels, or before those above a `mark`.
"""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from errata.errors import NotApplied
from errata.models.sites import Site


@dataclass(frozen=True, eq=False)
class _Backup:
    """A weight as it was, in its own orientation."""

    site: Site
    weight: Tensor


@dataclass(eq=False)
class _Level:
    """What was written between two marks; `backups` by the path of the site."""

    temporary: bool
    owner: object = None
    open: bool = True
    """Whether weights may be written at this level still."""
    backups: dict[str, _Backup] = field(default_factory=dict[str, _Backup])


@dataclass(eq=False)
class Ledger:
    """Who changed which weight of a model; see the module's docstring."""

    _levels: list[_Level] = field(default_factory=list[_Level])

    @property
    def mark(self) -> int:
        """How many levels there are: `unedited(mark)` shows the weights as they are now, whatever is written later."""
        return len(self._levels)

    @property
    def changed(self) -> tuple[str, ...]:
        """The paths of the weights that were written and not put back, in the order of their first write."""
        return tuple(self._backups())

    @property
    def originals(self) -> Mapping[str, Tensor]:
        """Each of those weights as it was before every change, by the parameter's name; not to be written into."""
        return {backup.site.name: backup.weight for backup in self._backups().values()}

    @property
    def owners(self) -> list[object]:
        """The owners of the entries that are in the weights, oldest first; entries without one are left out."""
        return [level.owner for level in self._levels if level.owner is not None]

    def write(self, site: Site, values: Tensor) -> None:
        """Copy values, in the weight's own orientation, into a weight; they are rounded to its dtype.

        Only inside `temporary()` or `entry()`, and not once an entry lies on top.
        """
        level = self._levels[-1] if self._levels else None
        assert level is not None, "weights are written inside a level of the ledger only"
        assert level.open, "an entry of the ledger is complete: open a level of your own"
        weight, backups = site.held().weight, level.backups
        if site.path not in backups:
            backups[site.path] = _Backup(site, weight.detach().clone())
        _copy(weight, values)

    @contextmanager
    def temporary(self) -> Generator[None]:
        """A level that ends with the block: whatever happens inside, all of its weights are put back.

        Entries that were made inside and not taken back end with it.
        """
        level = _Level(temporary=True)
        try:
            self._levels.append(level)
            yield
        finally:
            self._close(level)

    @contextmanager
    def entry(self, owner: object = None) -> Generator[None]:
        """A level that outlasts the block; an exception inside puts its weights back."""
        level = _Level(temporary=False, owner=owner)
        try:
            self._levels.append(level)
            yield
            level.open = False
        except BaseException:
            self._close(level)
            raise

    def take_back(self, owner: object = None) -> None:
        """Put back the weights of the last entry, which must be this owner's.

        Raises:
            NotApplied: the last level is another one.
        """
        last = self._levels[-1] if self._levels else None
        if last is None or last.open or last.owner is not owner:
            raise NotApplied(
                "The weights were changed again since, or not at all. Take back the last change first."
            )
        self._close(last)

    def settle(self) -> None:
        """Let the entries on top last as long as the open level below them: their own copies are freed."""
        below = max(number for number, level in enumerate(self._levels) if level.open)
        self._levels[below].backups = self._backups(since=below)
        del self._levels[below + 1 :]

    @contextmanager
    def unedited(self, since: int = 0) -> Generator[None]:
        """Inside, the weights are those from before the levels above a mark: without any, the unedited model's."""
        backups = self._backups(since)
        with self.temporary():
            for backup in backups.values():
                self.write(backup.site, backup.weight)
            yield

    def _backups(self, since: int = 0) -> dict[str, _Backup]:
        """The oldest copy of each weight in the levels above a mark."""
        oldest: dict[str, _Backup] = {}
        for level in self._levels[since:]:
            for path, backup in level.backups.items():
                oldest.setdefault(path, backup)
        return oldest

    def _close(self, level: _Level) -> None:
        """Put back what was written at a level and above it; nothing where it was closed with one below it."""
        if level not in self._levels:
            return
        number = self._levels.index(level)
        interruption = _put_back(self._backups(since=number).values())
        del self._levels[number:]
        if interruption is not None:
            raise interruption


def _put_back(backups: Iterable[_Backup]) -> BaseException | None:
    """Write all of them, even if interrupted: the last interruption (Ctrl-C as a rule) is returned for afterwards."""
    interruption: BaseException | None = None
    for backup in backups:
        try:
            _copy(backup.site.weight, backup.weight)
        except BaseException as error:
            interruption = error
            _copy(backup.site.weight, backup.weight)
    return interruption


def _copy(weight: Tensor, values: Tensor) -> None:
    with torch.no_grad():
        weight.copy_(values)
