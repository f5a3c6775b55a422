"""The weights while a strategy runs: every write can be taken back, and in the end all are."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from errata.edits import Delta, sum_deltas, write_delta
from errata.models import EditableModel


@dataclass
class Writer:
    """Writes of a strategy, oldest first, with the weights as they were before the first."""

    model: EditableModel
    writes: list[Mapping[str, Delta]] = field(default_factory=list[Mapping[str, Delta]])
    _before: list[dict[str, Tensor]] = field(default_factory=list[dict[str, Tensor]])
    """Of each write, the weights that it changed, as they were before it."""
    _originals: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def write(self, deltas: Mapping[str, Delta]) -> None:
        """Add the deltas to the weights."""
        before = {path: self._weight(path).detach().clone() for path in deltas}
        for path, weight in before.items():
            self._originals.setdefault(path, weight)
        self.writes.append(deltas)
        self._before.append(before)
        for path, delta in deltas.items():
            write_delta(self.model.site_at(path), delta)

    def broken(self, deltas: Mapping[str, Delta]) -> str:
        """The first of these weights that is infinite or not a number now; "" where all are well."""
        return next((path for path in deltas if not bool(self._weight(path).isfinite().all())), "")

    def take_back(self, count: int = 1) -> None:
        """Undo the last writes, bit for bit."""
        for _ in range(count):
            self.writes.pop()
            self._put(self._before.pop())

    def settle(self) -> None:
        """The writes so far are to stay: free the copies that they could be taken back with one by one."""
        self._before = [{} for _ in self._before]

    @contextmanager
    def unedited(self) -> Generator[None]:
        """Inside, the weights are those from before the first write."""
        now = {path: self._weight(path).detach().clone() for path in self._originals}
        self._put(self._originals)
        try:
            yield
        finally:
            self._put(now)

    @contextmanager
    def put_back(self) -> Generator[None]:
        """Whatever happens inside, afterwards the weights are those from before the first write."""
        try:
            with self.model.about_to_change():
                yield
        finally:
            self._put(self._originals)

    def total(self) -> dict[str, Delta]:
        """All writes as one."""
        paths = dict.fromkeys(path for deltas in self.writes for path in deltas)
        return {
            path: sum_deltas([deltas[path] for deltas in self.writes if path in deltas]) for path in paths
        }

    def _weight(self, path: str) -> Tensor:
        return self.model.site_at(path).held().weight

    def _put(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for path, weight in weights.items():
                self._weight(path).copy_(weight)


def norms(deltas: Mapping[str, Delta]) -> tuple[float, ...]:
    """The Frobenius norm of each delta, in their order."""
    return tuple(float(delta.matrix.double().square().sum().sqrt()) for delta in deltas.values())


def root_of_squares(values: Sequence[float]) -> float:
    """The norm of all deltas together."""
    return sum(value**2 for value in values) ** 0.5
