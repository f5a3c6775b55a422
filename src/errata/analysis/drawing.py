"""Figures of causal tracing: a heat map per fact, their average, and AIE with intervals layer by layer.

Readable without colors: the color map runs evenly from light to dark, and curves differ in dash and marker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from errata.analysis.effects import GROUPS, KINDS, TITLES, Effects, average
from errata.analysis.leverage import LeverageProfile
from errata.analysis.locating import Located

MAP = "Blues"
STYLE: Any = {"svg.hashsalt": "errata", "font.size": 8, "svg.fonttype": "none"}
"""The same figure is the same file; text stays text."""
CURVES = (
    ("#0072B2", "-", "o"),
    ("#56B4E9", ":", "v"),
    ("#D55E00", "-", "s"),
    ("#009E73", "--", "^"),
    ("#999999", ":", "x"),
    ("#000000", "-.", "D"),
)
"""Color (Okabe and Ito's, which the color-blind tell apart), dash and marker of each group of tokens."""


def draw_fact(one: Effects, window: int, target: Path) -> None:
    """P(answer) for each token and layer that was put back, from what the noise left up to what it was without it."""
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(one.tokens), len(one.restored["state"]))
        top = max(one.clean, one.noised + 1e-9)
        start, end = one.subject_tokens
        labels = [
            f"{token.strip() or '·'}{'*' if start <= number < end else ''}"
            for number, token in enumerate(one.tokens)
        ]
        values = {kind: list(zip(*one.restored[kind], strict=True)) for kind in KINDS}
        bar = _maps(figure, panels, values, (one.noised, top), labels, window)
        bar.set_label(_plain(f"P({one.answer_token.strip()!r})"))
        figure.suptitle(
            _plain(
                f"{one.question} … {one.answer_token.strip()}: {one.clean:.2f}, with noise {one.noised:.2f}"
            )
        )
        _save(figure, target)


def draw_average(effects: Sequence[Effects], window: int, target: Path) -> None:
    """AIE for each group of tokens and each layer, over all facts."""
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(GROUPS), len(effects[0].restored["state"]))
        means = {
            kind: [
                [float("nan") if score is None else score.mean for score in average(effects, kind, group)]
                for group in GROUPS
            ]
            for kind in KINDS
        }
        top = max(value for rows in means.values() for row in rows for value in row if value == value)
        bar = _maps(figure, panels, means, (0.0, max(top, 1e-9)), list(GROUPS), window)
        bar.set_label("average indirect effect")
        _save(figure, target)


def draw_leverage(profile: LeverageProfile, target: Path) -> None:
    """The leverage of the subjects' last tokens and of the others, block by block."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 3), layout="constrained")
        axes = figure.subplots()
        layers = [one.layer for one in profile.blocks]
        curves = {
            "subject's last token": [one.subject for one in profile.blocks],
            "other tokens": [one.others for one in profile.blocks],
            "prompt's last token": [one.last for one in profile.blocks],
        }
        for (name, values), (color, dash, marker) in zip(curves.items(), CURVES, strict=False):
            axes.plot(layers, values, dash, color=color, marker=marker, markersize=3, label=name)
        axes.set_yscale("log")
        axes.set_xlabel("block")
        axes.set_ylabel("leverage / width of the FFN")
        axes.legend(frameon=False)
        _save(figure, target)


def draw_curves(effects: Sequence[Effects], window: int, target: Path) -> None:
    """AIE with its 95 % interval over facts, a curve for each group of tokens."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3), layout="constrained")
        panels: list[Axes] = list(figure.subplots(1, len(KINDS), sharey=True))
        for axes, kind in zip(panels, KINDS, strict=True):
            for group, (color, dash, marker) in zip(GROUPS, CURVES, strict=True):
                scores = average(effects, kind, group)
                there = [(layer, score) for layer, score in enumerate(scores) if score is not None]
                if not there:
                    continue
                layers = [layer for layer, _ in there]
                axes.plot(
                    layers,
                    [score.mean for _, score in there],
                    dash,
                    color=color,
                    marker=marker,
                    markersize=3,
                    linewidth=1.1,
                    label=group,
                )
                if any(score.margin for _, score in there):
                    low = [score.mean - (score.margin or 0) for _, score in there]
                    high = [score.mean + (score.margin or 0) for _, score in there]
                    axes.fill_between(layers, low, high, color=color, alpha=0.15, linewidth=0)
            _name(axes, kind, window, None)
            axes.grid(color="#dddddd", linewidth=0.5)
        panels[0].set_ylabel("average indirect effect")
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
        )
        _save(figure, target)


def draw_all(located: Located, folder: Path, facts: int) -> list[str]:
    """Draw the average, the curves, and the first so many facts; the names of the facts' figures, without an ending."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_average(located.effects, located.window, folder / "average")
    draw_curves(located.effects, located.window, folder / "curves")
    names: list[str] = []
    for number, one in enumerate(located.effects[:facts], start=1):
        names.append(f"fact-{number:03d}")
        draw_fact(one, located.window, folder / names[-1])
    return names


def _panels(rows: int, layers: int) -> tuple[Figure, Sequence[Axes]]:
    width = 3 + len(KINDS) * min(3.2, max(1.6, 0.16 * layers))
    figure = Figure(figsize=(width, 1.1 + 0.17 * rows), layout="constrained")
    return figure, list(figure.subplots(1, len(KINDS), sharey=True))


def _maps(
    figure: Figure,
    panels: Sequence[Axes],
    values: Mapping[str, Sequence[Sequence[float]]],
    bounds: tuple[float, float],
    labels: Sequence[str],
    window: int,
) -> Colorbar:
    """One heat map for each kind, all with the same colors, and the bar that explains them."""
    drawn: list[AxesImage] = []
    for axes, kind in zip(panels, KINDS, strict=True):
        low, high = bounds
        drawn.append(
            axes.imshow(values[kind], cmap=MAP, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
        )
        _name(axes, kind, window, labels if kind == KINDS[0] else None)
    return figure.colorbar(drawn[0], ax=panels, shrink=0.9, pad=0.02)


def _name(axes: Axes, kind: str, window: int, labels: Sequence[str] | None) -> None:
    """Title and ticks; `labels` are those of the rows, None where the vertical axis has numbers of its own."""
    axes.set_title(TITLES[kind] if kind == KINDS[0] else f"{TITLES[kind]}, window of {window}", fontsize=8)
    axes.set_xlabel("layer put back" if kind == KINDS[0] else "middle of the window")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if labels:
        axes.set_yticks(range(len(labels)), [_plain(label) for label in labels])


def _plain(text: str) -> str:
    """A dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def _save(figure: Figure, target: Path) -> None:
    figure.savefig(target.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(target.with_suffix(".png"), dpi=200)
