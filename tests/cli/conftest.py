"""What every test of a command starts from: a tiny checkpoint with facts on disk, and a cache of its own."""

from pathlib import Path

import pytest

from cli_world import World, the_world


@pytest.fixture
def world() -> World:
    return the_world()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test writes into the user's cache."""
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
