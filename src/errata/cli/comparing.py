"""Two edits side by side. Unlike the commands' own files this one imports torch as it is loaded."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from errata.edits import Delta, open_edit
from errata.errors import WrongModel


@dataclass(frozen=True)
class FactRow:
    """A question that the two do not answer alike; None where one does not know it."""

    question: str
    one: str | None
    other: str | None


@dataclass(frozen=True)
class WeightRow:
    """How much each changes a weight, in Frobenius norms, and the cosine between the two; None where one does not."""

    path: str
    one: float | None
    other: float | None
    apart: float | None
    cosine: float | None


@dataclass(frozen=True)
class Comparison:
    """What two edits have in common and what not."""

    same: int
    same_model: bool
    facts: tuple[FactRow, ...]
    weights: tuple[WeightRow, ...]

    def to_json(self) -> dict[str, object]:
        """The comparison for programs."""
        return {
            "same_model": self.same_model,
            "facts_in_both": self.same,
            "facts": [vars(row) for row in self.facts],
            "weights": [vars(row) for row in self.weights],
        }


def compare(one: Path, other: Path) -> Comparison:
    """Compare what lies in two folders; a stack counts as all of its edits together.

    Raises:
        EditError: a folder is neither an edit nor a stack.
        WrongModel: they change one weight in two shapes.
    """
    first, second = open_edit(one), open_edit(other)
    mine = {fact.question: fact.target_new for fact in first.facts}
    theirs = {fact.question: fact.target_new for fact in second.facts}
    questions = dict.fromkeys((*mine, *theirs))
    rows = [FactRow(question, mine.get(question), theirs.get(question)) for question in questions]
    paths = dict.fromkeys((*first.deltas, *second.deltas))
    return Comparison(
        sum(row.one == row.other for row in rows),
        first.origin.fingerprint == second.origin.fingerprint,
        tuple(row for row in rows if row.one != row.other),
        tuple(_weight(path, first.deltas.get(path), second.deltas.get(path)) for path in paths),
    )


def _weight(path: str, one: Delta | None, other: Delta | None) -> WeightRow:
    norms = [None if delta is None else _norm(delta.matrix) for delta in (one, other)]
    if one is None or other is None:
        return WeightRow(path, norms[0], norms[1], None, None)
    if one.shape != other.shape:
        raise WrongModel(f"One edit changes {path} as {one.shape}, the other as {other.shape}.")
    mine, theirs = one.matrix.double(), other.matrix.double()
    size = _norm(mine) * _norm(theirs)
    cosine = float((mine * theirs).sum()) / size if size else None
    return WeightRow(path, norms[0], norms[1], _norm(mine - theirs), cosine)


def _norm(matrix: Tensor) -> float:
    """The Frobenius norm."""
    return float(matrix.double().square().sum()) ** 0.5
