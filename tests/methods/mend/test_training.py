"""Training an editor: it learns, stops early, is killed and goes on; what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from errata.errors import EditorError, FactError, LayerOutOfRange, OutputExists, PromptTooLong, SettingsError
from errata.facts.fact import Fact
from errata.facts.probes import Probe
from errata.methods.mend.editor import edited_sites
from errata.methods.mend.objective import Objective
from errata.methods.mend.store import load_editor, new_editor
from errata.methods.mend.trainer import train_editor
from errata.methods.mend.training import Course, State
from errata.models.model import EditableModel
from errata.planning.plan import edit
from errata.runtime.progress import silent
from families import FACTS, tiny_model
from mend_cases import (
    assert_untouched,
    examples,
    trainable,
    weights_of,
)
from mend_editors import TRAINING, training_settings


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_training_lowers_the_loss_on_facts_held_back(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    before = weights_of(model)
    given = {**TRAINING, "steps": 30, "validate_every": 10, "alpha_rate": 2e-2, "learning_rate": 1e-4}
    trained = train_editor(model, trainable(), tmp_path / "editor", given)
    record = trained.origin.training
    assert record["best"]["loss"] < 0.97 * record["first"]["loss"]
    assert (record["steps"], record["trained_on"], record["held_back"]) == (30, 4, 2)
    assert_untouched(model, before)
    loaded = load_editor(tmp_path / "editor")
    assert (loaded.settings, loaded.origin.training) == (trained.settings, record)
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in trained.tensors.items())
    settings = {"layers": [1, 2], "editor": str(tmp_path / "editor")}
    found = edit(model, FACTS, "mend", settings)
    assert found.deltas.keys() == {site.path for site in edited_sites(model, [1, 2])}


@pytest.mark.parametrize("outputs", ["gradient", "standardised"])
def test_the_networks_learn_what_they_are_shown(outputs: str) -> None:
    model = tiny_model("gpt2")
    alpha = 0.05 if outputs == "gradient" else 1e-3
    settings = training_settings(outputs=outputs, alpha=alpha, alpha_rate=0, steps=40)
    editor = new_editor(model, settings, 0)
    objective = Objective.of(model, editor, settings.layers)
    course = Course(objective, examples(), examples(), settings, 0)
    course.measure_statistics()
    state = State.fresh(editor, settings)
    course.run(state, lambda: None, silent)
    assert torch.equal(editor.alpha, torch.full_like(editor.alpha, settings.alpha))
    assert state.history[-1].loss < 0.9 * state.history[0].loss


def test_the_best_editor_is_kept_and_training_ends_early(tmp_path: Path) -> None:
    given = {**TRAINING, "steps": 60, "validate_every": 2, "patience": 2, "learning_rate": 0.03}
    trained = train_editor(tiny_model("gpt2"), trainable(), tmp_path / "editor", given)
    record = trained.origin.training
    assert record["stopped_early"]
    assert record["steps"] == record["best"]["step"] + 4
    assert record["best"]["loss"] == min(each["loss"] for each in record["history"])


def test_gradients_of_several_edits_can_be_one_step(tmp_path: Path) -> None:
    """Two edits a step at half the weight each: the first step sees what the first two see one by one."""
    model = tiny_model("gpt2")
    given = {**TRAINING, "steps": 1, "accumulate": 2, "learning_rate": 1e-2}
    two = train_editor(model, trainable(), tmp_path / "two", given)
    one = train_editor(model, trainable(), tmp_path / "one", {**given, "accumulate": 1})
    assert any(not torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)


def killed_at(step: int) -> object:
    def kill(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == step:
            raise KeyboardInterrupt

    return kill


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_killed_training_ends_with_the_same_bits(
    schedule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("gpt2")
    given = {**TRAINING, "schedule": schedule}
    whole = train_editor(model, trainable(), tmp_path / "whole", given, seed=3)
    for step in (3, 7, 9):
        with pytest.raises(KeyboardInterrupt):
            train_editor(
                model,
                trainable(),
                tmp_path / "parts",
                given,
                seed=3,
                keep_every=2,
                on_progress=killed_at(step),  # type: ignore[arg-type]
            )
        assert not (tmp_path / "parts").exists()
        assert (tmp_path / "parts.partial").is_file()
    taken: list[int] = []
    step_of = Course._step
    monkeypatch.setattr(Course, "_step", lambda self, state: (taken.append(state.step), step_of(self, state)))
    parts = train_editor(model, trainable(), tmp_path / "parts", given, seed=3)
    assert taken == [8, 9, 10, 11]
    assert not (tmp_path / "parts.partial").exists()
    files = [(tmp_path / name / "editor.safetensors").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]
    records = [{**one.origin.training, "seconds": 0} for one in (whole, parts)]
    assert records[0] == records[1]


def test_an_unfinished_run_is_not_taken_for_another_one(tmp_path: Path) -> None:
    model, facts, output = tiny_model("gpt2"), trainable(), tmp_path / "editor"

    def refused(model: EditableModel, facts: list[Fact], given: dict[str, object], seed: int = 0) -> str:
        with pytest.raises(EditorError) as caught:
            train_editor(model, facts, output, given, seed, keep_every=2)
        return str(caught.value)

    with pytest.raises(KeyboardInterrupt):
        train_editor(model, facts, output, TRAINING, keep_every=2, on_progress=killed_at(4))  # type: ignore[arg-type]
    assert "its setting 'rank' is 8, here 4" in refused(model, facts, {**TRAINING, "rank": 4})
    assert "its seed is 0, here 1" in refused(model, facts, TRAINING, 1)
    assert "its facts is" in refused(model, facts[::-1], TRAINING)
    assert "its model is" in refused(tiny_model("qwen2"), facts, TRAINING)
    (tmp_path / "editor.partial").write_bytes((tmp_path / "editor.partial").read_bytes()[:-50])
    assert "is no unfinished editor, or damaged" in refused(model, facts, TRAINING)
    save_file({"a": torch.zeros(1)}, tmp_path / "editor.partial")
    assert "is no unfinished editor, or damaged" in refused(model, facts, TRAINING)


def test_a_loss_that_is_not_a_number_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(
        EditorError, match=r"At step \d the loss or its gradient became infinite or not a number"
    ):
        train_editor(tiny_model("gpt2"), trainable(), tmp_path / "editor", {**TRAINING, "alpha": 1e30})
    assert not (tmp_path / "editor").exists()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"layers": []}, SettingsError, "'layers' must be one or more different blocks"),
        ({"layers": [2, 9]}, LayerOutOfRange, "names block 9"),
        ({"rank": 0}, SettingsError, "'rank' must be at least 1"),
        ({"statistics": 1}, SettingsError, "'statistics' must be at least 2"),
        ({"learning_rate": 0}, SettingsError, "'learning_rate' must be above 0"),
        ({"at_once": [0, 1]}, SettingsError, "'at_once' must be numbers of facts, each at least 1"),
        ({"kept": ["neighbors"]}, SettingsError, "one of 'neighborhood', 'unrelated', 'same_subject'"),
        ({"outputs": "plain"}, SettingsError, "one of 'gradient', 'standardised'"),
    ],
)
def test_settings_that_are_refused(
    given: dict[str, object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        train_editor(tiny_model("gpt2"), trainable(), tmp_path / "editor", {**TRAINING, **given})
    assert message in str(caught.value)


def test_facts_and_outputs_that_are_refused(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    with pytest.raises(FactError, match="There are no facts to train on"):
        train_editor(model, [], tmp_path / "editor", TRAINING)
    long = replace(trainable()[0], unrelated_prompts=(Probe("It rained. " * 60, "again"),))
    with pytest.raises(PromptTooLong, match="Fact about 'Mira Tolland'"):
        train_editor(model, [*trainable()[1:], long], tmp_path / "editor", TRAINING)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(OutputExists):
        train_editor(model, trainable(), tmp_path / "there", TRAINING)
