"""Writes docs/cli.md from what `--help` prints, or checks that it is up to date.

python -m errata.cli.reference [--check]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from typer.testing import CliRunner

from errata.cli.app import app
from errata.cli.terminal import EXIT_CODES

FILE = Path(__file__).parents[3] / "docs" / "cli.md"
COMMANDS = (
    "",
    "demo",
    "edit",
    "show",
    "evaluate",
    "apply",
    "export",
    "import",
    "stack edit",
    "stack add",
    "stack remove",
    "stack merge",
    "log",
    "diff",
    "web",
    "reproduce",
    "tasks",
    "calibrate",
    "locate",
    "facts check",
    "facts neighbors",
    "facts known",
    "covariance collect",
    "covariance show",
    "covariance import",
    "train-editor",
    "models",
    "methods",
    "metrics",
)
ENVIRONMENT = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
INTRODUCTION = """# The command line

<!-- Written by `python -m errata.cli.reference` from what --help prints. Do not edit; `make check` compares. -->

Results go to stdout, everything else (progress, notes, warnings, errors) to stderr. With `--json` the result is one
JSON object. Output folders must be new; they appear when they are whole, or not at all.
"""


def reference() -> str:
    """The text of docs/cli.md."""
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())
    parts = [INTRODUCTION, f"## Exit codes\n\n| code | meaning |\n|---|---|\n{codes}\n"]
    for command in COMMANDS:
        title = f"errata {command}".strip()
        parts.append(f"## {title}\n\n```text\n{_help(command)}\n```\n")
    return "\n".join(parts)


def _help(command: str) -> str:
    done = CliRunner(env=ENVIRONMENT).invoke(app, [*command.split(), "--help"], prog_name="errata")
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def main() -> None:
    """Write the file, or with --check exit with 1 where it differs."""
    text = reference()
    if "--check" not in sys.argv[1:]:
        FILE.write_text(text, encoding="utf-8")
    elif not FILE.is_file() or FILE.read_text(encoding="utf-8") != text:
        sys.exit(f"{FILE} is not up to date. Run: python -m errata.cli.reference")


if __name__ == "__main__":
    main()
