"""From stored cells to the lines of a table: our numbers, and the paper's beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from errata.experiments.cells import Cell, Request
from errata.experiments.columns import label, of_history, shown
from errata.experiments.recipes import UNEDITED, Printed, RecipeRow
from errata.experiments.running import Stored, stored
from errata.results import Record, Results

EPSILON = 1.0
RULES = {
    "delta_p": ("a", "|Delta p| <= 1"),
    "monotonic": ("b", "|Delta p| falls no longer after it"),
    "small_change": ("c", "|p(k) - p(k-1)| <= 1"),
}
"""Each stop rule's letter in a table, and what it says."""
Value = tuple[float, float | None]
"""A number in its column's unit, and half the width of its 95 % interval, where there is one."""


@dataclass(frozen=True)
class Line:
    """A line of a table."""

    row: str
    data: str
    edits: int
    facts: int
    """How many facts were edited, over all trials; fewer than asked where not all qualify."""
    step: int | None
    """The iteration; None where the method is run once."""
    mark: str
    """The letters of the stop rules that end here."""
    values: Mapping[str, Value]
    """By column; one that is missing was not measured."""
    printed: Printed | None
    """What the paper has in this line."""
    failed: str = ""
    """Why there are no values."""

    @property
    def name(self) -> str:
        """The row and its iteration."""
        return self.row if self.step is None else f"{self.row}, k = {self.step}"


@dataclass(frozen=True)
class Group:
    """The cells of a row on one number of edits: one per trial, with their outcomes."""

    row: RecipeRow
    data: str
    edits: int
    cells: tuple[Stored, ...]
    unedited: tuple[Stored, ...]

    @property
    def histories(self) -> list[list[Mapping[str, Any]]]:
        """What each trial recorded of its iterations."""
        return [cell.about.get("history", []) for cell in self.cells]

    @property
    def steps(self) -> list[int]:
        """The iterations that every trial was evaluated after."""
        return [step for step in self.cells[0].steps if all(step in cell.steps for cell in self.cells)]

    def results(self, step: int) -> Results:
        """The outcomes of all trials after an iteration, with those of the unedited model as "before"."""
        records: list[Record] = []
        first: Results | None = None
        for cell, base in zip(self.cells, self.unedited, strict=True):
            one = cell.results(step)
            first = first or one
            records += (
                one.records if cell.path == base.path else _beside(one.records, base.results(0).records)
            )
        assert first is not None
        texts = [text for cell in self.cells for text in cell.results(step).texts.get("after", ())]
        return replace(first, records=tuple(records), texts={"after": tuple(texts)} if texts else {})


def _beside(after: Sequence[Record], before: Sequence[Record]) -> list[Record]:
    return [replace(one, before=other.after) for one, other in zip(after, before, strict=True)]


@dataclass(frozen=True)
class Table:
    """A recipe's outcome."""

    request: Request
    lines: tuple[Line, ...]
    printed_model: str
    """The model whose printed numbers stand beside ours."""
    same_model: bool
    """Whether it is the model that was run."""
    groups: tuple[Group, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Name and label."""
        return [(name, label(name)) for name in self.request.recipe.columns]


def make_table(request: Request, folder: Path, failed: Mapping[str, str] | None = None) -> Table:
    """The table of everything that is stored; rows that are not yet have no line.

    Raises:
        ResultsError: stored outcomes are damaged.
    """
    beside = _printed_model(request)
    groups, lines = list[Group](), list[Line]()
    for members in _by_group(request):
        row, data, edits = members[0].row, members[0].data, members[0].edits
        lacking = (
            next((failed[cell.name] for cell in members if cell.name in (failed or {})), "") if failed else ""
        )
        cells = [found for cell in members if (found := stored(folder, cell))]
        if lacking or len(cells) < len(members):
            if lacking:
                lines.append(Line(row.name, data, edits, 0, None, "", {}, None, lacking))
            continue
        bases = [found for cell in _unedited(request, members) if (found := stored(folder, cell))]
        group = Group(row, data, edits, tuple(cells), tuple(bases))
        groups.append(group)
        if any(one is row or one == row for one in request.recipe.rows):
            lines += _lines(request, group, beside)
    model = beside[0].model if beside else ""
    return Table(request, tuple(lines), model, _same(request, beside), tuple(groups), dict(failed or {}))


def _by_group(request: Request) -> list[list[Cell]]:
    """The cells of each line, rows in the recipe's order."""
    order = {row.name: index for index, row in enumerate(request.recipe.rows)}
    found: dict[tuple[str, int, int], list[Cell]] = {}
    for cell in request.cells:
        key = (cell.data, cell.edits, order.get(cell.row.name, -1))
        found.setdefault(key, []).append(cell)
    return [found[key] for key in sorted(found, key=lambda key: (request.data.index(key[0]), *key[1:]))]


def _unedited(request: Request, members: Sequence[Cell]) -> list[Cell]:
    """The cells of the unedited model on the same facts."""
    if request.recipe.analysis is not None:
        return list(members)
    row = next((row for row in request.recipe.rows if row.method is None), RecipeRow(UNEDITED))
    return [replace(cell, row=row) for cell in members]


def _lines(request: Request, group: Group, beside: Sequence[Printed]) -> list[Line]:
    if request.recipe.analysis is not None:
        return []
    chosen = _chosen(request.recipe.show, group)
    marks = _marks(group)
    own = [line for line in beside if line.row == group.row.name and _same_data(request, line, group)]
    lines: list[Line] = []
    for place, step in enumerate(chosen):
        results = group.results(step)
        number = step if group.row.strategy else None
        mark = "".join(marks.get(step, ())) if number else ""
        printed = _printed_line(request, own, group.edits, number, place == len(chosen) - 1)
        values = _values(request, group, results, step)
        lines.append(
            Line(group.row.name, group.data, group.edits, len(results.records), number, mark, values, printed)
        )
    return lines


def _values(request: Request, group: Group, results: Results, step: int) -> dict[str, Value]:
    scores = results.scores("after")
    values: dict[str, Value] = {}
    for column in request.recipe.columns:
        score = scores.get(column)
        if score is not None:
            values[column] = shown(column, score)
        elif column == "update_norm":
            norms = [norm for cell in group.cells if (norm := _norm(cell)) is not None]
            values |= {column: (sum(norms) / len(norms), None)} if norms else {}
        elif (recorded := of_history(column, group.histories, step)) is not None:
            values[column] = (recorded, None)
    return values


def _norm(cell: Stored) -> float | None:
    """The Frobenius norm of a cell's changes, all weights together."""
    norms = cell.about.get("norms")
    return sum(one["norm"] ** 2 for one in norms) ** 0.5 if norms else None


def _chosen(show: str, group: Group) -> list[int]:
    """The iterations that become lines."""
    steps = group.steps
    if show == "end" or len(steps) == 1:
        return steps[-1:]
    if show == "first-and-end":
        return [steps[0], steps[-1]]
    if show == "rules":
        return sorted(step for step in _marks(group) if step in steps) or steps[-1:]
    return steps


def _marks(group: Group) -> dict[int, list[str]]:
    """Where each stop rule would end the iterations, told from what was recorded (paper 2, sections 3.1 and 6.3)."""
    ends = {rule: stop_of(rule, group.histories) for rule in RULES}
    marks: dict[int, list[str]] = {}
    for rule, step in ends.items():
        if step is not None:
            marks.setdefault(step, []).append(RULES[rule][0])
    return marks


def stop_of(
    rule: str, histories: Sequence[Sequence[Mapping[str, Any]]], epsilon: float = EPSILON
) -> int | None:
    """The iteration that a stop rule keeps, told from the means over trials; None where it does not stop.

    "delta_p": the first with |Delta p_k| <= epsilon. "monotonic": the one before |Delta p| first fails to fall.
    "small_change": the first with |p(theta_k+1) - p(theta_k)| <= epsilon.
    """
    length = min((len(history) for history in histories), default=0)
    deltas = [of_history("delta_p", histories, step) for step in range(1, length + 1)]
    changes = [of_history("change_p", histories, step) for step in range(1, length + 1)]
    for step in range(1, length + 1):
        delta, change = deltas[step - 1], changes[step - 1]
        if rule == "delta_p" and delta is not None and delta <= epsilon:
            return step
        if rule == "small_change" and change is not None and change <= epsilon:
            return step
        before = deltas[step - 2] if step > 1 else None
        if rule == "monotonic" and delta is not None and before is not None and delta >= before:
            return step - 1
    return None


def _printed_model(request: Request) -> list[Printed]:
    """The paper's lines for the model that is run; for a model that the paper lacks, those of its first one."""
    printed = request.recipe.printed
    own = [line for line in printed if _short(line.id) == _short(request.model)]
    return own or [line for line in printed if line.id == printed[0].id]


def _same(request: Request, beside: Sequence[Printed]) -> bool:
    return bool(beside) and _short(beside[0].id) == _short(request.model)


def _short(model: str) -> str:
    return model.rsplit("/", 1)[-1].lower()


def _same_data(request: Request, line: Printed, group: Group) -> bool:
    """Whether the paper's line is on the group's data; where the data are others, the paper's first stand in."""
    return line.data == (group.data if group.data in request.recipe.data else request.recipe.data[0])


def _printed_line(
    request: Request, own: Sequence[Printed], edits: int, step: int | None, last: bool
) -> Printed | None:
    """The paper's line for one of ours: of as many edits if it has them, or else of the most; then by iteration."""
    if not own:
        return None
    counts = sorted({line.edits for line in own})
    ours = sorted(request.sizes.edits)
    count = edits if edits in counts else counts[min(ours.index(edits), len(counts) - 1)]
    if len(ours) == 1:
        count = edits if edits in counts else counts[-1]
    lines = [line for line in own if line.edits == count]
    if step is None or request.recipe.show in ("first-and-end", "end"):
        return lines[-1] if last else lines[0]
    return next((line for line in lines if line.step == step), None)
