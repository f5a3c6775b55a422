"""Edits: written, taken back bit for bit, kept on disk; refused wherever they do not belong."""

import copy
import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor

from edit_cases import fresh, random_edit, weights_of
from errata.edits import edit as edits
from errata.edits.deltas import Delta
from errata.edits.edit import Edit, load_edit
from errata.errors import AlreadyApplied, EditError, NotApplied, OutputExists, WrongModel
from errata.models.loading import from_parts
from errata.models.model import EditableModel
from families import FAMILIES, tiny_model
from tolerances import assert_agree


def changed(model: EditableModel, before: dict[str, Tensor]) -> set[str]:
    """Every bit counts, the sign of a zero too."""
    now = weights_of(model)
    words = {8: torch.int64, 4: torch.int32, 2: torch.int16}
    return {
        name
        for name, weight in now.items()
        if not torch.equal(weight.view(words[weight.itemsize]), before[name].view(words[weight.itemsize]))
    }


def parts_of(edit: Edit) -> dict[str, Tensor]:
    return {
        f"{path}.{name}": part for path, delta in edit.deltas.items() for name, part in delta.tensors.items()
    }


# --- apply and revert ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_is_written_and_taken_back_bit_for_bit(family: str, dtype: str) -> None:
    model = tiny_model(family, dtype)
    before = weights_of(model)
    edit = random_edit(model)
    sites = {model.site(kind, layer) for kind, layer in (("ffn", 1), ("ffn", 2), ("attention", 2))}
    clean = {site.path: site.matrix.clone() for site in sites}
    edit.apply(model)
    try:
        assert changed(model, before) == {f"{path}.weight" for path in edit.deltas}
        for site in sites:
            wider = clean[site.path].to(torch.float64) + edit.deltas[site.path].matrix
            assert_agree(site.matrix, wider.to(model.dtype), 1)
    finally:
        edit.revert(model)
    assert changed(model, before) == set()
    assert not model.ledger.changed


def test_what_is_applied_is_taken_back_whatever_happens() -> None:
    model = fresh()
    before = weights_of(model)
    edit = random_edit(model)
    with edit.applied(model) as inside:
        assert inside is model
        assert changed(model, before)
    assert not changed(model, before)

    def fail_inside() -> None:
        with edit.applied(model):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_inside()
    assert not changed(model, before)
    edit.apply(model)  # and can be written again


def test_an_edit_is_not_written_twice(tmp_path: Path) -> None:
    model = fresh()
    edit = random_edit(model)
    edit.save(tmp_path / "edit")
    twin = load_edit(tmp_path / "edit")
    edit.apply(model)
    once = weights_of(model)
    for again in (edit, twin):
        with pytest.raises(AlreadyApplied, match="in the weights of tiny-gpt2 already"):
            again.apply(model)
        assert not changed(model, once)
    edit.revert(model)
    twin.apply(model)
    assert not changed(model, once)


def test_a_saved_and_loaded_edit_takes_back_what_its_twin_wrote(tmp_path: Path) -> None:
    model = fresh()
    before = weights_of(model)
    edit = random_edit(model)
    edit.save(tmp_path / "edit")
    edit.apply(model)
    load_edit(tmp_path / "edit").revert(model)
    assert not changed(model, before)
    with pytest.raises(NotApplied):
        edit.revert(model)


def test_an_edit_that_is_not_there_is_not_taken_back() -> None:
    model = fresh()
    one, other = random_edit(model, seed=1), random_edit(model, seed=2)
    with pytest.raises(
        NotApplied, match="This edit of tiny-gpt2 is not applied to tiny-gpt2; nothing to revert"
    ):
        one.revert(model)
    other.apply(model)
    once = weights_of(model)
    with pytest.raises(NotApplied, match="nothing to revert"):
        one.revert(model)
    assert not changed(model, once)


@pytest.mark.parametrize("saved", [False, True])
def test_edits_lie_one_on_the_other(saved: bool, tmp_path: Path) -> None:
    """Both were made for the unedited model, of which nothing is known but its weights."""
    maker = fresh()
    one, other = random_edit(maker, seed=1), random_edit(maker, seed=2)
    if saved:
        one.save(tmp_path / "one")
        other.save(tmp_path / "other")
        one, other = load_edit(tmp_path / "one"), load_edit(tmp_path / "other")
    model = fresh()
    before = weights_of(model)
    one.apply(model)
    with_one = weights_of(model)
    other.apply(model)
    with pytest.raises(NotApplied, match="Another edit was applied after this one"):
        one.revert(model)
    other.revert(model)
    assert not changed(model, with_one)
    one.revert(model)
    assert not changed(model, before)


def test_an_edit_made_for_an_edited_model_belongs_to_that(tmp_path: Path) -> None:
    model = fresh()
    first = random_edit(model, seed=1)
    first.apply(model)
    second = random_edit(model, seed=2)
    second.apply(model)
    second.revert(model)
    first.revert(model)
    with pytest.raises(WrongModel):
        second.apply(model)


def test_edits_of_two_precisions_are_two_edits() -> None:
    model = fresh()
    wide = random_edit(tiny_model("gpt2", "float64"))
    narrow = random_edit(model)
    narrow.apply(model)
    wide.apply(model)
    wide.revert(model)
    narrow.revert(model)


def test_an_edit_made_in_float64_goes_into_the_float32_load_of_the_same_checkpoint(tmp_path: Path) -> None:
    precise = tiny_model("llama", "float64")
    random_edit(precise).save(tmp_path / "edit")
    edit = load_edit(tmp_path / "edit")
    assert {part.dtype for part in parts_of(edit).values()} == {torch.float64}
    for dtype in ("float32", "bfloat16"):
        model = fresh("llama", dtype)
        before = {
            path: module.weight.clone() for path, module in model.model.named_modules() if path in edit.deltas
        }
        with edit.applied(model):
            for path, delta in edit.deltas.items():
                now = model.model.get_submodule(path).weight
                assert torch.equal(now, (before[path].double() + delta.matrix).to(now.dtype))


# --- refused, and nothing written ------------------------------------------------------------------


def other_weights(model: EditableModel) -> EditableModel:
    another = copy.deepcopy(model.model)
    with torch.no_grad():
        for weight in another.parameters():
            weight.mul_(1.1)
    return from_parts(another, model.tokenizer, "other-weights")


def wider(model: EditableModel) -> EditableModel:
    config = copy.deepcopy(model.model.config)
    config.n_inner = 160
    return from_parts(type(model.model)(config), model.tokenizer, "wider")


def refuses_to_write(edit: Edit, model: EditableModel) -> str:
    before = weights_of(model)
    with pytest.raises(WrongModel) as caught:
        edit.apply(model)
    assert not changed(model, before)
    assert not model.ledger.changed
    return str(caught.value)


@pytest.mark.parametrize("other", [other_weights, wider, lambda _: fresh("llama")])
def test_an_edit_of_another_model(other: Callable[[EditableModel], EditableModel]) -> None:
    model = other(fresh())
    message = refuses_to_write(random_edit(fresh()), model)
    assert "This edit was made for tiny-gpt2 (fingerprint " in message
    assert (
        f"; {model.name} has other weights. Load the model it was made for, or make the edit again" in message
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (wider, "The edit changes transformer.h.1.mlp.c_proj as (32, 128), but in wider it is (32, 160)"),
        (lambda _: fresh("llama"), "'transformer.h.1.mlp.c_proj', which tiny-llama does not have"),
    ],
)
def test_an_edit_that_does_not_fit_whatever_its_fingerprint(
    other: Callable[[EditableModel], EditableModel], message: str
) -> None:
    model = other(fresh())
    assert message in refuses_to_write(random_edit(fresh(), fingerprint=model.measure_fingerprint()), model)


@pytest.mark.parametrize("number", [float("inf"), 1e38])
def test_an_edit_that_the_precision_cannot_hold(number: float) -> None:
    model = fresh(dtype="float32")
    before = weights_of(model)
    edit = random_edit(model)
    path = model.site("ffn", 2).path
    big = {name: torch.full_like(part, number) for name, part in edit.deltas[path].tensors.items()}
    edit = replace(edit, deltas={**edit.deltas, path: Delta(big["left"], big["right"])})
    with pytest.raises(
        EditError, match=r"h.2.mlp.c_proj infinite or not a number in torch.float32; nothing written"
    ):
        edit.apply(model)
    assert not changed(model, before)
    assert not model.ledger.changed


# --- on disk ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_what_is_saved_is_loaded(dtype: str, tmp_path: Path) -> None:
    edit = random_edit(tiny_model("gpt2", dtype))
    edit.save(tmp_path / "new" / "edit")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["edit"]
    assert sorted(path.name for path in (tmp_path / "new" / "edit").iterdir()) == [
        "edit.json",
        "edit.safetensors",
    ]
    again = load_edit(tmp_path / "new" / "edit")
    mine, theirs = parts_of(edit), parts_of(again)
    assert mine.keys() == theirs.keys()
    assert all(
        torch.equal(mine[name], theirs[name]) and mine[name].dtype == theirs[name].dtype for name in mine
    )
    assert again.facts == edit.facts
    assert again.dropped == edit.dropped
    assert again.origin == edit.origin
    assert again.measured == edit.measured
    again.save(tmp_path / "once more")
    for name in ("edit.json", "edit.safetensors"):
        assert (tmp_path / "once more" / name).read_bytes() == (tmp_path / "new" / "edit" / name).read_bytes()


def test_an_edit_with_transposed_parts_is_saved(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    edit = random_edit(model)
    path = model.site("ffn", 1).path
    edit = replace(edit, deltas={path: Delta(None, None, torch.randn(128, 32).T)})
    edit.save(tmp_path / "edit")
    assert torch.equal(load_edit(tmp_path / "edit").deltas[path].matrix, edit.deltas[path].matrix)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    edit = random_edit(tiny_model("gpt2"))
    edit.save(tmp_path / "edit")
    before = (tmp_path / "edit" / "edit.json").read_bytes()
    with pytest.raises(OutputExists, match="edit exists already"):
        replace(edit, facts=()).save(tmp_path / "edit")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExists):
        edit.save(tmp_path / "file")
    assert (tmp_path / "edit" / "edit.json").read_bytes() == before
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edit", "file"]
    (tmp_path / "empty").mkdir()
    edit.save(tmp_path / "empty")
    assert load_edit(tmp_path / "empty").facts == edit.facts


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_leaves_nothing_behind(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, path: Path, metadata: object = None) -> None:
        Path(path).write_bytes(b"the first half")
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        random_edit(tiny_model("gpt2")).save(tmp_path / "edit")
    assert str(tmp_path / "edit") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_neither_does_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(edits, "write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        random_edit(tiny_model("gpt2")).save(tmp_path / "edit")
    assert list(tmp_path.iterdir()) == []
