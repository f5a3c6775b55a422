"""The folder of a finished calibration: a page in Markdown, everything as JSON, the preset, and the trade-off drawn.

report.md            what was found, held-out facts before and after, every trial
calibration.json     the same for programs
preset.toml          for `errata edit --preset`; the same file as the one that is found by itself
trade-off.svg, .png  what is kept of the subjects against how well other wordings follow, trial by trial
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from errata.calibrate.objective import BOUNDS, GOAL, Measures, shortfalls
from errata.calibrate.presets import calibrated_text
from errata.calibrate.request import Calibration, Trial
from errata.errors import MissingExtra
from errata.runtime import atomic_folder, to_json, write_json

REPORT, NUMBERS, PRESET, PICTURE = "report.md", "calibration.json", "preset.toml", "trade-off"
EXTRA = ("matplotlib", "optuna")
COLUMNS = {
    "efficacy": "Efficacy, %",
    "paraphrases": "Paraphrases, %",
    "specificity": "Specificity, %",
    "statements": "Statements kept, %",
    "perplexity": "Perplexity",
}
"""What is shown of `Measures`."""
ENDED = {
    "budget": "its time was over",
    "trials": "it had made all its trials",
    "done": "there was nothing left to try",
}


def check_extra() -> None:
    """Raise now where searching or drawing would fail later.

    Raises:
        MissingExtra: a package is missing.
    """
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise MissingExtra(f"Calibration needs {' and '.join(missing)}: pip install 'errata[calibrate]'.")


def write_report(found: Calibration, path: str | os.PathLike[str]) -> Path:
    """Write the folder; it appears when it is whole.

    Raises:
        OutputExists: something is there already.
        MissingExtra: matplotlib is missing.
    """
    check_extra()
    from errata.calibrate.drawing import draw_trade_off

    with atomic_folder(path) as folder:
        (folder / REPORT).write_text(report_text(found), encoding="utf-8")
        write_json(folder / NUMBERS, summary(found))
        (folder / PRESET).write_text(calibrated_text(found), encoding="utf-8")
        draw_trade_off(found, folder / PICTURE)
    return Path(path)


def summary(found: Calibration) -> dict[str, object]:
    """Everything as a JSON object."""
    held_out = found.held_out
    return {
        "kind": "errata calibration",
        "model": found.model,
        "fingerprint": found.fingerprint,
        "method": found.request.method,
        "seed": found.request.seed,
        "created": found.created,
        "base": found.base,
        "facts_known": found.known[0],
        "facts_asked": found.known[1],
        "development_facts": found.counts[0],
        "held_out_facts": found.counts[1],
        "seconds": round(found.seconds, 1),
        "ended": found.ended,
        "bounds": {name: bound.words for name, bound in BOUNDS.items()},
        "maximized": GOAL,
        "unedited": to_json(found.unedited),
        "best": found.best.number,
        "settings": to_json(found.values),
        "held_out": {**to_json(held_out), "improves": held_out.improves},
        "trials": to_json(found.trials),
    }


def verdict(found: Calibration) -> str:
    """Whether calibration helped on facts that the search has not seen, in a sentence."""
    before, after = found.held_out.as_it_comes_score, found.held_out.calibrated_score
    if found.best.number == 0:
        return "No trial was better than the method as it comes, so its settings stay."
    if found.held_out.improves:
        return (
            f"On held-out facts the calibrated settings are better (score {after:.1f}, before {before:.1f})."
        )
    return (
        "Calibration does NOT improve on the method as it comes on held-out facts "
        f"(score {after:.1f}, before {before:.1f})."
    )


def report_text(found: Calibration) -> str:
    """The page."""
    return "\n".join(
        [
            f"# {found.request.method} calibrated for {found.model}",
            "",
            f"{found.source[:1].upper()}{found.source[1:]}. The search took {found.seconds:.0f} s and ended because "
            f"{ENDED[found.ended]}. The model knows {found.known[0]} of the {found.known[1]} facts it was asked.",
            "",
            f"Looked for: as many {GOAL} about the subject unchanged as possible, where",
            *(f"- {bound.words}" for bound in BOUNDS.values()),
            "",
            "## Held-out facts",
            "",
            *_held_out(found),
            "",
            "## Settings that differ from the method as it comes",
            "",
            *(f"- `{name}` = {value}" for name, value in found.best.settings.items()),
            *(["None."] if not found.best.settings else []),
            "",
            "## Trials, on development facts",
            "",
            f"![Statements kept against paraphrases]({PICTURE}.svg)",
            "",
            *_trials(found),
            "",
        ]
    )


def _held_out(found: Calibration) -> list[str]:
    """The verdict, which bounds do not hold, and the numbers before and after."""
    held_out = found.held_out
    missed = {} if held_out.calibrated is None else shortfalls(held_out.calibrated, held_out.unedited)
    rows = {
        "unedited": held_out.unedited,
        f"as it comes ({found.base})": held_out.as_it_comes,
        "calibrated": held_out.calibrated,
    }
    return [
        verdict(found),
        *(f"Missed by {points:.1f} points: {BOUNDS[name].words}." for name, points in missed.items()),
        "",
        *_table(rows),
    ]


def _table(rows: Mapping[str, Measures | None]) -> list[str]:
    return [
        f"| | {' | '.join(COLUMNS.values())} |",
        f"|---|{'---|' * len(COLUMNS)}",
        *(f"| {name} | {' | '.join(_cells(measures))} |" for name, measures in rows.items()),
    ]


def _trials(found: Calibration) -> Sequence[str]:
    head = [
        f"| Trial | Stage | Settings | {' | '.join(COLUMNS.values())} | Score | Seconds |",
        f"|---|---|---|{'---|' * (len(COLUMNS) + 2)}",
    ]
    return [*head, *(_trial(trial, trial.number == found.best.number) for trial in found.trials)]


def _trial(trial: Trial, best: bool) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in trial.settings.items()) or "-"
    cells = [
        f"{trial.number}{' (best)' * best}",
        trial.stage,
        trial.error or settings,
        *_cells(trial.measures),
        f"{trial.score:.1f}",
        f"{trial.seconds:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _cells(measures: Measures | None) -> list[str]:
    """The numbers of a row; those of perplexity with two digits."""
    values = [None if measures is None else getattr(measures, name) for name in COLUMNS]
    return [
        "-" if value is None else f"{value:.2f}" if name == "perplexity" else f"{value:.1f}"
        for name, value in zip(COLUMNS, values, strict=True)
    ]
