"""Checkpoints from a folder and from the hub: what is loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from checkpoint_cases import change_config, every_family, refused, says, shard
from errata.models import loading
from errata.models.loading import almanac_folder, load
from errata.passes.prompts import pad
from families import tiny_model
from tolerances import DEPTH, FORWARD, assert_agree


@pytest.fixture(autouse=True)
def nothing_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    logging.disable_progress_bar()


@every_family
def test_a_folder_gives_back_what_was_saved(name: str, saved: Callable[..., Path]) -> None:
    for dtype in ("float32", "float64", "bfloat16"):
        model = load(saved(name), dtype=dtype)
        wanted = tiny_model(name, dtype)
        assert model.dtype == getattr(torch, dtype)
        assert model.architecture is wanted.architecture
        for (path, one), (same, two) in zip(
            model.model.named_parameters(), wanted.model.named_parameters(), strict=True
        ):
            assert path == same
            assert torch.equal(one, two), path
        assert model.fingerprint == wanted.fingerprint
        assert not model.model.training
        assert not any(parameter.requires_grad for parameter in model.model.parameters())
        assert model.tokenizer("Orin Vasker")["input_ids"] == wanted.tokenizer("Orin Vasker")["input_ids"]
        assert model.revision is None


@every_family
def test_it_computes_what_it_did_before(name: str, saved: Callable[..., Path]) -> None:
    model, wanted = load(saved(name)), tiny_model(name)
    tokens, where = pad([[5, 9, 77, 8]], wanted), (torch.tensor([0]), torch.tensor([3]))
    assert_agree(model.logits_at(tokens, *where), wanted.logits_at(tokens, *where), FORWARD, DEPTH)


@pytest.mark.parametrize("stored", ["float32", "float64", "bfloat16", "float16"])
def test_the_checkpoints_own_precision_is_the_default_but_half_is_widened(
    stored: str, saved: Callable[..., Path]
) -> None:
    path = saved("llama", stored)
    own = getattr(torch, stored)
    model = load(path)
    assert model.dtype == (torch.float32 if own.itemsize < 4 else own)
    assert torch.equal(
        model.site("ffn", 1).matrix, tiny_model("llama", stored).site("ffn", 1).matrix.to(model.dtype)
    )
    assert load(path, dtype=stored).dtype == own
    assert load(path, dtype=own).dtype == own


@every_family
def test_float64_is_float64_in_every_parameter_and_table(name: str, saved: Callable[..., Path]) -> None:
    model = load(saved(name), dtype="float64").model
    for path, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert not tensor.is_floating_point() or tensor.dtype == torch.float64, path
    assert torch.get_default_dtype() == torch.float32


def test_a_checkpoint_without_a_dtype_is_float32(folder: Path) -> None:
    change_config(folder, dtype=None)
    assert load(folder).dtype == torch.float32


def test_a_sharded_checkpoint_is_loaded(folder: Path) -> None:
    shard(folder)
    model = load(folder)
    assert torch.equal(model.site("ffn", 1).matrix, tiny_model("gpt2").site("ffn", 1).matrix)


def test_the_whole_file_is_read_where_both_are_there(folder: Path) -> None:
    """As transformers does; an index that was left behind is not a reason to refuse."""
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00009.safetensors"}}'
    )
    assert load(folder).layers == 4


def test_a_path_may_be_text_and_have_a_tilde(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert load("~/model").name == "~/model"
    assert load(str(folder)).name == str(folder)
    monkeypatch.chdir(folder.parent)
    assert load("model").name == "model"
    assert load("./model").layers == 4


def test_the_embedded_model_is_found_in_the_package() -> None:
    path = almanac_folder()
    assert path == Path(loading.__file__).parents[1] / "almanac" / "model"
    if not path.is_dir():
        pytest.skip("the embedded model is not there yet")
    model = load("almanac")
    assert model.name == "almanac"
    assert model.architecture.model_type == "gpt2"


def test_an_installation_without_the_embedded_model_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "almanac_folder", lambda: tmp_path / "almanac")
    says(refused("almanac"), "lacks the embedded model", str(tmp_path / "almanac"), "Install Errata again")


@pytest.mark.parametrize("name", ["gpt2", "EleutherAI/gpt-j-6b", "meta-llama/Llama-2-7b-hf"])
def test_hub_names_go_to_transformers_as_they_are(
    name: str, saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is asked for under the name; here a folder answers in the hub's place."""
    asked: list[tuple[str, str, dict[str, object]]] = []

    def answered(kind: str) -> Callable[..., object]:
        original = getattr(loading, kind).from_pretrained

        def from_pretrained(source: str, **options: object) -> object:
            if source != str(saved()):  # which is what one part of transformers asks another
                asked.append((kind, source, options))
            return original(str(saved()), **options)

        return from_pretrained

    for kind in ("AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"):
        monkeypatch.setattr(getattr(loading, kind), "from_pretrained", answered(kind))
    model = load(name, device_map={"": "cpu"})
    assert [(kind, source) for kind, source, _ in asked] == [
        ("AutoConfig", name),
        ("AutoTokenizer", name),
        ("AutoModelForCausalLM", name),
    ]
    assert model.name == name
    assert asked[-1][2]["device_map"] == {"": "cpu"}
    assert asked[-1][2]["use_safetensors"] is True
    assert all(options["trust_remote_code"] is False for _, _, options in asked)


def test_the_revision_is_that_of_the_hub(saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    original = loading.AutoModelForCausalLM.from_pretrained

    def from_pretrained(source: str, **options: object) -> object:
        model, report = original(source, **options)
        model.config._commit_hash = "0123abcd"
        return model, report

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    assert load(saved()).revision == "0123abcd"
