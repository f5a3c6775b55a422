"""Models in pieces on the CPU and on disk: the same edits as in memory, and nothing is written to the checkpoint."""

from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload

import errata
from errata.edits.edit import load_edit
from errata.errors import ModelError
from errata.models.loading import from_parts, load
from errata.models.model import EditableModel
from errata.models.offload import device_of, hold, stored
from errata.moments.collection import collect
from families import CONTEXTS, FACTS, SETTINGS, tiny_model
from tiny import TEXTS, fresh_model
from tolerances import FORWARD, KEYS, RIDGED, assert_agree, tolerance

SITES = (1, 2)
SETTINGS_OF: dict[str, dict[str, object]] = {
    "pmet": {**SETTINGS, "solve.covariance_ridge": 0.1},
    "rome": {"layers": [1], "values.steps": 4},
    "finetune": {"layers": [1], "epochs": 2},
}


def checkpoint(family: str, folder: Path) -> Path:
    model = tiny_model(family)
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def in_pieces(folder: Path, places: tuple[str, ...] = ("cpu", "disk", "cpu", "disk")) -> EditableModel:
    """The model with its blocks at these places, and all else on the CPU."""
    plain = load(folder).model
    blocks = load(folder).architecture.blocks
    parts = [name for name, _ in plain.named_children() if name != plain.base_model_prefix]
    inner = [f"{plain.base_model_prefix}.{name}" for name, _ in plain.base_model.named_children()]
    device_map = {name: "cpu" for name in (*parts, *inner) if name != blocks}
    return load(folder, device_map=device_map | {f"{blocks}.{i}": place for i, place in enumerate(places)})


def moments(model: EditableModel, folder: Path) -> Path:
    collect(
        model, [model.site("ffn", i) for i in SITES], TEXTS, folder=folder, corpus="t", samples=len(TEXTS)
    )
    return folder


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_edit_is_the_plain_models(family: str, tmp_path: Path) -> None:
    folder = checkpoint(family, tmp_path / "model")
    before = (folder / "model.safetensors").read_bytes()
    plain, pieces = load(folder), in_pieces(folder)
    assert pieces.site("ffn", 1).weight.device.type == "meta"
    assert pieces.fingerprint == plain.fingerprint
    there, other = moments(plain, tmp_path / "plain"), moments(pieces, tmp_path / "pieces")
    for method in SETTINGS_OF if family == "gpt2" else ("pmet",):
        one, same = (
            errata.edit(model, FACTS, method, SETTINGS_OF[method], contexts=CONTEXTS, covariance=folder)
            for model, folder in ((plain, there), (pieces, other))
        )
        for path, delta in one.deltas.items():
            assert_agree(same.deltas[path].matrix, delta.matrix, FORWARD, KEYS, dtype=torch.float32)
        assert_same_answers(plain, pieces, one)
    assert pieces.fingerprint == plain.fingerprint
    assert (folder / "model.safetensors").read_bytes() == before


def assert_same_answers(plain: EditableModel, pieces: EditableModel, edit: errata.Edit) -> None:
    one, other = (errata.evaluate(model, FACTS, edit).records for model in (plain, pieces))
    for mine, theirs in zip(one, other, strict=True):
        assert mine.after.efficacy[0].wanted.log_probabilities == pytest.approx(
            theirs.after.efficacy[0].wanted.log_probabilities,
            abs=tolerance(torch.float32, FORWARD, RIDGED, 10.0),
        )


def test_an_edit_is_applied_and_taken_back(tmp_path: Path) -> None:
    folder = checkpoint("gpt2", tmp_path / "model")
    plain = load(folder)
    edit = errata.edit(
        plain,
        FACTS,
        "rome",
        SETTINGS_OF["rome"],
        contexts=CONTEXTS,
        covariance=moments(plain, tmp_path / "m"),
    )
    edit.save(tmp_path / "edit")
    pieces, edit = in_pieces(folder), load_edit(tmp_path / "edit")
    path = next(iter(edit.deltas))
    before = stored(pieces.site_at(path).module).clone()
    with edit.applied(pieces):
        weight = pieces.site_at(path).weight
        assert weight.device.type == "cpu"
        assert not torch.equal(weight, before)
    assert torch.equal(pieces.site_at(path).weight, before)
    assert pieces.fingerprint == plain.fingerprint


def test_a_model_that_accelerate_offloads_itself() -> None:
    model = fresh_model()
    plain = tiny_model("gpt2")
    state = {name: value.clone() for name, value in model.model.state_dict().items()}
    offloaded = cpu_offload(model.model, execution_device=torch.device("cpu"), state_dict=state)
    model = from_parts(offloaded, model.tokenizer, "offloaded")
    module = model.site("ffn", 1).module
    assert device_of(module) == torch.device("cpu")
    assert torch.equal(stored(module), plain.site("ffn", 1).weight)
    hold(module)
    hold(module)
    assert torch.equal(model.site("ffn", 1).weight, plain.site("ffn", 1).weight)
    with torch.no_grad():
        model.site("ffn", 1).weight.zero_()
    assert state["transformer.h.1.mlp.c_proj.weight"].abs().sum() > 0
    assert plain.fingerprint != model.measure_fingerprint()


def test_weights_that_are_nowhere_are_told() -> None:
    with pytest.raises(ModelError, match="nothing tells where it lies"):
        stored(torch.nn.Linear(2, 2, device="meta"))
