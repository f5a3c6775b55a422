"""docs/cli.md is what --help prints, and covers every command."""

import sys
from pathlib import Path

import pytest

from errata.cli import reference
from errata.cli.app import app, covariance_app, facts_app, stack_app


def test_the_reference_covers_every_command() -> None:
    names = {command.name for command in app.registered_commands}
    for group, inner in (("facts", facts_app), ("covariance", covariance_app), ("stack", stack_app)):
        names |= {f"{group} {command.name}" for command in inner.registered_commands}
    assert names == set(reference.COMMANDS) - {""}


def test_the_reference_is_up_to_date() -> None:
    assert reference.FILE.read_text(encoding="utf-8") == reference.reference()


def test_check_tells_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cli.md"
    monkeypatch.setattr(reference, "FILE", file)
    monkeypatch.setattr(sys, "argv", ["reference", "--check"])
    with pytest.raises(SystemExit, match=r"Run: python -m errata\.cli\.reference"):
        reference.main()
    monkeypatch.setattr(sys, "argv", ["reference"])
    reference.main()
    monkeypatch.setattr(sys, "argv", ["reference", "--check"])
    reference.main()


def test_the_reference_names_no_machine() -> None:
    assert str(Path.home()) not in reference.reference()
