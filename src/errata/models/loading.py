"""Loading a model: a hub id, a local folder, a GGUF file, or `almanac`, the model that ships with Errata.

Of folders and the hub safetensors are read, no pickles.
"""

import json
import os
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D

from errata.errors import CheckpointError, ModelError, UnknownArchitecture
from errata.models.architectures import Architecture, row_of
from errata.models.deriving import derive
from errata.models.gguf import GgufFile, damaged, is_gguf, open_gguf
from errata.models.measuring import measured
from errata.models.model import EditableModel
from errata.runtime import processes

ALMANAC = "almanac"
"""The name under which the embedded model is loaded."""
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def load(
    id_or_path: str | os.PathLike[str],
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    device_map: str | dict[str, str | int] | None = None,
) -> EditableModel:
    """Load a causal LM and its tokenizer, frozen and in evaluation mode.

    A `.gguf` file is dequantized; its SHA-256 is the model's revision. Needs the extra `gguf`.
    `dtype` is a name ("float64", "float32", "bfloat16", "float16") or a torch dtype; by default the checkpoint's
    own, except that half precision is widened to float32 on the CPU. `device_map` goes to transformers as it is.

    Raises:
        CheckpointError: nothing there, files or weights missing or cut off, or pickle files alone.
        MissingExtra: the package gguf is not installed, for a GGUF file.
        UnknownArchitecture, UnsupportedArchitecture: the family cannot be edited, or its record does not hold.
        ModelError: the dtype or the device cannot be, the tokenizer has no offsets, or the weights are quantized.
    """
    name = str(id_or_path)
    device = processes.own_device(str(device)) if device is not None else None
    _check_device(device, device_map)
    checkpoint = _Checkpoint.of(name)
    if checkpoint.folder is not None and checkpoint.gguf is None:
        _check_folder(checkpoint.folder)
    config = _read_config(checkpoint.source, name)
    if row_of(config.model_type) is None:
        architecture_of(_without_weights(config), name)  # say now what would be said after minutes of loading
    wanted = _resolve_dtype(dtype, config, device, device_map)
    tokenizer = _read_tokenizer(checkpoint.source, name)
    model = _read_weights(checkpoint, config, wanted, device_map)
    if device is not None and device_map is None:
        cast(nn.Module, model).to(torch.device(device))
    revision = cast("str | None", getattr(model.config, "_commit_hash", None))
    if checkpoint.gguf is not None:
        revision = checkpoint.gguf.revision
    return _frozen(model, tokenizer, name, revision)


def read_config(id_or_path: str | os.PathLike[str]) -> PretrainedConfig:
    """The configuration alone of what `load` would load.

    Raises:
        CheckpointError: there is none, or it cannot be read.
        UnknownArchitecture: transformers does not know the family.
    """
    name = str(id_or_path)
    return _read_config(_Checkpoint.of(name).source, name)


def from_parts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> EditableModel:
    """Wrap a model that is in memory already; its weights are frozen, and it is put into evaluation mode.

    Raises:
        UnknownArchitecture, UnsupportedArchitecture: the family cannot be edited, or its record does not hold.
        ModelError: its output maps are not plain matrices.
    """
    return _frozen(model, tokenizer, name, None)


def load_without_weights(id_or_path: str | os.PathLike[str]) -> EditableModel:
    """The model's modules on the meta device: which maps it has, of which type and shape, and no number of them.

    Raises:
        CheckpointError, UnknownArchitecture, ModelError: as `load`; of the checkpoint, only its config.json and its
            tokenizer are read.
    """
    name = str(id_or_path)
    source = _Checkpoint.of(name).source
    config = _read_config(source, name)
    return _frozen(_without_weights(config), _read_tokenizer(source, name), name, None)


def _without_weights(config: PretrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        return cast(PreTrainedModel, AutoModelForCausalLM.from_config(config, trust_remote_code=False))


def almanac_folder() -> Path:
    """Where the embedded model's checkpoint lies inside the installed package."""
    return Path(__file__).parent.parent / "almanac" / "model"


def architecture_of(model: PreTrainedModel, name: str) -> Architecture:
    """The row of the model's family, or else the record that its modules give; not measured yet.

    Raises:
        UnknownArchitecture, UnsupportedArchitecture: there is no row and none can be derived.
    """
    return row_of(model.config.model_type) or derive(model, name)


def _frozen(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, revision: str | None
) -> EditableModel:
    """The model ready for use: frozen, in evaluation mode, each of its output maps a plain matrix, and measured."""
    model.eval().requires_grad_(False)
    editable = EditableModel(model, tokenizer, architecture_of(model, name), name, revision)
    paths = (
        editable.architecture.path_if_any(kind, layer)
        for kind in ("ffn", "attention")
        for layer in range(editable.layers)
    )
    for site in (editable.site_at(path) for path in paths if path is not None):
        plain = isinstance(site.module, nn.Linear | Conv1D) and site.weight.is_floating_point()
        if not plain or site.weight.itemsize < 2:
            raise ModelError(
                f"{site.path} of {name} is a {type(site.module).__name__} without a plain weight matrix of 16 bits or "
                "more, as in quantized models and models with adapters. Load the model that it was made from."
            )
    return measured(editable)


def _check_device(device: str | torch.device | None, device_map: str | dict[str, str | int] | None) -> None:
    """Say now what would fail after minutes of loading."""
    if device_map is not None and processes.count() > 1:
        raise ModelError(
            f"device_map={device_map!r} spreads one model over all devices, and each of {processes.count()} processes "
            "holds a whole one. Start one process, or leave device_map out."
        )
    if device is None:
        return
    if device_map is not None:
        raise ModelError(
            f"Both device={str(device)!r} and device_map={device_map!r} are given. Give one of them."
        )
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"Device {str(device)!r} cannot be used: {str(error).splitlines()[0]}. Give one that this machine has, "
            "such as 'cpu' or, where PyTorch finds a GPU, 'cuda'."
        ) from error


@dataclass(frozen=True)
class _Checkpoint:
    """Where a model is read from: a folder, a GGUF file with the folder of what was converted, or the hub."""

    name: str
    folder: Path | None = None
    gguf: GgufFile | None = None

    @classmethod
    def of(cls, name: str) -> "_Checkpoint":
        """The checkpoint that a name means."""
        path = Path(name).expanduser()
        if name != ALMANAC and path.is_file() and is_gguf(path):
            gguf = open_gguf(path)
            return cls(name, gguf.folder, gguf)
        return cls(name, _local_folder(name))

    @property
    def source(self) -> str:
        """What transformers is asked for."""
        return self.name if self.folder is None else str(self.folder)


def _local_folder(name: str) -> Path | None:
    if name == ALMANAC:
        if not almanac_folder().is_dir():
            raise CheckpointError(
                f"This installation lacks the embedded model: there is no {almanac_folder()}. Install Errata again."
            )
        return almanac_folder()
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(
            f"{name} is a file. Give the folder that holds config.json and model.safetensors, or a .gguf file."
        )
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise CheckpointError(f"There is no folder {name}. Give a local folder, a hub id, or 'almanac'.")
    return None


def _check_folder(folder: Path) -> None:
    """Refuse what would fail later and less clearly: no config, pickles alone, shards missing or cut off."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} holds no config.json, so it is not a Hugging Face checkpoint.")
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file():  # which is what transformers reads, if both are there
        files = [single]
    elif index.is_file():
        files = _indexed_files(index)
    elif any((folder / name).is_file() for name in PICKLES):
        raise CheckpointError(_conversion_advice(str(folder)))
    else:
        raise CheckpointError(
            f"{folder} holds no model.safetensors. Was the download or the save interrupted?"
        )
    for file in files:
        _check_safetensors(file)


def _indexed_files(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        missing = [name for name in names if not (index.parent / name).is_file()]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{index} is not a readable shard index ({error}). Download it again."
        ) from error
    if missing:
        raise CheckpointError(
            f"{index.parent} lacks {len(missing)} of {len(names)} weight files that {index.name} lists: "
            f"{', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}. Finish the download."
        )
    return [index.parent / name for name in names]


def _check_safetensors(file: Path) -> None:
    try:
        with safe_open(file, framework="pt") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is cut off or damaged ({error}). Download or save it again."
        ) from error


def _conversion_advice(name: str) -> str:
    return (
        f"{name} has its weights in pickle files only, which can run code when they are read; Errata reads "
        "safetensors alone. Convert once, in an environment that you trust:\n"
        f'  python -c "from transformers import AutoModelForCausalLM as M; M.from_pretrained({name!r}, '
        f"use_safetensors=False).save_pretrained('converted')\"\n"
        "then copy the tokenizer's files into 'converted' and load that."
    )


def _read_config(source: str, name: str) -> PretrainedConfig:
    try:
        return cast(PretrainedConfig, AutoConfig.from_pretrained(source, trust_remote_code=False))
    except (OSError, KeyError, StrictDataclassError) as error:
        raise CheckpointError(f"The configuration of {name} cannot be read: {error}") from error
    except ValueError as error:
        raise UnknownArchitecture(
            f"transformers does not know the model family of {name}: {str(error).rstrip('.')}. Errata edits the "
            "families that `errata models` lists, and none that brings its own code. docs/add-a-model.md shows how to "
            "add one that transformers knows."
        ) from error


def _read_tokenizer(source: str, name: str) -> PreTrainedTokenizerBase:
    try:
        tokenizer = cast(
            PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The tokenizer of {name} cannot be read: {error}") from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"The tokenizer of {name} is a slow one, which gives no character offsets; Errata needs a tokenizer.json."
        )
    # Without any file of a vocabulary, transformers makes a tokenizer that knows nothing but its special tokens.
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    if not set(tokenizer.get_vocab()) - added - set(tokenizer.all_special_tokens):
        raise CheckpointError(
            f"The tokenizer of {name} has no vocabulary: tokenizer.json is missing. Add it."
        )
    return tokenizer


def _read_weights(
    checkpoint: _Checkpoint,
    config: PretrainedConfig,
    dtype: torch.dtype,
    device_map: str | dict[str, str | int] | None,
) -> PreTrainedModel:
    name, gguf = checkpoint.name, checkpoint.gguf
    # Of a GGUF file the configuration is known; of all others transformers reads it itself.
    words: dict[str, object] = {} if gguf is None else {**gguf.reading, "config": config}
    try:
        with _default_dtype(dtype):
            loaded = AutoModelForCausalLM.from_pretrained(
                checkpoint.source,
                dtype="auto" if dtype == torch.float64 else dtype,
                device_map=device_map,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # refused below, with a better message
                output_loading_info=True,
                **words,
            )
    except (OSError, SafetensorError) as error:
        text = str(error)
        if "safetensors" in text and ("does not appear" in text or "no file named" in text):
            raise CheckpointError(_conversion_advice(name)) from error
        raise CheckpointError(f"The weights of {name} cannot be read: {text}") from error
    except ValueError as error:
        if gguf is not None:
            raise damaged(name, error) from error
        raise ModelError(f"{name} cannot be loaded: {error}") from error
    model, report = cast("tuple[PreTrainedModel, dict[str, Collection[object]]]", loaded)
    _check_complete(report, name)
    return cast(PreTrainedModel, cast(nn.Module, model).to(dtype)) if dtype == torch.float64 else model


def _check_complete(report: dict[str, Collection[object]], name: str) -> None:
    """Refuse a model some of whose weights transformers made up, as the checkpoint lacks them."""
    missing = sorted(str(key) for key in report["missing_keys"])
    other = sorted(
        f"{key} ({list(stored)}, not {list(wanted)})"
        for key, stored, wanted in cast(
            "Collection[tuple[str, torch.Size, torch.Size]]", report["mismatched_keys"]
        )
    )
    for what, keys in (("lacks", missing), ("holds in other shapes", other)):
        if keys:
            raise CheckpointError(
                f"The checkpoint of {name} {what} what its config.json asks for: {', '.join(keys[:3])}"
                f"{' ...' if len(keys) > 3 else ''} ({len(keys)} in all). Download or save it again."
            )


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Generator[None]:
    """In float64 also the tables that a model computes on loading (rotary angles) are computed in float64.

    They are then kept in the checkpoint's own precision, as its weights are, and widened with them
    (docs/decisions, "Double precision").
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if dtype == torch.float64 else before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _resolve_dtype(
    dtype: str | torch.dtype | None,
    config: PretrainedConfig,
    device: str | torch.device | None,
    device_map: str | dict[str, str | int] | None,
) -> torch.dtype:
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise ModelError(f"Unknown dtype {dtype!r}. Choose one of {', '.join(DTYPES)}.")
        return DTYPES[dtype]
    if dtype is not None:
        if dtype not in DTYPES.values():
            raise ModelError(f"Errata cannot edit weights of {dtype}. Choose one of {', '.join(DTYPES)}.")
        return dtype
    own = cast("torch.dtype | None", config.dtype) or torch.float32
    on_cpu = device_map is None and torch.device(device or "cpu").type == "cpu"
    return torch.float32 if on_cpu and own.itemsize < 4 else own
