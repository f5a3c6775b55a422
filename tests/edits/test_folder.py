"""Folders that are no edit, or a damaged one, say so."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edit_cases import random_edit
from errata.edits.edit import load_edit
from errata.errors import EditError
from families import tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random_edit(tiny_model("gpt2")).save(tmp_path / "edit")
    return tmp_path / "edit"


def refusal(folder: Path) -> str:
    with pytest.raises(EditError) as caught:
        load_edit(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["edit.json", "edit.safetensors"])
def test_a_file_is_missing(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"is not an edit: it has no {name}. Give the folder that `errata edit` wrote" in refusal(folder)


def test_there_is_no_folder(tmp_path: Path) -> None:
    assert "it has no edit.json" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [0, 5, 400, -100])
def test_tensors_that_are_cut_off(folder: Path, keep: int) -> None:
    file = folder / "edit.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert "edit.safetensors is cut off or damaged" in refusal(folder)


@pytest.mark.parametrize("text", ["", "{", '{"format": 1', "\xff"])
def test_json_that_is_cut_off(folder: Path, text: str) -> None:
    (folder / "edit.json").write_bytes(text.encode("latin-1"))
    assert "edit.json is not readable JSON" in refusal(folder)


@pytest.mark.parametrize("text", ["[]", "7", "{}", '{"format": 99}'])
def test_json_of_something_else(folder: Path, text: str) -> None:
    (folder / "edit.json").write_text(text)
    assert "edit.json is not an edit of format 1, which this version of Errata reads" in refusal(folder)


def about_with(folder: Path, **values: object) -> None:
    about = json.loads((folder / "edit.json").read_text())
    (folder / "edit.json").write_text(json.dumps({**about, **values}))


@pytest.mark.parametrize(
    "name", ["changes", "facts", "dropped", "measured", "contexts", "seed", "fingerprint"]
)
def test_json_without_a_field(folder: Path, name: str) -> None:
    about = json.loads((folder / "edit.json").read_text())
    del about[name]
    (folder / "edit.json").write_text(json.dumps(about))
    message = refusal(folder)
    assert "edit.json is not as `errata edit` writes it" in message
    assert name in message


@pytest.mark.parametrize(
    "values",
    [
        {"changes": []},
        {"changes": {"a": 1}},
        {"changes": {"a": {"rank": 2}}},
        {"facts": [{"prompt": "{} is"}]},
        {"facts": [3]},
        {"facts": 3},
        {"dropped": [{}]},
        {"contexts": 5},
        {"settings": 5},
        {"measured": 5},
        {"unheard of": 5},
    ],
)
def test_json_with_a_field_of_another_kind(folder: Path, values: dict[str, object]) -> None:
    about_with(folder, **values)
    assert "edit.json is not as `errata edit` writes it" in refusal(folder)


THIN, DENSE = "transformer.h.1.mlp.c_proj", "transformer.h.2.attn.c_proj"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({f"{THIN}.left": torch.full((32, 2), torch.nan)}, f"holds numbers for {THIN} that are infinite"),
        ({f"{DENSE}.dense": torch.full((32, 32), torch.inf)}, f"holds numbers for {DENSE} that are infinite"),
        ({f"{THIN}.left": torch.ones(32, 2, dtype=torch.int64)}, f"holds numbers for {THIN}"),
        ({f"{THIN}.left": torch.ones(32, 3)}, f"the factors of {THIN} do not fit each other"),
        ({f"{THIN}.left": torch.ones(31, 2)}, f"changes {THIN} as (31, 128), but edit.json says (32, 128)"),
        (
            {f"{THIN}.left": torch.ones(32)},
            f"does not hold {THIN}.left and {THIN}.right, or {THIN}.dense, as matr",
        ),
        ({f"{THIN}.left": None}, f"does not hold {THIN}.left and {THIN}.right"),
        ({f"{THIN}.left": None, f"{THIN}.right": None}, f"does not hold {THIN}.left and {THIN}.right"),
        ({f"{THIN}.dense": torch.ones(32, 128)}, f"does not hold {THIN}.left and {THIN}.right"),
        ({"lm_head.left": torch.ones(1, 1)}, "holds 'lm_head.left', which edit.json does not name"),
    ],
)
def test_tensors_that_do_not_fit(folder: Path, values: dict[str, Tensor | None], message: str) -> None:
    file = folder / "edit.safetensors"
    tensors = {name: part for name, part in {**load_file(file), **values}.items() if part is not None}
    save_file(tensors, file)
    assert message in refusal(folder)
    assert str(file) in refusal(folder)
