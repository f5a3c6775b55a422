"""`errata metrics`: every metric, by name and definition."""

from __future__ import annotations

from typing import get_args

from rich.table import Table
from rich.text import Text

from errata.cli import options
from errata.cli.tables import table
from errata.cli.terminal import session
from errata.results import REGISTRY, Block

EPILOG = options.examples("errata metrics", "errata metrics --json")


def metrics(seed: options.Seed = 0, quiet: options.Quiet = False, as_json: options.Json = False) -> None:
    """List the metrics: what each one means, what it needs, and where it comes from."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        for block in get_args(Block):
            terminal.show(_table(block))
        terminal.result(
            {
                "metrics": [
                    {
                        "name": metric.name,
                        "label": metric.label,
                        "definition": metric.definition,
                        "needs": metric.needs,
                        "source": metric.source,
                        "block": metric.block,
                        "unit": metric.unit,
                    }
                    for metric in REGISTRY.values()
                ]
            }
        )


def _table(block: Block) -> Table:
    """What the registry says of each metric of one block."""
    made = table("Metric", "", "", title=f"{block.capitalize()} evaluation")
    for metric in (one for one in REGISTRY.values() if one.block == block):
        made.add_row(Text(metric.name, "bold"), "is", metric.definition)
        made.add_row("", "needs", metric.needs)
        made.add_row("", "from", metric.source, end_section=True)
    return made
