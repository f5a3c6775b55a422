"""MEND as a method: what an edit is before training, and editors that cannot be used."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from errata.errors import EditorError, SettingsError
from errata.methods.mend.method import MendSettings
from errata.models.model import EditableModel
from errata.passes.prompts import encode_text
from errata.planning.plan import edit
from families import FACTS, FAMILIES, tiny_model
from mend_cases import (
    weight_gradients,
)
from mend_editors import editor_for, untrained
from plain import double_throughout
from tiny import fresh_model
from tolerances import DEPTH, FORWARD, assert_agree


@pytest.mark.parametrize("family", FAMILIES)
def test_before_training_an_edit_is_a_step_down_the_gradient(family: str, tmp_path: Path) -> None:
    model = tiny_model(family, "float64")
    editor = untrained(model, alpha=0.03)
    with torch.no_grad():
        for name, tensor in editor.tensors.items():
            if name.endswith(("mean", "std")):
                tensor += torch.rand_like(tensor)
    editor.save(tmp_path / "editor")
    with double_throughout(model):
        found = edit(model, FACTS, "mend", {"layers": [1, 2], "editor": str(tmp_path / "editor")})
        expected = weight_gradients(model, FACTS, [1, 2])
    assert found.origin.contexts == ("",)
    assert found.deltas.keys() == expected.keys()
    alpha = float(editor.tensors["alpha"][0])
    for path, gradient in expected.items():
        scale = alpha * float(gradient.abs().max())
        assert_agree(found.deltas[path].matrix, -alpha * gradient, FORWARD, DEPTH, scale=max(scale, 1.0))


def test_many_facts_are_one_dense_change_and_few_are_thin(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama", "float64")
    settings = {"layers": [2, 3], **editor_for(model, [2, 3])}
    facts = [*FACTS, replace(FACTS[0], subject="Zentro"), replace(FACTS[1], subject="Edda Rowe")]
    whole = edit(model, facts, "mend", settings)
    monkeypatch.setattr("errata.methods.mend.method.FACTS_AT_ONCE", 2)
    parts = edit(model, facts, "mend", settings)
    assert all(delta.dense is not None for delta in whole.deltas.values())
    for path, delta in whole.deltas.items():
        assert_agree(parts.deltas[path].matrix, delta.matrix, FORWARD, DEPTH)
    read = len(encode_text(model, FACTS[1].question, FACTS[1].target_new).target)
    few = edit(model, FACTS[1:2], "mend", settings)
    assert {few.deltas[path].rank for path in model.architecture.ffn_paths(3)} == {read}


def refusal(model: EditableModel, folder: Path, layers: Sequence[int] = (1, 2)) -> str:
    with pytest.raises(EditorError) as caught:
        edit(model, FACTS, "mend", {"layers": list(layers), "editor": str(folder)})
    return str(caught.value)


def test_an_editor_is_for_one_model(tmp_path: Path) -> None:
    untrained(fresh_model()).save(tmp_path / "editor")
    other = fresh_model(other_weights=True)
    message = refusal(other, tmp_path / "editor")
    assert "The editor was trained for tiny (fingerprint" in message
    assert "tiny has other weights" in message


def test_an_edited_model_is_edited_by_its_editor(tmp_path: Path) -> None:
    model = fresh_model()
    settings = {"layers": [1, 2], **editor_for(tiny_model("gpt2"), [1, 2])}
    first = edit(model, FACTS[:1], "mend", settings)
    with first.applied(model):
        second = edit(model, FACTS[1:], "mend", settings)
        with second.applied(model):
            pass


def test_editors_that_are_damaged(tmp_path: Path) -> None:
    model, folder = tiny_model("gpt2"), tmp_path / "editor"
    tensors, about = folder / "editor.safetensors", folder / "editor.json"
    assert "is no editor: it has no editor.json" in refusal(model, folder)
    editor = untrained(model)
    editor.save(folder)
    whole, text = tensors.read_bytes(), about.read_text()

    tensors.write_bytes(whole[:-10])
    assert "is cut off or damaged" in refusal(model, folder)
    save_file({**editor.tensors, "alpha": torch.full((4,), torch.nan)}, tensors)
    assert "holds numbers for alpha that are infinite or not a number" in refusal(model, folder)
    save_file({**editor.tensors, "alpha": torch.ones(5)}, tensors)
    assert "The editor's alpha is (5,), and must be (4,)" in refusal(model, folder)
    save_file({name: value for name, value in editor.tensors.items() if name != "alpha"}, tensors)
    assert "'alpha' is in one of them only" in refusal(model, folder)
    tensors.unlink()
    assert "it has no editor.safetensors" in refusal(model, folder)
    tensors.write_bytes(whole)

    about.write_text(text[:-20])
    assert "is not readable JSON" in refusal(model, folder)
    about.write_text(json.dumps({**json.loads(text), "format": 9}))
    assert "is not an editor of format 1" in refusal(model, folder)
    for wrong in ({"settings": {"rank": 8}}, {"settings": []}, {"extra": 1}, {"fingerprint": ""}):
        about.write_text(json.dumps({**json.loads(text), **wrong}))
        assert "is not as `errata train-editor` writes it" in refusal(model, folder)


def test_the_editor_must_be_named_and_write_the_layers_of_the_settings() -> None:
    model = tiny_model("gpt2")
    with pytest.raises(SettingsError, match=r"`errata train-editor tiny-gpt2 .*: --set editor=EDITOR"):
        edit(model, FACTS, "mend", {"layers": [1, 2]})
    with pytest.raises(SettingsError, match=r"writes blocks \[1, 2\]\. Set layers=1,2"):
        edit(model, FACTS, "mend", {"layers": [2, 3], **editor_for(model, [1, 2])})
    with pytest.raises(SettingsError, match="'layers' must be one or more different blocks"):
        MendSettings(layers=())
