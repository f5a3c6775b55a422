"""CounterFact and zsRE as tasks of the lm-evaluation-harness: a folder of YAML files for its `--include_path`."""

from pathlib import Path


def tasks_folder() -> Path:
    """The folder to include."""
    return Path(__file__).parent


__all__ = ["tasks_folder"]
