"""What is logged can be read back; without the library one is told before anything is run."""

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from cli_world import failed, the_world
from edit_cases import random_edit
from errata.errors import MissingExtra, SettingsError
from errata.evaluation.evaluate import evaluate
from errata.report import tracking
from errata.report.tracking import Tracker
from errata.results.outcomes import Phase
from families import FACTS, tiny_model

HISTORY = ({"write": 1, "p_spread": 3.5, "kept": True}, {"write": 2, "p_spread": float("nan"), "kept": False})


def test_tensorboard_holds_settings_writes_and_scores_with_their_intervals(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model = tiny_model("gpt2")
    edit = replace(random_edit(model), history=HISTORY)
    results = evaluate(model, FACTS[:2], edit, generate=False, trustworthy=False)
    with Tracker.of(f"tensorboard:{tmp_path}", "mine") as tracker:
        tracker.edit(edit)
        tracker.results(results)
    read = event_accumulator.EventAccumulator(str(tmp_path / "mine"))
    read.Reload()
    numbers = {
        name: {event.step: event.value for event in read.Scalars(name)} for name in read.Tags()["scalars"]
    }
    assert numbers["write/p_spread"] == {1: 3.5}
    assert numbers["write/kept"] == {1: 1.0, 2: 0.0}
    assert numbers["edit/seconds"] == {2: 1.5}
    phases: tuple[Phase, ...] = ("before", "after")
    for phase in phases:
        measured = {name: score for name, score in results.scores(phase).items() if score is not None}
        assert "efficacy_success" in measured
        for name, score in measured.items():
            ends = {"": score.mean, "/low": score.low, "/high": score.high, "/count": score.count}
            for end, value in ends.items():
                found = numbers.get(f"{phase}/{name}{end}")
                assert found == (None if value is None else {0: pytest.approx(value, rel=1e-6)})
    (text,) = read.Tensors("settings/text_summary")
    assert b'"values.clamp": 0.75' in text.tensor_proto.string_val[0]


@pytest.mark.parametrize("library", ["trackio", "wandb"])
def test_the_others_take_the_same_without_a_network(library: str, tmp_path: Path) -> None:
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    program = f"""
from errata.report.tracking import Tracker
with Tracker.of("{library}:shop", "mine") as tracker:
    tracker.sink.settings({{"method": "pmet"}})
    tracker.sink.numbers({{"after/score": 0.5}}, 0)
"""
    kept = {"TRACKIO_DIR": str(tmp_path), "WANDB_DIR": str(tmp_path), "WANDB_MODE": "offline"}
    environment = {**os.environ, **kept, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(b"after/score" in file.read_bytes() for file in files), files


def test_a_library_that_is_missing_is_told_before_anything_is_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"needs the package wandb: pip install 'errata\[track\]'"):
        tracking.check("wandb:mine")
    world = the_world()
    message = failed(
        "edit", world.model, "--facts", world.facts, "--output", tmp_path / "new", "--track", "trackio"
    )
    assert "errata[track]" in message
    assert not (tmp_path / "new").exists()


def test_an_unknown_tracker_is_told() -> None:
    with pytest.raises(SettingsError, match=r"There is no tracker 'mlflow'\. Choose one of trackio"):
        tracking.check("mlflow")
