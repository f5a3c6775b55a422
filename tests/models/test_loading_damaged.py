"""Checkpoints with files that are not there or not whole: every one is refused with a reason."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from checkpoint_cases import change_config, every_family, refused, says, shard
from errata.models import loading
from families import tiny_model

MAP = "transformer.h.1.mlp.c_proj.weight"


@pytest.fixture(autouse=True)
def nothing_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    logging.disable_progress_bar()


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("source", ["/nowhere/at/all", "./not-here", "~/not-here", "a/b/c", ""])
def test_a_path_that_is_not_there(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(source)
    says(
        message,
        "holds no config.json"
        if not source
        else f"There is no folder {source}. Give a local folder, a hub id",
    )


def test_a_file_is_not_a_folder(folder: Path) -> None:
    says(
        refused(folder / "config.json"),
        "is a file. Give the folder that holds config.json and model.safetensors",
    )


@pytest.mark.parametrize("name", ["nobody/nothing", "nothing-of-this-name"])
def test_a_hub_name_that_cannot_be_reached(name: str) -> None:
    says(refused(name), f"The configuration of {name} cannot be read", "connect")


def test_a_folder_without_a_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    says(refused(folder), str(folder), "holds no config.json")


@pytest.mark.parametrize(
    ("text", "part"), [("{", "not a valid JSON"), ('{"model_type": "gpt2", "n_layer": "four"}', "n_layer")]
)
def test_a_config_that_is_broken(text: str, part: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    says(refused(folder), f"The configuration of {folder} cannot be read", part)


def test_only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "pytorch_model.bin.index.json"):
        (folder / name).write_bytes(b"not read, and not a pickle")
        message = refused(folder)
        says(
            message,
            str(folder),
            "pickle files only",
            "can run code",
            "reads safetensors alone",
            "Convert once",
        )
        says(
            message, f"M.from_pretrained({str(folder)!r}, use_safetensors=False).save_pretrained('converted')"
        )
        (folder / name).unlink()


def test_only_pickles_on_the_hub(saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def from_pretrained(source: str, **options: object) -> object:
        raise OSError(
            f"{source} does not appear to have a file named model.safetensors or model.safetensors.index.json and thus "
            "cannot be loaded with `safetensors`. Please do not set `use_safetensors=True`."
        )

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    says(refused(saved()), "pickle files only", "Convert once", "use_safetensors=False")


def test_no_weights_at_all(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    says(refused(folder), "holds no model.safetensors", "interrupted")


def test_a_shard_is_missing(folder: Path) -> None:
    files = shard(folder)
    files[1].unlink()
    message = refused(folder)
    says(message, str(folder), "lacks 1 of 2 weight files", files[1].name, "Finish the download")


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1, "b": "c"}}', '{"weight_map": {"a": []}}'],
)
def test_an_index_that_is_broken(text: str, folder: Path) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(text)
    says(refused(folder), "model.safetensors.index.json is not a readable shard index", "Download it again")


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_weights_that_are_cut_off(keep: float, folder: Path) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: keep if keep >= 1 else int(keep * len(whole))])
    says(refused(folder), str(file), "is cut off or damaged", "Download or save it again")


def test_a_shard_that_is_cut_off(folder: Path) -> None:
    first, _ = shard(folder)
    first.write_bytes(first.read_bytes()[:-10])
    says(refused(folder), first.name, "is cut off or damaged")


def test_weights_that_the_file_does_not_hold_are_not_made_up(folder: Path) -> None:
    """transformers would draw them at random, and only remark on it."""
    change_weights(folder, lambda tensors: tensors.pop(MAP))
    says(
        refused(folder), f"The checkpoint of {folder} lacks what its config.json asks for: {MAP} (1 in all)."
    )


def test_a_config_of_a_deeper_model(folder: Path) -> None:
    change_config(folder, n_layer=6)
    says(refused(folder), "lacks what its config.json asks for: transformer.h.4.", "...", "(24 in all)")


def test_weights_of_another_shape(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({MAP: torch.zeros(3, 5)}))
    says(
        refused(folder),
        "holds in other shapes what its config.json asks for",
        f"{MAP} ([3, 5], not [128, 32])",
    )


@every_family
def test_tied_heads_are_not_missed(name: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    """A head that is the embeddings is in no file; one of its own has to be."""
    path = Path(shutil.copytree(saved(name), tmp_path / "model"))
    held = [
        key for key in load_file(path / "model.safetensors") if key.startswith(("lm_head.", "embed_out."))
    ]
    assert bool(held) != bool(tiny_model(name).model.config.tie_word_embeddings)
    if held:
        change_weights(path, lambda tensors: [tensors.pop(key) for key in held])
        says(refused(path), "lacks what its config.json asks for", "lm_head.weight")
