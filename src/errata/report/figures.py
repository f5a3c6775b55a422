"""Figures of a recipe as SVG: readable in print and for the colour-blind, as lines differ in marker and dash too."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from errata.experiments import Group, Line, Table, label, number, of_history
from errata.report.plots import (
    COLORS,
    STYLE,
    legend,
    logarithmic,
    panels,
    scale_of,
    style,
    svg_of,
    whole_numbers,
)
from errata.report.texts import label_of
from errata.results import Answer, Record

KINDS = {"ffn": "FFN", "attention": "attention"}
MOST_PANELS = 8
MOST_NLL = 690.0
"""exp of it is still a number."""


def draw(table: Table) -> dict[str, str]:
    """Every figure of the recipe that there are data for: its name, and the SVG as text."""
    drawn: dict[str, str] = {}
    with matplotlib.rc_context(STYLE):
        for name in table.request.recipe.figures:
            figure = DRAWERS[name](table)
            if figure is not None:
                drawn[name] = svg_of(figure)
    return drawn


def save(drawn: Mapping[str, str], folder: Path) -> None:
    """Each figure as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in drawn.items():
        (folder / f"{name}.svg").write_text(
            f'<?xml version="1.0" encoding="utf-8"?>\n{svg}', encoding="utf-8"
        )


def _measured(table: Table) -> list[str]:
    """The columns with a number of ours, at most as many as there is room for."""
    columns = table.request.recipe.columns
    return [name for name in columns if any(name in line.values for line in table.lines)][:MOST_PANELS]


def _shown(table: Table) -> list[Line]:
    return [line for line in table.lines if not line.failed]


def draw_scores(table: Table) -> Figure | None:
    """Each column a panel: our numbers with their intervals, and the paper's as hollow diamonds."""
    columns, lines = _measured(table), _shown(table)
    if not columns or not lines:
        return None
    figure, axes = panels(len(columns), height=0.7 + 0.24 * len(lines))
    places = list(range(len(lines)))[::-1]
    for index, (column, axis) in enumerate(zip(columns, axes, strict=True)):
        for place, line in zip(places, lines, strict=True):
            _dot(axis, place, line, column)
        axis.set_title(label(column))
        axis.set_yticks(
            places,
            [label_of(table, line) for line in lines]
            if index % (2 if len(columns) == 4 else 3) == 0
            else [""] * len(lines),
        )
        axis.set_ylim(-0.6, len(lines) - 0.4)
        scale_of(
            axis,
            "x",
            column,
            [line.values[column][0] for line in lines if column in line.values],
        )
    _legend_of_dots(figure, axes[0], table)
    return figure


def _dot(axis: Axes, place: int, line: Line, column: str) -> None:
    if column in line.values:
        mean, half = line.values[column]
        axis.errorbar(
            mean, place + 0.1, xerr=half, fmt="o", color=COLORS[0], markersize=5, capsize=2, zorder=3
        )
    if line.printed is not None and column in line.printed.values:
        mean, half = line.printed.values[column]
        axis.errorbar(
            mean,
            place - 0.15,
            xerr=half,
            fmt="D",
            color=COLORS[1],
            markerfacecolor="white",
            markersize=5,
            zorder=2,
        )


def _legend_of_dots(figure: Figure, axis: Axes, table: Table) -> None:
    axis.plot([], [], "o", color=COLORS[0], label=f"here: {table.request.model}")
    if table.printed_model:
        axis.plot(
            [], [], "D", color=COLORS[1], markerfacecolor="white", label=f"paper: {table.printed_model}"
        )
    legend(figure, [axis], 2)


def _series(table: Table) -> dict[str, list[Line]]:
    """The lines of each row, the unedited model left out."""
    rows: dict[str, list[Line]] = {}
    several = len(table.request.data) > 1
    for line in _shown(table):
        name = f"{line.row}, {line.data}" if several else line.row
        rows.setdefault(name, []).append(line)
    return rows


def _place(table: Table, row: str) -> int:
    """The number of a row's colour: the same in every figure of a recipe; the unedited model comes last."""
    names = [one.name for one in table.request.recipe.rows if one.method is not None]
    return names.index(row) if row in names else len(names)


def draw_edits(table: Table) -> Figure | None:
    """Each column against the number of edits, one line a row, with the band of its interval."""
    return _curves(table, lambda line: line.edits, "edits", True)


def draw_iterations(table: Table) -> Figure | None:
    """Each column against the iteration, one line a row, with the band of its interval."""
    return _curves(table, lambda line: line.step or 0, "iteration k", False)


def _curves(table: Table, place: Callable[[Line], int], name: str, growing: bool) -> Figure | None:
    columns = _measured(table)
    if not columns:
        return None
    figure, axes = panels(len(columns))
    for column, axis in zip(columns, axes, strict=True):
        every: list[float] = []
        for row, lines in _series(table).items():
            there = [line for line in lines if column in line.values and (growing or line.step is not None)]
            if there:
                every += _curve(
                    axis,
                    row,
                    _place(table, there[0].row),
                    [place(line) for line in there],
                    [line.values[column] for line in there],
                )
        axis.set_title(label(column))
        axis.set_xlabel(name)
        if growing:
            logarithmic(axis, "x")
            counts = table.request.sizes.edits
            axis.set_xticks(counts[:: 1 + len(counts) // 6])
        scale_of(axis, "y", column, every)
    legend(figure, axes)
    return figure


def _curve(
    axis: Axes, row: str, index: int, places: Sequence[int], values: Sequence[tuple[float, float | None]]
) -> list[float]:
    means = [mean for mean, _ in values]
    axis.plot(places, means, label=row, **style(index))
    halves = [half or 0.0 for _, half in values]
    if any(halves):
        low, high = ([m + sign * h for m, h in zip(means, halves, strict=True)] for sign in (-1, 1))
        axis.fill_between(places, low, high, color=COLORS[index % len(COLORS)], alpha=0.12, linewidth=0)
    return means


def draw_perplexity(table: Table) -> Figure | None:
    """p of the optimised values and of the edited weights, iteration by iteration, on a logarithmic axis."""
    groups = [group for group in table.groups if any(group.histories)]
    if not groups:
        return None
    figure, (axis,) = panels(1, 5.2, 3.2)
    for group in groups:
        index = _place(table, group.row.name)
        steps = range(1, 1 + min(len(history) for history in group.histories))
        name = _group_name(table, group)
        for column, filled in (("p_optimised", False), ("p_spread", True)):
            values = [of_history(column, group.histories, step) for step in steps]
            if all(value is not None for value in values):
                (line,) = axis.plot(list(steps), cast("list[float]", values), **style(index))
                line.set_label(f"{name}: {label(column)}")
                line.set_linestyle("-" if filled else ":")
                if not filled:
                    line.set_markerfacecolor("white")
    logarithmic(axis, "y")
    whole_numbers(axis, "iteration k")
    axis.set_ylabel("p, perplexity of the target")
    legend(figure, [axis], 2)
    return figure


def _group_name(table: Table, group: Group) -> str:
    return f"{group.row.name}, {group.data}" if len(table.request.data) > 1 else group.row.name


def draw_norms(table: Table) -> Figure | None:
    """The Frobenius norm of the change of each weight, by layer; FFN and attention are lines of their own."""
    groups = [group for group in table.groups if group.cells and group.cells[0].about.get("norms")]
    if not groups:
        return None
    figure, (axis,) = panels(1, 5.2, 3.2)
    index = 0
    for group in groups:
        for kind, points in norms_by_kind(group).items():
            name = _group_name(table, group)
            axis.plot(
                list(points),
                list(points.values()),
                label=f"{name} ({kind})" if kind else name,
                **style(index),
            )
            index += 1
    whole_numbers(axis, "block")
    axis.set_ylabel("norm of the update")
    legend(figure, [axis], 2)
    return figure


def norms_by_kind(group: Group) -> dict[str, dict[int, float]]:
    """Mean norms over trials, by the kind of weight and the block; one kind alone has no name."""
    found: dict[str, dict[int, list[float]]] = {}
    for cell in group.cells:
        for norm in cast("list[dict[str, Any]]", cell.about["norms"]):
            kind = KINDS.get(norm["kind"]) or str(norm["path"])
            found.setdefault(kind, {}).setdefault(norm["layer"], []).append(norm["norm"])
    means = {
        kind: {layer: sum(each) / len(each) for layer, each in sorted(layers.items())}
        for kind, layers in found.items()
    }
    return {"": next(iter(means.values()))} if len(means) == 1 else means


def draw_similarity(table: Table) -> Figure | None:
    """Cosine and Jaccard similarity by block, attention and FFN."""
    groups = [group for group in table.groups if group.cells and group.cells[0].about.get("similarity")]
    if not groups:
        return None
    found = cast("dict[str, Any]", groups[0].cells[0].about["similarity"])
    figure, axes = panels(2, 3.8, 2.8)
    titles = {
        "cosine": "Cosine similarity",
        "jaccard": f"Jaccard similarity of the top {found['top']} tokens",
    }
    for (name, title), axis in zip(titles.items(), axes, strict=True):
        for index, kind in enumerate(("attention", "ffn")):
            values = cast("list[float]", found[name][kind])
            axis.plot(
                range(len(values)),
                values,
                label="attention" if kind == "attention" else "FFN",
                **style(index),
            )
        axis.set_title(title)
        whole_numbers(axis, "block")
    legend(figure, axes)
    return figure


def draw_underedited(table: Table) -> Figure | None:
    """Accuracy and p of the target, iteration by iteration: all facts, and those UnderEdited after the first."""
    groups = [group for group in table.groups if group.row.method is not None and group.steps]
    if not groups:
        return None
    figure, axes = panels(2, 3.8, 2.8)
    place = 0
    for group in groups:
        for name, keep in underedited(group).items():
            accuracy, perplexity = _by_step(group, keep)
            row = f"{_group_name(table, group)}, {name} ({len(keep)})"
            axes[0].plot(group.steps, accuracy, label=row, **style(place))
            axes[1].plot(group.steps, perplexity, label=row, **style(place))
            place += 1
    for axis, title in zip(axes, ("Efficacy, accuracy", "p of the target, bare prompt"), strict=True):
        axis.set_title(title)
        whole_numbers(axis, "iteration k")
    axes[0].set_ylim(-3, 103)
    logarithmic(axes[1], "y")
    legend(figure, axes[:1], 2)
    return figure


def underedited(group: Group) -> dict[str, list[int]]:
    """Which records are all facts, and which were UnderEdited after the first iteration: P(new) <= P(true)."""
    first = group.results(group.steps[0]).records
    under = [index for index, record in enumerate(first) if not all(q.success for q in record.after.efficacy)]
    return (
        {"all": list(range(len(first))), "UnderEdited": under} if under else {"all": list(range(len(first)))}
    )


def _by_step(group: Group, keep: Sequence[int]) -> tuple[list[float], list[float]]:
    accuracies, perplexities = list[float](), list[float]()
    for step in group.steps:
        records = group.results(step).records
        chosen = [records[index] for index in keep]
        accuracies.append(100 * _mean([float(_efficacy(record).correct) for record in chosen]))
        perplexities.append(_mean([_perplexity(record) for record in chosen]))
    return accuracies, perplexities


def _efficacy(record: Record) -> Answer:
    return record.after.efficacy[0].wanted


def _perplexity(record: Record) -> float:
    return math.exp(min(MOST_NLL, -_efficacy(record).log_probability))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


DRAWERS: Mapping[str, Callable[[Table], Figure | None]] = {
    "scores": draw_scores,
    "edits": draw_edits,
    "iterations": draw_iterations,
    "perplexity": draw_perplexity,
    "norms": draw_norms,
    "similarity": draw_similarity,
    "underedited": draw_underedited,
}
"""What a recipe's `figures` may name."""
TITLES = {
    "scores": "Our numbers with 95 % intervals, and the paper's",
    "edits": "By the number of edits",
    "iterations": "By iteration",
    "perplexity": "p of the optimised values and of the edited weights",
    "norms": "Norm of the update by layer",
    "similarity": "Before and after attention and FFN",
    "underedited": "UnderEdited facts",
}


def summary(table: Table) -> str:
    """A figure in words, for those who do not see it: every line's first measured column."""
    columns = _measured(table)
    if not columns:
        return ""
    return "; ".join(
        f"{label_of(table, line)}: {number(columns[0], line.values[columns[0]][0])}"
        for line in _shown(table)
        if columns[0] in line.values
    )
