"""GGUF files as models: read as a folder would be, recorded by their digest, and refused clearly."""

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

import errata
from checkpoint_cases import refused, says
from errata.errors import MissingExtra, UnknownArchitecture
from errata.models.gguf import open_gguf
from errata.models.loading import load, load_without_weights, read_config
from errata.passes.prompts import pad
from families import FACTS, SENTENCES, SETTINGS
from gguf_cases import tiny_llama, write_gguf
from moments_cases import Moments
from tolerances import DEPTH, FORWARD, assert_agree


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole file."""
    logging.disable_progress_bar()
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def own_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_file_is_read_as_the_model_it_was_made_from(file: Path) -> None:
    model, wanted = load(file), tiny_llama()
    for (path, one), (same, two) in zip(
        model.model.named_parameters(), wanted.model.named_parameters(), strict=True
    ):
        assert path == same
        assert torch.equal(one, two), path
    assert model.fingerprint == wanted.fingerprint
    for text in SENTENCES:
        assert model.tokenizer(text).input_ids == wanted.tokenizer(text).input_ids
    tokens, where = pad([[5, 9, 77, 8]], wanted), (torch.tensor([0]), torch.tensor([3]))
    assert_agree(model.logits_at(tokens, *where), wanted.logits_at(tokens, *where), FORWARD, DEPTH)
    assert not any(parameter.requires_grad for parameter in model.model.parameters())


def test_the_digest_is_the_revision(file: Path) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    model = load(file)
    assert model.name == str(file)
    assert model.revision == f"sha256:{digest}"


def test_an_edit_says_which_file_it_was_made_for(file: Path, moments: Moments, tmp_path: Path) -> None:
    model = load(file)
    settings = {**SETTINGS, "values.steps": 1}
    edit = errata.edit(model, FACTS[:1], "memit", settings, covariance=moments(model), contexts=("",))
    edit.save(tmp_path / "edit")
    origin = json.loads((tmp_path / "edit" / "edit.json").read_text())
    assert (origin["model"], origin["revision"]) == (str(file), model.revision)
    assert errata.load_edit(tmp_path / "edit").origin.revision == model.revision


def test_double_precision_holds_the_same_numbers(file: Path) -> None:
    model = load(file, dtype="float64")
    for (path, one), two in zip(model.model.named_parameters(), tiny_llama().model.parameters(), strict=True):
        assert one.dtype == torch.float64
        assert torch.equal(one, two.double()), path


def test_the_configuration_and_the_maps_are_known_without_the_weights(file: Path) -> None:
    assert read_config(file).model_type == "llama"
    assert load_without_weights(file).site("ffn", 3).d_in == 48


def test_what_was_converted_is_kept_and_used(file: Path, own_converted: Path) -> None:
    first = open_gguf(file)
    config = first.folder / "config.json"
    written = config.stat().st_mtime_ns
    assert open_gguf(file) == first
    assert config.stat().st_mtime_ns == written
    assert [path.name for path in own_converted.iterdir()] == [first.folder.name]
    assert not list(first.folder.glob("*.safetensors"))


def test_a_file_without_the_ending_is_known_by_its_first_bytes(file: Path, tmp_path: Path) -> None:
    plain = tmp_path / "weights.bin"
    plain.write_bytes(file.read_bytes())
    assert load(plain).fingerprint == tiny_llama().fingerprint


def test_another_files_tokenizer_beside_it_is_not_read(
    file: Path, tmp_path: Path, own_converted: Path
) -> None:
    beside = tmp_path / "tiny.gguf"
    beside.write_bytes(file.read_bytes())
    for name in ("tokenizer.json", "config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{ no JSON")
    assert load(beside).tokenizer(SENTENCES[0]).input_ids == tiny_llama().tokenizer(SENTENCES[0]).input_ids


@pytest.mark.parametrize("left", [0.001, 0.2, 0.6, 0.999])
def test_a_file_that_is_cut_off(file: Path, tmp_path: Path, own_converted: Path, left: float) -> None:
    cut = tmp_path / "cut.gguf"
    data = file.read_bytes()
    cut.write_bytes(data[: int(left * len(data))])
    says(refused(cut), str(cut), "cut off or damaged")
    assert not list(own_converted.glob("*"))


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    other = tmp_path / "model.gguf"
    other.write_bytes(b"PK\x03\x04 and so on")
    says(refused(other), str(other), "not a GGUF file")
    other.write_bytes(b"GGUF\x09\x00\x00\x00")
    says(refused(other), "GGUF version 9")


def test_an_architecture_that_transformers_does_not_convert(tmp_path: Path, own_converted: Path) -> None:
    file = write_gguf(tmp_path / "odd.gguf", architecture="oddity")
    says(refused(file, UnknownArchitecture), str(file), "oddity", "safetensors")
    assert not list(own_converted.glob("*"))


def test_without_the_package(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    says(refused(file, MissingExtra), "pip install 'errata[gguf]'")
