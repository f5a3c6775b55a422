"""What the documents tell people to type can be typed, and what they tell people to write can be read."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from errata.cli.app import app
from errata.facts.fact import fact_from_json

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "docs/quickstart.md",
    "docs/facts.md",
    "docs/covariance.md",
    "docs/locate.md",
    "docs/calibrate.md",
    "docs/settings.md",
)
COMMAND = re.compile(r"^(?:    )?errata ((?!-)[^`#\n]+)", re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    return [
        (page, line.strip()) for page in PAGES for line in COMMAND.findall((ROOT / page).read_text("utf-8"))
    ]


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_of_a_page_is_understood(page: str, line: str) -> None:
    command = get_command(app)
    words = shlex.split(line)
    context = command.make_context("errata", words[:1])
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
    assert not hasattr(command, "commands"), f"{page}: {line!r} names no command"
    command.make_context(line, words, parent=context)


def test_there_are_commands_in_the_pages() -> None:
    assert len(commands()) > 10


def test_the_facts_of_the_quickstart_can_be_read() -> None:
    block = re.search(r"```json\n(.+?)```", (ROOT / "docs/quickstart.md").read_text("utf-8"), re.DOTALL)
    assert block is not None
    facts = [fact_from_json(json.loads(line)) for line in block[1].splitlines()]
    assert [fact.subject for fact in facts] == ["France", "Hamlet"]
