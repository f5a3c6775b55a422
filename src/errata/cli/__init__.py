"""The command line: one file per command. `errata --help` lists them, docs/cli.md has the help of each.

The files import what is heavy (torch, transformers) inside their functions: help is there at once.
"""

import os
import sys
import warnings
from io import TextIOWrapper


def main() -> None:
    """What the program `errata` runs."""
    from errata.cli.app import app

    # Idle worker threads of torch sleep instead of spinning, which is faster wherever matrices are small or cores few.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # other packages' advice to their developers
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a sign shows "?"
    app()


__all__ = ["main"]
