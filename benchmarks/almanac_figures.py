"""Figures of what `almanac_methods.py` stored: `python benchmarks/almanac_figures.py --output DIR --figures FOLDER`.

`iterations.svg`: p of the optimised values and of the edited weights, and what iterations gain and cost (paper 2,
figure 3). `preserve.svg`: generalization against what is left of the edited subjects.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib import ticker

from errata.results import load_results, score_records

COLORS = {"MEMIT": "#2471a3", "PMET": "#c0392b", "ROME": "#1e8449"}
SHOWN = {
    "efficacy_accuracy": "efficacy",
    "generalization_accuracy": "generalization",
    "specificity_accuracy": "specificity",
    "same_subject_accuracy": "same subject",
    "unrelated_accuracy": "unrelated",
}


def main() -> None:
    """Draw what there is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="the folder of almanac_methods.py")
    parser.add_argument("--development", type=Path, help="the same for runs on the development half")
    parser.add_argument("--figures", type=Path, required=True, help="where to draw")
    arguments = parser.parse_args()
    arguments.figures.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams["svg.hashsalt"] = "errata"  # the same figure is the same file
    draw_iterations(arguments.output / "iterations", arguments.figures / "iterations.svg")
    draw_preserve(
        (arguments.development or arguments.output) / "preserve", arguments.figures / "preserve.svg"
    )


def draw_iterations(folder: Path, target: Path) -> None:
    """One column a method: p's above, accuracies below."""
    methods = [name for name in COLORS if list(folder.glob(f"{name}-*.json"))]
    figure, axes = plt.subplots(2, len(methods), figsize=(4.2 * len(methods), 6), squeeze=False)
    for column, method in enumerate(methods):
        cells = sorted(folder.glob(f"{method}-*.json"))
        histories = [json.loads(cell.read_text())["history"] for cell in cells]
        steps = range(1, 1 + min(len(history) for history in histories))
        above, below = axes[0][column], axes[1][column]
        for name, label, style in (
            ("p_optimised", "p of the values", "--"),
            ("p_spread", "p of the weights", "-"),
        ):
            means = [mean([history[step - 1][name] for history in histories]) for step in steps]
            above.plot(steps, means, style, color=COLORS[method], label=label)
        above.set(title=f"{method}, {cells[0].name.split('-')[1]} edits", yscale="log", xticks=list(steps))
        above.yaxis.set_major_formatter(ticker.FormatStrFormatter("%.4g"))
        above.yaxis.set_minor_formatter(ticker.FormatStrFormatter("%.4g"))
        above.legend(frameon=False)
        for name, label in SHOWN.items():
            values = [score(cells, step, name) for step in steps]
            below.plot(steps, values, marker="o", markersize=3, label=label)
        below.set(xlabel="iteration", ylabel="accuracy, %", ylim=(0, 101), xticks=list(steps))
    axes[1][-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, target)


def score(cells: Sequence[Path], step: int, name: str) -> float:
    """A score in percent after a write, over all cells."""
    paths = [cell.with_name(f"{cell.stem}-k{step}.jsonl") for cell in cells]
    records = [record for path in paths for record in load_results(path).records]
    found = score_records(records, "after")[name]
    return 100 * found.mean if found else float("nan")


def draw_preserve(folder: Path, target: Path) -> None:
    """Every row as a point: what the fact gains, and what the subject keeps."""
    figure, axis = plt.subplots(figsize=(10, 5))
    names = sorted({cell.name.rpartition("-100-")[0] for cell in folder.glob("*-100-*.json")} - {"unedited"})
    for number, name in enumerate(names, start=1):
        cells = sorted(folder.glob(f"{name}-100-*.json"))
        records = [record for cell in cells for record in load_results(cell.with_suffix(".jsonl")).records]
        scores = score_records(records, "after")
        kept, said = scores["same_subject_accuracy"], scores["generalization_accuracy"]
        if kept and said:
            at = (100 * kept.mean, 100 * said.mean)
            color = "#1e8449" if "own" in name else "#b9770e" if "foreign" in name else "#c0392b"
            axis.plot(*at, "o", color=color, label=f"{number}  {name}")
            below = number % 2 == 0  # two rows may fall on one point
            axis.annotate(
                str(number), at, fontsize=8, xytext=(4, -10 if below else 4), textcoords="offset points"
            )
    axis.set(xlabel="other facts of the edited subjects still right, %", ylabel="generalization, accuracy %")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, target)


def mean(values: Sequence[float]) -> float:
    """The plain mean."""
    return sum(values) / len(values)


def save(figure: plt.Figure, target: Path) -> None:
    """Write the figure without a date."""
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)
    print(target)


if __name__ == "__main__":
    main()
