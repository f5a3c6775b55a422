"""The tests are the same wherever they run: a few of them, started as on a machine that nobody has prepared."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import environment

ROOT = Path(__file__).parents[1]
SOME = (
    "tests/cli/test_models.py",
    "tests/cli/test_facts.py",
    "tests/web/test_forms.py",
    "tests/runtime/test_files.py",
)
HOSTILE = {
    "HOME": "/nowhere/at/all",
    "XDG_CACHE_HOME": "/nowhere/at/all",
    "ERRATA_CACHE": "/nowhere/at/all",
    "ERRATA_FACTS": "/nowhere/at/all",
    "HF_HOME": "/nowhere/at/all",
    "HF_HUB_OFFLINE": "0",
    "LANG": "C",
    "LC_ALL": "C",
    "COLUMNS": "40",
    "TERM": "xterm-256color",
    "FORCE_COLOR": "1",
    "TZ": "Pacific/Kiritimati",
    "PYTHONHASHSEED": "1",
    "RANK": "1",
    "WORLD_SIZE": "2",
}


def test_a_home_terminal_language_and_settings_of_the_user_change_nothing() -> None:
    """They are started without xdist, as `make test` has started it already."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    kept.pop(environment.HOME)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *SOME, "-n", "0", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**kept, **HOSTILE},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["ERRATA_FACTS", "FORCE_COLOR", "RANK"])
def test_what_the_user_has_set_is_not_there(name: str) -> None:
    assert name not in os.environ


def test_the_quick_part_touches_every_room() -> None:
    """`make test-fast` runs what tests/fast.txt names."""
    named = (ROOT / "tests" / "fast.txt").read_text(encoding="utf-8").split()
    files = {name.partition("::")[0] for name in named}
    assert not [name for name in files if not (ROOT / name).exists()]
    rooms = {path.parent.name for path in (ROOT / "src" / "errata").glob("*/__init__.py")}
    assert rooms == {Path(name).parent.name for name in files} - {"tests"}
