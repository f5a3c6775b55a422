"""Where facts are read and where two sites write them: `python benchmarks/two_site_figure.py --output DIR`.

Causal tracing of development facts (Meng et al. 2022): how much of the answer comes back when the state behind one
block is put back, at the subject's last token and at the prompt's; the layers that `two_site` writes lie behind the
curves. One panel for each `--models NAME=FOLDER`. What is traced is kept in DIR.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

import errata
from errata.almanac import world_facts
from errata.analysis import Effects, average, locate
from errata.methods import settings_for
from errata.settings import flatten

CURVES = {
    "last subject token": ("the subject's last token", "#2471a3"),
    "last token": ("the prompt's last token", "#c0392b"),
}
SITES = {"early.layers": "#2471a3", "late.layers": "#c0392b"}


def main() -> None:
    """Trace and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="what is traced is kept here")
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/two-site.svg"))
    parser.add_argument("--models", nargs="+", default=["Almanac=almanac"], metavar="NAME=FOLDER")
    parser.add_argument("--facts", type=int, default=40)
    arguments = parser.parse_args()
    matplotlib.rcParams["svg.hashsalt"] = "errata"  # the same figure is the same file
    pairs = [text.partition("=") for text in arguments.models]
    figure, panels = plt.subplots(1, len(pairs), figsize=(5.2 * len(pairs), 3.4), squeeze=False, sharey=True)
    for axes, (name, _, folder) in zip(panels[0], pairs, strict=True):
        model = errata.load(folder)
        settings, _ = settings_for(model, "two_site", {}, preset="almanac")
        found = locate(
            model,
            world_facts("development", arguments.facts),
            samples=4,
            keep_in=arguments.output / name,
        )
        draw(axes, found.effects, flatten(settings))
        axes.set_title(f"{name}: {len(found.effects)} facts", fontsize=10, pad=18)
        print(name, *(f"{group}: {peak(found.effects, group)}" for group in CURVES))
    panels[0][0].set_ylabel("average indirect effect")
    panels[0][0].legend(frameon=False, fontsize=8, loc="upper left")
    figure.tight_layout()
    arguments.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.figure, metadata={"Date": None})


def draw(axes: Axes, effects: Sequence[Effects], settings: Mapping[str, Any]) -> None:
    """One model's panel."""
    for setting, color in SITES.items():
        written = settings[setting]
        axes.axvspan(written[0] - 0.5, written[-1] + 0.5, color=color, alpha=0.13, linewidth=0)
        axes.text(
            (written[0] + written[-1]) / 2,
            1.02,
            "written here",
            ha="center",
            fontsize=8,
            color=color,
            transform=axes.get_xaxis_transform(),
        )
    for group, (label, color) in CURVES.items():
        scores = [score for score in average(effects, "state", group) if score is not None]
        means = [score.mean for score in scores]
        margins = [score.margin or 0.0 for score in scores]
        axes.plot(range(len(means)), means, color=color, marker="o", markersize=3, label=label)
        low = [mean - margin for mean, margin in zip(means, margins, strict=True)]
        high = [mean + margin for mean, margin in zip(means, margins, strict=True)]
        axes.fill_between(range(len(means)), low, high, color=color, alpha=0.2, linewidth=0)
    axes.set_xlabel("the block behind which the state is put back")
    axes.set_xticks(range(len(effects[0].restored["state"])))


def peak(effects: Sequence[Effects], group: str) -> str:
    """AIE by block, in percent."""
    return " ".join(
        "-" if one is None else f"{100 * one.mean:.0f}" for one in average(effects, "state", group)
    )


if __name__ == "__main__":
    main()
