"""The trade-off of a calibration: what each trial keeps of the subjects over how other wordings follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from errata.calibrate.objective import shortfalls
from errata.calibrate.request import Calibration
from errata.calibrate.search import BASE
from errata.settings import short_name

STYLE: Any = {"svg.hashsalt": "errata", "font.size": 8, "svg.fonttype": "none", "text.parse_math": False}
"""The same figure is the same file; text stays text."""
MARKS = {
    BASE: ("#000000", "X"),
    "strength": ("#0072B2", "o"),
    "layers": ("#D55E00", "s"),
    "values": ("#009E73", "^"),
    "write": ("#CC79A7", "D"),
}
"""Color (Okabe and Ito's, which the color-blind tell apart) and marker of each stage."""


def draw_trade_off(found: Calibration, target: Path) -> None:
    """Write `target`.svg and .png. Filled points keep every bound; the best trial has a ring."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for stage, (color, marker) in MARKS.items():
            label = stage
            for trial in found.trials:
                measures = trial.measures
                if trial.stage != stage or measures is None or measures.statements is None:
                    continue
                held = not shortfalls(measures, found.unedited)
                axes.scatter(
                    measures.paraphrases if measures.paraphrases is not None else measures.efficacy,
                    measures.statements,
                    s=30,
                    marker=marker,
                    edgecolors=color,
                    facecolors=color if held else "none",
                    label=label,
                )
                label = ""
        _ring(axes, found)
        axes.set_xlim(-3, 103)
        axes.set_ylim(-3, 103)
        axes.set_xlabel("Other wordings that prefer the new target, %")
        axes.set_ylabel("Other statements kept, %")
        axes.set_title(
            f"{found.request.method} on {short_name(found.model)}\n(filled where every bound is kept)"
        )
        axes.legend(frameon=False)
        figure.savefig(target.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(target.with_suffix(".png"), dpi=150, metadata={"Software": None})


def _ring(axes: Any, found: Calibration) -> None:
    """Around the best trial."""
    measures = found.best.measures
    if measures is not None and measures.statements is not None:
        across = measures.efficacy if measures.paraphrases is None else measures.paraphrases
        axes.scatter(
            across, measures.statements, s=160, facecolors="none", edgecolors="#000000", label="best"
        )
