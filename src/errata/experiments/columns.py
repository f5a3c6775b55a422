"""The columns of tables by name: scores, and what a run records of its iterations, each with its label and its unit."""

from collections.abc import Mapping, Sequence
from typing import Any

from errata.results import LABELS, Score

OTHERS: Mapping[str, str] = {
    "fluency": "Fluency (n-gram entropy, bits x 100)",
    "consistency": "Consistency (TF-IDF cosine, %)",
    "me_ppl_50": "Perplexity of plain texts (ME-PPL)",
    "p_optimised": "p, optimised value",
    "p_spread": "p, edited weights",
    "delta_p": "|Delta p|",
    "change_p": "|p(k) - p(k-1)|",
    "update_norm": "Norm of the update",
}
"""Labels of what is not among `errata.scores.LABELS`, or has another unit there."""
PLAIN = ("me_ppl_50", "p_optimised", "p_spread", "delta_p", "change_p", "update_norm")
"""Columns that are no percentages; every other one is shown times 100, as the papers do."""
LOWER_IS_BETTER = PLAIN


def label(column: str) -> str:
    """What a column is called."""
    return OTHERS.get(column) or LABELS.get(column) or column.replace("_", " ").capitalize()


def shown(column: str, score: Score) -> tuple[float, float | None]:
    """A score in the column's unit, with half the width of its interval."""
    factor = 1.0 if column in PLAIN else 100.0
    return factor * score.mean, None if score.margin is None else factor * score.margin


def of_history(column: str, histories: Sequence[Sequence[Mapping[str, Any]]], step: int) -> float | None:
    """A number that the runs recorded at an iteration, the mean over trials; None where it was not recorded."""
    values = [_recorded(column, history, step) for history in histories]
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _recorded(column: str, history: Sequence[Mapping[str, Any]], step: int) -> float | None:
    if not 1 <= step <= len(history):
        return None
    if column == "change_p":
        now = history[step - 1].get("p_spread")
        before = history[step - 2].get("p_spread") if step > 1 else None
        return None if now is None or before is None else abs(now - before)
    value = history[step - 1].get(column)
    return None if value is None else abs(float(value))


def number(column: str, value: float) -> str:
    """A value as a table shows it."""
    if column not in PLAIN:
        return f"{value:.1f}"
    if abs(value) >= 1e5:
        return f"{value:.2e}"
    return f"{value:.2f}"
