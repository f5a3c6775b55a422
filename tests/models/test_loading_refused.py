"""Checkpoints, precisions and devices that Errata does not take."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers.utils import logging

from checkpoint_cases import change_config, refused, says
from errata.errors import ModelError, UnknownArchitecture, UnsupportedArchitecture
from errata.models import loading
from errata.models.loading import DTYPES, from_parts, load
from errata.models.model import EditableModel
from families import tiny_model


@pytest.fixture(autouse=True)
def nothing_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    logging.disable_progress_bar()


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2"])
@pytest.mark.parametrize("gone", [("tokenizer.json",), ("tokenizer.json", "tokenizer_config.json")])
def test_a_folder_without_a_vocabulary(
    name: str, gone: tuple[str, ...], saved: Callable[..., Path], tmp_path: Path
) -> None:
    """For some families transformers makes an empty tokenizer of it, which splits every text into nothing."""
    path = Path(shutil.copytree(saved(name), tmp_path / "model"))
    for file in gone:
        (path / file).unlink()
    says(refused(path), f"The tokenizer of {path}")


def test_a_slow_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    says(refused(folder, ModelError), "is a slow one, which gives no character offsets", "tokenizer.json")


def test_a_family_that_cannot_be_edited_is_refused_before_its_weights_are_read(folder: Path) -> None:
    change_config(folder, model_type="mixtral", architectures=["MixtralForCausalLM"], num_hidden_layers=2)
    (folder / "model.safetensors").write_bytes(b"not read")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "_check_safetensors", lambda file: None)
        message = refused(folder, UnsupportedArchitecture)
    says(message, "of family mixtral", "no block can be edited", "routes each token", "docs/families.md")


@pytest.mark.parametrize("model_type", ["a-family-of-tomorrow", None])
def test_a_family_that_transformers_does_not_know(model_type: str | None, folder: Path) -> None:
    change_config(folder, model_type=model_type)
    says(
        refused(folder, UnknownArchitecture),
        "transformers does not know the model family of",
        "`errata models`",
        "add",
    )


def test_code_that_a_checkpoint_brings_is_not_run_nor_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("builtins.input", lambda *prompt: pytest.fail("asked whether to run the code"))
    change_config(folder, model_type="its-own", auto_map={"AutoConfig": "code.Config"})
    (folder / "code.py").write_text("raise SystemExit('ran')")
    says(refused(folder, UnknownArchitecture), "none that brings its own code")
    assert "[y/N]" not in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["half", "int8", "", torch.int8, torch.complex64])
def test_a_dtype_that_cannot_be(dtype: str | torch.dtype, saved: Callable[..., Path]) -> None:
    says(refused(saved(), ModelError, dtype=dtype), str(dtype), *DTYPES)


def test_a_device_that_is_not_there(saved: Callable[..., Path]) -> None:
    says(
        refused(saved(), ModelError, device="gpu"),
        "Device 'gpu' cannot be used",
        "Give one that this machine has",
    )
    says(refused(saved(), ModelError, device="cuda:99"), "Device 'cuda:99' cannot be used", "'cpu'")
    both = refused(saved(), ModelError, device="cpu", device_map="auto")
    says(both, "Both device='cpu' and device_map='auto' are given. Give one of them.")
    says(refused(saved(), ModelError, device_map="everywhere"), "cannot be loaded", "everywhere")


def test_a_device_and_a_device_map(saved: Callable[..., Path]) -> None:
    for options in (
        {"device": "cpu"},
        {"device": torch.device("cpu")},
        {"device_map": "cpu"},
        {"device_map": {"": "cpu"}},
    ):
        assert load(saved(), **options).device == torch.device("cpu")


class Wrapped(nn.Module):
    """What an adapter makes of a linear map."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner


@pytest.mark.parametrize(
    "change",
    [
        lambda module: Wrapped(module),
        lambda module: quantized(module, torch.int8),
        lambda module: quantized(module, torch.float8_e4m3fn),
    ],
)
def test_only_plain_matrices_are_taken(change: Callable[[nn.Module], nn.Module]) -> None:
    shared = tiny_model("llama")
    model = type(shared.model)(shared.model.config)
    path = "model.layers.2.mlp.down_proj"
    model.set_submodule(path, change(model.get_submodule(path)))
    with pytest.raises(ModelError) as caught:
        from_parts(model, shared.tokenizer, "packed")
    says(
        str(caught.value), f"{path} of packed is a", "without a plain weight matrix", "quantized", "adapters"
    )


def quantized(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    module.weight = nn.Parameter(module.weight.detach().to(dtype), requires_grad=False)
    return module


def test_a_model_in_memory_is_frozen() -> None:
    shared = tiny_model("gpt2")
    model = type(shared.model)(shared.model.config).train()
    wrapped = from_parts(model, shared.tokenizer, "mine")
    assert isinstance(wrapped, EditableModel)
    assert (wrapped.name, wrapped.revision) == ("mine", None)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_model_in_memory_of_a_family_without_a_row_gets_a_derived_record() -> None:
    shared = tiny_model("gpt2")
    model = type(shared.model)(shared.model.config)
    model.config.model_type = "opt"
    try:
        found = from_parts(model, shared.tokenizer, "mine").architecture
        row = shared.architecture
        assert found.derived
        assert replace(found, derived=False, model_type="gpt2") == row
    finally:
        model.config.model_type = "gpt2"
