"""Tables that several commands print, and the same in JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

import errata
from errata.results import REGISTRY, Phase, Results, Score, TableRow, classic_groups
from errata.runtime import to_json

if TYPE_CHECKING:
    from errata.edits import Realized


def realized_words(realized: Mapping[str, Realized]) -> str:
    """How much of its change the median fact gets from one solve, over all weights that are written."""
    shares, weights = ([getattr(one, name) for one in realized.values()] for name in ("share", "weight"))
    return f"{_between(shares, '.2f')} of the median fact's change (lambda {_between(weights, '.3g')})"


def checks_words(edit: errata.Edit) -> str:
    """How many facts the edited model says, in a sentence or two."""
    hold, count = sum(one.holds for one in edit.checks), len(edit.checks)
    said = f"Asked after the edit: {hold} of {counted(count, 'fact')} said, with and without a text before the prompt."
    again, why = (edit.origin.strategy.get(name) for name in ("further_writes", "ended_by"))
    if again:
        said += f" Those that were not after the first write were written again ({again} more)."
    return f"{said} Stopped: {why}." if why and hold < count else said


def checks_table(edit: errata.Edit) -> Table:
    """The facts that do not hold, and why."""
    made = table("Question", "Target", "Why it does not hold")
    for one in edit.checks:
        if not one.holds:
            made.add_row(one.question, one.target, one.reason)
    return made


def _between(values: Sequence[float], form: str) -> str:
    """0.80, or 0.25 to 0.31."""
    low, high = (format(value, form) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


PHASES: tuple[Phase, ...] = ("before", "after")


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table in the one style of all of them; a column whose name begins with `>` is aligned to the right."""
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    return made


def score_table(results: Results, names: Sequence[str] = ()) -> Table:
    """The scores that were measured (or those of `names`), in percent with half the width of their 95 % intervals."""
    phases = (">Before", ">After") if results.has_before else (">Score",)
    made = table("", *phases, ">Facts", title="Scores in %, with 95 % intervals over facts")
    for row in results.table():
        if names and row.name not in names:
            continue
        score = row.after or row.before
        phases = (row.before, row.after) if results.has_before else (row.after,)
        cells = [in_unit(score, row.name) for score in phases]
        made.add_row(row.label, *cells, "" if score is None else str(score.count))
    return made


def score_blocks(results: Results) -> list[Table]:
    """All scores that were measured, in two blocks of evaluation; headers say whether success or accuracy is shown."""
    rows = {row.name: row for row in results.table()}
    trusted = [row for row in rows.values() if REGISTRY[row.name].block == "trustworthy"]
    besides = [
        row for row in rows.values() if row not in trusted and not row.name.startswith(tuple(_matrix_rows()))
    ]
    besides += [row for row in rows.values() if row.name == "specificity_unchanged"]
    blocks = [_matrix(results, rows)]
    if besides:
        blocks.append(_list("Besides", results, besides, "Value"))
    if trusted:
        title = "Trustworthy: accuracy in %, with 95 % intervals over facts"
        blocks.append(_list("", results, trusted, "Accuracy", title))
    return blocks


_KINDS = {"success": "Success", "accuracy": "Accuracy", "token_accuracy": "Token accuracy"}


def _matrix_rows() -> dict[str, str]:
    """The classic groups and their harmonic mean, with their labels."""
    return {**{group.name: group.label for group in classic_groups()}, "score": "Score"}


def _matrix(results: Results, rows: Mapping[str, TableRow]) -> Table:
    """Efficacy, generalization, specificity and score: success and accuracy; without a success accuracy by tokens."""
    has_success = "efficacy_success" in rows
    kinds = ["success", "accuracy"] if has_success else ["accuracy", "token_accuracy"]
    phases = ("before", "after") if results.has_before else ("",)
    heads = [f">{_KINDS[kind]} {phase}".rstrip() for kind in kinds for phase in phases]
    made = table("", *heads, ">Facts", title="Classic: answers fed in, in %, with 95 % intervals over facts")
    for group, word in _matrix_rows().items():
        found = [rows.get(f"{group}_{kind}") for kind in kinds]
        there = [row for row in found if row is not None]
        if not there:
            continue
        cells = [percent(score) for row in found for score in _phases(results, row)]
        counts = [score.count for row in there for score in (row.after or row.before,) if score is not None]
        made.add_row(word, *cells, str(max(counts)))
    return made


def _list(
    head: str, results: Results, rows: Sequence[TableRow], kind: str, title: str | None = None
) -> Table:
    """A line for each score, in its own unit."""
    phases = ("before", "after") if results.has_before else ("",)
    heads = [f">{kind} {phase}".strip() for phase in phases]
    made = table(head, *heads, ">Of", title=title)
    for row in rows:
        score = row.after or row.before
        label = row.label.removesuffix(f", {kind.lower()}")
        cells = [in_unit(one, row.name) for one in _phases(results, row)]
        made.add_row(label, *cells, "" if score is None else str(score.count))
    return made


def _phases(results: Results, row: TableRow | None) -> tuple[Score | None, ...]:
    before, after = (None, None) if row is None else (row.before, row.after)
    return (before, after) if results.has_before else (after,)


def in_unit(score: Score | None, name: str) -> str:
    """A score as its metric's unit asks: in percent, or as it is."""
    if score is None or REGISTRY[name].unit == "share":
        return percent(score)
    margin = score.margin
    return f"{score.mean:.4g}" + ("" if margin is None else f" ± {margin:.2g}")


def percent(score: Score | None) -> str:
    """`97.4 ± 1.2`; the interval is left out where it cannot be told."""
    if score is None:
        return "-"
    margin = score.margin
    return f"{100 * score.mean:.1f}" + ("       " if margin is None else f" ± {100 * margin:4.1f}")


def scores_json(results: Results) -> dict[str, object]:
    """All scores by phase and name."""
    phases = ("before", "after") if results.has_before else ("after",)
    return {
        phase: {name: to_json(score) for name, score in results.scores(phase).items() if score is not None}
        for phase in phases
    }


def counted(number: int, word: str) -> str:
    """`1 fact`, `2 facts`."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def scores_measured(results: Results) -> dict[str, float]:
    """The scores' means by "before.name" and "after.name", as an edit keeps them."""
    return {
        f"{phase}.{name}": score.mean
        for phase in PHASES
        for name, score in results.scores(phase).items()
        if score is not None
    }


@dataclass(frozen=True)
class Change:
    """How much an edit changes one weight: Frobenius norms."""

    path: str
    shape: tuple[int, int]
    rank: int
    norm: float
    weight_norm: float | None
    """Of the weight before the edit; None where the model is not at hand."""

    def to_json(self) -> dict[str, object]:
        """The change as a JSON object."""
        return {
            "shape": list(self.shape),
            "rank": self.rank,
            "norm": self.norm,
            "weight_norm": self.weight_norm,
        }


def change_table(changes: Sequence[Change]) -> Table:
    """Which weights change, and by how much."""
    relative = any(change.weight_norm is not None for change in changes)
    made = table(
        "Changed weight", ">Size", ">Rank", ">Norm of the change", *([">Of the weight's"] if relative else [])
    )
    for change in changes:
        share = [_share(change)] if relative else []
        size = " x ".join(map(str, change.shape))
        made.add_row(change.path, size, str(change.rank), f"{change.norm:.3g}", *share)
    return made


def _share(change: Change) -> str:
    """Of the weight's norm, which a bias that was never trained does not have."""
    return f"{change.norm / change.weight_norm:.2%}" if change.weight_norm else "-"


def dropped_table(edit: errata.Edit) -> Table:
    """The facts that were left out."""
    made = table("Left out", "Subject", "Why")
    for one in edit.dropped:
        made.add_row(one.fact.question, one.fact.subject, one.reason)
    return made


def dropped_json(edit: errata.Edit) -> list[dict[str, object]]:
    """The facts that were left out, as JSON objects."""
    return to_json(edit.dropped)
