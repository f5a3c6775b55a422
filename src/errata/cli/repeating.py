"""The options of `errata edit` that repeat a method, and the table of what each write did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import errata
from errata.cli.tables import table
from errata.errors import SettingsError

PANEL = "Repeating the edit, and guarding the model"
STOPS = ("delta_p", "monotonic", "small_change", "never")
EPSILON = 1.0
GUARD = (3.0, 0.5)
"""The guard's bounds where the command line gives none."""

Iterations = Annotated[
    int,
    typer.Option(
        min=1,
        help="Repeat the edit until the weights carry it, so many times at most.",
        rich_help_panel=PANEL,
    ),
]
Stop = Annotated[
    str,
    typer.Option(metavar="RULE", help=f"When to stop: {', '.join(STOPS)}.", rich_help_panel=PANEL),
]
Epsilon = Annotated[
    float, typer.Option(min=0.0, help="The bound of delta_p and small_change.", rich_help_panel=PANEL)
]
KeepBest = Annotated[
    bool,
    typer.Option(
        "--keep-best", help="Keep the iteration that carries the facts best.", rich_help_panel=PANEL
    ),
]
OnlyUnderedited = Annotated[
    bool,
    typer.Option(
        "--only-underedited",
        help="Optimise again only the facts that the model does not say yet.",
        rich_help_panel=PANEL,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Write so many facts at once, batch after batch.", rich_help_panel=PANEL),
]
GuardFlag = Annotated[
    bool,
    typer.Option(
        "--guard",
        help="Measure the model after every write; take back one that harms it.",
        rich_help_panel=PANEL,
    ),
]
GuardPerplexity = Annotated[
    float,
    typer.Option(help="So many times the first perplexity is allowed.", rich_help_panel=PANEL),
]
GuardAccuracy = Annotated[
    float,
    typer.Option(help="The share of known neighbors that must stay known.", rich_help_panel=PANEL),
]
GuardTexts = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Texts for the guard's perplexity, one a line.", rich_help_panel=PANEL),
]


def strategy_of(
    iterations: int,
    stop: str,
    epsilon: float,
    keep_best: bool,
    only_underedited: bool,
    batch_size: int | None,
    guard: errata.Guard | None,
) -> errata.Strategy | None:
    """What the options ask for; None for one plain write of all facts.

    Raises:
        SettingsError: there is no such stop rule, or an option would have no effect.
    """
    if stop not in STOPS:
        raise SettingsError(f"There is no stop rule {stop!r}. Choose one of {', '.join(STOPS)}.")
    if iterations == 1 and (keep_best or only_underedited):
        raise SettingsError(
            f"{'--keep-best' if keep_best else '--only-underedited'} is about iterations, and there is one. "
            "Say how many there may be: --iterations 10."
        )
    if iterations == 1 and (stop != STOPS[0] or epsilon != EPSILON):
        raise SettingsError(
            f"{'--stop' if stop != STOPS[0] else '--epsilon'} is about iterations, and there is one. "
            "Say how many there may be: --iterations 10."
        )
    if iterations == 1 and batch_size is None and guard is None:
        return None
    return errata.Strategy(
        iterations=iterations,
        stop=stop,
        epsilon=epsilon,
        keep_best=keep_best,
        only_underedited=only_underedited,
        batch_size=batch_size,
        guard=guard,
    )


def guard_of(wanted: bool, perplexity: float, accuracy: float, texts: Path | None) -> errata.Guard | None:
    """The guard that the options describe.

    Raises:
        SettingsError: a bound without a sense, no such file of texts, or an option for no guard.
    """
    if not wanted:
        given = {
            "--guard-texts": texts is not None,
            "--guard-perplexity": perplexity != GUARD[0],
            "--guard-accuracy": accuracy != GUARD[1],
        }
        for name in (name for name, there in given.items() if there):
            raise SettingsError(f"{name} is for the guard, which is not asked for: add --guard.")
        return None
    lines: tuple[str, ...] = ()
    if texts is not None:
        try:
            read = texts.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise SettingsError(f"The guard's texts cannot be read from {texts}: {error}.") from error
        lines = tuple(line for line in read if line.strip())
        if not lines:
            raise SettingsError(f"{texts} holds no text. Write one a line.")
    return errata.Guard(max_perplexity_ratio=perplexity, min_accuracy_ratio=accuracy, texts=lines)


Check = Annotated[
    bool | None,
    typer.Option(
        "--check/--no-check",
        help="Ask every fact after the write, and write again what is not said, within bounds on perplexity and "
        "neighbors. Default: yes, where no preset is known for the model and nothing of this or of the values is set.",
        rich_help_panel=PANEL,
    ),
]

COLUMNS = {
    "batch": ">Batch",
    "iteration": ">Iter.",
    "facts": ">Facts",
    "optimised": ">Opti-\nmised",
    "p_optimised": ">p,\nvalues",
    "p_spread": ">p,\nweights",
    "underedited": ">Under-\nEdited",
    "update_norm": ">Norm",
    "perplexity": ">Per-\nplexity",
    "neighbor_accuracy": ">Neigh-\nbors, %",
    "seconds": ">Time,\ns",
}
"""What is shown of a write, where it was measured."""
MOST = 24
"""So many writes are shown: of more, the first and the last ones."""


def history_table(history: Sequence[Mapping[str, object]]) -> Table:
    """What each write of a strategy did; p is the perplexity of the targets, 1 is perfect."""
    shown = {name: head for name, head in COLUMNS.items() if any(name in record for record in history)}
    for name in ("batch", "iteration"):
        if all(record.get(name) == 1 for record in history):
            shown.pop(name, None)
    if all(record.get("optimised") == record.get("facts") for record in history):
        shown.pop("optimised", None)
    if "optimised" in shown or len({str(record.get("facts")) for record in history}) == 1:
        shown.pop("facts", None)
    made = table(">Write", *shown.values(), "Kept", title="Writes")
    rows = list(history)
    for record in rows if len(rows) <= MOST else [*rows[: MOST // 2], None, *rows[-MOST // 2 :]]:
        if record is None:
            made.add_row("...", *[""] * len(shown), "")
            continue
        cells = [_cell(name, record.get(name)) for name in shown]
        made.add_row(str(record["write"]), *cells, "yes" if record.get("kept", True) else "no")
    return made


def _cell(name: str, value: object) -> str:
    if value is None:
        return "-"
    if name == "seconds" and isinstance(value, int | float):
        return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
    if name == "neighbor_accuracy" and isinstance(value, float):
        return f"{100 * value:.0f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
