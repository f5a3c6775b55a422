"""One constant says which method is the default: commands, Python, the page, the demo and the forecasts follow it."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import errata
from cli_world import flat, run
from errata.calibrate import CalibrationRequest
from errata.cli.app import app
from errata.cli.demo import run_demo
from errata.methods import METHODS
from errata.settings import DEFAULT_METHOD

SOURCES = Path(errata.__file__).parent
OTHER = "two_site"
"""A method with two sites: whatever reads `layers` alone does not find its blocks."""
SWITCHED = f"""
import errata.settings
import errata.settings.method_presets
errata.settings.DEFAULT_METHOD = errata.settings.method_presets.DEFAULT_METHOD = {OTHER!r}
import errata
from errata.calibrate import CalibrationRequest
from errata.cli import measuring
from errata.cli.demo import run_demo
from errata.planning.sizes import known_shapes
from errata.settings import load_presets
from families import tiny_model

assert errata.EditRequest([]).method == CalibrationRequest().method == {OTHER!r}
assert errata.edit.__defaults__[0] == run_demo.__defaults__[0] == {OTHER!r}
model = tiny_model("gpt2")
found = load_presets({OTHER!r}).for_model(model.name, model.layers).values
expected = [*found["early.layers"], *found["late.layers"]]
assert [site.layer for site in measuring.sites_of(model, "ffn", None)] == expected
assert all(len(shape.layers) > 5 and sorted(shape.layers) == list(shape.layers) for shape in known_shapes())
"""


def commands() -> list[tuple[str, ...]]:
    """The commands that take a method."""
    return [("edit",), ("stack", "edit"), ("calibrate",), ("demo",)]


def test_it_is_a_method_that_any_model_can_be_edited_with() -> None:
    assert METHODS[DEFAULT_METHOD].optimizes_values


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_command_line(words: tuple[str, ...]) -> None:
    command = get_command(app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    (method,) = [one for one in command.params if one.name == "method"]
    assert method.default == DEFAULT_METHOD


def test_python() -> None:
    assert inspect.signature(errata.edit).parameters["method"].default == DEFAULT_METHOD
    assert errata.EditRequest([]).method == DEFAULT_METHOD
    assert CalibrationRequest().method == DEFAULT_METHOD
    assert inspect.signature(run_demo).parameters["method"].default == DEFAULT_METHOD


def test_what_is_told() -> None:
    assert f"Default: those that {DEFAULT_METHOD} writes" in flat(
        run("covariance", "collect", "--help").stdout
    )
    assert f"written by {DEFAULT_METHOD}" in flat(run("models", "--memory").stdout)
    assert f"{DEFAULT_METHOD} is the default" in flat(run("methods").stderr)


def test_it_is_written_down_once() -> None:
    """Elsewhere only a method's own file, and whoever speaks of that method, may name one."""
    words = [f'"{name}"' for name in METHODS]
    places = ("= {}", "value={}", "=({}", "method={}", "load_presets({}", "settings_for(model, {}")
    wanted = [place.format(word) for place in places for word in words]
    found = [
        f"{path.relative_to(SOURCES)}: {line.strip()}"
        for path in sorted(SOURCES.rglob("*.py"))
        if path.parent.name not in ("methods", "mend")
        for line in path.read_text(encoding="utf-8").splitlines()
        if any(text in line for text in wanted)
    ]
    assert found == [f'settings/method_presets.py: DEFAULT_METHOD = "{DEFAULT_METHOD}"']


def test_changing_it_is_enough() -> None:
    paths = [str(Path(__file__).parent / "support"), str(SOURCES.parent)]
    program = f"import sys; sys.path[:0] = {paths!r}\n{SWITCHED}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
