"""`errata tasks`: where our tasks for the lm-evaluation-harness lie."""

from __future__ import annotations

from errata.cli import options
from errata.cli.tables import table
from errata.cli.terminal import session

EPILOG = options.examples(
    "errata tasks",
    "errata evaluate almanac --facts facts.jsonl --edit my-edit --tasks errata_counterfact",
)


def tasks(seed: options.Seed = 0, quiet: options.Quiet = False, as_json: options.Json = False) -> None:
    """Print the folder with CounterFact and zsRE as tasks of the lm-evaluation-harness, for its --include_path."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        from errata.evaluation.harness import tasks_folder

        folder = tasks_folder()
        names = [f"errata_{file.stem}" for file in sorted(folder.glob("*.yaml"))]
        terminal.show(str(folder), wrap=False)
        if not quiet:
            made = table("Task")
            for name in names:
                made.add_row(name)
            terminal.show(made)
        terminal.note('With the harness itself: --include_path FOLDER --metadata \'{"facts": "FILE"}\'')
        terminal.result({"folder": str(folder), "tasks": names})
