"""Loading a checkpoint: what a folder may hold, in every precision, and a clear word on what is not right."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.utils import logging

from errata.errors import CheckpointError, ModelError, UnknownArchitecture
from errata.models import loading
from errata.models.architectures import ARCHITECTURES
from errata.models.loading import DTYPES, almanac_folder, from_parts, load
from errata.models.model import EditableModel
from errata.passes.prompts import pad
from families import FAMILIES, tiny_model

every_family = pytest.mark.parametrize("name", FAMILIES)
MAP = "transformer.h.1.mlp.c_proj.weight"


@pytest.fixture(autouse=True)
def nothing_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    logging.disable_progress_bar()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder with a family's tiny model, made once; tests that spoil it take `folder`."""
    made: dict[tuple[str, str], Path] = {}

    def save(name: str = "gpt2", dtype: str = "float32") -> Path:
        if (name, dtype) not in made:
            logging.disable_progress_bar()
            made[name, dtype] = tmp_path_factory.mktemp("checkpoint") / name.replace(" ", "-")
            model = tiny_model(name, dtype)
            model.model.save_pretrained(made[name, dtype])
            model.tokenizer.save_pretrained(made[name, dtype])
        return made[name, dtype]

    return save


@pytest.fixture
def folder(saved: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of GPT-2's, to be spoilt."""
    return Path(shutil.copytree(saved(), tmp_path / "model"))


def refused(source: Path | str, error: type[Exception] = CheckpointError, **options: Any) -> str:
    with pytest.raises(error) as caught:
        load(source, **options)
    assert type(caught.value) is error
    return str(caught.value)


def says(message: str, *parts: str) -> None:
    for part in parts:
        assert part in message, message


# --- what is loaded ----------------------------------------------------------------------------------------------


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
    torch.testing.assert_close(model.logits_at(tokens, *where), wanted.logits_at(tokens, *where))


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
    assert path == Path(loading.__file__).parent / "embedded" / "almanac"
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


# --- files that are not there, or not whole ----------------------------------------------------------------------


def change_config(folder: Path, **fields: object) -> None:
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def shard(folder: Path) -> list[Path]:
    """Cut model.safetensors into two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = [folder / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    parts = (names[: len(names) // 2], names[len(names) // 2 :])
    for file, part in zip(files, parts, strict=True):
        save_file({name: tensors[name] for name in part}, file, metadata={"format": "pt"})
    weight_map = {name: file.name for file, part in zip(files, parts, strict=True) for name in part}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return files


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


# --- tokenizers --------------------------------------------------------------------------------------------------


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


# --- families ----------------------------------------------------------------------------------------------------


def test_a_family_that_errata_does_not_know(folder: Path) -> None:
    change_config(folder, model_type="opt", architectures=["OPTForCausalLM"])
    message = refused(folder, UnknownArchitecture)
    says(
        message, "Model family 'opt' is not known to Errata", "docs/add-a-model.md", "errata/architectures.py"
    )
    says(message, *ARCHITECTURES)


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


# --- precision, device, plain matrices ---------------------------------------------------------------------------


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


def test_a_model_in_memory_of_an_unknown_family() -> None:
    shared = tiny_model("gpt2")
    model = type(shared.model)(shared.model.config)
    model.config.model_type = "opt"
    try:
        with pytest.raises(UnknownArchitecture, match="'opt' is not known"):
            from_parts(model, shared.tokenizer, "mine")
    finally:
        model.config.model_type = "gpt2"
