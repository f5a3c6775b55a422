"""`errata edit --plan`: what an edit will do, and where each of its settings comes from."""

from __future__ import annotations

import errata
from errata.cli.terminal import Terminal


def show(terminal: Terminal, plan: errata.Plan) -> None:
    """Print the plan."""
