"""The weights while a strategy runs: every write can be taken back, and in the end all are."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from errata.edits import Delta, sum_deltas, write_deltas
from errata.models import EditableModel


@dataclass
class Writer:
    """The writes of a strategy, oldest first: each is an entry of the model's ledger inside `put_back`."""

    model: EditableModel
    writes: list[Mapping[str, Delta]] = field(default_factory=list[Mapping[str, Delta]])
    since: int = 0
    """The ledger's mark from before the first write."""

    @contextmanager
    def put_back(self) -> Generator[None]:
        """Whatever happens inside, afterwards the weights are those from before the first write."""
        self.since = self.model.ledger.mark
        with self.model.ledger.temporary():
            yield

    def write(self, deltas: Mapping[str, Delta]) -> None:
        """Add the deltas to the weights."""
        with self.model.ledger.entry():
            write_deltas(self.model, deltas)
        self.writes.append(deltas)

    def broken(self, deltas: Mapping[str, Delta]) -> str:
        """The first of these weights that is infinite or not a number now; "" where all are well."""
        weights = ((path, self.model.site_at(path).held().weight) for path in deltas)
        return next((path for path, weight in weights if not bool(weight.isfinite().all())), "")

    def take_back(self, count: int = 1) -> None:
        """Undo the last writes, bit for bit."""
        for _ in range(count):
            self.model.ledger.take_back()
            self.writes.pop()

    def settle(self) -> None:
        """The writes so far are to stay: free the copies that they could be taken back with one by one."""
        self.model.ledger.settle()

    def total(self) -> dict[str, Delta]:
        """All writes as one."""
        paths = dict.fromkeys(path for deltas in self.writes for path in deltas)
        return {
            path: sum_deltas([deltas[path] for deltas in self.writes if path in deltas]) for path in paths
        }


def norms(deltas: Mapping[str, Delta]) -> tuple[float, ...]:
    """The Frobenius norm of each delta, in their order."""
    return tuple(float(delta.matrix.double().square().sum().sqrt()) for delta in deltas.values())


def root_of_squares(values: Sequence[float]) -> float:
    """The norm of all deltas together."""
    return sum(value**2 for value in values) ** 0.5
