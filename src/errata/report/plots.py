"""What all figures share: colours with markers and dashes of their own, panels, legends, and the way to SVG."""

import io
from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from errata.experiments import LOWER_IS_BETTER

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's, told apart by everyone."""
MARKERS = "os^Dv*P"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "errata",
    "svg.fonttype": "none",
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "text.parse_math": False,
}


def style(index: int) -> dict[str, Any]:
    """Colour, marker and dash of the line number `index`."""
    return {
        "color": COLORS[index % len(COLORS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
        "markersize": 5,
        "linewidth": 1.4,
    }


def svg_of(figure: Figure) -> str:
    """The figure as an SVG element, without the XML that goes before it; the same figure is the same text."""
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def panels(count: int, width: float = 3.1, height: float = 2.5) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, at most three in a row."""
    columns = 2 if count == 4 else min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, place + 1) for place in range(count)]
    return figure, axes


def scale_of(axis: Axes, which: Literal["x", "y"], column: str, values: Sequence[float]) -> None:
    """Percent from 0 to 100; what grows without bound on a logarithmic scale."""
    if column not in LOWER_IS_BETTER and column != "fluency":
        limits = axis.set_xlim if which == "x" else axis.set_ylim
        limits(-3, 103)
    elif column in LOWER_IS_BETTER and values and min(values) > 0 and max(values) > 50 * min(values):
        logarithmic(axis, which)


def _written_out(value: float, _: int | None) -> str:
    return f"{value:g}"


def logarithmic(axis: Axes, which: Literal["x", "y"]) -> None:
    """A logarithmic scale with its numbers written out: `1`, `10`, `1e+06`."""
    side = axis.xaxis if which == "x" else axis.yaxis
    if which == "x":
        axis.set_xscale("log")
    else:
        axis.set_yscale("log")
    side.set_major_formatter(FuncFormatter(_written_out))
    side.set_minor_formatter(NullFormatter())
    low, high = sorted(side.get_data_interval())
    if high < 9 * low:
        side.set_major_locator(MaxNLocator(5))


def whole_numbers(axis: Axes, name: str) -> None:
    """Ticks of the x axis at whole numbers only."""
    axis.set_xlabel(name)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def legend(figure: Figure, axes: Sequence[Axes], columns: int = 4) -> None:
    """One legend below all panels."""
    found: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        found |= dict(zip((str(label) for label in labels), handles, strict=True))
    if found:
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns)
