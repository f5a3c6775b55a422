"""Loading a model: a hub id, a local folder, or `almanac`, the model that ships with Errata. Safetensors only."""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
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

from errata.architectures import architecture_for
from errata.errors import CheckpointError, ModelError, UnknownArchitecture
from errata.model import EditableModel

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

    `dtype` is a name ("float64", "float32", "bfloat16", "float16") or a torch dtype; by default the checkpoint's
    own, except that half precision is widened to float32 on the CPU. `device_map` goes to transformers as it is.

    Raises:
        CheckpointError: nothing there, files missing or cut off, or pickle files alone.
        UnknownArchitecture: the family is not in `errata/architectures.py`.
    """
    name = str(id_or_path)
    folder = _local_folder(name)
    if folder is not None:
        _check_folder(folder)
    source = str(folder) if folder is not None else name
    config = _read_config(source, name)
    architecture = architecture_for(config.model_type)
    wanted = _resolve_dtype(dtype, config, device, device_map)
    tokenizer = _read_tokenizer(source, name)
    model = _read_weights(source, name, wanted, device_map)
    if device is not None and device_map is None:
        cast(nn.Module, model).to(torch.device(device))
    model.eval().requires_grad_(False)
    revision = cast("str | None", getattr(model.config, "_commit_hash", None))
    return EditableModel(model, tokenizer, architecture, name, revision)


def from_parts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> EditableModel:
    """Wrap a model that is in memory already; its weights are frozen, and it is put into evaluation mode.

    Raises:
        UnknownArchitecture: the family is not in `errata/architectures.py`.
    """
    model.eval().requires_grad_(False)
    return EditableModel(model, tokenizer, architecture_for(model.config.model_type), name)


def almanac_folder() -> Path:
    """Where the embedded model's checkpoint lies inside the installed package."""
    return Path(__file__).parent / "embedded" / "almanac"


def _local_folder(name: str) -> Path | None:
    if name == ALMANAC:
        return almanac_folder()
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(
            f"{name} is a file. Give the folder that holds config.json and model.safetensors."
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
    if index.is_file():
        files = _indexed_files(index)
    elif single.is_file():
        files = [single]
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
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{index} is not a readable shard index ({error}). Download it again."
        ) from error
    missing = [name for name in names if not (index.parent / name).is_file()]
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
        f"use_safetensors=False).save_pretrained('converted')\""
    )


def _read_config(source: str, name: str) -> PretrainedConfig:
    try:
        return cast(PretrainedConfig, AutoConfig.from_pretrained(source))
    except (OSError, KeyError) as error:
        raise CheckpointError(f"{name} cannot be read: {error}") from error
    except ValueError as error:
        raise UnknownArchitecture(
            f"transformers does not know the model family of {name}: {error}. Errata's families: `errata models`."
        ) from error


def _read_tokenizer(source: str, name: str) -> PreTrainedTokenizerBase:
    try:
        tokenizer = cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(source))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The tokenizer of {name} cannot be read: {error}") from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"The tokenizer of {name} is a slow one, which gives no character offsets; Errata needs a tokenizer.json."
        )
    return tokenizer


def _read_weights(
    source: str, name: str, dtype: torch.dtype, device_map: str | dict[str, str | int] | None
) -> PreTrainedModel:
    try:
        with _default_dtype(dtype):
            loaded = AutoModelForCausalLM.from_pretrained(
                source,
                dtype="auto" if dtype == torch.float64 else dtype,
                device_map=device_map,
                use_safetensors=True,
            )
        return cast(PreTrainedModel, cast(nn.Module, loaded).to(dtype) if dtype == torch.float64 else loaded)
    except (OSError, SafetensorError) as error:
        text = str(error)
        if "safetensors" in text and ("does not appear" in text or "no file named" in text):
            raise CheckpointError(_conversion_advice(name)) from error
        raise CheckpointError(f"The weights of {name} cannot be read: {text}") from error


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
        return dtype
    own = cast("torch.dtype | None", config.dtype) or torch.float32
    on_cpu = device_map is None and torch.device(device or "cpu").type == "cpu"
    return torch.float32 if on_cpu and own.itemsize < 4 else own
