"""The command line: one file per command. `errata --help` lists them, docs/cli.md has the help of each.

The files import what is heavy (torch, transformers) inside their functions: help is there at once.
"""

import sys
import warnings
from io import TextIOWrapper


def main() -> None:
    """What the program `errata` runs."""
    from errata.cli.app import app

    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # other packages' advice to their developers
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a sign shows "?"
    app()
